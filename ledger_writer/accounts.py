"""What opening an account makes of a draft, and where an account is at home. Pure."""

from __future__ import annotations

from typing import Final

from ledger_writer.model import BALANCE_MINOR_MAX, Account, AccountDraft
from schemas.ids import partition_of, slot_of

PARTITION_BITS: Final = 10
"""An account's number is the position of its opening row and, in the low bits, its partition."""


def account_of(partition: int, position: int, tenant: str, draft: AccountDraft) -> Account:
    """Return the account that the row at `position` opens; the audit derives the same."""
    floor = draft.min_balance_minor
    return Account(
        position << PARTITION_BITS | partition,
        draft.account_id,
        tenant,
        draft.currency,
        draft.kind,
        draft.name,
        0 if floor is None and draft.kind == "customer" else floor,
        draft.max_balance_minor,
        partition,
    )


def home_of(account_id: str, partitions: int) -> int:
    """Return the partition that alone may debit this account if it is guarded."""
    return partition_of(slot_of(account_id), partitions)


def limits_fit(draft: AccountDraft) -> bool:
    """A new account holds zero, so zero must lie within its limits; an unguarded one has none."""
    low, high = draft.min_balance_minor, draft.max_balance_minor
    if draft.kind != "customer":
        return low is None and high is None
    return (low is None or -BALANCE_MINOR_MAX <= low <= 0) and (
        high is None or 0 <= high <= BALANCE_MINOR_MAX
    )
