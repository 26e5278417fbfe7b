"""Collections that forget: kept in generations of log time, each dropped whole when it is over.

Pure. A generation is named by its end, in seconds; it takes what is put until then, and is over one
horizon later. So a value is remembered for a horizon at least and for two at most, whatever the
horizon is changed to meanwhile: the end is written in every key. What must not be forgotten yet
(`carry`) moves on to the current generation, at the latest when its own is dropped, and what is
seen never depends on when that is. Which generations a slot has is state of that slot.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeVar

from schemas.ids import SLOTS
from streams.engine import keys
from streams.engine.context import Context
from streams.engine.task import Collection, Task

T = TypeVar("T")

Ends = tuple[int, ...]
Rows = Callable[[bytes, bytes, int], list[tuple[bytes, bytes]]]
"""Reads committed state: from a key, to before another, at most so many."""

SWEPT_MIN: Final = 200
SWEPT_PER_RECORD: Final = 2
"""How many values of generations that are over a batch looks at: never a stop, and twice as fast as
new ones can come.
"""

_END: Final = 4
_END_MAX: Final = 2**32 - 1
_NAMES: Final = tuple(bytes((each,)) for each in range(256))
"""By collection id: its key in a shelf."""


def _pack(ends: Ends) -> bytes:
    return b"".join(end.to_bytes(_END, "big") for end in ends)


def _unpack(raw: bytes) -> Ends:
    return tuple(int.from_bytes(raw[at : at + _END], "big") for at in range(0, len(raw), _END))


class _Own(Collection[T]):
    """A collection of the engine's own."""

    def __post_init__(self) -> None:
        assert self.id >= keys.ENGINE_FROM, "the engine's collections come after the tasks'"


SHELVES: Final[Collection[Ends]] = _Own(keys.SHELVES_ID, "shelves", _pack, _unpack)
"""By slot and collection id: the ends of the generations that there are, oldest first."""
DROPPED: Final[Collection[bytes]] = _Own(keys.DROPPED_ID, "dropped")
"""By slot and collection id: up to which end generations were dropped. A store that is told of it
drops the range.
"""


def find(
    context: Context, collection: Collection[T], slot: int, key: bytes, at_us: int
) -> tuple[T | None, bytes]:
    """Return what is remembered of `key` at log time, and the key to put it under.

    `collection` has a `carry`. None where there is nothing, or it has been forgotten.
    """
    carry = collection.carry
    assert carry is not None, f"{collection.name} is not kept in generations"
    at_s = _seconds(at_us)
    ends = _shelf(context, collection, slot, at_s)
    current = ends[-1].to_bytes(_END, "big") + key
    value = context.get(collection, slot, current)
    if value is not None:
        return value, current
    for end in ends[-2::-1]:
        name = end.to_bytes(_END, "big") + key
        value = context.get(collection, slot, name)
        if value is None:
            continue
        if carry(value):
            context.delete(collection, slot, name)
            context.put(collection, slot, current, value)
            return value, current
        if at_s < end + context.horizon_s:
            return value, name
        break
    return None, current


def _seconds(at_us: int) -> int:
    """Return log time in seconds; the last generation that has a name is never over."""
    at_s = at_us // 1_000_000
    return at_s if at_s < _END_MAX else _END_MAX - 1  # a call for each record is dear


def _shelf(context: Context, collection: Collection[T], slot: int, at_s: int) -> Ends:
    """Return a slot's generations; the last one takes what is put now."""
    shelf = _NAMES[collection.id]
    ends = context.get(SHELVES, slot, shelf) or ()
    if not ends or at_s >= ends[-1]:
        horizon_s = context.horizon_s
        ends = (*ends, min((at_s // horizon_s + 1) * horizon_s, _END_MAX))
        context.put(SHELVES, slot, shelf, ends)
    return ends


@dataclass(frozen=True, slots=True)
class Over:
    """A generation of a slot of a collection that is over."""

    slot: int
    collection: Collection[object]
    end: int


@dataclass(slots=True)
class Sweep:
    """Takes generations that are over out of one partition's state, a little with every batch.

    The changelog is told of each value, so that compaction can take it away; the store keeps them
    until its slot is through, and drops the range.
    """

    task: Task
    context: Context
    rows: Rows
    dropped: int = 0
    carried: int = 0
    _todo: list[Over] = field(default_factory=list)
    _cursor: bytes = b""
    _look_at_s: int = 0

    def step(self, log_time_us: int, records: int) -> dict[bytes, None]:
        """Go on, in the batch that `context` holds; return the keys that the changelog forgets.

        `log_time_us` is that before the batch: what was over then is in the store, all of it.
        """
        at_s, gone = _seconds(log_time_us), dict[bytes, None]()
        if at_s >= self._look_at_s:
            self._look(at_s)
        budget = max(SWEPT_MIN, SWEPT_PER_RECORD * records)
        while budget > 0 and self._todo:
            budget -= self._pass(self._todo[-1], at_s, budget, gone)
        self.context.seal()
        return gone

    @property
    def busy(self) -> bool:
        """True while a generation is being dropped."""
        return bool(self._todo)

    def _look(self, at_s: int) -> None:
        """Find what is over, and when to look again: new generations are never over before then."""
        horizon_s = self.context.horizon_s
        self._look_at_s = at_s + horizon_s
        self._todo.clear()
        self._cursor = b""
        for collection in self.task.collections:
            if collection.carry is None:
                continue
            shelf = _NAMES[collection.id]
            for slot in range(self.context.partition, SLOTS, self.context.partitions):
                ends = self.context.get(SHELVES, slot, shelf) or ()
                over = [end for end in ends if end + horizon_s <= at_s]
                self._todo += [Over(slot, collection, end) for end in reversed(over)]
                if ends[len(over) :]:
                    self._look_at_s = min(self._look_at_s, ends[len(over)] + horizon_s)

    def _pass(self, over: Over, at_s: int, budget: int, gone: dict[bytes, None]) -> int:
        """Work off part of a generation; return how much of the budget it took."""
        begin = over.collection.prefixes[over.slot] + over.end.to_bytes(_END, "big")
        stop = over.collection.prefixes[over.slot] + (over.end + 1).to_bytes(_END, "big")
        rows = self.rows(self._cursor or begin, stop, budget)
        for state_key, raw in rows:
            now = self.context.sealed(state_key, raw)
            if now is not None and not self._carried(over, state_key, now, at_s):
                gone[state_key] = None
        if len(rows) == budget:
            self._cursor = rows[-1][0] + b"\0"
            return budget
        self._drop(over)
        return max(1, len(rows))

    def _carried(self, over: Over, state_key: bytes, raw: bytes, at_s: int) -> bool:
        collection, context = over.collection, self.context
        assert collection.carry is not None, "only what is kept in generations is over"
        value = raw if collection.decode is None else collection.decode(raw)
        if not collection.carry(value):
            return False
        name = keys.name_of(state_key)
        current = _shelf(context, collection, over.slot, at_s)[-1].to_bytes(_END, "big")
        context.delete(collection, over.slot, name)
        context.put(collection, over.slot, current + name[_END:], value)
        self.carried += 1
        return True

    def _drop(self, over: Over) -> None:
        shelf = _NAMES[over.collection.id]
        ends = self.context.get(SHELVES, over.slot, shelf) or ()
        left = tuple(end for end in ends if end > over.end)
        self.context.put(SHELVES, over.slot, shelf, left)
        self.context.put(DROPPED, over.slot, shelf, (over.end + 1).to_bytes(_END, "big"))
        self._todo.pop()
        self._cursor = b""
        self.dropped += 1
