"""What a batch of records changes in the read model, folded to one row a key. Pure.

Records carry their own versions and come in log order per key, so a fold may be applied to tables
that have seen any prefix of the log, part of the batch included: newer versions win and equal ones
change nothing. A request that conflicts or is refused leaves a mark on the timeline and in the
version; what the payment is stays as it was. What was only tried (a dry run) leaves nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from schemas import tags
from schemas.ids import is_transfer_id
from streams.views import holds, parts

Event = dict[str, Any]

PAYMENTS: Final = "payments.events"
LEDGER: Final = "ledger.events"
WEBHOOKS: Final = "webhooks.events"
TOPICS: Final = (PAYMENTS, LEDGER, WEBHOOKS)

_MARKS_ONLY: Final = ("conflicted", "_refused")
_ACTIVE: Final = "active"
_FLAGGED: Final = frozenset({"account.frozen", "account.unfrozen", "account.closed"})
_TRANSFERS: Final = {
    "transfer.posted": "posted",
    "transfer.reversed": "posted",
    "transfer.rejected": "rejected",
    "transfer.aborted": "rejected",
}


@dataclass(slots=True)
class Rows:
    """Rows by table, each a tuple in the order of the statement that writes them.

    `payments` maps ids to their newest state; its version lies at index 5. `marks` maps payments
    that were only asked in vain to their newest version. `standings` maps accounts to their newest
    status and flags; its position in the journal lies at index 4. `shifted` are the entries that
    count at another time than they were booked at, and `entries` the others.
    """

    payments: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    marks: dict[str, int] = field(default_factory=dict)
    timeline: list[tuple[Any, ...]] = field(default_factory=list)
    accounts: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    standings: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    shares: dict[tuple[str, int], tuple[Any, ...]] = field(default_factory=dict)
    entries: list[tuple[Any, ...]] = field(default_factory=list)
    shifted: list[tuple[Any, ...]] = field(default_factory=list)
    holds: holds.Holds = field(default_factory=holds.Holds)
    tags: set[tuple[str, str, int, str]] = field(default_factory=set)
    transfers: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    parts: dict[str, parts.Part] = field(default_factory=dict)
    webhooks: dict[tuple[str, str], tuple[Any, ...]] = field(default_factory=dict)


def fold(events: Iterable[tuple[str, Event]]) -> Rows:
    """Fold (topic, event) pairs in log order; kinds that no table shows are passed over."""
    rows = Rows()
    for topic, event in events:
        if topic == PAYMENTS:
            if event["type"].startswith("payment."):
                _payment(rows, event)
        elif topic == LEDGER:
            if not event.get("dry_run"):
                _ledger(rows, event)
        else:
            assert topic == WEBHOOKS, topic
            _webhook(rows, event)
    return rows


def _payment(rows: Rows, event: Event) -> None:
    payment_id, version = event["resource_id"], event["version"]
    name = event["type"].partition(".")[2]
    mark_only = name.endswith(_MARKS_ONLY)
    rows.timeline.append(
        (
            payment_id,
            version,
            event["occurred_at_us"],
            name,
            event["reason"],
            event["detail"],
            event["event_id"],
        )
    )
    known = rows.payments.get(payment_id)
    if mark_only and known is None:
        rows.marks[payment_id] = max(version, rows.marks.get(payment_id, 0))
    elif mark_only and known is not None:
        rows.payments[payment_id] = (*known[:5], max(version, known[5]), *known[6:])
    elif known is None:
        rows.marks.pop(payment_id, None)
        rows.payments[payment_id] = _payment_row(event)
        of_client = tags.of("payment", event["reference"], event["metadata"])
        _tag(rows, event, of_client, event["received_at_us"], payment_id)
    elif version > known[5]:
        state = (event["status"], version, event["reason"], event["detail"])
        rows.payments[payment_id] = (*known[:4], *state, *known[8:19], *_progress(event))


def _payment_row(event: Event) -> tuple[Any, ...]:
    return (
        event["resource_id"],
        event["tenant"],
        event["idempotency_key"],
        event["identity"],
        event["status"],
        event["version"],
        event["reason"],
        event["detail"],
        event["amount_minor"],
        event["currency"],
        event["source_account"],
        event["destination_account"],
        event["method"],
        event["capture"],
        event["description"],
        event["reference"],
        _json(event["metadata"]),
        event["request_id"],
        event["received_at_us"],
        *_progress(event),
    )


def _progress(event: Event) -> tuple[Any, ...]:
    return (
        event["occurred_at_us"],
        event["authorized_minor"],
        event["captured_minor"],
        event["refunded_minor"],
        event["expires_at_us"],
    )


def _ledger(rows: Rows, event: Event) -> None:
    booked, effective = event["booked_at_us"], event["effective_at_us"]
    into = rows.entries if booked == effective else rows.shifted
    for entry in event["entries"]:
        account_id, share, version = entry["account_id"], entry["share"], entry["version"]
        posted, held = entry["posted_minor"], entry["held_minor"]
        into.append(
            (
                account_id,
                share,
                version,
                entry["amount_minor"],
                posted,
                held,
                entry["currency"],
                event["transfer_id"],
                booked,
                effective,
                event["position"],
                event["type"],
            )
        )
        known = rows.shares.get((account_id, share))
        if known is None or version > known[2]:
            rows.shares[account_id, share] = (account_id, share, version, posted, held, booked)
    kind, transfer_id = event["type"], event["transfer_id"]
    if kind == "account.opened":
        rows.accounts.setdefault(event["account_id"], _account_row(event))
    elif kind in _FLAGGED:
        _flags(rows, event)
    elif transfer_id is not None and is_transfer_id(transfer_id):
        _transfer(rows, event)
    elif kind in holds.KINDS:
        holds.fold(rows.holds, event)


def _transfer(rows: Rows, event: Event) -> None:
    """Show a transfer once it has ended; of several homes, its own says how, with what it says."""
    transfer_id, home = event["transfer_id"], parts.at_home(event)
    if event["type"] == parts.COMMITTED:
        parts.fold(rows.parts, event)
    elif not home or event["type"] not in _TRANSFERS or transfer_id in rows.transfers:
        return
    else:
        rows.transfers[transfer_id] = _transfer_row(event)
    moved = event["entries"] if event["reason"] is None else ()
    found = {tags.account("transfer", entry["account_id"]) for entry in moved}
    if home:
        found |= tags.of("transfer", event["reference"], event["metadata"])
    _tag(rows, event, found, event["booked_at_us"], transfer_id)


def _tag(rows: Rows, event: Event, found: set[str], at_us: int, named: str) -> None:
    rows.tags.update((event["tenant"], tag, at_us, named) for tag in found)


def _flags(rows: Rows, event: Event) -> None:
    """Take an account's newest flags; a repeat tells what they were once, so it says nothing."""
    account_id, position = event["account_id"], event["position"]
    known = rows.standings.get(account_id)
    if event["repeated"] or (known is not None and known[4] >= position):
        return
    flags = (bool(event["debits_frozen"]), bool(event["credits_frozen"]))
    status = "frozen" if any(flags) else _ACTIVE
    if event["closed"]:
        status = "closed"
    rows.standings[account_id] = (account_id, status, *flags, position, event["booked_at_us"])


def _transfer_row(event: Event) -> tuple[Any, ...]:
    return (
        event["transfer_id"],
        event["tenant"],
        _TRANSFERS[event["type"]],
        event["original_id"],
        event["amount_minor"] if event["type"] == "transfer.reversed" else None,
        event["reason"],
        event["detail"],
        event["failed_leg"],
        event["reference"],
        _json(event["metadata"]),
        _json(event["entries"] if _TRANSFERS[event["type"]] == "posted" else []),
        event["booked_at_us"],
        event["effective_at_us"],
        event["position"],
    )


def _account_row(event: Event) -> tuple[Any, ...]:
    return (
        event["account_id"],
        event["tenant"],
        event["account_kind"],
        event["currency"],
        event["account_name"],
        _ACTIVE,
        event["min_balance_minor"],
        event["max_balance_minor"],
        _json(event["metadata"]),
        event["booked_at_us"],
    )


def _webhook(rows: Rows, event: Event) -> None:
    """The first delivery gives time and body; a conflict stays visible; deliveries count up."""
    key = (event["source"], event["partner_event_id"])
    status = "conflicted" if event["type"] == "webhook.conflicted" else "accepted"
    known = rows.webhooks.get(key)
    if known is None:
        rest = (status, event["deliveries"], event["received_at_us"], event["body_hash"])
        rows.webhooks[key] = (*key, *rest)
        return
    if known[2] == "conflicted":
        status = "conflicted"
    rows.webhooks[key] = (*key, status, max(known[3], event["deliveries"]), *known[4:])


def _json(value: dict[str, str] | list[Event]) -> str:
    return orjson.dumps(value).decode()
