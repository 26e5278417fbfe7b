"""The writer's settings, built once from the environment. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from schemas.environment import read

BATCH_MAX: Final = 1_000
"""Commands of one commit at most: beyond it a batch takes longer and is hardly cheaper."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What one writer process is told; times in milliseconds, sizes in records."""

    kafka: str
    partitions: int
    ledger_dsn: str
    worker: str
    session_timeout_ms: int
    batch_max: int
    metrics_port: int
    crash_point: str
    log_level: str
    log_sample: int


def settings_of(env: Mapping[str, str]) -> Settings:
    """Read the environment; SettingError names what is missing, unknown or out of bounds."""
    found = read(
        env,
        "HEADRACE_KAFKA",
        "HEADRACE_PARTITIONS",
        "HEADRACE_LEDGER_DSN",
        "HEADRACE_WORKER",
        "HEADRACE_SESSION_TIMEOUT_MS",
        "HEADRACE_BATCH_MAX",
        "HEADRACE_METRICS_PORT",
        "HEADRACE_CRASH_POINT",
        "HEADRACE_LOG_LEVEL",
        "HEADRACE_LOG_SAMPLE",
    )
    return Settings(**{**found, "batch_max": min(found["batch_max"], BATCH_MAX)})
