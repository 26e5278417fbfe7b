"""What a record of `ledger.commands` means, and what the event that answers it must say. Pure.

Written from what the ledger promises, not from its code: the checker of the drills knows a command
by these rules alone. The chain hash and the sentence for people are left to others.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from schemas import ids
from schemas.errors import Poisoned
from schemas.money import AMOUNT_MINOR_MAX
from schemas.wire import decode

Record = dict[str, Any]
Place = tuple[int, int]
"""Partition and position."""

COMMANDS: Final = "ledger.commands"
BEGINNINGS: Final = {
    "transfer.post": "post", "transfer.reject": "reject", "hold.place": "place",
    "account.open": "open",
}  # fmt: skip
"""What begins a saga, under which step."""
FLAGS: Final = ("account.freeze", "account.unfreeze", "account.close")
LINKED: Final = ("transfer.prepare", "transfer.commit", "transfer.abort")
"""What each home is asked that must agree, on a transfer or on a reversal."""
STEPPED: Final = ("prepare-", "commit-", "abort-")
"""What the steps of those begin with, and no others do."""
KINDS: Final = {*BEGINNINGS, *FLAGS, *LINKED, "hold.post", "hold.void", "transfer.reverse"}
LEGS_MAX: Final = 64
HASH_CHARACTERS: Final = 64
TOLD_BY_OTHERS: Final = ("chain_hash", "detail")
RARE: Final[Record] = {
    "account_id": None, "currency": None, "account_kind": None, "account_name": None,
    "min_balance_minor": None, "max_balance_minor": None, "reference": None, "metadata": {},
    "hold_id": None, "amount_minor": None, "remaining_minor": None, "expires_at_us": None,
    "original_id": None, "original_leg": None, "dry_run": False, "reservation_id": None,
    "debits_frozen": None, "credits_frozen": None, "closed": None, "parts": [], "leg_indexes": [],
    "legs_total": None, "legs": [], "original_legs": [],
}  # fmt: skip
"""What most events leave empty."""


@dataclass(frozen=True, slots=True)
class Move:
    """One entry: by how much an account's share changes, and what is held of it."""

    account_id: str
    amount_minor: int
    held_minor: int = 0


@dataclass(slots=True)
class Outcome:
    """What a command must come to; `rare` are the fields that few events have."""

    type: str
    reason: str | None = None
    failed_leg: int | None = None
    moves: tuple[Move, ...] = ()
    rare: Record = field(default_factory=dict)


def meaning(value: bytes) -> Record | None:
    """Return the command, or None when it has no meaning and must be dead-lettered."""
    try:
        record = decode(COMMANDS, value)
    except Poisoned:
        return None
    return record if _routed(record) and _whole(record) else None


def _routed(record: Record) -> bool:
    home, kind, step = record["home_account"], record["type"], record["step"]
    if kind not in KINDS or not ids.is_account_id(home) or ids.slot_of(home) != record["slot"]:
        return False
    expected = BEGINNINGS.get(kind)
    right_step = step == expected if expected else step not in BEGINNINGS.values()
    of_home: bool = step.startswith(STEPPED)
    return right_step and of_home == (kind in LINKED) and record["attempt"] >= 1


def _whole(record: Record) -> bool:
    kind = record["type"]
    names = [record[name] for name in ("saga_id", "step", "tenant", "identity")]
    texts = [*names, record["transfer_id"] or "", record["reason"] or ""]
    digits = record["body_hash"]
    if not all(names) or "\0" in "".join(texts) or len(digits) != HASH_CHARACTERS:
        return False
    if not set(digits) <= set("0123456789abcdef"):
        return False
    amounts = [leg["amount_minor"] for leg in record["legs"]]
    if record["amount_minor"] is not None:
        amounts.append(record["amount_minor"])
    if not all(1 <= amount <= AMOUNT_MINOR_MAX for amount in amounts):
        return False
    legs = len(record["legs"])
    if kind in LINKED:
        named = ids.is_payment_id(record["saga_id"]) or ids.is_transfer_id(record["saga_id"])
        own = record["saga_id"].endswith(record["identity"])
        if record["original_id"]:
            chosen = {leg for leg in record["original_legs"] if 0 <= leg < LEGS_MAX}
            own = len(chosen) == legs == len(record["original_legs"])
        told = kind != "transfer.abort" or bool(record["reason"])
        return named and own and told and 1 <= legs <= LEGS_MAX
    return {
        "transfer.post": 1 <= legs <= LEGS_MAX,
        "hold.place": legs == 1,
        "transfer.reject": bool(record["reason"]),
    }.get(kind, True)


def event(record: Record, at: Place, offset: int, booked_at_us: int, told: Record) -> Record:
    """Return what is told of a command at this place; `told` is what it came to."""
    partition, position = at
    return {
        "event_id": ids.event_id(COMMANDS, partition, offset, 0),
        "command_id": ids.command_id(record["saga_id"], record["step"], record["attempt"]),
        **{name: record[name] for name in ("saga_id", "tenant", "identity", "body_hash")},
        "slot": record["slot"],
        "home_account": record["home_account"],
        "ledger_partition": partition,
        "position": position,
        "command_offset": offset,
        "booked_at_us": booked_at_us,
        **told,
    }


def told_of(record: Record, outcome: Outcome, booked_at_us: int, entries: list[Record]) -> Record:
    """Return what the outcome adds to an event, also to those of its repeats."""
    effective = record["effective_at_us"]
    return {
        "type": outcome.type,
        "transfer_id": record["transfer_id"] or None,
        "reason": outcome.reason,
        "failed_leg": outcome.failed_leg,
        "effective_at_us": booked_at_us if effective is None else effective,
        "entries": entries,
        **RARE,
        **_asked(record),
        **outcome.rare,
    }


def _asked(record: Record) -> Record:
    """Return what an event repeats of its command, whatever became of it."""
    kind = record["type"]
    asked = {name: record[name] for name in ("reference", "metadata", "dry_run")}
    if kind == "account.open":
        names = [name for name in RARE if name.startswith(("account_", "m", "currency"))]
        asked |= {name: record[name] for name in names}
    if kind.startswith("hold."):
        asked["hold_id"] = record["hold_id"]
    if kind == "transfer.reverse":
        asked |= {name: record[name] for name in ("original_id", "original_leg")}
    if kind in LINKED:
        asked["original_id"] = record["original_id"] or None
    if kind in FLAGS:
        asked["account_id"] = record["account_id"]
    return asked


def claim(record: Record) -> str:
    """Return what this command must be the first to use, over all partitions."""
    identity: str = record["identity"]
    further = record["type"] not in BEGINNINGS
    if record["type"] in LINKED or (further and record["saga_id"].endswith(identity)):
        return f"{identity}/{record['step']}/{record['attempt']}"
    return identity


def agreed_on(record: Record) -> str:
    """Name what homes agree on, of a command or an event: a transfer, or one reversal."""
    if record["original_id"]:
        return f"{record['saga_id']}/{record['identity']}"
    saga_id: str = record["saga_id"]
    return saga_id


def rejected(kind: str) -> str:
    """Return the type of event that says no to this command."""
    return f"{kind.partition('.')[0]}.rejected"
