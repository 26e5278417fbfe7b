"""What a commit takes, and between which offsets: whole ranges, in order, each record once."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.environment import SettingError
from schemas.errors import Corrupt
from streams.lake.bronze import landing
from streams.lake.bronze.landing import Batch, Chunk
from streams.lake.buffer import Buffer
from streams.lake.catalog import catalog_uri
from streams.lake.settings import settings


@dataclass(frozen=True)
class Record:
    partition: int
    offset: int
    value: bytes | None = b"12345"
    timestamp: int = 0
    key: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()


# What happens to a buffer: read so many records of a partition, then skip a gap; or cut a batch.
READ = st.tuples(st.integers(0, 2), st.integers(0, 9), st.integers(0, 3))
CUT = st.integers(1, 12)


@given(st.lists(st.one_of(READ, CUT)), st.sampled_from([{}, {0: 5}, {0: 3, 1: 0, 2: 9}]))
def test_batches_continue_one_another_and_land_each_record_once(
    script: list[tuple[int, int, int] | int], stored: dict[int, int]
) -> None:
    buffer = Buffer("t", dict(stored))
    positions = {p: stored.get(p, 0) for p in range(3)}
    read: list[tuple[int, int]] = []
    taken: list[tuple[int, int]] = []
    ends = dict(stored)
    for now, what in enumerate([*script, 10**6]):
        if isinstance(what, tuple):
            partition, count, gap = what
            first = positions[partition]
            records = [Record(partition, first + i) for i in range(count)]
            buffer.add(partition, records, now)
            read += [(r.partition, r.offset) for r in records]
            positions[partition] = first + count + gap
        else:
            batch = buffer.cut(positions, what, now)
            assert len(batch.records) <= what
            assert landing.continues(ends, batch)
            for chunk in batch.chunks:
                assert all((chunk.first or 0) <= r.offset < chunk.next for r in chunk.records)
            taken += [(r.partition, r.offset) for r in batch.records]
            ends |= batch.next
            buffer.landed(batch)
    assert sorted(taken) == sorted(read)
    assert len(set(taken)) == len(taken)
    assert buffer.rows == buffer.bytes == 0
    assert ends.items() <= positions.items()


def test_a_batch_is_due_when_full_or_when_its_oldest_record_has_waited() -> None:
    buffer = Buffer("t", {})
    assert not buffer.due(100.0, 5.0, 10), "nothing to land is never due"
    buffer.add(0, [Record(0, 1)], 100.0)
    buffer.add(0, [Record(0, 2)], 104.0)
    assert not buffer.due(104.9, 5.0, 10)
    assert buffer.due(105.0, 5.0, 10)
    assert buffer.due(104.0, 5.0, 2)


def test_a_buffer_of_tombstones_outweighs_an_empty_one() -> None:
    tombstones, empty = Buffer("t", {}), Buffer("u", {})
    tombstones.add(0, [Record(0, 1, None)], 0.0)
    assert max(empty, tombstones, key=lambda buffer: buffer.weight) is tombstones


def test_markers_alone_move_a_known_partition_only_along_with_records() -> None:
    buffer = Buffer("t", {0: 5})
    buffer.add(1, [Record(1, 0)], 0.0)
    batch = buffer.cut({0: 8, 1: 1, 2: 4}, 10, 0.0)
    assert batch.next == {0: 8, 1: 1}
    assert not Buffer("t", {0: 5}).due(1e9, 1.0, 1)


def test_lost_ranges_go_with_the_next_batch_and_only_with_it() -> None:
    buffer = Buffer("t", {0: 5}, lost={0: (5, 9)})
    buffer.add(0, [Record(0, 9)], 0.0)
    first = buffer.cut({0: 10}, 10, 0.0)
    assert landing.lost_properties(first.lost) == {"sink.lost.0.5": "9"}
    assert buffer.cut({0: 10}, 10, 0.0).lost == {}


@given(st.dictionaries(st.integers(0, 1023), st.integers(0, 2**63 - 1)))
def test_offsets_survive_as_table_properties_beside_any_others(offsets: dict[int, int]) -> None:
    properties = {"commit.retry.num-retries": "0", "sink.lost.0.5": "9"}
    assert landing.offsets_of(properties | landing.offset_properties(offsets)) == offsets


@pytest.mark.parametrize(
    ("stored", "continues"),
    [
        ({0: 10, 1: 20}, True),
        ({0: 10, 1: 20, 2: 5}, True),
        ({0: 11, 1: 20}, False),
        ({0: 9, 1: 20}, False),
        ({0: 10}, False),
        ({}, False),
    ],
)
def test_a_batch_lands_only_where_its_partitions_end(
    stored: dict[int, int], continues: bool
) -> None:
    batch = Batch("t", (Chunk(0, 10, 15, ()), Chunk(1, 20, 20, ())))
    assert landing.continues(stored, batch) is continues


def test_a_first_batch_needs_a_table_that_holds_nothing_of_the_partition() -> None:
    batch = Batch("t", (Chunk(0, None, 15, ()),))
    assert landing.continues({1: 3}, batch)
    assert not landing.continues({0: 0}, batch)


def test_what_was_rejected_before_is_neither_landed_nor_rejected_again() -> None:
    batch = Batch(
        "t", (Chunk(0, 0, 4, [Record(0, i) for i in range(4)]), Chunk(1, 0, 1, [Record(1, 1)]))
    )
    rejected = {0: frozenset({1, 7})}
    assert [r.offset for r in landing.unrejected(batch, rejected)] == [0, 2, 3, 1]
    assert landing.still_ahead(rejected, batch) == {0: frozenset({7})}
    assert landing.still_ahead({1: frozenset({0})}, batch) == {}
    assert landing.still_ahead({2: frozenset({0})}, batch) == {2: frozenset({0})}


def test_reading_starts_where_the_table_ends_within_the_log() -> None:
    assert landing.start_at(None, 3, 9) == 3
    assert landing.start_at(5, 3, 9) == 5
    assert landing.start_at(9, 3, 9) == 9
    assert landing.start_at(1, 3, 9) == 3
    with pytest.raises(Corrupt, match="the table ends at offset 10, the log at 9"):
        landing.start_at(10, 3, 9)


def test_waits_on_the_catalog_are_bounded_whatever_the_dsn() -> None:
    uri = catalog_uri("postgresql://lake_owner:p%40ss@127.0.0.1:5432/lake?connect_timeout=1")
    assert uri.startswith("postgresql+psycopg2://lake_owner:p%40ss@127.0.0.1:5432/lake?")
    assert "connect_timeout=1&" in f"{uri}&"
    assert "statement_timeout" in uri
    assert catalog_uri("sqlite:////tmp/x.db") == "sqlite:////tmp/x.db"


def test_settings_come_from_the_environment_and_misspellings_are_errors() -> None:
    env = {
        "HEADRACE_WORKER": "lake-0",
        "HEADRACE_KAFKA": "k:1",
        "HEADRACE_LAKE_CATALOG_DSN": "postgresql://x/lake",
        "HEADRACE_LAKE_WAREHOUSE": "file:///w",
        "HEADRACE_LAKE_COMMIT_INTERVAL_MS": "250",
    }
    assert settings(env).commit_interval_s == 0.25
    assert settings(env).rows_max == 100_000
    with pytest.raises(SettingError, match="HEADRACE_LAKE_BATCH_MAX"):
        settings(env | {"HEADRACE_LAKE_BATCH": "5"})
