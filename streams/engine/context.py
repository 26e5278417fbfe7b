"""What a handler may do: read and change state, emit records, set timers.

Pure: effects are collected over a batch and handed to whoever commits it. Invariants: what a
failed call did leaves no trace (`drop`), and of what `seal` took nothing is ever lost. State is
read through three layers: this batch and recently used values (decoded), sealed changes (bytes),
the store, or what was read of it ahead of the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from schemas.errors import Corrupt, Poisoned
from schemas.ids import SLOTS
from streams.engine import keys
from streams.engine.keys import COLLECTION_AT
from streams.engine.task import Collection, Headers, Task

T = TypeVar("T")

Out = tuple[bytes | None, bytes | None, Headers]
Read = Callable[[bytes], bytes | None]

VALUE_BYTES_MAX: Final = 1_000_000
"""Bound of one emitted or stored value; a record that causes a larger one is poisoned."""

_MISSING: Final = object()
_TIMER_PREFIXES: Final = tuple(keys.prefix(slot, keys.TIMERS_ID) for slot in range(SLOTS))


@dataclass(slots=True)
class Effects:
    """What one batch causes. `changes` maps state keys to values (None deletes), in a fixed
    order.
    """

    outputs: dict[tuple[str, int], list[Out]] = field(default_factory=dict)
    changes: dict[bytes, bytes | None] = field(default_factory=dict)

    @property
    def emitted(self) -> int:
        """How many records leave."""
        return sum(len(records) for records in self.outputs.values())


class Context:
    """The handler's view of one partition of one task."""

    __slots__ = (
        "_ahead",
        "_allowed",
        "_asked",
        "_dirty",
        "_effects",
        "_limit",
        "_marks",
        "_old",
        "_read",
        "_young",
        "horizon_s",
        "partition",
        "partitions",
        "task",
    )

    def __init__(
        self, task: Task, partition: int, partitions: int, read: Read, cache_entries: int = 20_000
    ) -> None:
        self.task = task.name
        self.partition = partition
        self.partitions = partitions
        self.horizon_s = task.horizon_s
        self._allowed = frozenset(task.outputs)
        self._read = read
        self._limit = cache_entries // 2
        self._young: dict[bytes, Any] = {}
        self._old: dict[bytes, Any] = {}
        self._ahead: dict[bytes, bytes | None] = {}
        self._asked = [0] * 256
        self._dirty: dict[bytes, Collection[Any] | None] = {}
        self._effects = Effects()
        self._marks: dict[tuple[str, int], int] = {}

    # -- state -------------------------------------------------------------------------------

    def get(self, collection: Collection[T], slot: int, key: bytes) -> T | None:
        """Return the value, or None where there is none."""
        state_key = collection.prefixes[slot] + key
        value = self._young.get(state_key, _MISSING)
        if value is _MISSING:
            value = self._old.pop(state_key, _MISSING)
            if value is _MISSING:
                value = self._sealed(state_key)
                if value is not None and collection.decode is not None:
                    value = collection.decode(value)
            self._young[state_key] = value
        return value  # type: ignore[no-any-return]

    def put(self, collection: Collection[T], slot: int, key: bytes, value: T) -> None:
        """Set the value; it becomes true with the batch."""
        if collection.encode is None and len(value) > VALUE_BYTES_MAX:  # type: ignore[arg-type]
            raise Poisoned(f"{collection.name}: a value of more than {VALUE_BYTES_MAX} bytes")
        state_key = collection.prefixes[slot] + key
        self._young[state_key] = value
        self._dirty[state_key] = collection

    def delete(self, collection: Collection[Any], slot: int, key: bytes) -> None:
        """Take the value away."""
        state_key = collection.prefixes[slot] + key
        self._young[state_key] = None
        self._dirty[state_key] = None

    # -- timers ------------------------------------------------------------------------------

    def set_timer(self, due_us: int, slot: int, key: bytes, payload: bytes = b"") -> None:
        """Have timer `(slot, key)` fire once `due_us` has passed, in place of an earlier one."""
        state_key = _TIMER_PREFIXES[slot] + key
        self._young[state_key] = keys.time_bytes(due_us) + payload
        self._dirty[state_key] = None

    def cancel_timer(self, slot: int, key: bytes) -> None:
        """Take the timer back, if it has not fired."""
        state_key = _TIMER_PREFIXES[slot] + key
        self._young[state_key] = None
        self._dirty[state_key] = None

    # -- outputs -----------------------------------------------------------------------------

    def emit(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: Headers = (),
    ) -> None:
        """Write a record to one of the task's outputs."""
        if value is not None and len(value) > VALUE_BYTES_MAX:
            raise Poisoned(f"a record of {len(value)} bytes for {topic}")
        records = self._effects.outputs.get((topic, partition))
        if records is None:
            assert topic in self._allowed, f"task {self.task} does not declare {topic} as output"
            records = self._effects.outputs[topic, partition] = []
        records.append((key, value, headers))

    # -- for the engine ----------------------------------------------------------------------

    def send(self, topic: str, partition: int, out: Out) -> None:
        """Write a record of the engine's own: a dead letter, a timer that fires."""
        self._effects.outputs.setdefault((topic, partition), []).append(out)

    def pending_timer(self, timer_key: bytes) -> bytes | None:
        """Return a timer's value as the batch has left it."""
        value: Any = self._young.get(timer_key, _MISSING)
        if value is _MISSING:
            value = self._sealed(timer_key)
        assert value is None or isinstance(value, bytes), "a timer's value is bytes"
        return value

    def sealed(self, state_key: bytes, stored: bytes) -> bytes | None:
        """Return what the sealed effects make of a value that the store has."""
        return self._effects.changes.get(state_key, stored)

    def remove_timer(self, timer_key: bytes) -> None:
        """Take out a timer that fires with this batch."""
        self._young[timer_key] = None
        self._dirty[timer_key] = None

    def asked(self, collections: Iterable[int]) -> int:
        """Return how often the store was asked for values of these since the last call."""
        asked = sum(self._asked[each] for each in collections)
        self._asked = [0] * 256
        return asked

    def unread(self, state_keys: Iterable[bytes]) -> list[bytes]:
        """Return those that only the store could tell, each once."""
        young, old = self._young, self._old
        return [key for key in dict.fromkeys(state_keys) if key not in young and key not in old]

    def expect(self, found: dict[bytes, bytes | None]) -> None:
        """Take what the store has of keys that this batch may ask for."""
        self._ahead = found

    def seal(self) -> None:
        """Keep what the handler did since the last seal or drop: all of it, or nothing when a value
        cannot be kept.
        """
        changes: dict[bytes, bytes | None] = {}
        over = []
        young = self._young
        for state_key, collection in self._dirty.items():
            value = young[state_key]
            if value is not None and collection is not None:
                if collection.carry is not None and not collection.carry(value):
                    over.append(state_key)
                if collection.encode is not None:
                    value = collection.encode(value)
            if value is not None and len(value) > VALUE_BYTES_MAX:
                raise Poisoned(f"a state value of {len(value)} bytes")
            changes[state_key] = value
        self._effects.changes |= changes
        for state_key in over:
            # Hardly asked for again, and as many as there are records: others are kept at hand.
            del young[state_key]
            self._old.pop(state_key, None)
        self._dirty.clear()
        self._marks = {where: len(outs) for where, outs in self._effects.outputs.items()}

    def drop(self) -> None:
        """Undo what the handler did since the last seal; decoded values are dropped, it may have
        changed them.
        """
        self.forget()
        self._dirty.clear()
        for where, outs in self._effects.outputs.items():
            del outs[self._marks.get(where, 0) :]

    def forget(self) -> None:
        """Drop cached values; the next read decodes anew."""
        self._young = {}
        self._old = {}

    def take(self) -> Effects:
        """Hand out the sealed effects. Until they are committed or `reset` the context is not
        used.
        """
        assert not self._dirty, "taken before it was sealed"
        effects = self._effects
        effects.outputs = {where: outs for where, outs in effects.outputs.items() if outs}
        return effects

    def committed(self) -> None:
        """The effects are true now and the store has them: begin the next batch, keep the cache."""
        self._effects = Effects()
        self._marks = {}
        self._ahead = {}
        if len(self._young) > self._limit:
            self._old = self._young
            self._young = {}

    def reset(self) -> None:
        """The effects never happened: begin again from the store."""
        self._dirty.clear()
        self.forget()
        self._effects = Effects()
        self._marks = {}
        self._ahead = {}

    def _sealed(self, state_key: bytes) -> Any:
        changes = self._effects.changes
        if state_key in changes:
            return changes[state_key]
        if state_key in self._ahead:
            return self._ahead[state_key]
        self._asked[state_key[COLLECTION_AT]] += 1
        try:
            return self._read(state_key)
        except Exception as error:
            raise Corrupt(f"task {self.task}: the state cannot be read: {error}") from error
