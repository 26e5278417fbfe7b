"""One batch, from fetched records to effects: log time, decoding, the handler, dead letters.

Pure. Invariants: every record of the batch is either handled once or dead-lettered once; what a
raising handler did leaves no trace. A record is found poisoned by handing the batch out in
halves, so the handler must give the same result however the batch is cut.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from schemas.errors import Corrupt, Fenced, Unavailable
from streams.engine import keys
from streams.engine.context import Context
from streams.engine.position import Position
from streams.engine.task import Record, Task, Timer, dead_letter_topic

REASON_BYTES_MAX: Final = 1_000

CHUNK: Final = 32
"""Records that are decoded at once: they are handled while the processor still has them at hand,
and their memory serves the next ones. Fewer cost a slow handler's records a tenth more each.
"""


class Fetched(Protocol):
    """What a Kafka client hands over of a record; `timestamp` in milliseconds."""

    @property
    def topic(self) -> str: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes]]: ...


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that could not be handled, and why."""

    topic: str
    offset: int
    reason: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a batch came to; its effects are in the context, sealed."""

    position: Position
    dead: Sequence[DeadLetter] = ()


Refusals = Mapping[tuple[str, int], str]

_NONE: Final[Refusals] = {}
_NO_VALUE: Final = "Poisoned: the record has no value"


class Batches:
    """Turns fetched records of one partition into effects, batch after batch."""

    def __init__(self, task: Task, context: Context) -> None:
        self._task = task
        self._context = context
        self._decoders = {each.topic: each.decode for each in task.inputs}
        self._timers_topic = task.timers_topic if task.timers else None
        self._dead: list[DeadLetter] = []

    def apply(
        self, fetched: Sequence[Fetched], position: Position, refused: Refusals = _NONE
    ) -> Outcome:
        """Handle records in their order. `refused` names (topic, offset) that must not be
        handled.

        Raises Corrupt, Fenced, Unavailable as the handler did, and Corrupt for a poisoned record
        of a topic that stops at one.
        """
        steps = self.steps(fetched, position, refused)
        while True:
            try:
                next(steps)
            except StopIteration as done:
                outcome: Outcome = done.value
                return outcome

    def steps(
        self, fetched: Sequence[Fetched], position: Position, refused: Refusals = _NONE
    ) -> Generator[None, None, Outcome]:
        """Do what `apply` does, with a stop after each chunk."""
        self._dead = []
        if not refused:
            after = yield from self._smoothly(fetched, position)
            if after is not None:
                return Outcome(after)
        records, poisoned, after = self._records(fetched, position)
        for index, record in enumerate(records if refused else ()):
            if (reason := refused.get((record.topic, record.offset))) is not None:
                poisoned[index] = f"what it causes cannot be written: {reason}"
        if poisoned:
            for index, reason in poisoned.items():
                self._bury(records[index], reason)
            self._context.seal()
            records = [each for index, each in enumerate(records) if index not in poisoned]
        if records:
            self._handle(records)
        return Outcome(after, self._dead)

    def _smoothly(
        self, fetched: Sequence[Fetched], position: Position
    ) -> Generator[None, None, Position | None]:
        """Handle a batch of which no record is poisoned, a chunk at a time; None, and no effects,
        when one is.
        """
        context, handle = self._context, self._task.handle
        try:
            for start in range(0, len(fetched), CHUNK):
                chunk = fetched[start : start + CHUNK]
                records, poisoned, position = self._records(chunk, position)
                if poisoned:
                    context.drop()
                    return None
                handle(context, records)
                yield
            context.seal()
        except (Corrupt, Fenced, Unavailable):
            raise
        except Exception:  # noqa: BLE001  what it is, and of which record, is found out by halves
            context.drop()
            return None
        return position

    def _records(
        self, fetched: Sequence[Fetched], position: Position
    ) -> tuple[list[Record], dict[int, str], Position]:
        log_time = position.log_time_us
        offsets = dict(position.offsets)
        decoders, timers_topic = self._decoders, self._timers_topic
        partition = self._context.partition
        records: list[Record] = []
        poisoned: dict[int, str] = {}
        for raw in fetched:
            topic, offset, value, event = raw.topic, raw.offset, raw.value, None
            assert offset >= offsets.get(topic, 0), f"{topic}: offset {offset} seen twice"
            offsets[topic] = offset + 1
            at_us = raw.timestamp * 1000
            if at_us > log_time:  # noqa: PLR1730  a call for each record is dear
                log_time = at_us
            if topic == timers_topic:
                record = _fired(raw, partition, log_time)
                log_time = record.at_us
                records.append(record)
                continue
            decode = decoders[topic]
            if decode is not None:
                if value is None:
                    poisoned[len(records)] = _NO_VALUE
                else:
                    try:
                        event = decode(value)
                    except Exception as error:  # noqa: BLE001  decoders raise anything
                        poisoned[len(records)] = _reason(error)
            headers = tuple(raw.headers) if raw.headers else ()
            records.append(
                Record(topic, partition, offset, raw.key, value, headers, log_time, event)
            )
        return records, poisoned, Position(offsets, log_time)

    def _handle(self, records: list[Record]) -> None:
        context = self._context
        try:
            self._task.handle(context, records)
            context.seal()
        except (Corrupt, Fenced, Unavailable):
            raise
        except AssertionError as error:
            raise Corrupt(f"task {self._task.name}: an assertion failed: {error}") from error
        except MemoryError as error:
            raise Corrupt(f"task {self._task.name}: no memory left for a batch") from error
        except Exception as error:  # noqa: BLE001  the boundary to code that is not the engine's
            context.drop()
            if len(records) == 1:
                self._poisoned(records[0], error)
                return
            middle = len(records) // 2
            self._handle(records[:middle])
            self._handle(records[middle:])

    def _poisoned(self, record: Record, error: Exception) -> None:
        if record.topic in self._task.stops:
            where = f"{record.topic}[{record.partition}]@{record.offset}"
            raise Corrupt(f"task {self._task.name} stops at {where}: {_reason(error)}") from error
        self._bury(record, _reason(error))
        self._context.seal()

    def _bury(self, record: Record, reason: str) -> None:
        if record.topic in self._task.stops:
            where = f"{record.topic}[{record.partition}]@{record.offset}"
            raise Corrupt(f"task {self._task.name} stops at {where}: {reason}")
        self._dead.append(DeadLetter(record.topic, record.offset, reason))
        headers = (
            *record.headers,
            ("dlq.task", self._task.name.encode()),
            ("dlq.topic", record.topic.encode()),
            ("dlq.partition", b"%d" % record.partition),
            ("dlq.offset", b"%d" % record.offset),
            ("dlq.reason", reason.encode()),
        )
        out = (record.key, record.value, headers)
        self._context.send(dead_letter_topic(record.topic), record.partition, out)


def _fired(raw: Fetched, partition: int, log_time: int) -> Record:
    """Read a record of the timers topic; only the engine writes there."""
    assert raw.key is not None, f"{raw.topic}@{raw.offset} has no key"
    assert raw.value is not None, f"{raw.topic}@{raw.offset} has no value"
    due_us, payload = keys.time_of(raw.value), keys.after_time(raw.value)
    timer = Timer(keys.slot_of(raw.key), raw.key[2:], due_us, payload)
    at_us = max(log_time, due_us)
    return Record(raw.topic, partition, raw.offset, timer.key, payload, (), at_us, None, timer)


def _reason(error: Exception) -> str:
    text = f"{type(error).__name__}: {error}"
    return text.encode("utf-8", "replace")[:REASON_BYTES_MAX].decode("utf-8", "ignore")
