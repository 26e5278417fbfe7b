"""The ledger's words: accounts, standings, commands, rows and entries. Values only, no behavior.

A `Row` is one decided command: the journal's unit, the event's only source, and what the hash
chain runs over. A `Standing` is what one partition knows of one account: its own share exactly,
the other partitions' shares as of the last look. Money is integer minor units throughout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final

import msgspec

from ledger_writer.operations import (
    Flagged,
    FlagsAsk,
    Hold,
    HoldAsk,
    Known,
    Link,
    Reversal,
    ReversalAsk,
    Room,
)

LEGS_MAX: Final = 64
"""Legs of one transfer, all or nothing."""

BALANCE_MINOR_MAX: Final = 10**18
"""Bound of one share's balance either way: a thousand movements of the largest amount."""

GENESIS: Final = bytes(32)
"""The chain's hash before a partition's first row."""

POSTED: Final = "transfer.posted"
REVERSED: Final = "transfer.reversed"
TRANSFER_REJECTED: Final = "transfer.rejected"
PREPARED: Final = "transfer.prepared"
COMMITTED: Final = "transfer.committed"
ABORTED: Final = "transfer.aborted"
HOLD_PLACED: Final = "hold.placed"
HOLD_POSTED: Final = "hold.posted"
HOLD_VOIDED: Final = "hold.voided"
HOLD_REJECTED: Final = "hold.rejected"
OPENED: Final = "account.opened"
FROZEN: Final = "account.frozen"
UNFROZEN: Final = "account.unfrozen"
CLOSED: Final = "account.closed"
ACCOUNT_REJECTED: Final = "account.rejected"
ARCHIVED: Final = "archived"
"""Of a row that was detached: all that is known of it is its place. Never written."""


class Account(msgspec.Struct, frozen=True, gc=False):
    """An account as it was opened, with what may be done to it now.

    `min_balance_minor` bounds posted - held from below, `max_balance_minor` bounds posted from
    above; None means unbounded. `home` is the partition that alone may debit it if it is guarded.
    """

    account_no: int
    account_id: str
    tenant: str
    currency: str
    kind: str
    name: str | None
    min_balance_minor: int | None
    max_balance_minor: int | None
    home: int
    debits_frozen: bool = False
    credits_frozen: bool = False
    closed: bool = False

    @property
    def guarded(self) -> bool:
        """Tell whether only the home partition may debit it."""
        return self.kind == "customer"


class Standing(msgspec.Struct, gc=False):
    """One partition's knowledge of one account: its share, and the sum of the others' shares.

    `foreign_minor` may be older than the truth, but others' shares of a guarded account only
    grow, so it never overstates. `stored_version` is the version that the share's row has, None
    when it has no row yet. `promised_minor` counts at a capped account's home alone: see `Room`.
    """

    account: Account
    posted_minor: int
    held_minor: int
    version: int
    foreign_minor: int
    stored_version: int | None
    promised_minor: int = 0


class Leg(msgspec.Struct, frozen=True, gc=False):
    """One movement of a transfer."""

    source: str
    destination: str
    amount_minor: int
    currency: str


class AccountDraft(msgspec.Struct, frozen=True, gc=False):
    """The account that an account.open asks for."""

    account_id: str
    currency: str
    kind: str
    name: str | None
    min_balance_minor: int | None
    max_balance_minor: int | None


class Command(msgspec.Struct, frozen=True, gc=False):
    """One record of `ledger.commands` that means something, with its place and time in the log."""

    type: str
    offset: int
    recorded_at_us: int
    saga_id: str
    step: str
    attempt: int
    tenant: str
    identity: str
    body_hash: bytes
    slot: int
    home_account: str
    transfer_id: str | None
    legs: tuple[Leg, ...]
    effective_at_us: int | None
    reason: str | None
    draft: AccountDraft | None
    reference: str | None
    metadata: dict[str, str]
    dry_run: bool = False
    hold: HoldAsk | None = None
    reversal: ReversalAsk | None = None
    flags: FlagsAsk | None = None
    failed_leg: int | None = None


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One side of a movement: the change of a share, and the share after it.

    The share is that of the row's partition. `amount_minor` is signed: credits above zero, and
    zero where only what is held changed.
    """

    account_no: int
    account_id: str
    currency: str
    version: int
    amount_minor: int
    posted_minor: int
    held_minor: int


class Row(msgspec.Struct, frozen=True, gc=False):
    """One decided command. `repeats` is the first outcome that this row repeats, if it does.

    `reason` is that of a refusal, and None of all else. `extra` is canonical JSON (sorted keys) of
    what few rows have: reference, metadata, account, hold, reversal, linked, dry_run.
    """

    partition: int
    position: int
    command_offset: int
    booked_at_us: int
    effective_at_us: int
    type: str
    tenant: str
    saga_id: str
    step: str
    attempt: int
    identity: str
    body_hash: bytes
    home_account: str
    transfer_id: str | None
    reason: str | None
    failed_leg: int | None
    repeats: Row | None
    extra: str | None
    entries: tuple[Entry, ...]
    chain_hash: bytes

    def extras(self) -> dict[str, Any]:
        """Return `extra`, parsed."""
        found = msgspec.json.decode(self.extra) if self.extra else {}
        assert isinstance(found, dict)
        return found


class Claim(msgspec.Struct, frozen=True, gc=False):
    """The first command to use a key has it for ever; `position` is that command's row."""

    key: bytes
    position: int


class Fence(msgspec.Struct, frozen=True, gc=False):
    """A partition's state at its last commit; whoever holds the newest `epoch` may commit next.

    `accounts_version` rises whenever any account's flags change: a writer whose number is old
    must look at its accounts again before it may commit.
    """

    partition: int
    epoch: int
    next_offset: int
    log_time_us: int
    next_position: int
    chain_hash: bytes
    published_position: int
    poisoned: int
    accounts_version: int


class View(msgspec.Struct, frozen=True):
    """All that a decision may rest on.

    `standings` holds every account the commands name that exists; `claims` the first rows of keys
    known to be taken; `fresh` the accounts whose foreign shares were read for this very batch.
    """

    partition: int
    partitions: int
    next_position: int
    log_time_us: int
    chain_hash: bytes
    standings: Mapping[str, Standing]
    claims: Mapping[bytes, Row]
    fresh: AbstractSet[str]
    known: Known = Known()


class Decision(msgspec.Struct, frozen=True):
    """What follows from a batch. `doubted` accounts were refused on foreign shares that may be old:

    look at them again, and decide again if they grew, before committing this.
    """

    rows: list[Row]
    claims: list[Claim]
    opened: list[Account]
    changed: list[Standing]
    doubted: AbstractSet[str]
    next_position: int
    log_time_us: int
    chain_hash: bytes
    holds: Sequence[Hold] = ()
    reversals: Sequence[Reversal] = ()
    flagged: Sequence[Flagged] = ()
    links: Sequence[Link] = ()
    rooms: Sequence[Room] = ()

    @property
    def rare(self) -> bool:
        """Tell whether it changes more than rows, claims, accounts opened and shares."""
        return bool(self.holds or self.reversals or self.flagged or self.links)
