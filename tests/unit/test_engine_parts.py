"""The engine's small parts: order of inputs, pace, positions, keys, topics, narrowing, closing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import Corrupt
from streams.engine import Input, Task, keys
from streams.engine.crash import CrashPoint
from streams.engine.deadline import hang_up
from streams.engine.machine import Machine
from streams.engine.merge import Merge
from streams.engine.owned import Narrowing
from streams.engine.pace import IDLE_TIMES, SPARE_LEAST, SPARE_PLENTY, Pace
from streams.engine.position import (
    Heard,
    Position,
    agreed,
    decode_position,
    encode_position,
)
from streams.engine.store import AGE_MAX_S, Mark, usable
from streams.engine.topology import problem


@dataclass(frozen=True, slots=True)
class Rec:
    topic: str
    timestamp: int
    offset: int


def records(topic: str, *times: int) -> list[Rec]:
    return [Rec(topic, time, offset) for offset, time in enumerate(times)]


def merged(
    merge: Merge[Rec], limit: int = 100, behind: tuple[str, ...] = ()
) -> list[tuple[str, int]]:
    return [(each.topic, each.offset) for each in merge.take(limit, behind)]


def test_inputs_are_merged_by_time_and_ties_go_to_the_first_declared() -> None:
    merge: Merge[Rec] = Merge(("a", "b"))
    merge.push("b", records("b", 1, 5, 5))
    merge.push("a", records("a", 2, 5))
    assert merged(merge) == [("b", 0), ("a", 0), ("a", 1), ("b", 1), ("b", 2)]
    assert merge.size == 0


def test_a_topics_own_order_stands_when_its_times_go_back() -> None:
    merge: Merge[Rec] = Merge(("a", "b"))
    merge.push("a", records("a", 9, 1))
    merge.push("b", records("b", 5))
    assert merged(merge) == [("b", 0), ("a", 0), ("a", 1)]


def test_nothing_newer_is_handed_out_than_what_is_at_hand_of_an_input_with_more_to_come() -> None:
    merge: Merge[Rec] = Merge(("a", "b"))
    merge.push("a", records("a", 1, 3))
    merge.push("b", records("b", 2, 4))
    assert merged(merge, behind=("a",)) == [("a", 0), ("b", 0), ("a", 1)]
    assert merged(merge, behind=("a",)) == []
    assert merged(merge) == [("b", 1)]


@given(
    st.lists(st.integers(0, 20), max_size=30),
    st.lists(st.integers(0, 20), max_size=30),
    st.integers(1, 7),
)
def test_every_record_is_handed_out_once_and_in_its_topics_order(
    a: list[int], b: list[int], limit: int
) -> None:
    merge: Merge[Rec] = Merge(("a", "b"))
    merge.push("a", records("a", *a))
    merge.push("b", records("b", *b))
    taken: list[tuple[str, int]] = []
    while merge.size:
        batch = merged(merge, limit)
        assert 1 <= len(batch) <= limit
        taken += batch
    for topic, times in (("a", a), ("b", b)):
        assert [offset for name, offset in taken if name == topic] == list(range(len(times)))


def test_few_batches_begin_at_once_and_many_queue_for_their_places() -> None:
    pace = Pace(0.1, per_interval=4.0, burst=8.0)
    now = 1000.0
    assert [pace.reserve(now, 0.0) for _ in range(8)] == [0.0] * 8
    assert [pace.reserve(now, now) for _ in range(3)] == pytest.approx([0.025, 0.05, 0.075])
    assert pace.reserve(now + 1.0, now) == 0.0


def test_no_partition_waits_longer_than_the_interval() -> None:
    pace = Pace(0.1, per_interval=1.0, burst=1.0)
    assert pace.reserve(1000.0, 999.0) == 0.0
    assert pace.reserve(1000.0, 999.95) == pytest.approx(0.05)
    assert pace.reserve(1000.0, 999.0) == 0.0


def test_a_machine_with_time_to_spare_takes_more_transactions() -> None:
    def waits(spare: float) -> float:
        pace = Pace(0.1, per_interval=4.0, burst=1.0)
        pace.reserve(1000.0, 1000.0, spare)
        return pace.reserve(1000.0, 1000.0, spare)

    assert waits(0.0) == waits(SPARE_LEAST) == pytest.approx(0.025)
    assert waits(SPARE_PLENTY) == waits(1.0) == pytest.approx(0.025 / IDLE_TIMES)
    assert waits(0.0) > waits((SPARE_LEAST + SPARE_PLENTY) / 2) > waits(1.0)


def test_spare_time_is_what_the_kernel_counts_as_idle(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    stat.write_text("cpu 100 0 100 700 100 0 0 0 0 0\n")
    machine = Machine(stat)
    stat.write_text("cpu 150 0 150 760 140 0 0 0 0 0\n")
    assert machine.spare(1000.0) == pytest.approx(0.25)  # half of the new ticks, half believed
    assert machine.spare(1000.01) == pytest.approx(0.25)
    stat.write_text("cpu 250 0 250 760 140 0 0 0 0 0\n")
    assert machine.spare(1001.0) == pytest.approx(0.125)
    assert Machine(tmp_path / "none").spare(1000.0) == 0.0


def test_state_and_group_that_disagree_stop_the_task_with_both_offsets() -> None:
    with pytest.raises(Corrupt, match=r"in\[2\] up to 40.*committed 50"):
        agreed("t", 2, Position({"in": 40}), {"in": Heard(0, 50)})
    with pytest.raises(Corrupt, match="up to None.*committed 50"):
        agreed("t", 2, Position({}), {"in": Heard(0, 50)})


def test_a_group_that_forgot_its_offsets_is_told_by_the_state() -> None:
    kept = Position({"in": 40}, 77)
    assert agreed("t", 0, kept, {"in": Heard(0, None)}) == kept


def test_a_new_input_is_read_from_its_beginning() -> None:
    said = {"in": Heard(0, 40), "new": Heard(5, None)}
    assert agreed("t", 0, Position({"in": 40}), said).offsets == {"in": 40, "new": 5}


def test_records_that_retention_took_unread_stop_the_task() -> None:
    with pytest.raises(Corrupt, match="retention has passed it"):
        agreed("t", 0, Position({"in": 40}), {"in": Heard(41, 40)})


def test_a_position_reads_back_as_written() -> None:
    position = Position({"b": 2**60, "a": 0}, 2**50)
    assert decode_position(encode_position(position)) == position


@given(st.integers(0, 1023), st.integers(0, 2**62), st.binary(max_size=20), st.binary(max_size=9))
def test_due_entries_sort_by_time_and_lead_back_to_their_timer(
    slot: int, due_us: int, name: bytes, payload: bytes
) -> None:
    timer_key = keys.prefix(slot, keys.TIMERS_ID) + name
    entry = keys.due_entry(timer_key, keys.time_bytes(due_us) + payload)
    assert keys.is_timer(timer_key)
    assert keys.timer_key_of(entry) == timer_key
    assert keys.due_of(entry) == due_us
    assert entry < keys.due_limit(due_us)
    assert due_us == 0 or entry >= keys.due_limit(due_us - 1)


def test_the_engines_own_keys_are_no_slots() -> None:
    highest = keys.prefix(1023, 255) + b"\xff" * 40
    for own in (keys.POSITION, keys.LOCAL_MARK, keys.DUE):
        assert own > highest
    assert not keys.is_timer(keys.POSITION)


def test_a_store_is_rebuilt_when_it_is_of_another_cluster_too_old_or_ahead() -> None:
    mark = Mark("here", 100, written_at_s=1_000_000.0)
    now = 1_000_001.0
    assert usable(mark, "here", 100, now)
    assert not usable(None, "here", 100, now)
    assert not usable(mark, "elsewhere", 100, now)
    assert not usable(mark, "here", 99, now)
    assert not usable(mark, "here", 100, now + AGE_MAX_S)


def test_what_is_wrong_with_the_topics_is_said_by_name() -> None:
    task = Task("t", inputs=(Input("a"), Input("b")), handle=lambda c, r: None, outputs=("o",))
    right = {"a": 4, "b": 4, "t.changelog": 4, "a.dlq": 4, "b.dlq": 4, "o": 7}
    assert problem(task, right) is None
    assert "b.dlq, o" in (
        problem(task, {k: v for k, v in right.items() if k not in {"o", "b.dlq"}}) or ""
    )
    assert "'b': 5" in (problem(task, right | {"b": 5}) or "")


def test_a_refused_batch_comes_down_to_the_record_that_causes_it() -> None:
    narrowing = Narrowing(8)
    batch = records("in", *range(8))
    while len(batch) > 1:
        assert narrowing.failed(batch, "too large")
        assert narrowing.limit == len(batch) // 2
        batch = batch[: narrowing.limit]
    assert narrowing.failed(batch, "too large")
    assert narrowing.refused == {("in", 0): "too large"}
    assert not narrowing.failed(batch, "too large"), "its dead letter is refused too"
    narrowing.passed()
    assert (narrowing.limit, narrowing.refused) == (2, {})


def test_a_misspelt_crash_point_is_an_error() -> None:
    with pytest.raises(ValueError, match="after_comit"):
        CrashPoint.parse("after_comit")
    assert CrashPoint.parse("after_commit:3").countdown == 3
    with pytest.raises(ValueError, match="stop"):
        CrashPoint.parse("after_commit:3:stop")
    CrashPoint.parse("").at("after_commit")


class Connection:
    """A client's connection, as far as it is closed."""

    def __init__(self) -> None:
        self.open = True

    def close(self) -> None:
        self.open = False


def test_a_client_that_was_closed_opens_nothing_any_more() -> None:
    there, late = Connection(), Connection()
    client = SimpleNamespace(_conns={"a": there})
    hang_up(client)
    client._conns["b"] = late
    assert not there.open
    assert not late.open
    assert client._conns["b"] is late
