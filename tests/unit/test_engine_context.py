"""What a handler sees and leaves behind, without Kafka: context, batches, dead letters, timers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import Corrupt, Poisoned, Unavailable
from streams.engine import Collection, Context, Input, OnPoison, Record, Task
from streams.engine.batch import CHUNK, Batches
from streams.engine.memory import MemoryRecord, MemoryTask
from streams.engine.position import Position
from streams.engine.topology import needed

SUMS: Collection[int] = Collection(1, "sums", encode=lambda n: b"%d" % n, decode=int)
LISTS: Collection[list[str]] = Collection(
    2, "lists", encode=lambda v: ",".join(v).encode(), decode=lambda b: b.decode().split(",")
)
RAW: Collection[bytes] = Collection(3, "raw")


def tally(context: Context, records: Sequence[Record]) -> None:
    """Add up numbers per key, changing a decoded list in place; b'bad' fails half way."""
    for record in records:
        assert record.key is not None
        seen = context.get(LISTS, 1, record.key) or []
        seen.append(str(record.offset))
        context.put(LISTS, 1, record.key, seen)
        context.emit("out", 0, record.key, b"%d" % record.offset)
        if record.value == b"bad":
            context.delete(SUMS, 1, record.key)
            raise Poisoned("bad on purpose")
        total = (context.get(SUMS, 1, record.key) or 0) + int(record.value or b"0")
        context.put(SUMS, 1, record.key, total)


def task(**changes: object) -> Task:
    """Return the tally task."""
    fields: dict[str, object] = {
        "name": "tally",
        "inputs": (Input("in"),),
        "outputs": ("out",),
        "collections": (SUMS, LISTS, RAW),
        "handle": tally,
    }
    return Task(**(fields | changes))  # type: ignore[arg-type]


def feed(run: MemoryTask, values: Sequence[bytes], key: bytes = b"k") -> None:
    run.feed([("in", key, value, 1_000_000) for value in values])


def test_a_batch_sees_its_own_changes_and_keeps_them() -> None:
    run = MemoryTask(task())
    feed(run, [b"1", b"2"])
    feed(run, [b"4"])
    assert run.get(SUMS, 1, b"k") == 7
    assert [value for _, _, value, _ in run.outputs["out"]] == [b"0", b"1", b"2"]


def test_one_poisoned_record_is_dead_lettered_and_leaves_no_trace() -> None:
    run = MemoryTask(task())
    feed(run, [b"1"] * 5 + [b"bad"] + [b"1"] * 6)
    assert run.get(SUMS, 1, b"k") == 11
    assert run.get(LISTS, 1, b"k") == [str(offset) for offset in range(12) if offset != 5]
    assert len(run.outputs["out"]) == 11
    [(partition, key, value, headers)] = run.outputs["in.dlq"]
    assert (partition, key, value) == (0, b"k", b"bad")
    assert dict(headers) == {
        "dlq.task": b"tally",
        "dlq.topic": b"in",
        "dlq.partition": b"0",
        "dlq.offset": b"5",
        "dlq.reason": b"Poisoned: bad on purpose",
    }


@given(
    st.lists(st.sampled_from([b"1", b"2", b"bad", b"no number"]), max_size=40),
    st.integers(1, 40),
)
def test_the_result_does_not_depend_on_how_batches_are_cut(values: list[bytes], cut: int) -> None:
    whole, parts = MemoryTask(task()), MemoryTask(task())
    feed(whole, values)
    for begin in range(0, len(values), cut):
        feed(parts, values[begin : begin + cut])
    assert whole.state == parts.state
    assert whole.outputs == parts.outputs


@pytest.mark.parametrize("last", [b"1", b"bad"])
def test_a_batch_handled_with_stops_between_its_chunks_comes_to_the_same(last: bytes) -> None:
    values = [b"1"] * (2 * CHUNK) + [last]
    fetched = [MemoryRecord("in", at, 1_000, b"k", value) for at, value in enumerate(values)]
    whole, stepped = (Context(task(), 0, 1, {}.get) for _ in range(2))
    expected = Batches(task(), whole).apply(fetched, Position({}))
    steps = Batches(task(), stepped).steps(fetched, Position({}))
    next(steps)
    next(steps)
    with pytest.raises(StopIteration) as done:  # noqa: PT012
        while True:
            next(steps)
    assert done.value.value == expected
    assert stepped.take() == whole.take()


def test_a_value_changed_in_place_by_a_failing_call_is_read_anew() -> None:
    run = MemoryTask(task())
    feed(run, [b"1"])
    feed(run, [b"bad"])
    feed(run, [b"1"])
    assert run.get(LISTS, 1, b"k") == ["0", "2"]


def test_values_used_of_late_are_not_read_again_and_no_more_of_them_are_kept_than_allowed() -> None:
    read: list[bytes] = []

    def store(state_key: bytes) -> bytes:
        read.append(state_key)
        return b"1"

    def use(*numbers: int) -> int:
        """Read these values, a batch each; returns how many the store was asked for."""
        before = len(read)
        for number in numbers:
            context.get(SUMS, 1, b"%d" % number)
            context.take()
            context.committed()
        return len(read) - before

    context = Context(task(), 0, 4, store, cache_entries=10)
    assert use(*range(100)) == 100
    assert use(99, 98, 97, 99) == 0
    assert use(*range(100)) >= 90


def test_a_value_that_is_over_is_not_kept_at_hand_and_no_older_one_is_seen() -> None:
    cases: Collection[bytes] = Collection(4, "cases", carry=lambda case: case != b"over")
    stored: dict[bytes, bytes | None] = {}
    asked: list[bytes] = []

    def store(state_key: bytes) -> bytes | None:
        asked.append(state_key)
        return stored.get(state_key)

    def put(key: bytes, value: bytes) -> None:
        context.put(cases, 1, key, value)
        context.seal()
        stored.update(context.take().changes)
        context.committed()

    context = Context(task(collections=(cases,)), 0, 4, store, cache_entries=2)
    put(b"a", b"open")
    assert context.get(cases, 1, b"a") == b"open"
    assert not asked
    put(b"b", b"open")  # and "a" is now one of those that were used before
    put(b"a", b"over")
    assert context.get(cases, 1, b"a") == b"over"
    assert asked == [cases.prefixes[1] + b"a"]
    assert context.get(cases, 1, b"b") == b"open"
    assert len(asked) == 1


def test_bytes_that_do_not_decode_are_dead_lettered() -> None:
    decoding = task(inputs=(Input("in", decode=lambda value: value.decode("ascii")),))
    run = MemoryTask(decoding)
    feed(run, [b"1", b"\xff", b"2"])
    assert run.get(SUMS, 1, b"k") == 3
    assert [value for _, _, value, _ in run.outputs["in.dlq"]] == [b"\xff"]


def test_a_tombstone_is_dead_lettered_where_the_input_is_decoded() -> None:
    run = MemoryTask(task(inputs=(Input("in", decode=bytes.decode),)))
    run.feed([("in", b"k", None, 1)])
    assert len(run.outputs["in.dlq"]) == 1


def test_a_task_that_stops_at_poison_dead_letters_nothing() -> None:
    run = MemoryTask(task(on_poison=OnPoison.STOP))
    with pytest.raises(Corrupt, match=r"in\[0\]@1: Poisoned: bad on purpose"):
        feed(run, [b"1", b"bad"])
    assert run.state == {}
    assert not run.outputs


def test_a_topic_can_stop_at_poison_where_the_others_are_dead_lettered() -> None:
    inputs = (Input("in"), Input("strict", on_poison=OnPoison.STOP))
    wanted = task(inputs=inputs)
    run = MemoryTask(wanted)
    feed(run, [b"1", b"bad", b"2"])
    assert [value for _, _, value, _ in run.outputs["in.dlq"]] == [b"bad"]
    with pytest.raises(Corrupt, match=r"strict\[0\]@0: Poisoned: bad on purpose"):
        run.feed([("strict", b"k", b"bad", 9)])
    assert "strict.dlq" not in run.outputs
    assert needed(wanted)[0] == {"in", "in.dlq", "strict", wanted.changelog}


def test_a_failed_assertion_stops_the_process_rather_than_burying_the_record() -> None:
    def wrong(context: Context, records: Sequence[Record]) -> None:
        raise AssertionError("debits differ from credits")

    with pytest.raises(Corrupt, match="debits differ"):
        feed(MemoryTask(task(handle=wrong)), [b"1"])


def test_unavailable_gives_up_the_batch_as_if_it_had_not_been_tried() -> None:
    failures = iter([True, False])

    def flaky(context: Context, records: Sequence[Record]) -> None:
        tally(context, records)
        if next(failures):
            raise Unavailable("not yet")

    run = MemoryTask(task(handle=flaky))
    again = [MemoryRecord("in", 0, 1, b"k", b"3")]
    with pytest.raises(Unavailable):
        run.feed_fetched(again)
    run.feed_fetched(again)
    assert run.get(SUMS, 1, b"k") == 3
    assert len(run.outputs["out"]) == 1


def test_an_undeclared_output_is_an_error_of_the_program() -> None:
    def stray(context: Context, records: Sequence[Record]) -> None:
        context.emit("elsewhere", 0, b"k", b"v")

    with pytest.raises(Corrupt, match="elsewhere"):
        feed(MemoryTask(task(handle=stray)), [b"1"])


def test_a_record_that_causes_too_large_a_value_is_poisoned() -> None:
    def swell(context: Context, records: Sequence[Record]) -> None:
        for record in records:
            context.put(RAW, 1, b"big", bytes(int(record.value or b"0")))

    run = MemoryTask(task(handle=swell))
    feed(run, [b"10", b"2000000", b"11"])
    assert run.get(RAW, 1, b"big") == bytes(11)
    assert len(run.outputs["in.dlq"]) == 1


@pytest.mark.parametrize("bad", [["x" * 2_000_000], [7]])
def test_a_value_that_cannot_be_kept_leaves_no_trace_of_its_record(bad: list[Any]) -> None:
    def add(context: Context, records: Sequence[Record]) -> None:
        for record in records:
            context.put(SUMS, 1, b"k", (context.get(SUMS, 1, b"k") or 0) + 1)
            context.emit("out", 0, b"k", record.value)
            if record.value == b"bad":
                context.put(LISTS, 1, b"k", bad)

    run = MemoryTask(task(handle=add))
    feed(run, [b"a", b"b", b"bad", b"c"])
    assert run.get(SUMS, 1, b"k") == 3
    assert run.get(LISTS, 1, b"k") is None
    assert [value for _, _, value, _ in run.outputs["out"]] == [b"a", b"b", b"c"]
    assert len(run.outputs["in.dlq"]) == 1


def test_log_time_never_goes_back_and_survives_batches() -> None:
    times: list[int] = []

    def note(context: Context, records: Sequence[Record]) -> None:
        times.extend(record.at_us for record in records)

    run = MemoryTask(task(handle=note))
    run.feed([("in", b"k", b"", at_us) for at_us in (5_000, 3_000, 9_000)])
    run.feed([("in", b"k", b"", 1_000)])
    assert times == [5_000, 5_000, 9_000, 9_000]


def test_an_offset_seen_twice_is_a_broken_invariant() -> None:
    run = MemoryTask(task())
    run.feed_fetched([MemoryRecord("in", 7, 1, b"k", b"1")])
    with pytest.raises(AssertionError, match="seen twice"):
        run.feed_fetched([MemoryRecord("in", 7, 1, b"k", b"1")])


def remind(context: Context, records: Sequence[Record]) -> None:
    """Set, replace and cancel timers as told; put what fires."""
    for record in records:
        if record.timer is not None:
            seen = context.get(RAW, record.timer.slot, record.timer.key) or b""
            note = b"%s@%d;" % (record.timer.payload, record.at_us)
            context.put(RAW, record.timer.slot, record.timer.key, seen + note)
        elif record.value == b"cancel":
            context.cancel_timer(9, record.key or b"")
        else:
            due = record.value or b"0"
            context.set_timer(int(due), 9, record.key or b"", b"p" + due)


def test_a_timer_fires_once_at_its_time_with_its_payload() -> None:
    run = MemoryTask(task(handle=remind, timers=True))
    run.feed([("in", b"a", b"5000", 1_000), ("in", b"b", b"7000", 1_000)])
    assert run.fire(4_999) == 0
    assert run.fire(5_000) == 1
    assert run.fire(6_000) == 0
    assert run.get(RAW, 9, b"a") == b"p5000@5000;"
    assert run.get(RAW, 9, b"b") is None


def test_a_timer_set_again_fires_at_the_new_time_alone() -> None:
    run = MemoryTask(task(handle=remind, timers=True))
    run.feed([("in", b"a", b"5000", 1_000), ("in", b"a", b"8000", 1_000)])
    assert run.fire(7_000) == 0
    assert run.fire(8_000) == 1
    assert run.get(RAW, 9, b"a") == b"p8000@8000;"


def test_a_cancelled_timer_does_not_fire() -> None:
    run = MemoryTask(task(handle=remind, timers=True))
    run.feed([("in", b"a", b"5000", 1_000), ("in", b"a", b"cancel", 1_000)])
    assert run.fire(9_000) == 0
    assert run.get(RAW, 9, b"a") is None


def test_a_timer_that_fires_is_never_early_in_log_time() -> None:
    run = MemoryTask(task(handle=remind, timers=True))
    run.feed([("in", b"a", b"5999", 1_000)])
    run.fire(5_999)
    assert run.get(RAW, 9, b"a") == b"p5999@5999;"
