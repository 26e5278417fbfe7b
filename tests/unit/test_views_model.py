"""What the read model must say about any log, told twice: batch by batch, and all at once.

`make_log` writes a plausible log, `expected` says what the tables must hold by looking at the whole
of it, without batches, order of arrival or replays. `Tables` does in memory what the statements do.
"""

from __future__ import annotations

import random
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import ids, tags, wire
from streams.views.parts import row_of
from streams.views.rows import LEDGER, PAYMENTS, WEBHOOKS, Rows, fold

PARTITIONS = 4
PROGRESS = ("authorized_minor", "captured_minor", "refunded_minor", "expires_at_us")
IN_VAIN = ("conflicted", "capture_refused")

Entry = tuple[str, int, dict[str, Any]]
Contents = dict[str, dict[Any, tuple[Any, ...]]]


def make_log(rng: random.Random, payments: int) -> list[Entry]:
    """Events as the services write them: in order per key, mixed otherwise."""
    accounts = [ids.account_id("t", f"a{i}", "customer") for i in range(6)]
    queues = [_account(account, n) for n, account in enumerate(accounts)]
    queues += [_flags(rng, account, n) for n, account in enumerate(accounts)]
    queues += [_moves(rng, n, accounts) for n in range(payments // 2 + 1)]
    queues += [_webhook(rng, n) for n in range(payments // 3 + 1)]
    for n in range(payments // 3):
        queues += _agreed(rng, n, accounts)
    queues += [_hold(rng, n, accounts[n % len(accounts)]) for n in range(payments // 2 + 1)]
    versions: dict[tuple[str, int], list[int]] = {}
    log: list[Entry] = [entry for queue in queues[: len(accounts)] for entry in queue]
    waiting = queues[len(accounts) :] + [_payment(rng, n, accounts) for n in range(payments)]
    waiting = [queue for queue in waiting if queue]
    while waiting:
        queue = rng.choice(waiting)
        topic, partition, event = queue.pop(0)
        for entry in event.get("entries", ()):
            version, posted = versions.setdefault((entry["account_id"], entry["share"]), [0, 0])
            entry["version"], entry["posted_minor"] = version + 1, posted + entry["amount_minor"]
            versions[entry["account_id"], entry["share"]] = [version + 1, entry["posted_minor"]]
        log.append((topic, partition, event))
        waiting = [left for left in waiting if left]
    return log


def _account(account: str, n: int) -> list[Entry]:
    event = _ledger_event(account, account, n) | {
        "type": "account.opened",
        "account_id": account,
        "currency": "EUR",
        "account_kind": "customer",
        "account_name": f"Account {n}",
        "min_balance_minor": 0,
        "metadata": {"n": str(n)},
    }
    return [(LEDGER, event["ledger_partition"], event)]


def _flags(rng: random.Random, account: str, n: int) -> list[Entry]:
    """Changes of an account's flags; each may be told again later, as it was then."""
    events: list[dict[str, Any]] = []
    for step in range(rng.randrange(4)):
        debits, credits_ = rng.random() < 0.5, rng.random() < 0.5
        kind = "account.frozen" if debits or credits_ else "account.unfrozen"
        event = _ledger_event(account, account, 100 * (n + 1) + 2 * step) | {
            "type": kind,
            "account_id": account,
            "debits_frozen": debits,
            "credits_frozen": credits_,
            "closed": False,
        }
        events.append(event)
        if rng.random() < 0.3:
            again = rng.choice(events)
            events.append(again | {"repeated": True, "position": event["position"] + 1})
    return [(LEDGER, event["ledger_partition"], event) for event in events]


def _moves(rng: random.Random, n: int, accounts: list[str]) -> list[Entry]:
    """A transfer, posted, refused or only tried; one that was posted may be paid back."""
    source, destination = rng.sample(accounts, 2)
    made = ids.transfer_id("t", f"t{n}", source)
    _, share, posted = _transfer(made, source, destination, 50 + n, n)
    posted |= {"reference": f"ref {n}", "metadata": {"n": str(n), "even": str(n % 2)}}
    if rng.random() < 0.5:
        posted["effective_at_us"] = rng.choice((0, 200_000_000, 86_400_000_000 * 3 + n))
    if rng.random() < 0.3:
        reason = {"type": "transfer.rejected", "reason": "account_frozen", "failed_leg": 0}
        return [(LEDGER, share, posted | reason | {"entries": []})]
    if rng.random() < 0.3:
        return [(LEDGER, share, posted | {"dry_run": True})]
    back = ids.transfer_id("t", f"r{n}", destination)
    _, home, reversed_ = _transfer(back, destination, source, 50 + n, n + 1)
    reversed_ |= {"type": "transfer.reversed", "original_id": made, "amount_minor": 50 + n}
    return [(LEDGER, share, posted), (LEDGER, home, reversed_)]


def _agreed(rng: random.Random, n: int, accounts: list[str]) -> list[list[Entry]]:
    """A transfer of several homes, each of which posts its legs, or gives them up."""
    a, b, c = rng.sample(accounts, 3)
    legs = [(source, c) for source in rng.sample([a, b, a, b, a], 5)]
    first = legs[0][0]
    made = ids.transfer_id("t", f"m{n}", first)
    kind = rng.choice(("transfer.committed", "transfer.committed", "transfer.aborted"))
    queues: list[list[Entry]] = []
    for home in (a, b):
        if ids.slot_of(home) == ids.slot_of(first) and home != first:
            continue
        event = _ledger_event(made, home, 40 * n + len(queues)) | {"type": kind}
        event |= {"transfer_id": made, "reference": f"m {n % 2}", "metadata": {"m": "1"}}
        if n % 3 == 0:  # a reversal of something
            event |= {"original_id": ids.transfer_id("t", f"o{n}", first), "amount_minor": 40 + n}
        own = [i for i, (source, _) in enumerate(legs) if source == home]
        entries = [
            {"account_id": account, "share": event["ledger_partition"], "amount_minor": signed}
            | {"currency": "EUR", "version": 0, "posted_minor": 0, "held_minor": 0}
            for i in own
            for account, signed in ((legs[i][0], -10 - i), (legs[i][1], 10 + i))
        ]
        if kind == "transfer.aborted":
            event |= {"reason": "insufficient_funds", "failed_leg": 1}
            entries = [entry | {"amount_minor": 0} for entry in entries[:1]]
        event |= {"entries": entries, "leg_indexes": own, "legs_total": len(legs)}
        queues.append([(LEDGER, event["ledger_partition"], event)])
    return queues


def _hold(rng: random.Random, n: int, account: str) -> list[Entry]:
    """A hold that is posted in parts, voided or left; each event may be told again later."""
    payment, left, position = ids.payment_id("t", f"h{n}", account), 100, 10 * n + 1
    placed = _hold_event(payment, account, position, 0, left) | {"type": "hold.placed"}
    events = [placed | {"amount_minor": left, "remaining_minor": left, "expires_at_us": 99}]
    while left and rng.random() < 0.7:
        position += 1
        part = rng.choice((left, rng.randrange(1, left + 1)))
        left -= part
        event = _hold_event(payment, account, position, -part, -part)
        events.append(
            event | {"type": "hold.posted", "amount_minor": part, "remaining_minor": left}
        )
    if left and rng.random() < 0.5:
        event = _hold_event(payment, account, position + 1, 0, -left) | {"type": "hold.voided"}
        reason = rng.choice(("voided", "expired"))
        events.append(event | {"amount_minor": left, "remaining_minor": 0, "reason": reason})
    if rng.random() < 0.3:
        again = rng.choice(events) | {"repeated": True, "entries": [], "position": position + 5}
        events.append(again)
    return [(LEDGER, event["ledger_partition"], event) for event in events]


def _hold_event(payment: str, account: str, position: int, posted: int, held: int) -> Any:
    event = _ledger_event(payment, account, position) | {"hold_id": payment}
    share = event["ledger_partition"]
    entry = {"account_id": account, "share": share, "amount_minor": posted, "currency": "EUR"}
    event["entries"] = [entry | {"version": 0, "posted_minor": 0, "held_minor": held}]
    return event


def _payment(rng: random.Random, n: int, accounts: list[str]) -> list[Entry]:
    source, destination = rng.sample(accounts, 2)
    payment = ids.payment_id("t", f"k{n}", source)
    partition = ids.slot_of(source) % PARTITIONS
    settled = rng.random() < 0.8
    amount = rng.randrange(1, 500)
    common = {
        "resource_id": payment,
        "tenant": "t",
        "idempotency_key": f"k{n}",
        "identity": ids.identity_of(payment),
        "body_hash": "h",
        "slot": ids.slot_of(source),
        "home_account": source,
        "request_id": f"r{n}",
        "received_at_us": 1_000 + n,
        "reason": None,
        "detail": None,
        "method": "internal",
        "amount_minor": amount,
        "currency": "EUR",
        "source_account": source,
        "destination_account": destination,
        "capture": "automatic",
        "description": None,
        "reference": None,
        "metadata": {},
        **dict.fromkeys(PROGRESS),
    }
    names = ["accepted", "settled" if settled else "rejected"]
    for _ in range(rng.choice((0, 0, 0, 1, 2))):
        names.insert(rng.randrange(1, len(names) + 1), rng.choice(IN_VAIN))
    status, entries, posted = "accepted", [], False
    for version, name in enumerate(names, 1):
        status = name if name not in IN_VAIN else status
        event = common | {
            "type": f"payment.{name}",
            "event_id": f"e-{n}-{version}",
            "status": status,
            "version": version,
            "occurred_at_us": 2_000 + 10 * n + version,
        }
        if name == "accepted":
            event |= {"description": f"payment {n}", "reference": "ref", "metadata": {"é": str(n)}}
        if name == "rejected":
            event |= {"reason": "insufficient_funds", "detail": "no"}
        if name == "conflicted":
            event |= {"reason": "idempotency_key_reused", "request_id": f"other-{n}"}
        if name == "capture_refused":
            event |= {"reason": "hold_not_found", "detail": "nothing is held", "operation_id": "o"}
        if name == "settled":
            event |= {"captured_minor": amount, "refunded_minor": 0, "expires_at_us": 7}
        if name == "settled" and not posted:
            entries.append(_transfer(payment, source, destination, amount, n))
        entries.append((PAYMENTS, partition, event))
    return entries


def _transfer(payment: str, source: str, destination: str, amount: int, n: int) -> Entry:
    event = _ledger_event(payment, source, n) | {"type": "transfer.posted", "transfer_id": payment}
    share = event["ledger_partition"]
    event["entries"] = [
        {"account_id": account, "share": share, "amount_minor": signed, "currency": "EUR"}
        | {"version": 0, "posted_minor": 0, "held_minor": 0}
        for account, signed in ((source, -amount), (destination, amount))
    ]
    return LEDGER, share, event


def _ledger_event(saga: str, home: str, n: int) -> dict[str, Any]:
    return {
        "type": "transfer.rejected",
        "event_id": f"l-{saga}",
        "command_id": f"{saga}/post/1",
        "saga_id": saga,
        "tenant": "t",
        "identity": ids.identity_of(saga),
        "body_hash": "h",
        "slot": ids.slot_of(home),
        "home_account": home,
        "ledger_partition": ids.slot_of(home) % PARTITIONS,
        "position": n + 1,
        "command_offset": n,
        "booked_at_us": 5_000 + n,
        "effective_at_us": 5_000 + n,
        "transfer_id": None,
        "reason": None,
        "detail": None,
        "failed_leg": None,
        "repeated": False,
        "entries": [],
        "chain_hash": "c",
        "account_id": None,
        "currency": None,
        "account_kind": None,
        "account_name": None,
        "min_balance_minor": None,
        "max_balance_minor": None,
        "reference": None,
        "metadata": {},
        "hold_id": None,
        "remaining_minor": None,
        "expires_at_us": None,
        "original_id": None,
        "amount_minor": None,
        "dry_run": False,
        "debits_frozen": None,
        "credits_frozen": None,
        "closed": None,
    }


def _webhook(rng: random.Random, n: int) -> list[Entry]:
    slot = ids.slot_of_key(ids.webhook_key("acme", f"evt{n}"))
    kinds = ["accepted", *rng.choices(("repeated", "repeated", "conflicted"), k=rng.randrange(3))]
    return [
        (
            WEBHOOKS,
            slot % PARTITIONS,
            {
                "type": f"webhook.{kind}",
                "event_id": f"w-{n}-{count}",
                "source": "acme",
                "partner_event_id": f"evt{n}",
                "slot": slot,
                "delivery_id": f"d-{n}-{count}",
                "received_partition": 0,
                "received_offset": 10 * n + count,
                "body_hash": "other" if kind == "conflicted" else f"body{n}",
                "received_at_us": 9_000 + 10 * n + count,
                "occurred_at_us": 9_000 + 10 * n + count,
                "deliveries": count,
            },
        )
        for count, kind in enumerate(kinds, 1)
    ]


def expected(log: list[Entry]) -> Contents:
    """Say what the tables hold after this log, from the whole of it."""
    of_payment: dict[str, list[dict[str, Any]]] = {}
    contents: Contents = {name: {} for name in TABLES}
    webhooks: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for topic, _, event in log:
        if topic == PAYMENTS:
            of_payment.setdefault(event["resource_id"], []).append(event)
        elif topic == WEBHOOKS:
            key = (event["source"], event["partner_event_id"])
            webhooks.setdefault(key, []).append(event)
        else:
            _expect_ledger(contents, event)
    for payment, events in of_payment.items():
        _expect_payment(contents, payment, events)
    _expect_tags(contents)
    for key, events in webhooks.items():
        conflicted = any(event["type"].endswith("conflicted") for event in events)
        contents["webhook_events"][key] = (
            *key,
            "conflicted" if conflicted else "accepted",
            len(events),
            events[0]["received_at_us"],
            events[0]["body_hash"],
        )
    return contents


def _expect_payment(contents: Contents, payment: str, events: list[dict[str, Any]]) -> None:
    first = events[0]
    state = [e for e in events if e["type"].removeprefix("payment.") not in IN_VAIN][-1]
    contents["payments"][payment] = (
        payment,
        "t",
        first["idempotency_key"],
        first["identity"],
        state["status"],
        len(events),
        state["reason"],
        state["detail"],
        first["amount_minor"],
        "EUR",
        first["source_account"],
        first["destination_account"],
        "internal",
        "automatic",
        first["description"],
        "ref",
        first["metadata"],
        first["request_id"],
        first["received_at_us"],
        state["occurred_at_us"],
        *(state.get(name) for name in PROGRESS),
    )
    for event in events:
        contents["payment_timeline"][payment, event["version"]] = (
            payment,
            event["version"],
            event["occurred_at_us"],
            event["type"].removeprefix("payment."),
            event["reason"],
            event["detail"],
            event["event_id"],
        )


def _expect_tags(contents: Contents) -> None:
    """Every payment and transfer is found by what its client said of it, and by its accounts."""
    found: set[tuple[Any, ...]] = set()
    for row in contents["payments"].values():
        found |= {("t", tag, row[18], row[0]) for tag in tags.of("payment", row[15], row[16])}
    for row in contents["transfers"].values():
        own = tags.of("transfer", row[8], row[9]) if row[13] else set()
        found |= {("t", tag, row[11], row[0]) for tag in own}
    contents["search_tags"] |= {row: row for row in found}


def _expect_accounts(contents: Contents, event: dict[str, Any]) -> None:
    """A transfer is found by each account that it moved money on, from when it did."""
    for entry in event["entries"]:
        tag = tags.account("transfer", entry["account_id"])
        row = ("t", tag, event["booked_at_us"], event["transfer_id"])
        contents["search_tags"][row] = row


def _expect_shifted(contents: Contents, entry: dict[str, Any], event: dict[str, Any]) -> None:
    amount = entry["amount_minor"]
    for at_us, minor in ((event["effective_at_us"], amount), (event["booked_at_us"], -amount)):
        for span_s in (86_400, 60):
            key = (entry["account_id"], span_s, at_us // (span_s * 1_000_000))
            before = contents["shifted_sums"].get(key, (*key, 0))
            contents["shifted_sums"][key] = (*key, before[3] + minor)


def _is_home(event: dict[str, Any]) -> bool:
    return bool(event["slot"] == ids.slot_of(event["transfer_id"]))


def _expect_part(contents: Contents, event: dict[str, Any]) -> None:
    """Merge one home's legs; its own home says the rest."""
    key, home = event["transfer_id"], _is_home(event)
    until_home = (event["booked_at_us"], event["effective_at_us"], 0, event["legs_total"])
    told = (event["reference"], event["metadata"], [])
    of_reversal = (event["original_id"], event["amount_minor"])
    blank = (key, "t", "posted", *of_reversal, *[None] * 3, *told, *until_home)
    row = contents["transfers"].get(key, blank)
    at_us = event["booked_at_us"]
    sides = [{**entry, "leg": event["leg_indexes"][i // 2], "at_us": at_us}
             for i, entry in enumerate(event["entries"])]  # fmt: skip
    merged = sorted(row[10] + sides, key=lambda side: (side["leg"], side["amount_minor"]))
    row = (*row[:10], merged, *row[11:])
    if home:
        said = (event["booked_at_us"], event["effective_at_us"], event["position"])
        row = (*row[:8], event["reference"], event["metadata"], merged, *said, row[14])
    contents["transfers"][key] = row


def _expect_hold(contents: Contents, event: dict[str, Any]) -> None:
    held = contents["holds"]
    standing = {"hold.posted": "captured", "hold.voided": event["reason"]}
    state = "open" if event["remaining_minor"] else standing[event["type"]]
    if event["type"] == "hold.placed":
        [entry] = event["entries"]
        held[event["hold_id"]] = (
            event["hold_id"],
            "t",
            entry["account_id"],
            event["saga_id"],
            "EUR",
            event["amount_minor"],
            event["amount_minor"],
            "open",
            event["booked_at_us"],
            event["expires_at_us"],
            event["booked_at_us"],
            event["position"],
        )
    row = held[event["hold_id"]]
    changed = (event["booked_at_us"], event["position"])
    held[event["hold_id"]] = (*row[:6], event["remaining_minor"], state, *row[8:10], *changed)


def _expect_ledger(contents: Contents, event: dict[str, Any]) -> None:
    if event["dry_run"]:
        return
    if event["type"] in {"account.frozen", "account.unfrozen"} and not event["repeated"]:
        account = contents["accounts"][event["account_id"]]
        flags = (event["debits_frozen"], event["credits_frozen"])
        status = "frozen" if any(flags) else "active"
        newest = (*flags, event["position"], event["booked_at_us"])
        contents["accounts"][event["account_id"]] = (*account[:5], status, *account[6:10], *newest)
    if event["type"].startswith("hold.") and not event["repeated"]:
        _expect_hold(contents, event)
    if (event["transfer_id"] or "").startswith("tr_") and event["reason"] is None:
        _expect_accounts(contents, event)
    if event["type"] == "transfer.committed":
        _expect_part(contents, event)
    elif (event["transfer_id"] or "").startswith("tr_") and _is_home(event):
        contents["transfers"][event["transfer_id"]] = (
            event["transfer_id"],
            "t",
            "posted" if event["reason"] is None else "rejected",
            event["original_id"],
            event["amount_minor"] if event["reason"] is None else None,
            event["reason"],
            event["detail"],
            event["failed_leg"],
            event["reference"],
            event["metadata"],
            event["entries"] if event["reason"] is None else [],
            event["booked_at_us"],
            event["effective_at_us"],
            event["position"],
            None,
        )
    if event["type"] == "account.opened":
        contents["accounts"][event["account_id"]] = (
            event["account_id"],
            "t",
            "customer",
            "EUR",
            event["account_name"],
            "active",
            0,
            None,
            event["metadata"],
            event["booked_at_us"],
            *(False, False, 0, 0),
        )
    for entry in event["entries"]:
        share = (entry["account_id"], entry["share"])
        balances = (entry["posted_minor"], entry["held_minor"])
        newest = contents["account_shares"].get(share)
        if newest is None or newest[2] < entry["version"]:
            row = (*share, entry["version"], *balances, event["booked_at_us"])
            contents["account_shares"][share] = row
        if event["effective_at_us"] != event["booked_at_us"]:
            _expect_shifted(contents, entry, event)
        contents["entries"][*share, entry["version"]] = (
            *share,
            entry["version"],
            entry["amount_minor"],
            *balances,
            "EUR",
            event["transfer_id"],
            event["booked_at_us"],
            event["effective_at_us"],
            event["position"],
            event["type"],
        )


TABLES = {
    "payments": 1,
    "payment_timeline": 2,
    "accounts": 1,
    "account_shares": 2,
    "entries": 3,
    "transfers": 1,
    "webhook_events": 2,
    "search_tags": 4,
    "holds": 1,
    "shifted_sums": 3,
}
"""The tables, and how many of their first columns are the key."""


class Tables:
    """What the statements do, on dicts."""

    def __init__(self) -> None:
        self.contents: Contents = {name: {} for name in TABLES}

    def apply(self, rows: Rows) -> None:
        tables = self.contents
        for key, new in rows.payments.items():
            old = tables["payments"].get(key)
            new = (*new[:16], orjson.loads(new[16]), *new[17:])  # noqa: PLW2901
            if old is None:
                tables["payments"][key] = new
            elif old[5] < new[5]:
                tables["payments"][key] = (*old[:4], *new[4:8], *old[8:19], *new[19:])
        for key, version in rows.marks.items():
            old = tables["payments"].get(key)
            if old is not None and old[5] < version:
                tables["payments"][key] = (*old[:5], version, *old[6:])
        for row in rows.timeline:
            tables["payment_timeline"].setdefault(row[:2], row)
        for key, row in rows.accounts.items():
            opened = (*row[:8], orjson.loads(row[8]), *row[9:], False, False, 0, 0)
            tables["accounts"].setdefault(key, opened)
        for key, (_, status, debits, credits_, position, at_us) in rows.standings.items():
            old = tables["accounts"].get(key)
            if old is not None and old[12] < position:
                flags = (debits, credits_, position, at_us)
                tables["accounts"][key] = (*old[:5], status, *old[6:10], *flags)
        for key, row in rows.transfers.items():
            read = (orjson.loads(row[9]), orjson.loads(row[10]))
            tables["transfers"].setdefault(key, (*row[:9], *read, *row[11:], None))
        for key, part in rows.parts.items():
            self._merge(row_of(key, part))
        for share, row in rows.shares.items():
            if share not in tables["account_shares"] or (
                tables["account_shares"][share][2] < row[2]
            ):
                tables["account_shares"][share] = row
        for row in rows.entries:
            tables["entries"].setdefault(row[:3], row)
        for row in rows.shifted:
            self._shift(row)
        for row in rows.tags:
            tables["search_tags"].setdefault(row, row)
        self._hold(rows)
        for hook, row in rows.webhooks.items():
            old = tables["webhook_events"].get(hook, row)
            status = "conflicted" if "conflicted" in {old[2], row[2]} else row[2]
            tables["webhook_events"][hook] = (*hook, status, max(old[3], row[3]), *old[4:])

    def _merge(self, part: tuple[Any, ...]) -> None:
        key, tenant, original, minor, reference, metadata, entries, *at, total = part
        new = (key, tenant, "posted", original, minor, *[None] * 3, reference)
        new = (*new, orjson.loads(metadata), orjson.loads(entries), *at, total)
        old = self.contents["transfers"].get(key, new)
        sides = old[10] + [side for side in new[10] if side not in old[10]]
        sides.sort(key=lambda side: (side["leg"], side["amount_minor"]))
        told = new if new[13] > old[13] else old
        self.contents["transfers"][key] = (*told[:10], sides, *told[11:])

    def _shift(self, row: tuple[Any, ...]) -> None:
        if row[:3] in self.contents["entries"]:
            return
        self.contents["entries"][row[:3]] = row
        for at_us, minor in ((row[9], row[3]), (row[8], -row[3])):
            for span_s in (86_400, 60):
                key = (row[0], span_s, at_us // (span_s * 1_000_000))
                before = self.contents["shifted_sums"].get(key, (*key, 0))
                self.contents["shifted_sums"][key] = (*key, before[3] + minor)

    def _hold(self, rows: Rows) -> None:
        holds = self.contents["holds"]
        for key, row in rows.holds.placed.items():
            new = (*row[:6], row[8], row[9], row[6], row[7], *row[10:])
            if key not in holds or holds[key][11] < new[11]:
                holds[key] = new
        for key, (_, left, state, at_us, position) in rows.holds.changed.items():
            old = holds[key]
            if old[11] < position:
                holds[key] = (*old[:6], left, state, *old[8:10], at_us, position)


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 10**6), data=st.data())
def test_any_batches_with_any_replays_give_what_the_whole_log_says(
    seed: int, data: st.DataObject
) -> None:
    log = make_log(random.Random(seed), 8)
    tables, reached = Tables(), 0
    while reached < len(log):
        start = data.draw(st.integers(max(0, reached - 6), reached), label="replay from")
        end = data.draw(st.integers(reached + 1, len(log)), label="batch ends")
        tables.apply(fold((topic, event) for topic, _, event in log[start:end]))
        reached = end
    assert tables.contents == expected(log)
    tables.apply(fold((topic, event) for topic, _, event in log))
    assert tables.contents == expected(log), "a replay from zero changes nothing"


def test_the_logs_of_these_tests_fit_the_schemas() -> None:
    for topic, _, event in make_log(random.Random(1), 30):
        assert wire.decode(topic, wire.encode(topic, event)).items() >= event.items()


def test_a_conflict_leaves_a_mark_and_changes_nothing_else() -> None:
    log = [entry for entry in make_log(random.Random(3), 40) if entry[0] == PAYMENTS]
    before, after = Tables(), Tables()
    conflict = next(event for _, _, event in log if event["type"] == "payment.conflicted")
    earlier = [
        (topic, event)
        for topic, _, event in log
        if event["resource_id"] == conflict["resource_id"]
        and event["version"] < conflict["version"]
    ]
    before.apply(fold(earlier))
    after.apply(fold(earlier))
    after.apply(fold([(PAYMENTS, conflict)]))
    old = before.contents["payments"][conflict["resource_id"]]
    new = after.contents["payments"][conflict["resource_id"]]
    assert new == (*old[:5], conflict["version"], *old[6:])
    assert (conflict["resource_id"], conflict["version"]) in after.contents["payment_timeline"]


@pytest.mark.parametrize("kind", ["account.opened", "account.rejected", "payout.sent"])
def test_payment_events_about_anything_but_payments_are_passed_over(kind: str) -> None:
    event = make_log(random.Random(0), 1)[-1][2] | {"type": kind}
    assert fold([(PAYMENTS, event)]) == Rows()
