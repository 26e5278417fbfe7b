"""The sagas' transition tables, and nothing else decides. Pure.

A saga lives from its request to one final state. Every accepted payment claims its identity in the
ledger, the one that risk refused too (`rejecting`), so that the ledger has exactly one outcome for
each and a key that was used once, whatever came of it, can never move money under another body.

What is done to a payment or an account later (capture, void, refund, freeze ...) is an operation
(see `operation`), whose outcome may move the saga. The ledger is the authority for amounts; a
payment's status follows from what it says is left of a hold, or left to pay back. A pair that is
not in the table is a broken invariant.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from schemas.errors import Corrupt, Poisoned


class State(Enum):
    """Where a saga is."""

    # Members are one of each: their identity will do, and costs no call.
    __hash__ = object.__hash__

    POSTING = "posting"
    REJECTING = "rejecting"
    AUTHORIZING = "authorizing"
    AUTHORIZED = "authorized"
    SETTLED = "settled"
    REJECTED = "rejected"
    VOIDED = "voided"
    EXPIRED = "expired"
    PARTIALLY_REFUNDED = "partially_refunded"
    REFUNDED = "refunded"
    OPENING = "opening"
    OPENED = "opened"
    TRANSFERRING = "transferring"
    TRANSFERRED = "transferred"
    PREPARING = "preparing"
    COMMITTING = "committing"
    ABORTING = "aborting"
    TRANSFER_PREPARING = "transfer_preparing"
    TRANSFER_COMMITTING = "transfer_committing"
    TRANSFER_ABORTING = "transfer_aborting"


class Trigger(Enum):
    """What moves a saga; those of the ledger are its event types, told apart by what is left."""

    __hash__ = object.__hash__

    PAYMENT_ALLOWED = "payment.allowed"
    PAYMENT_REFUSED = "payment.refused"
    PAYMENT_TO_HOLD = "payment.to_hold"
    ACCOUNT_REQUESTED = "account.requested"
    TRANSFER_REQUESTED = "transfer.requested"
    TRANSFER_POSTED = "transfer.posted"
    TRANSFER_REJECTED = "transfer.rejected"
    HOLD_PLACED = "hold.placed"
    HOLD_POSTED_PART = "hold.posted, part"
    HOLD_POSTED_REST = "hold.posted, rest"
    HOLD_POSTED_REST_REFUNDED_PART = "hold.posted, rest, refunded in part"
    HOLD_VOIDED = "hold.voided"
    HOLD_VOIDED_REST = "hold.voided, rest"
    HOLD_VOIDED_REFUNDED_PART = "hold.voided, refunded in part"
    HOLD_VOIDED_REFUNDED = "hold.voided, refunded"
    HOLD_EXPIRED = "hold.expired"
    HOLD_EXPIRED_REST = "hold.expired, rest"
    HOLD_EXPIRED_REFUNDED_PART = "hold.expired, refunded in part"
    HOLD_EXPIRED_REFUNDED = "hold.expired, refunded"
    TRANSFER_REVERSED_PART = "transfer.reversed, part"
    TRANSFER_REVERSED_REST = "transfer.reversed, rest"
    HOMES_NAMED = "homes.named"
    HOMES_AGREED = "homes.agreed"
    HOME_REFUSED = "home.refused"
    HOMES_LATE = "homes.late"
    HOMES_COMMITTED = "transfer.committed"
    HOMES_ABORTED = "transfer.aborted"
    ACCOUNT_OPENED = "account.opened"
    ACCOUNT_REJECTED = "account.rejected"


@dataclass(frozen=True, slots=True)
class Transition:
    """What a trigger does: the next state, the event to emit, the command to send."""

    to: State
    event: str | None = None
    command: str | None = None


STATUS: Final = {
    State.POSTING: "accepted",
    State.REJECTING: "accepted",
    State.AUTHORIZING: "accepted",
    State.AUTHORIZED: "authorized",
    State.SETTLED: "settled",
    State.REJECTED: "rejected",
    State.VOIDED: "voided",
    State.EXPIRED: "expired",
    State.PARTIALLY_REFUNDED: "partially_refunded",
    State.REFUNDED: "refunded",
    State.OPENING: "accepted",
    State.OPENED: "active",
    State.TRANSFERRING: "accepted",
    State.TRANSFERRED: "posted",
    State.PREPARING: "accepted",
    State.COMMITTING: "accepted",
    State.ABORTING: "accepted",
    State.TRANSFER_PREPARING: "accepted",
    State.TRANSFER_COMMITTING: "accepted",
    State.TRANSFER_ABORTING: "accepted",
}
"""The status that the outside sees."""

_S, _T = State, Trigger
_LINKED: Final = (  # the same way for payments and for transfers
    (_S.POSTING, _S.PREPARING, _S.COMMITTING, _S.ABORTING, _S.SETTLED, "payment.settled"),
    (
        _S.TRANSFERRING,
        _S.TRANSFER_PREPARING,
        _S.TRANSFER_COMMITTING,
        _S.TRANSFER_ABORTING,
        _S.TRANSFERRED,
        "transfer.posted",
    ),
)

_REFUNDS: Final = {
    _T.TRANSFER_REVERSED_PART: Transition(_S.PARTIALLY_REFUNDED, event="payment.refunded"),
    _T.TRANSFER_REVERSED_REST: Transition(_S.REFUNDED, event="payment.refunded"),
}

TABLE: Final[dict[tuple[State | None, Trigger], Transition]] = {
    (None, _T.PAYMENT_ALLOWED): Transition(_S.POSTING, "payment.accepted", "transfer.post"),
    (None, _T.PAYMENT_REFUSED): Transition(_S.REJECTING, "payment.accepted", "transfer.reject"),
    (None, _T.PAYMENT_TO_HOLD): Transition(_S.AUTHORIZING, "payment.accepted", "hold.place"),
    (None, _T.ACCOUNT_REQUESTED): Transition(_S.OPENING, command="account.open"),
    (None, _T.TRANSFER_REQUESTED): Transition(_S.TRANSFERRING, command="transfer.post"),
    (_S.POSTING, _T.TRANSFER_POSTED): Transition(_S.SETTLED, "payment.settled"),
    (_S.POSTING, _T.TRANSFER_REJECTED): Transition(_S.REJECTED, "payment.rejected"),
    (_S.REJECTING, _T.TRANSFER_REJECTED): Transition(_S.REJECTED, "payment.rejected"),
    (_S.AUTHORIZING, _T.HOLD_PLACED): Transition(_S.AUTHORIZED, "payment.authorized"),
    (_S.AUTHORIZING, _T.TRANSFER_REJECTED): Transition(_S.REJECTED, "payment.rejected"),
    (_S.AUTHORIZED, _T.HOLD_POSTED_PART): Transition(_S.AUTHORIZED, "payment.captured"),
    (_S.AUTHORIZED, _T.HOLD_POSTED_REST): Transition(_S.SETTLED, "payment.settled"),
    (_S.AUTHORIZED, _T.HOLD_POSTED_REST_REFUNDED_PART): Transition(
        _S.PARTIALLY_REFUNDED, "payment.settled"
    ),
    (_S.AUTHORIZED, _T.HOLD_VOIDED): Transition(_S.VOIDED, "payment.voided"),
    (_S.AUTHORIZED, _T.HOLD_VOIDED_REST): Transition(_S.SETTLED, "payment.settled"),
    (_S.AUTHORIZED, _T.HOLD_EXPIRED): Transition(_S.EXPIRED, "payment.expired"),
    (_S.AUTHORIZED, _T.HOLD_EXPIRED_REST): Transition(_S.SETTLED, "payment.settled"),
    **{
        (_S.AUTHORIZED, trigger): Transition(to, "payment.settled")
        for trigger, to in (
            (_T.HOLD_VOIDED_REFUNDED_PART, _S.PARTIALLY_REFUNDED),
            (_T.HOLD_VOIDED_REFUNDED, _S.REFUNDED),
            (_T.HOLD_EXPIRED_REFUNDED_PART, _S.PARTIALLY_REFUNDED),
            (_T.HOLD_EXPIRED_REFUNDED, _S.REFUNDED),
        )
    },
    (_S.AUTHORIZED, _T.TRANSFER_REVERSED_PART): Transition(_S.AUTHORIZED, "payment.refunded"),
    (_S.AUTHORIZED, _T.TRANSFER_REVERSED_REST): Transition(_S.AUTHORIZED, "payment.refunded"),
    **{
        (state, trigger): transition
        for state in (_S.SETTLED, _S.PARTIALLY_REFUNDED)
        for trigger, transition in _REFUNDS.items()
    },
    (_S.OPENING, _T.ACCOUNT_OPENED): Transition(_S.OPENED, "account.opened"),
    (_S.OPENING, _T.ACCOUNT_REJECTED): Transition(_S.REJECTED, "account.rejected"),
    (_S.TRANSFERRING, _T.TRANSFER_POSTED): Transition(_S.TRANSFERRED, "transfer.posted"),
    (_S.TRANSFERRING, _T.TRANSFER_REJECTED): Transition(_S.REJECTED, "transfer.rejected"),
    # What is only tried at several homes ends without a commit or an abort.
    (_S.TRANSFER_PREPARING, _T.TRANSFER_POSTED): Transition(_S.TRANSFERRED, "transfer.posted"),
    (_S.TRANSFER_PREPARING, _T.TRANSFER_REJECTED): Transition(_S.REJECTED, "transfer.rejected"),
    **{
        pair: transition
        for begun, preparing, committing, aborting, done, event in _LINKED
        for pair, transition in (
            ((begun, _T.HOMES_NAMED), Transition(preparing, command="transfer.prepare")),
            ((preparing, _T.HOMES_AGREED), Transition(committing, command="transfer.commit")),
            ((preparing, _T.HOME_REFUSED), Transition(aborting, command="transfer.abort")),
            ((preparing, _T.HOMES_LATE), Transition(aborting, command="transfer.abort")),
            ((committing, _T.HOMES_COMMITTED), Transition(done, event)),
            (
                (aborting, _T.HOMES_ABORTED),
                Transition(_S.REJECTED, f"{event.partition('.')[0]}.rejected"),
            ),
        )
    },
}

PENDING: Final = frozenset(
    {State.POSTING, State.REJECTING, State.AUTHORIZING, State.OPENING, State.TRANSFERRING}
    | {state for begun in _LINKED for state in begun[1:4]}
)
"""States that wait for the ledger; in all others a request for the resource is answered at once."""


_DIRECT: Final = {
    trigger.value: trigger
    for trigger in (
        Trigger.TRANSFER_POSTED,
        Trigger.TRANSFER_REJECTED,
        Trigger.HOLD_PLACED,
        Trigger.HOMES_COMMITTED,
        Trigger.HOMES_ABORTED,
        Trigger.ACCOUNT_OPENED,
        Trigger.ACCOUNT_REJECTED,
    )
}
"""Event types of the ledger that are a trigger as they stand, whatever is left."""

_ENDS: Final = ("", ", rest", ", refunded in part", ", refunded")
"""How a hold's end is told: nothing captured; some; of which some was paid back; or all."""
_VOIDED: Final = tuple(Trigger(f"hold.voided{end}") for end in _ENDS)
_EXPIRED: Final = tuple(Trigger(f"hold.expired{end}") for end in _ENDS)

REFUSALS: Final = frozenset({"transfer.rejected", "hold.rejected", "account.rejected"})
"""The ledger's event types that refuse."""


def step(state: State | None, trigger: Trigger) -> Transition:
    """Return what `trigger` does in `state`; Corrupt for a pair that can't happen."""
    transition = TABLE.get((state, trigger))
    if transition is None:
        raise Corrupt(f"no saga in state {state and state.value} takes {trigger.value}")
    return transition


def trigger_of(
    event_type: str,
    *,
    remaining_minor: int | None,
    captured_minor: int,
    refunded_minor: int = 0,
    expired: bool,
) -> Trigger | None:
    """Read the ledger's answer as a trigger; None where it moves no saga (an account's flags).

    `remaining_minor` is what the event says is left of a hold, or left to pay back.
    """
    direct = _DIRECT.get(event_type)
    if direct is not None:
        return direct
    left = remaining_minor or 0
    match event_type:
        case "hold.posted":
            if refunded_minor and not left:
                return Trigger.HOLD_POSTED_REST_REFUNDED_PART
            return Trigger.HOLD_POSTED_PART if left else Trigger.HOLD_POSTED_REST
        case "hold.voided":
            ends = _EXPIRED if expired else _VOIDED
            if not captured_minor:
                return ends[0]
            return ends[3 if refunded_minor >= captured_minor else 2 if refunded_minor else 1]
        case "transfer.reversed":
            return Trigger.TRANSFER_REVERSED_PART if left else Trigger.TRANSFER_REVERSED_REST
        case "hold.rejected":
            return Trigger.TRANSFER_REJECTED
        case "account.frozen" | "account.unfrozen" | "account.closed":
            return None
    raise Poisoned(f"the ledger's event type {event_type!r} is not known")


def diagram() -> str:
    """Draw the table as a Mermaid state diagram; the documentation holds its output."""
    lines = ["stateDiagram-v2"]
    for (state, trigger), transition in TABLE.items():
        start = state.value if state else "[*]"
        lines.append(f"    {start} --> {transition.to.value}: {trigger.value}")
    return "\n".join(lines)
