"""The task that the drills break, and its worker process (`python -m` this module).

It has everything a task can have: two inputs, four outputs, three collections with deletions, one
that forgets, timers that are replaced and cancelled, records that cannot be decoded or handled, and
outputs that the broker refuses. `streams_model` says, without any of the engine, what must come of
it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from loadtest.drills.streams_load import BIG_BYTES, HORIZON_S, Op, decode_op
from schemas import logs
from schemas.ids import slot_of_key
from streams.engine import (
    Collection,
    Context,
    EngineSettings,
    Input,
    OnPoison,
    Record,
    Task,
    generations,
    run,
)

Total = tuple[int, int]
Known = tuple[int, bool]
"""How often a key was asked for, and whether it may not be forgotten yet."""

_JSON: Final = msgspec.json.Encoder().encode
TOTALS: Final[Collection[Total]] = Collection(
    1, "totals", encode=_JSON, decode=msgspec.json.Decoder(Total).decode
)
SIDES: Final[Collection[int]] = Collection(2, "sides", encode=lambda n: b"%d" % n, decode=int)
KNOWN: Final[Collection[Known]] = Collection(
    4,
    "known",
    encode=_JSON,
    decode=msgspec.json.Decoder(Known).decode,
    carry=lambda known: known[1],
)
ARMED: Final[Collection[int]] = Collection(3, "armed", encode=lambda n: b"%d" % n, decode=int)


class Worker(msgspec.Struct, frozen=True):
    """What a worker process is told, as JSON in its one argument."""

    prefix: str
    kafka: str
    worker: str
    state_dir: str
    batch_max: int
    commit_interval_ms: int
    session_timeout_ms: int
    transaction_timeout_ms: int
    crash_point: str = ""
    stop_on_poison: bool = False
    clock_off_s: float = 0.0
    """How far the clock of this process is off."""


@dataclass(frozen=True, slots=True)
class Drilled:
    """Handles batches; `prefix` names the topics."""

    prefix: str

    def handle(self, context: Context, batch: Sequence[Record]) -> None:
        """Apply the records in order."""
        for record in batch:
            if record.timer is not None:
                self._fire(context, record)
            elif record.topic.endswith(".side"):
                self._side(context, record)
            else:
                self._apply(context, record, record.event)

    def _apply(self, context: Context, record: Record, op: Op) -> None:
        key = record.key
        assert key is not None, "every record of a drill has a key"
        slot = slot_of_key(key.decode())
        count, total = context.get(TOTALS, slot, key) or (0, 0)
        context.put(TOTALS, slot, key, (count + 1, total + op.amount))
        said = _JSON([record.offset, count + 1, total + op.amount, record.at_us if op.timed else 0])
        context.emit(f"{self.prefix}.out", context.partition, key, said, record.headers)
        if op.kind == "bad":
            raise ValueError("this record can never be handled")
        if op.kind == "big":
            context.emit(f"{self.prefix}.small", context.partition, key, bytes(BIG_BYTES))
        if op.kind == "know":
            self._know(context, record, slot, op)
        if op.kind == "drop":
            context.delete(TOTALS, slot, key)
        if op.kind in {"cancel", "drop"}:
            context.cancel_timer(slot, key)
            context.delete(ARMED, slot, key)
        if op.kind == "arm":
            context.set_timer(record.at_us + op.after_us, slot, key, b"%d" % record.offset)
            context.put(ARMED, slot, key, record.offset)

    def _know(self, context: Context, record: Record, slot: int, op: Op) -> None:
        key = record.key or b""
        remembered = generations.find(context, KNOWN, slot, key, record.at_us)
        known, name = remembered
        times = 1 if known is None else known[0] + 1
        context.put(KNOWN, slot, name, (times, op.amount % 4 == 0))
        said = _JSON([record.offset, times])
        context.emit(f"{self.prefix}.out", context.partition, key, said)

    def _side(self, context: Context, record: Record) -> None:
        key = record.key
        assert key is not None, "every record of a drill has a key"
        slot = slot_of_key(key.decode())
        total = (context.get(SIDES, slot, key) or 0) + int(record.value or b"")
        context.put(SIDES, slot, key, total)
        context.emit(f"{self.prefix}.side.out", context.partition, key, b"%d" % total)

    def _fire(self, context: Context, record: Record) -> None:
        timer = record.timer
        assert timer is not None, "called for timers"
        assert record.at_us >= timer.due_us, "a timer fired early"
        armed = context.get(ARMED, timer.slot, timer.key)
        if armed is not None and b"%d" % armed == timer.payload:
            context.delete(ARMED, timer.slot, timer.key)
            context.emit(f"{self.prefix}.fired", context.partition, timer.key, timer.payload)


def drilled(prefix: str, *, stop_on_poison: bool = False) -> Task:
    """Declare the task."""
    return Task(
        prefix,
        inputs=(Input(f"{prefix}.in", decode=decode_op), Input(f"{prefix}.side")),
        outputs=tuple(f"{prefix}.{name}" for name in ("out", "side.out", "fired", "small")),
        collections=(TOTALS, SIDES, ARMED, KNOWN),
        horizon_s=HORIZON_S,
        timers=True,
        on_poison=OnPoison.STOP if stop_on_poison else OnPoison.DEAD_LETTER,
        handle=Drilled(prefix).handle,
    )


def work(argument: str) -> None:
    """Run the worker until it is told to end, or dies."""
    told = msgspec.json.decode(argument, type=Worker)
    logs.configure("streams", told.worker, "info")
    if told.clock_off_s:
        _set_clock(told.clock_off_s)
    settings = EngineSettings(
        kafka=told.kafka,
        worker=told.worker,
        state_dir=Path(told.state_dir),
        session_timeout_ms=told.session_timeout_ms,
        transaction_timeout_ms=told.transaction_timeout_ms,
        commit_interval_ms=told.commit_interval_ms,
        batch_max=told.batch_max,
        crash_point=told.crash_point,
    )
    run(settings, [drilled(told.prefix, stop_on_poison=told.stop_on_poison)])


def _set_clock(off_s: float) -> None:
    """Have this process see another time of day; what it measures time by stays as it is."""
    clock, clock_ns = time.time, time.time_ns
    time.time = lambda: clock() + off_s
    time.time_ns = lambda: clock_ns() + int(off_s * 1e9)


if __name__ == "__main__":
    work(sys.argv[1])
