"""The views' configuration: one frozen value, built from the environment once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from schemas import environment


@dataclass(frozen=True, slots=True)
class Settings:
    """`commit_interval_s` is the shortest time between two transactions, under load."""

    worker: str
    kafka: str
    dsn: str
    session_timeout_ms: int
    commit_interval_s: float
    batch_max: int
    metrics_port: int
    log_level: str
    crash_point: str


def settings(env: Mapping[str, str]) -> Settings:
    """Build the settings; raises SettingError with the variable's name."""
    found = environment.read(
        env,
        "HEADRACE_WORKER",
        "HEADRACE_KAFKA",
        "HEADRACE_VIEWS_DSN",
        "HEADRACE_SESSION_TIMEOUT_MS",
        "HEADRACE_COMMIT_INTERVAL_MS",
        "HEADRACE_BATCH_MAX",
        "HEADRACE_METRICS_PORT",
        "HEADRACE_LOG_LEVEL",
        "HEADRACE_CRASH_POINT",
    )
    return Settings(
        worker=found["worker"],
        kafka=found["kafka"],
        dsn=found["views_dsn"],
        session_timeout_ms=found["session_timeout_ms"],
        commit_interval_s=found["commit_interval_ms"] / 1000,
        batch_max=found["batch_max"],
        metrics_port=found["metrics_port"],
        log_level=found["log_level"],
        crash_point=found["crash_point"],
    )
