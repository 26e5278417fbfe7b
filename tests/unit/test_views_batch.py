"""Which records are applied together: none twice, none skipped, a bad one alone."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.environment import SettingError
from schemas.errors import Corrupt, Poisoned
from streams.views import statements
from streams.views.batch import Batch, fresh, moved, start_at
from streams.views.migrate import migrations
from streams.views.settings import settings


@dataclass(frozen=True)
class Record:
    offset: int
    value: bytes | None = b"good"


def decode(value: bytes) -> dict[str, str]:
    if value != b"good":
        raise Poisoned(f"not good: {value!r}")
    return {"type": "x"}


P = ("payments.events", 0)
Q = ("ledger.events", 3)


def test_what_does_not_decode_becomes_a_letter_and_the_offset_goes_past_it() -> None:
    batch = Batch()
    bad, gone = Record(6, b"bad"), Record(7, None)
    batch.add(P, [Record(5), bad, gone], decode)
    assert [item.offset for item in batch.items] == [5]
    assert batch.letters == [(bad, "not good: b'bad'"), (gone, "not good: b''")]
    assert batch.ends == {P: 8}


def test_a_partition_without_records_does_not_move() -> None:
    batch = Batch()
    batch.add(P, [], decode)
    assert batch.ends == {}


@given(st.integers(1, 9), st.integers(0, 9), st.integers(1, 3))
def test_halving_ends_at_every_single_record_and_covers_all_of_them(
    first: int, second: int, gap: int
) -> None:
    batch = Batch()
    batch.add(P, [Record(10 + gap * i) for i in range(first)], decode)
    batch.add(Q, [Record(90 + gap * i) for i in range(second)], decode)
    alone: list[Batch] = []
    ends: dict[tuple[str, int], int] = {}

    def split(part: Batch) -> None:
        if len(part.items) > 1:
            for half in part.halves():
                split(half)
            return
        assert moved(dict(ends), part.ends), "offsets never fall"
        ends.update(part.ends)
        alone.append(part)

    split(batch)
    assert [part.items[0] for part in alone] == batch.items
    assert ends == batch.ends


def test_records_below_the_claim_were_applied_before() -> None:
    records = [Record(3), Record(5), Record(8)]
    assert fresh(records, None) == records
    assert fresh(records, 3) == records
    assert fresh(records, 4) == records[1:]
    assert fresh(records, 5) == records[1:]
    assert fresh(records, 9) == []
    assert fresh([], 9) == []


def test_reading_starts_where_the_tables_end_within_the_log() -> None:
    assert start_at(None, 4, 9) == (4, 0)
    assert start_at(6, 4, 9) == (6, 0)
    assert start_at(1, 4, 9) == (4, 3)
    with pytest.raises(Corrupt, match="the views end at offset 10, the log at 9"):
        start_at(10, 4, 9)


def test_migrations_count_up_and_never_share_a_number() -> None:
    assert [number for number, _ in migrations()] == list(range(1, len(migrations()) + 1))


def test_rows_become_columns_in_their_order() -> None:
    assert statements.columns([(1, "a"), (2, "b")]) == [[1, 2], ["a", "b"]]
    assert statements.columns([]) == []


def test_settings_come_from_the_environment_and_misspellings_are_errors() -> None:
    env = {"HEADRACE_WORKER": "v", "HEADRACE_KAFKA": "k:1", "HEADRACE_VIEWS_DSN": "postgresql://x"}
    assert settings(env).commit_interval_s == 0.1
    with pytest.raises(SettingError, match="HEADRACE_WORKER"):
        settings({name: value for name, value in env.items() if name != "HEADRACE_WORKER"})
    with pytest.raises(SettingError, match="HEADRACE_BATCH_MAX"):
        settings(env | {"HEADRACE_BATCH_MX": "5"})
