"""What is done to a payment or an account once it is there: holds, reversals, flags. Values only.

The asks are parts of commands, the rest is what partitions keep of them beside balances. Each
partition keeps the holds that it placed, and how much it paid back of which leg; an account's flags
are changed at its home, and a change counts for every partition from its commit on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from ledger_writer.model import Account, Row

OPEN: Final = "open"
POSTED: Final = "posted"
VOIDED: Final = "voided"
EXPIRED: Final = "expired"
"""States of a hold."""


class Hold(msgspec.Struct, frozen=True, gc=False):
    """Part of a source's balance set aside for a destination, by the partition that placed it.

    `amount_minor` is what was held at first: captured, released and remaining add up to it.
    `state` is `open` while anything remains, then how the last of it went: `posted`, `voided` or
    `expired`. `stored_minor` is what remains by its row, None when it has no row yet.
    """

    hold_id: str
    partition: int
    source: str
    destination: str
    currency: str
    amount_minor: int
    remaining_minor: int
    captured_minor: int
    expires_at_us: int | None
    state: str
    stored_minor: int | None


class HoldAsk(msgspec.Struct, frozen=True, gc=False):
    """What a hold.place, hold.post or hold.void asks for.

    `amount_minor` None: all that is left. `reason` of a void: `voided` or `expired`.
    """

    hold_id: str
    amount_minor: int | None
    expires_at_us: int | None
    reason: str | None


class ReversalAsk(msgspec.Struct, frozen=True, gc=False):
    """What a transfer.reverse asks for: `leg` None: the whole; `amount_minor` None: all left.

    `legs`, of one home's part of it: the original's leg that each leg of the command pays back.
    """

    original_id: str
    leg: int | None
    amount_minor: int | None
    legs: tuple[int, ...] = ()


class FlagsAsk(msgspec.Struct, frozen=True, gc=False):
    """Which account a freeze, unfreeze or close concerns, and which directions."""

    account_id: str
    debits: bool
    credits: bool


DEBIT: Final = "debit"
CREDIT: Final = "credit"
"""What a partition has agreed to of a leg: that its source pays, that its payee has the room."""

COMMITTED: Final = "committed"
ABORTED: Final = "aborted"
"""How a link ends; it is `open` until then."""

LinkKey = tuple[str, str]
"""Id of a link (what is agreed on, see `linked.agreement`, and the index of the leg), and `debit`
or `credit`."""


class Link(msgspec.Struct, frozen=True, gc=False):
    """What one partition has agreed to, of a leg of a transfer that several must agree on.

    A `debit` holds the amount at the source until it moves or is given back; a `credit` keeps that
    much room under the payee's cap. `stored` tells whether it has a row yet, which is then `open`.
    """

    link_id: str
    kind: str
    partition: int
    source: str
    destination: str
    currency: str
    amount_minor: int
    state: str
    stored: bool


class Room(msgspec.Struct, frozen=True, gc=False):
    """How much of a capped account's room is promised to credits that are not posted at its home.

    Some of it is given up again; what another partition has credited stays promised for ever.
    `stored_minor` is what its row says, 0 when it has none.
    """

    account_id: str
    account_no: int
    promised_minor: int
    stored_minor: int


LegPlace = tuple[int, int, int]
"""Partition and position of a transfer's row, and the index of a leg."""


class Reversal(msgspec.Struct, frozen=True, gc=False):
    """How much of one leg was paid back so far; `stored_minor` 0 when it has no row yet."""

    place: LegPlace
    reversed_minor: int
    stored_minor: int


class Elsewhere(msgspec.Struct, frozen=True, gc=False):
    """The sums of the other partitions' shares of one account.

    `incoming_minor` is what open links of all partitions are about to credit to it.
    """

    posted_minor: int
    held_minor: int
    incoming_minor: int = 0


class Flagged(msgspec.Struct, frozen=True, gc=False):
    """An account with its flags as they are now; `elsewhere` is what a closing rests on."""

    account: Account
    elsewhere: Elsewhere | None


class Known(msgspec.Struct, frozen=True):
    """What the rarer commands of a batch rest on, as it was read for this very batch.

    `holds` by id, of all partitions; `originals` by the key of the identity to pay back;
    `reversed_minor` by the original's place and leg; `elsewhere`: what the other partitions' shares
    of an account to be closed come to; `links`: those of transfers to prepare, commit, abort or pay
    back.
    """

    holds: Mapping[str, Hold] = {}
    originals: Mapping[bytes, Row] = {}
    reversed_minor: Mapping[LegPlace, int] = {}
    elsewhere: Mapping[str, Elsewhere] = {}
    links: Mapping[LinkKey, Link] = {}
