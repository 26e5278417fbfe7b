"""What the writer is told by its environment, and what it remembers."""

from __future__ import annotations

import pytest

from ledger_writer.crash import CrashPoint
from ledger_writer.knowledge import Knowledge
from ledger_writer.model import Account, Standing
from ledger_writer.settings import settings_of
from schemas.environment import SettingError

ENV = {
    "HEADRACE_KAFKA": "127.0.0.1:9092",
    "HEADRACE_LEDGER_DSN": "postgresql://",
    "HEADRACE_WORKER": "ledger_writer-0",
}


def standing(number: int) -> Standing:
    account = Account(number, f"a{number}", "t", "EUR", "customer", None, 0, None, 0)
    return Standing(account, 0, 0, number, 0, None)


def test_settings_have_defaults_and_a_bounded_batch():
    settings = settings_of({**ENV, "HEADRACE_BATCH_MAX": "50000"})
    assert (settings.partitions, settings.batch_max) == (4, 1_000)


def test_a_missing_or_misspelt_variable_is_named():
    with pytest.raises(SettingError, match="HEADRACE_KAFKA"):
        settings_of({"HEADRACE_WORKER": "x"})
    with pytest.raises(SettingError, match="HEADRACE_PARTITION"):
        settings_of({**ENV, "HEADRACE_PARTITION": "4"})


def test_an_unknown_crash_point_is_refused():
    assert CrashPoint.parse("after_commit:3").countdown == 3
    with pytest.raises(ValueError, match="after_lunch"):
        CrashPoint.parse("after_lunch")


def test_knowledge_forgets_the_least_recently_used():
    knowledge = Knowledge(accounts_max=2)
    knowledge.learn({"a1": standing(1), "a2": standing(2)})
    knowledge.recall(["a1"])
    knowledge.learn({"a3": standing(3)})
    found, missing = knowledge.recall(["a1", "a2", "a3"])
    assert (sorted(found), missing) == (["a1", "a3"], ["a2"])


def test_what_was_committed_is_remembered_with_its_stored_version():
    knowledge = Knowledge()
    knowledge.settle([standing(5)])
    assert knowledge.recall(["a5"])[0]["a5"].stored_version == 5


def test_the_oldest_reading_of_foreign_shares_is_told_of_guarded_accounts_at_home():
    knowledge = Knowledge()
    first, second = standing(1), standing(2)
    knowledge.learn({"a1": first}, 10.0)
    knowledge.learn({"a2": second}, 20.0)
    home = first.account.home
    assert knowledge.oldest_s([first, second], home, 30.0) == 10.0
    knowledge.read_again(["a1", "unknown"], 25.0)
    assert knowledge.oldest_s([first, second], home, 30.0) == 20.0
    assert knowledge.oldest_s([standing(3)], home, 30.0) == 30.0
    assert knowledge.oldest_s([first], home + 1, 30.0) is None
    knowledge.settle([standing(3)], at_s=28.0)
    assert knowledge.oldest_s([standing(3)], home, 30.0) == 28.0
