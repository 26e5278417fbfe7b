"""The composition root of the worker process: settings, tasks, metrics, logs.

`python -m streams` runs it. Nothing here decides anything; importing it starts nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

import yaml

from schemas import logs, metrics
from schemas.environment import read
from streams import engine, payments
from streams.payments import velocity
from streams.payments.task import task as payments_task
from streams.webhooks.task import task as webhooks_task

PACKAGED_RULES: Final = Path(payments.__file__).parent / "rules.yaml"


@dataclass(frozen=True, slots=True)
class Settings:
    """What one worker is configured with."""

    engine: engine.EngineSettings
    rules: Path
    horizon_s: int
    metrics_port: int
    log_level: str


def settings_of(env: Mapping[str, str]) -> Settings:
    """Build the settings from the environment; raises SettingError."""
    values = read(
        env,
        "HEADRACE_KAFKA",
        "HEADRACE_WORKER",
        "HEADRACE_STATE_DIR",
        "HEADRACE_SESSION_TIMEOUT_MS",
        "HEADRACE_TRANSACTION_TIMEOUT_MS",
        "HEADRACE_COMMIT_INTERVAL_MS",
        "HEADRACE_BATCH_MAX",
        "HEADRACE_CRASH_POINT",
        "HEADRACE_RULES_FILE",
        "HEADRACE_DEDUP_HORIZON_DAYS",
        "HEADRACE_METRICS_PORT",
        "HEADRACE_LOG_LEVEL",
    )
    return Settings(
        engine=engine.EngineSettings(
            kafka=values["kafka"],
            worker=values["worker"],
            state_dir=Path(values["state_dir"]),
            session_timeout_ms=values["session_timeout_ms"],
            transaction_timeout_ms=values["transaction_timeout_ms"],
            commit_interval_ms=values["commit_interval_ms"],
            batch_max=values["batch_max"],
            crash_point=values["crash_point"],
        ),
        rules=Path(values["rules_file"]) if values["rules_file"] else PACKAGED_RULES,
        horizon_s=values["dedup_horizon_days"] * 86_400,
        metrics_port=values["metrics_port"],
        log_level=values["log_level"],
    )


def tasks_of(settings: Settings) -> tuple[engine.Task, ...]:
    """Return every task that a worker runs."""
    rules = velocity.parse_rules(yaml.safe_load(settings.rules.read_text()))
    return (payments_task(rules, settings.horizon_s), webhooks_task(settings.horizon_s))


def main(env: Mapping[str, str]) -> NoReturn:
    """Run the worker until it is told to end."""
    settings = settings_of(env)
    logs.configure("streams", settings.engine.worker, settings.log_level)
    metrics.serve(settings.metrics_port)
    engine.run(settings.engine, tasks_of(settings))
