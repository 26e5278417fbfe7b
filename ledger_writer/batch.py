"""What `ledger.commit_batch` is called with: the fence before and after, and the decision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from ledger_writer.model import Account, Decision, Fence, Standing
    from ledger_writer.operations import Flagged, Hold, Link, Reversal, Room

ARGUMENTS: Final = 22
RARE_ARGUMENTS: Final = 28
"""How many arguments it takes, without and with what few batches change."""
RESTS_ON_NOTHING: Final = -1
"""In the place of what is on its way to an account, where only its closing rests on that."""


def arguments(before: Fence, after: Fence, decision: Decision) -> tuple[Any, ...]:
    """Return the arguments in order; keys rise, so that writers never wait in a circle."""
    claims = sorted(decision.claims, key=lambda claim: claim.key)
    fresh = [standing for standing in decision.changed if standing.stored_version is None]
    known = [standing for standing in decision.changed if standing.stored_version is not None]
    return (
        before.partition,
        before.epoch,
        before.next_offset,
        before.next_position,
        before.accounts_version,
        after.next_offset,
        after.next_position,
        after.log_time_us,
        after.chain_hash,
        after.published_position,
        after.poisoned,
        [claim.key for claim in claims],
        [claim.position for claim in claims],
        decision.rows,
        [_new_account(account) for account in decision.opened],
        [_new_share(standing, before.partition) for standing in fresh],
        [standing.account.account_no for standing in known],
        [standing.posted_minor for standing in known],
        [standing.held_minor for standing in known],
        [_seen(standing, before.partition) for standing in known],
        [standing.version for standing in known],
        [standing.stored_version for standing in known],
    )


def rare_arguments(decision: Decision) -> tuple[Any, ...]:
    """Return the arguments that follow those above where a batch changes more than balances."""
    return (
        [_new_hold(hold) for hold in decision.holds],
        [_new_reversal(reversal) for reversal in decision.reversals],
        [_new_flags(flagged) for flagged in decision.flagged],
        [f.elsewhere.incoming_minor if f.elsewhere else RESTS_ON_NOTHING for f in decision.flagged],
        [_new_link(link) for link in decision.links],
        [_new_room(room) for room in decision.rooms],
    )


def _new_hold(hold: Hold) -> tuple[Any, ...]:
    return (
        hold.hold_id,
        hold.source,
        hold.destination,
        hold.currency,
        hold.amount_minor,
        hold.remaining_minor,
        hold.captured_minor,
        hold.expires_at_us,
        hold.state,
        hold.stored_minor,
    )


def _new_reversal(reversal: Reversal) -> tuple[Any, ...]:
    return (*reversal.place, reversal.reversed_minor, reversal.stored_minor)


def _new_link(link: Link) -> tuple[Any, ...]:
    return (
        link.link_id,
        link.kind,
        link.source,
        link.destination,
        link.currency,
        link.amount_minor,
        link.state,
        link.stored,
    )


def _new_room(room: Room) -> tuple[Any, ...]:
    return room.account_no, room.promised_minor, room.stored_minor


def _new_flags(flagged: Flagged) -> tuple[Any, ...]:
    account, elsewhere = flagged.account, flagged.elsewhere
    return (
        account.account_no,
        account.debits_frozen,
        account.credits_frozen,
        account.closed,
        None if elsewhere is None else elsewhere.posted_minor,
        None if elsewhere is None else elsewhere.held_minor,
    )


def _new_account(account: Account) -> tuple[Any, ...]:
    return (
        account.account_no,
        account.account_id,
        account.tenant,
        account.currency,
        account.kind,
        account.name,
        account.min_balance_minor,
        account.max_balance_minor,
    )


def _new_share(standing: Standing, partition: int) -> tuple[Any, ...]:
    """Return a share's first state; limits lie on the home share, a foreign one never goes down."""
    account = standing.account
    home = account.home == partition
    floor = account.min_balance_minor if home else 0
    return (
        account.account_no,
        standing.posted_minor,
        standing.held_minor,
        _seen(standing, partition),
        standing.version,
        floor if account.guarded else None,
        account.max_balance_minor if home else None,
    )


def _seen(standing: Standing, partition: int) -> int:
    """Return what the database may count on beside this share: nothing but at a guarded home."""
    account = standing.account
    return standing.foreign_minor if account.guarded and account.home == partition else 0
