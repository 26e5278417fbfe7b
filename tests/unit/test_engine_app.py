"""The worker's composition root: what the environment makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.environment import SettingError
from schemas.topics import TOPICS
from streams.app import settings_of, tasks_of
from streams.engine.topology import needed

ENV = {
    "HEADRACE_KAFKA": "127.0.0.1:9092,127.0.0.1:9093",
    "HEADRACE_WORKER": "streams-0",
    "HEADRACE_STATE_DIR": "/var/state",
    "HEADRACE_COMMIT_INTERVAL_MS": "50",
}


def test_the_environment_becomes_one_frozen_value_with_defaults() -> None:
    settings = settings_of(ENV)
    assert settings.engine.bootstrap == ["127.0.0.1:9092", "127.0.0.1:9093"]
    assert settings.engine.state_dir == Path("/var/state")
    assert settings.engine.commit_interval_ms == 50
    assert settings.engine.batch_max == 2_000
    with pytest.raises(AttributeError):
        settings.metrics_port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"HEADRACE_WORKER": ""}, "HEADRACE_WORKER must be set"),
        ({"HEADRACE_BATCH_MAX": "0"}, "must lie in"),
        ({"HEADRACE_DEDUP_HORIZON_DAYS": "6"}, "must lie in"),
        ({"HEADRACE_BATCHMAX": "9"}, "did you mean HEADRACE_BATCH_MAX"),
    ],
)
def test_a_wrong_setting_is_an_error_that_says_what_to_do(
    change: dict[str, str], says: str
) -> None:
    with pytest.raises(SettingError, match=says):
        settings_of(ENV | change)


@pytest.mark.parametrize(("given", "days"), [({}, 7), ({"HEADRACE_DEDUP_HORIZON_DAYS": "30"}, 30)])
def test_keys_are_remembered_for_the_days_that_are_configured_and_for_seven_by_default(
    given: dict[str, str], days: int
) -> None:
    tasks = tasks_of(settings_of(ENV | given))
    assert {task.horizon_s for task in tasks} == {days * 86_400}


def test_every_topic_that_a_task_needs_is_in_the_topic_table() -> None:
    for task in tasks_of(settings_of(ENV)):
        alike, others = needed(task)
        assert alike | others <= TOPICS.keys()
        assert TOPICS[task.changelog].compacted


def test_the_worker_runs_the_payments_and_the_webhooks_task() -> None:
    assert [task.name for task in tasks_of(settings_of(ENV))] == ["payments", "webhooks"]
