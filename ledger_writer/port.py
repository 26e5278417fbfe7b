"""What the writer needs of the world: a journal that commits behind a fence, and a log.

The real ones are `postgres` and `kafka`; `memory` has both for tests and simulation, and the same
contract tests run against each. Errors: Unavailable when it may work later (the outcome of a
commit is then unknown), Fenced when another writer has the partition, Corrupt when what is stored
contradicts what the writer knows.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Protocol

import msgspec

from ledger_writer.model import Fence, Row, Standing
from ledger_writer.operations import Elsewhere, Hold, LegPlace, Link, LinkKey

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractAsyncContextManager

    from ledger_writer.model import Decision


class Record(msgspec.Struct, frozen=True, gc=False):
    """One committed record of `ledger.commands`; without a value it is poison."""

    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


class Event(msgspec.Struct, frozen=True, gc=False):
    """One record for `ledger.events`. `traceparent` is best effort: it is not in the journal."""

    key: bytes
    value: bytes
    traceparent: bytes | None


class Verdict(Enum):
    """What became of a commit that was decided; nothing was written but for COMMITTED."""

    COMMITTED = "committed"
    TAKEN = "taken"
    """A key or account of the batch was claimed by another writer meanwhile."""
    STALE = "stale"
    """Flags of some account changed: look at accounts again."""
    GROWN = "grown"
    """Another partition's share of an account to be closed changed: look at it again."""


class Journal(Protocol):
    """One connection to the ledger's tables, used by one partition."""

    async def acquire(self, partition: int, held_epoch: int | None) -> Fence:
        """Raise the epoch and return the fence: from now on no older holder can commit.

        With `held_epoch`, only if that is still the newest; else Fenced.
        """

    async def fence(self, partition: int) -> Fence:
        """Return the fence as it is, without taking it."""

    async def standings(self, partition: int, account_ids: Sequence[str]) -> dict[str, Standing]:
        """Return what is known of those of these accounts that exist, shares included."""

    async def foreign(self, partition: int, account_ids: Sequence[str]) -> dict[str, int]:
        """Return the sum of the other partitions' shares of these accounts, as it is now."""

    async def first_rows(self, keys: Sequence[bytes]) -> dict[bytes, Row]:
        """Return the rows that claimed those of these keys that are claimed."""

    async def holds(self, hold_ids: Sequence[str]) -> dict[str, Hold]:
        """Return those of these holds that exist, of all partitions, as they are now."""

    async def reversals(self, places: Sequence[tuple[int, int]]) -> dict[LegPlace, int]:
        """Return how much was paid back of each leg of the rows at these places, where any was."""

    async def links(self, link_ids: Sequence[str]) -> dict[LinkKey, Link]:
        """Return those of these links that exist, of all partitions, as they are now."""

    async def elsewhere(self, partition: int, account_ids: Sequence[str]) -> dict[str, Elsewhere]:
        """Return what other partitions have of these accounts, and links are about to credit."""

    async def rows(self, partition: int, first: int, count: int) -> list[Row]:
        """Return rows in order of position, from `first` on."""

    async def commit(self, before: Fence, after: Fence, decision: Decision) -> Verdict:
        """Write the decision and move the fence from `before` to `after`, or write nothing."""


class Log(Protocol):
    """One partition's records in and events out."""

    @property
    def position(self) -> int:
        """The next offset to be taken; transaction markers put it beyond the last record's."""

    @property
    def lag(self) -> int:
        """How far the log is ahead of what was taken, as of the last fetch."""

    async def take(self, records_max: int) -> list[Record]:
        """Return the next records, in order; none after a bounded wait."""

    async def bury(self, dead: Sequence[tuple[Record, str]]) -> None:
        """Dead-letter records with the reason; returns when they are durable."""

    async def publish(self, events: Sequence[Event]) -> None:
        """Append events in order; returns when all are durable."""

    async def published_position(self) -> int:
        """Return the highest position that the tail of `ledger.events` shows, 0 if none."""


class Journals(Protocol):
    """Opens journals."""

    def open(self) -> AbstractAsyncContextManager[Journal]:
        """Connect."""


class Logs(Protocol):
    """Opens logs."""

    def open(self, partition: int, next_offset: int) -> AbstractAsyncContextManager[Log]:
        """Connect, to take from `next_offset` on; Corrupt when the log has it no longer."""
