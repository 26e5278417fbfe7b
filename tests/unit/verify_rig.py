"""A small world that is right: what Kafka, the ledger, the views and the lake hold after a few
payments, written out by a model of its own, so that tests can make one thing wrong at a time.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from typing import Any

import pyarrow as pa

from loadtest.kafka_log import Log
from loadtest.verify import chain, databases, frames
from schemas import ids, wire
from schemas.topics import TOPICS

PARTITIONS = 4
Row = dict[str, Any]
Tables = dict[str, pa.Table]


def account(name: str, kind: ids.Kind = "customer") -> str:
    return ids.account_id("demo", name, kind)


BANK = account("bank", "external")
A, B, C = account("a"), account("b"), account("c")


class World:
    """Requests go in by `open`, `pay` and `deliver`; `tables` tells what everybody then holds."""

    now = 1_700_000_000_000_000

    def __init__(self) -> None:
        self.logs: dict[str, list[tuple[int, int, bytes, Row]]] = defaultdict(list)
        self.next: dict[tuple[str, int], int] = defaultdict(int)
        self.ledger: dict[str, list[Row]] = {name: [] for name in databases.LEDGER_TABLES}
        self.views: dict[str, list[Row]] = {name: [] for name in databases.VIEW_TABLES}
        self.shares: dict[tuple[str, int], tuple[int, int]] = {}
        self.seen: dict[str, Row] = {}

    def open(self, account_id: str, currency: str = "EUR") -> None:
        kind = ids.kind_of(account_id)
        request = self._request(
            "account.open", account_id, account_id, account_id, currency=currency
        )
        outcome = self._decide(request, "open", [], "account.opened", None)
        self._tell(request, "account.opened", "active", outcome, version=1)
        lowest = 0 if kind == "customer" else None
        self.ledger["accounts"].append(
            {"account_id": account_id, "tenant": "demo", "currency": currency, "kind": kind,
             "min_balance_minor": lowest, "max_balance_minor": None}
        )  # fmt: skip
        self.views["view_accounts"].append(
            {"account_id": account_id, "tenant": "demo", "kind": kind, "currency": currency}
        )

    def pay(
        self, key: str, source: str, destination: str, amount: int, refused: str | None = None
    ) -> str:
        """A payment; `refused` is the reason that the ledger gives."""
        home = ids.home_account(source, destination)
        payment_id = ids.payment_id("demo", key, home)
        request = self._request(
            "payment.create", payment_id, home, key, amount_minor=amount, currency="EUR",
            source_account=source, destination_account=destination,
        )  # fmt: skip
        if payment_id in self.seen:
            if request["body_hash"] != self.seen[payment_id]["body_hash"]:
                self._tell(request, "payment.conflicted", "settled", None, version=3)
            return payment_id
        self.seen[payment_id] = request
        self._tell(request, "payment.accepted", "accepted", None, version=1)
        legs = [{"source": source, "destination": destination, "amount_minor": amount,
                 "currency": "EUR"}]  # fmt: skip
        told = "transfer.rejected" if refused else "transfer.posted"
        outcome = self._decide(request, "post", legs, told, refused)
        status = "rejected" if refused else "settled"
        self._tell(request, f"payment.{status}", status, outcome, version=2)
        return payment_id

    def deliver(self, event: str, *, times: int = 1) -> None:
        key = ids.webhook_key("demo", event)
        slot = ids.slot_of_key(key)
        partition = slot % PARTITIONS
        for n in range(times):
            record = _blank("webhooks.received") | {
                "source": "demo", "partner_event_id": event, "slot": slot, "body": b"{}",
                "verdict": "verified", "delivery_id": f"{event}-{n}",
            }  # fmt: skip
            offset = self._log("webhooks.received", partition, key, record)
            self._log(
                "webhooks.events", partition, key,
                _blank("webhooks.events") | {
                    "type": "webhook.repeated" if n else "webhook.accepted",
                    "event_id": ids.event_id("webhooks.received", partition, offset, 0),
                    "source": "demo", "partner_event_id": event, "slot": slot,
                    "received_partition": partition, "received_offset": offset,
                    "deliveries": n + 1,
                },
            )  # fmt: skip
        self.views["view_webhooks"].append(
            {"source": "demo", "partner_event_id": event, "status": "accepted", "deliveries": times}
        )

    def ends(self) -> dict[tuple[str, int], int]:
        return {(t, p): self.next[t, p] for t in TOPICS for p in range(PARTITIONS)}

    def tables(self, cut: dict[tuple[str, int], int] | None = None) -> Tables:
        """Return all tables that verify reads, compared up to the cut; up to now without one."""
        cut = cut or self.ends()
        result: Tables = {}
        for topic in TOPICS:
            log = self._as_log(topic)
            result[frames.table_name(topic)] = frames.log_table(log, cut)
            whole = frames.log_table(log, cut)
            result[frames.bronze_name(topic)] = whole.select(list(frames.bronze_columns(topic)))
            result[frames.rejects_name(topic)] = pa.table(
                {name: pa.array([], kind) for name, kind in frames.REJECT_COLUMNS.items()}
            )
        self._close_ledger()
        for name, kinds in (databases.LEDGER_TABLES | databases.VIEW_TABLES).items():
            rows = (self.ledger | self.views)[name]
            result[name] = pa.table(
                {column: pa.array([r[column] for r in rows], t) for column, t in kinds.items()}
            )
        result["bounds"] = frames.bounds_table(dict.fromkeys(cut, 0), cut)
        result["dead"] = frames.dead_table({topic: self._as_log(topic) for topic in TOPICS})
        return result

    def _as_log(self, topic: str) -> Log:
        log = Log(topic)
        for partition, offset, key, record in self.logs[topic]:
            log.partitions.append(partition)
            log.offsets.append(offset)
            log.timestamps_ms.append(1_700_000_000_000 + offset)
            log.keys.append(key)
            log.values.append(wire.encode(topic, record))
            log.headers.append(())
        return log

    def _log(self, topic: str, partition: int, key: str, record: Row) -> int:
        offset = self.next[topic, partition]
        self.next[topic, partition] += 2  # every record is followed by a marker
        self.logs[topic].append((partition, offset, key.encode(), record))
        return offset

    def _request(self, kind: str, resource: str, home: str, key: str, **fields: Any) -> Row:
        self.now += 1_000
        said = f"{kind}{sorted(fields.items())}"
        common = {
            "resource_id": resource, "tenant": "demo", "idempotency_key": key,
            "identity": ids.identity_of(resource), "slot": ids.slot_of(home),
            "home_account": home, "body_hash": hashlib.sha256(said.encode()).hexdigest(),
        }  # fmt: skip
        record = _blank("payments.requests") | common | fields | {"type": kind, "request_id": "r"}
        self._log("payments.requests", record["slot"] % PARTITIONS, home, record)
        return record

    def _decide(
        self, request: Row, step: str, legs: list[Row], told: str, reason: str | None
    ) -> Row:
        partition = request["slot"] % PARTITIONS
        common = {name: request[name] for name in
                  ("tenant", "identity", "body_hash", "slot", "home_account")}  # fmt: skip
        saga = {"saga_id": request["resource_id"],
                "command_id": ids.command_id(request["resource_id"], step, 1)}  # fmt: skip
        command = _blank("ledger.commands") | common | saga | {
            "type": f"transfer.{step}", "step": step, "attempt": 1, "legs": legs,
        }  # fmt: skip
        offset = self._log("ledger.commands", partition, request["home_account"], command)
        position = 1 + sum(o["partition"] == partition for o in self.ledger["outcomes"])
        entries = [] if reason else self._post(partition, position, legs)
        outcome = {
            "partition": partition, "position": position, "command_offset": offset, "type": told,
            **saga, "step": step, "attempt": 1, "tenant": "demo", "identity": request["identity"],
            "body_hash": request["body_hash"], "transfer_id": request["resource_id"],
            "reason": reason, "failed_leg": 0 if reason else None, "repeated": False,
            "repeats_partition": None, "repeats_position": None, "booked_at_us": self.now,
            "effective_at_us": self.now, "extra": None,
        }  # fmt: skip
        self._seal(outcome, entries, request["home_account"])
        if reason != "idempotency_key_reused":
            claimed = hashlib.sha256(request["identity"].encode()).hexdigest()[:32]
            row = {"key": claimed, "partition": partition, "position": position}
            self.ledger["identities"].append(row)
        event = _blank("ledger.events") | common | saga | {
            name: outcome[name] for name in
            ("type", "position", "command_offset", "booked_at_us", "effective_at_us",
             "transfer_id", "reason", "failed_leg", "repeated", "chain_hash")
        }  # fmt: skip
        event |= {"ledger_partition": partition, "entries": entries}
        self._log("ledger.events", partition, request["home_account"], event)
        return outcome

    def _post(self, partition: int, position: int, legs: list[Row]) -> list[Row]:
        entries: list[Row] = []
        for leg in legs:
            for who, amount in ((leg["source"], -leg["amount_minor"]),
                                (leg["destination"], leg["amount_minor"])):  # fmt: skip
                version, posted = self.shares.get((who, partition), (0, 0))
                self.shares[who, partition] = (version + 1, posted + amount)
                entry = {
                    "account_id": who, "share": partition, "version": version + 1,
                    "amount_minor": amount, "currency": leg["currency"],
                    "posted_minor": posted + amount, "held_minor": 0,
                }  # fmt: skip
                place = {"position": position, "ordinal": len(entries)}
                self.ledger["entries"].append(entry | place)
                self.views["view_entries"].append(entry | {"ledger_position": position})
                entries.append(entry)
        return entries

    def _seal(self, outcome: Row, entries: list[Row], home: str) -> None:
        before = bytes(32)
        for row in self.ledger["outcomes"]:
            if row["partition"] == outcome["partition"]:
                before = bytes.fromhex(row["chain_hash"])
        names = ("account_id", "currency", "version", "amount_minor", "posted_minor", "held_minor")
        sides = [tuple(entry[name] for name in names) for entry in entries]
        line = chain.canonical(outcome, sides, home)
        outcome["chain_hash"] = hashlib.sha256(before + line).hexdigest()
        self.ledger["outcomes"].append(outcome)
        self.ledger["journal"].append(
            {"partition": outcome["partition"], "position": outcome["position"],
             "home_account": None if entries else home}
        )  # fmt: skip

    def _tell(
        self, request: Row, kind: str, status: str, outcome: Row | None, *, version: int
    ) -> None:
        partition = request["slot"] % PARTITIONS
        names = (
            "resource_id", "tenant", "idempotency_key", "identity", "body_hash", "slot",
            "home_account", "request_id", "amount_minor", "currency", "source_account",
            "destination_account",
        )  # fmt: skip
        event = _blank("payments.events") | {name: request[name] for name in names}
        event |= {
            "type": kind, "status": status, "version": version, "occurred_at_us": self.now,
            "event_id": f"{kind}-{request['resource_id']}",
            "reason": outcome["reason"] if outcome else None,
            "ledger_partition": partition if outcome else None,
            "ledger_position": outcome["position"] if outcome else None,
        }  # fmt: skip
        self._log("payments.events", partition, request["home_account"], event)
        if not kind.startswith("payment."):
            return
        shown = {"payment_id": request["resource_id"], "status": status, "version": version,
                 "reason": event["reason"]}  # fmt: skip
        said = ("tenant", "idempotency_key", "amount_minor", "currency", "source_account",
                "destination_account")  # fmt: skip
        others = [v for v in self.views["view_payments"] if v["payment_id"] != shown["payment_id"]]
        self.views["view_payments"] = [*others, shown | {name: request[name] for name in said}]
        self.views["view_timeline"].append(
            {"payment_id": request["resource_id"], "version": version, "at_us": self.now,
             "event": kind.partition(".")[2], "reason": event["reason"],
             "event_id": event["event_id"]}
        )  # fmt: skip

    def _close_ledger(self) -> None:
        shares: list[Row] = [
            {"account_id": who, "share": share, "posted_minor": posted, "held_minor": 0,
             "version": version}
            for (who, share), (version, posted) in self.shares.items()
        ]  # fmt: skip
        self.ledger["shares"], self.views["view_shares"] = shares, shares
        self.ledger["balances"] = []
        for row in self.ledger["accounts"]:
            posted = sum(s["posted_minor"] for s in shares if s["account_id"] == row["account_id"])
            self.ledger["balances"].append(
                {"account_id": row["account_id"], "posted_minor": posted, "held_minor": 0,
                 "available_minor": posted}
            )  # fmt: skip
        self.ledger["partitions"] = []
        for partition in range(PARTITIONS):
            mine = [o for o in self.ledger["outcomes"] if o["partition"] == partition]
            end = mine[-1]["chain_hash"] if mine else bytes(32).hex()
            self.ledger["partitions"].append(
                {"partition": partition, "next_offset": self.next["ledger.commands", partition],
                 "next_position": len(mine) + 1, "chain_hash": f"\\x{end}"}
            )  # fmt: skip


def small_world() -> World:
    """Funding, payments that settle and that are refused, a repeat, conflicts, and webhooks."""
    world = World()
    for account_id in (BANK, A, B, C):
        world.open(account_id)
    world.pay("fund-a", BANK, A, 10_000)
    world.pay("fund-b", BANK, B, 500)
    world.pay("p1", A, B, 700)
    world.pay("p2", B, C, 1_000)
    world.pay("p3", C, A, 5_000, refused="insufficient_funds")
    world.pay("p1", A, B, 700)
    world.pay("p1", A, B, 701)
    world.pay("p1", B, A, 700, refused="idempotency_key_reused")
    world.deliver("evt-1")
    world.deliver("evt-2", times=2)
    return world


def _blank(topic: str) -> Row:
    """A record of the topic with every field empty."""
    empty: dict[Any, Any] = {"string": "", "int": 0, "long": 0, "boolean": False, "bytes": b""}
    fields = frames.avro_fields(topic)
    record: Row = {}
    for field in fields:
        kind = field["type"]
        if "default" in field:
            record[field["name"]] = field["default"]
        elif isinstance(kind, dict):
            record[field["name"]] = {} if kind["type"] == "map" else []
        else:
            record[field["name"]] = empty[kind]
    return record
