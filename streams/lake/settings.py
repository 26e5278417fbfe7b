"""The lake's configuration: one frozen value, built from the environment once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from schemas import environment

BUFFER_BYTES_MAX: Final = 64 * 1024 * 1024
"""Bound of all unlanded values together; past it nothing is read."""


@dataclass(frozen=True, slots=True)
class Settings:
    """`catalog_dsn` is any SQL catalog's URL; `warehouse` a folder or bucket URL."""

    worker: str
    kafka: str
    catalog_dsn: str
    warehouse: str
    commit_interval_s: float
    rows_max: int
    metrics_port: int
    log_level: str
    crash_point: str


def settings(env: Mapping[str, str]) -> Settings:
    """Build the settings; raises SettingError with the variable's name."""
    found = environment.read(
        env,
        "HEADRACE_WORKER",
        "HEADRACE_KAFKA",
        "HEADRACE_LAKE_CATALOG_DSN",
        "HEADRACE_LAKE_WAREHOUSE",
        "HEADRACE_LAKE_COMMIT_INTERVAL_MS",
        "HEADRACE_LAKE_BATCH_MAX",
        "HEADRACE_METRICS_PORT",
        "HEADRACE_LOG_LEVEL",
        "HEADRACE_CRASH_POINT",
    )
    return Settings(
        worker=found["worker"],
        kafka=found["kafka"],
        catalog_dsn=found["lake_catalog_dsn"],
        warehouse=found["lake_warehouse"],
        commit_interval_s=found["lake_commit_interval_ms"] / 1000,
        rows_max=found["lake_batch_max"],
        metrics_port=found["metrics_port"],
        log_level=found["log_level"],
        crash_point=found["crash_point"],
    )
