"""What a task is: its inputs, state, outputs and handler, and the records it is handed.

Pure declarations. A task names its consumer group, transactional ids, changelog and timer topic,
so its name, and the ids of its collections, never change under live state.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import msgspec

from schemas.ids import SLOTS
from streams.engine import keys

if TYPE_CHECKING:
    from streams.engine.context import Context

T = TypeVar("T")

HORIZON_S: Final = 7 * 86_400


class OnPoison(enum.Enum):
    """What becomes of a record that can never be handled."""

    DEAD_LETTER = "dead_letter"
    STOP = "stop"


class Timer(msgspec.Struct, frozen=True, gc=False):
    """A timer that fired: what `set_timer` was given."""

    slot: int
    key: bytes
    due_us: int
    payload: bytes


class Record(msgspec.Struct, frozen=True, gc=False):
    """One record as a handler sees it; `at_us` is log time, monotone per partition."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    at_us: int
    event: Any = None
    timer: Timer | None = None


Handle = Callable[["Context", Sequence[Record]], None]
Headers = Sequence[tuple[str, bytes]]


Reads = Callable[[bytes], "tuple[Collection[Any], int, bytes]"]
"""From a record's key to the collection, slot and key of a value; it may raise."""


@dataclass(frozen=True, slots=True)
class Input:
    """A topic that is read; `decode` turns a value into `Record.event`, raising on bad bytes.

    `on_poison` says what becomes of its poisoned records; None leaves that to the task. `reads`
    names the value that a record with this key will ask for: a hint, so that it is at hand.
    """

    topic: str
    decode: Callable[[bytes], Any] | None = None
    on_poison: OnPoison | None = None
    reads: Reads | None = None


@dataclass(frozen=True)
class Collection(Generic[T]):
    """A named part of the state, keyed by (slot, key). Without functions its values are bytes.

    With `carry` it forgets: it is read by `generations.find`, and what has outlived the task's
    horizon is dropped, but for values that `carry` says are still needed.
    """

    id: int
    name: str
    encode: Callable[[T], bytes] | None = None
    decode: Callable[[bytes], T] | None = None
    carry: Callable[[T], bool] | None = None

    def __post_init__(self) -> None:
        assert 1 <= self.id < keys.ENGINE_FROM, f"collection {self.name}: id {self.id}"
        assert (self.encode is None) == (self.decode is None), f"{self.name}: half a codec"

    @cached_property
    def prefixes(self) -> tuple[bytes, ...]:
        """The first three bytes of its state keys, by slot."""
        return tuple(keys.prefix(slot, self.id) for slot in range(SLOTS))


@dataclass(frozen=True)
class Task:
    """A batch processor over a co-partitioned group of topics; README.md says what each field
    means.
    """

    name: str
    inputs: tuple[Input, ...]
    handle: Handle
    outputs: tuple[str, ...] = ()
    collections: tuple[Collection[Any], ...] = ()
    timers: bool = False
    on_poison: OnPoison = OnPoison.DEAD_LETTER
    horizon_s: int = HORIZON_S

    def __post_init__(self) -> None:
        topics = [each.topic for each in self.inputs]
        ids = [each.id for each in self.collections]
        assert self.horizon_s >= 1, f"task {self.name} forgets at once"
        assert self.inputs, f"task {self.name} reads nothing"
        assert len(set(topics)) == len(topics), f"task {self.name} reads a topic twice"
        assert len(set(ids)) == len(ids), f"task {self.name} uses a collection id twice"

    @property
    def changelog(self) -> str:
        """The topic that its state can be rebuilt from."""
        return f"{self.name}.changelog"

    @property
    def timers_topic(self) -> str:
        """The topic that its timers fire on."""
        return f"{self.name}.timers"

    @cached_property
    def topics(self) -> tuple[str, ...]:
        """Every topic it reads, the order of which breaks ties of time."""
        timers = (self.timers_topic,) if self.timers else ()
        return (*(each.topic for each in self.inputs), *timers)

    @cached_property
    def stops(self) -> frozenset[str]:
        """The topics of which a poisoned record stops the process."""
        policies = {each.topic: each.on_poison or self.on_poison for each in self.inputs}
        policies.setdefault(self.timers_topic, self.on_poison)
        return frozenset(topic for topic in self.topics if policies[topic] is OnPoison.STOP)

    @cached_property
    def dead_letter_topics(self) -> tuple[str, ...]:
        """The topics that take poisoned records, in the order of their sources."""
        return tuple(dead_letter_topic(topic) for topic in self.topics if topic not in self.stops)

    def transactional_id(self, partition: int) -> str:
        """Name the one producer that may write for this partition."""
        return f"{self.name}-{partition}"


def dead_letter_topic(topic: str) -> str:
    """Name the topic that takes what could not be handled from `topic`."""
    return f"{topic}.dlq"
