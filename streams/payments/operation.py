"""What is done to a payment or an account later: how an operation goes, and what it sends. Pure.

An operation (capture, void, refund, freeze ...) has a key of its own. It is pending until the
ledger has answered, then applied or refused. Of a reversal that several homes must agree on, all
prepare in between, and then commit or abort.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from schemas.errors import Corrupt
from streams.payments.saga import Trigger


class OperationState(Enum):
    """Where an operation is."""

    PENDING = "pending"
    PREPARING = "preparing"
    COMMITTING = "committing"
    ABORTING = "aborting"
    APPLIED = "applied"
    REFUSED = "refused"


_S = OperationState

HOMES: Final[dict[tuple[OperationState, Trigger], tuple[OperationState, str]]] = {
    (_S.PENDING, Trigger.HOMES_NAMED): (_S.PREPARING, "transfer.prepare"),
    (_S.PREPARING, Trigger.HOMES_AGREED): (_S.COMMITTING, "transfer.commit"),
    (_S.PREPARING, Trigger.HOME_REFUSED): (_S.ABORTING, "transfer.abort"),
    (_S.PREPARING, Trigger.HOMES_LATE): (_S.ABORTING, "transfer.abort"),
}
"""How a reversal goes that several homes must agree on, and what each of them is sent."""

UNDER_WAY: Final = frozenset({_S.PENDING} | {state for state, _ in HOMES.values()})
"""States that wait for the ledger."""

OPERATIONS: Final[dict[str, str]] = {
    "payment.capture": "hold.post",
    "payment.void": "hold.void",
    "payment.refund": "transfer.reverse",
    "transfer.reverse": "transfer.reverse",
    "account.freeze": "account.freeze",
    "account.unfreeze": "account.unfreeze",
    "account.close": "account.close",
}
"""Which command an operation sends."""


def step(state: OperationState, trigger: Trigger) -> tuple[OperationState, str]:
    """Return where an operation goes and what it sends; Corrupt for a pair that can't happen."""
    found = HOMES.get((state, trigger))
    if found is None:
        raise Corrupt(f"no operation in state {state.value} takes {trigger.value}")
    return found
