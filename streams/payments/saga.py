"""The sagas' transition tables, and nothing else decides. Pure.

A saga lives from its request to one final state. Every accepted payment claims its identity in the
ledger, the one that risk refused too (`rejecting`), so that the ledger has exactly one outcome for
each and a key that was used once, whatever came of it, can never move money under another body. A
pair that is not in the table is a broken invariant. The ledger repeating an outcome that was
applied changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from schemas.errors import Corrupt


class State(Enum):
    """Where a saga is. The last three are final."""

    POSTING = "posting"
    REJECTING = "rejecting"
    OPENING = "opening"
    SETTLED = "settled"
    REJECTED = "rejected"
    OPENED = "opened"


class Trigger(Enum):
    """What moves a saga; the ledger's answers carry its event types as values."""

    PAYMENT_ALLOWED = "payment.allowed"
    PAYMENT_REFUSED = "payment.refused"
    ACCOUNT_REQUESTED = "account.requested"
    TRANSFER_POSTED = "transfer.posted"
    TRANSFER_REJECTED = "transfer.rejected"
    ACCOUNT_OPENED = "account.opened"
    ACCOUNT_REJECTED = "account.rejected"


@dataclass(frozen=True, slots=True)
class Transition:
    """What a trigger does: the next state, the event to emit, the command to send."""

    to: State
    event: str | None = None
    command: str | None = None


FINAL: Final = frozenset({State.SETTLED, State.REJECTED, State.OPENED})

STATUS: Final = {
    State.POSTING: "accepted",
    State.REJECTING: "accepted",
    State.OPENING: "accepted",
    State.SETTLED: "settled",
    State.REJECTED: "rejected",
    State.OPENED: "active",
}
"""The status that the outside sees."""

TABLE: Final[dict[tuple[State | None, Trigger], Transition]] = {
    (None, Trigger.PAYMENT_ALLOWED): Transition(
        State.POSTING, event="payment.accepted", command="transfer.post"
    ),
    (None, Trigger.PAYMENT_REFUSED): Transition(
        State.REJECTING, event="payment.accepted", command="transfer.reject"
    ),
    (None, Trigger.ACCOUNT_REQUESTED): Transition(State.OPENING, command="account.open"),
    (State.POSTING, Trigger.TRANSFER_POSTED): Transition(State.SETTLED, event="payment.settled"),
    (State.POSTING, Trigger.TRANSFER_REJECTED): Transition(
        State.REJECTED, event="payment.rejected"
    ),
    (State.REJECTING, Trigger.TRANSFER_REJECTED): Transition(
        State.REJECTED, event="payment.rejected"
    ),
    (State.OPENING, Trigger.ACCOUNT_OPENED): Transition(State.OPENED, event="account.opened"),
    (State.OPENING, Trigger.ACCOUNT_REJECTED): Transition(State.REJECTED, event="account.rejected"),
}


def step(state: State | None, trigger: Trigger) -> Transition | None:
    """Return what `trigger` does in `state`; None where the saga is over and nothing is left to do.

    Raises Corrupt for a pair that can't happen.
    """
    if state in FINAL:
        return None
    transition = TABLE.get((state, trigger))
    if transition is None:
        raise Corrupt(f"no saga in state {state and state.value} takes {trigger.value}")
    return transition


def diagram() -> str:
    """Draw the table as a Mermaid state diagram; the documentation holds its output."""
    lines = ["stateDiagram-v2"]
    for (state, trigger), transition in TABLE.items():
        start = state.value if state else "[*]"
        lines.append(f"    {start} --> {transition.to.value}: {trigger.value}")
    lines += [f"    {state.value} --> [*]" for state in State if state in FINAL]
    return "\n".join(lines)
