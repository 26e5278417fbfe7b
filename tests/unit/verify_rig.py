"""A small world that is right: what Kafka, the ledger, the views and the lake hold after a few
payments, written out by a model of its own, so that tests can make one thing wrong at a time.
"""

from __future__ import annotations

import hashlib
import json
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
A, B, C, D, E = (account(name) for name in "abcde")
LEG = ("source", "destination", "amount_minor", "currency")
FURTHER_STEPS = frozenset({"expire", "prepare", "commit", "abort"})
OPERATIONS = frozenset(
    {"payment.capture", "payment.void", "payment.refund", "transfer.reverse", "account.freeze",
     "account.unfreeze", "account.close"}
)  # fmt: skip


class World:
    """Requests go in by `open`, `pay` and `deliver`; `tables` tells what everybody then holds."""

    now = 1_700_000_000_000_000

    def __init__(self) -> None:
        self.logs: dict[str, list[tuple[int, int, bytes, Row, int]]] = defaultdict(list)
        self.next: dict[tuple[str, int], int] = defaultdict(int)
        self.ledger: dict[str, list[Row]] = {name: [] for name in databases.LEDGER_TABLES}
        self.views: dict[str, list[Row]] = {name: [] for name in databases.VIEW_TABLES}
        self.shares: dict[tuple[str, int], tuple[int, int, int]] = {}
        self.sagas: dict[str, Row] = {}
        self.ms = 1_700_000_000_000
        self.seen: dict[str, Row] = {}

    def open(self, account_id: str, currency: str = "EUR", cap: int | None = None) -> None:
        kind = ids.kind_of(account_id)
        request = self._request(
            "account.open", account_id, account_id, account_id, currency=currency
        )
        outcome = self._decide(request, "open", [], "account.opened", None)
        self._tell(request, "account.opened", "active", outcome)
        lowest = 0 if kind == "customer" else None
        self.ledger["accounts"].append(
            {"account_id": account_id, "tenant": "demo", "currency": currency, "kind": kind,
             "min_balance_minor": lowest, "max_balance_minor": cap,
             "debits_frozen": False, "credits_frozen": False, "closed": False}
        )  # fmt: skip
        self.views["view_accounts"].append(
            {"account_id": account_id, "tenant": "demo", "kind": kind, "currency": currency,
             "status": "active", "debits_frozen": False, "credits_frozen": False,
             "changed_position": 0}
        )  # fmt: skip

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
                self._tell(request, "payment.conflicted", "settled", None)
            return payment_id
        self.seen[payment_id] = request
        self._tell(request, "payment.accepted", "accepted", None)
        legs = [{"source": source, "destination": destination, "amount_minor": amount,
                 "currency": "EUR"}]  # fmt: skip
        told = "transfer.rejected" if refused else "transfer.posted"
        outcome = self._decide(request, "post", legs, told, refused)
        status = "rejected" if refused else "settled"
        if not refused:
            self.sagas[payment_id]["captured_minor"] = amount
        self._tell(request, f"payment.{status}", status, outcome)
        return payment_id

    def hold(self, key: str, source: str, destination: str, amount: int) -> str:
        """A payment that is authorized."""
        home = ids.home_account(source, destination)
        payment_id = ids.payment_id("demo", key, home)
        request = self._request(
            "payment.create", payment_id, home, key, amount_minor=amount, currency="EUR",
            source_account=source, destination_account=destination, capture="manual",
            expires_in_s=60,
        )  # fmt: skip
        self._tell(request, "payment.accepted", "accepted", None)
        hold = {"hold_id": payment_id, "amount_minor": amount, "remaining_minor": amount,
                "expires_at_us": self.now, "destination": destination}  # fmt: skip
        legs = [{"source": source, "destination": destination, "amount_minor": amount,
                 "currency": "EUR"}]  # fmt: skip
        outcome = self._decide(
            request, "place", legs, "hold.placed", None, kind="hold.place",
            moves=[(source, 0, amount)], extra={"hold": hold}, asks={"hold_id": payment_id},
        )  # fmt: skip
        self.ledger["holds"].append(
            {"hold_id": payment_id, "partition": outcome["partition"], "source": source,
             "destination": destination, "currency": "EUR", "amount_minor": amount,
             "remaining_minor": amount, "captured_minor": 0, "expires_at_us": self.now,
             "state": "open"}
        )  # fmt: skip
        self.sagas[payment_id] |= {"authorized_minor": amount, "place": outcome}
        self._tell(request, "payment.authorized", "authorized", outcome)
        return payment_id

    def capture(self, payment_id: str, key: str, amount: int | None) -> None:
        hold = self._hold(payment_id)
        part = amount or hold["remaining_minor"]
        request = self._operation("payment.capture", payment_id, key, amount_minor=amount)
        if part > hold["remaining_minor"]:
            self._refuse(request, "hold.rejected", "amount_exceeds_hold")
            return
        hold["remaining_minor"] -= part
        hold["captured_minor"] += part
        facts = {"hold_id": payment_id, "amount_minor": part,
                 "remaining_minor": hold["remaining_minor"]}  # fmt: skip
        moves = [(hold["source"], -part, -part), (hold["destination"], part, 0)]
        outcome = self._decide(
            request, self._step(request), [], "hold.posted", None, kind="hold.post", moves=moves,
            extra={"hold": facts}, asks={"hold_id": payment_id, "amount_minor": amount},
        )  # fmt: skip
        self.sagas[payment_id]["captured_minor"] = hold["captured_minor"]
        if hold["remaining_minor"]:
            self._tell(request, "payment.captured", "authorized", outcome)
        else:
            hold["state"] = "posted"
            self._tell(request, "payment.settled", "settled", outcome)

    def end_hold(self, payment_id: str, key: str | None) -> None:
        """Void it by a request with a key, or have it expire."""
        hold = self._hold(payment_id)
        if key is None:
            request, step, state = self.sagas[payment_id]["request"], "expire", "expired"
        else:
            request = self._operation("payment.void", payment_id, key)
            step, state = self._step(request), "voided"
        part = hold["remaining_minor"]
        hold |= {"remaining_minor": 0, "state": state}
        facts = {"hold_id": payment_id, "amount_minor": part, "remaining_minor": 0, "reason": state}
        outcome = self._decide(
            request, step, [], "hold.voided", None, kind="hold.void",
            moves=[(hold["source"], 0, -part)], extra={"hold": facts},
            asks={"hold_id": payment_id, "reason": state},
        )  # fmt: skip
        self._tell(request, f"payment.{state}", state, outcome)

    def refund(self, payment_id: str, key: str, amount: int) -> None:
        saga = self.sagas[payment_id]
        request = self._operation("payment.refund", payment_id, key, amount_minor=amount)
        payer, payee = saga["request"]["source_account"], saga["request"]["destination_account"]
        home = ids.home_account(payee, payer)
        saga["refunded_minor"] = (saga["refunded_minor"] or 0) + amount
        left = saga["captured_minor"] - saga["refunded_minor"]
        outcome = self._pay_back(
            request, saga["place"], home, payer, payee, amount=amount, left=left
        )
        status = "partially_refunded" if left else "refunded"
        if saga["status"] == "authorized":
            status = "authorized"
        self._tell(request, "payment.refunded", status, outcome)

    def transfer(self, key: str, legs: list[tuple[str, str, int]], *, dry: bool = False) -> str:
        home = ids.home_account(legs[0][0], legs[0][1])
        transfer_id = ids.transfer_id("demo", key, home)
        names = ("source", "destination", "amount_minor")
        moved = [dict(zip(names, leg, strict=True)) | {"currency": "EUR"} for leg in legs]
        request = self._request("transfer.create", transfer_id, home, key, legs=moved, dry_run=dry)
        outcome = self._decide(
            request, "post", moved, "transfer.posted", None, asks={"dry_run": dry},
            extra={"dry_run": True} if dry else None, moves=[] if dry else None,
        )  # fmt: skip
        if not dry:
            self.sagas[transfer_id] = {"place": outcome}
            self._show_transfer(outcome, None, None)
            self._tell(request, "transfer.posted", "posted", outcome)
        return transfer_id

    def reverse(self, transfer_id: str, key: str, payer: str, payee: str, amount: int,
                *, left: int) -> None:  # fmt: skip
        home = ids.home_account(payee, payer)
        request = self._operation(
            "transfer.reverse", ids.transfer_id("demo", key, home), key, home, amount_minor=amount,
            target_id=transfer_id,
        )  # fmt: skip
        place = self.sagas[transfer_id]["place"]
        outcome = self._pay_back(request, place, home, payer, payee, amount=amount, left=left)
        self._show_transfer(outcome, transfer_id, amount)

    def flag(self, account_id: str, key: str, kind: str, *, credits_: bool) -> None:
        """Freeze, unfreeze (`account.freeze`, ...): credits only, or both directions."""
        told = {"freeze": "frozen", "unfreeze": "unfrozen", "close": "closed"}[kind]
        asks = {"debits": False, "credits": True} if credits_ else {"debits": None, "credits": None}
        request = self._operation(f"account.{kind}", account_id, key, account_id, **asks)
        row = next(a for a in self.ledger["accounts"] if a["account_id"] == account_id)
        for name in ("credits_frozen",) if credits_ else ("debits_frozen", "credits_frozen"):
            row[name] = {"freeze": True, "unfreeze": False, "close": row[name]}[kind]
        row["closed"] = kind == "close"
        flags = {name: row[name] for name in ("debits_frozen", "credits_frozen", "closed")}
        outcome = self._decide(
            request, self._step(request), [], f"account.{told}", None, kind=f"account.{kind}",
            moves=[], extra={"account": {"account_id": account_id, **flags}},
            asks={"account_id": account_id, **asks},
        )  # fmt: skip
        frozen = row["debits_frozen"] or row["credits_frozen"]
        status = "closed" if row["closed"] else "frozen" if frozen else "active"
        shown = next(a for a in self.views["view_accounts"] if a["account_id"] == account_id)
        shown |= {"status": status, "changed_position": outcome["position"],
                  "debits_frozen": row["debits_frozen"],
                  "credits_frozen": row["credits_frozen"]}  # fmt: skip
        self._tell(request, f"account.{told}", status, None)

    def _pay_back(self, request: Row, place: Row, home: str, payer: str, payee: str,
                  *, amount: int, left: int) -> Row:  # fmt: skip
        facts = {"original_id": place["transfer_id"], "leg": None, "amount_minor": amount,
                 "remaining_minor": left, "partition": place["partition"],
                 "position": place["position"], "legs": [[0, amount]]}  # fmt: skip
        outcome = self._decide(
            request, self._step(request), [], "transfer.reversed", None, kind="transfer.reverse",
            moves=[(payee, -amount, 0), (payer, amount, 0)], extra={"reversal": facts}, home=home,
            asks={"original_id": place["transfer_id"], "amount_minor": amount},
        )  # fmt: skip
        names = ("original_partition", "original_position", "leg")
        key = dict(zip(names, (place["partition"], place["position"], 0), strict=True))
        for row in self.ledger["reversals"]:
            if key.items() <= row.items():
                row["reversed_minor"] += amount
                return outcome
        kept = key | {"partition": outcome["partition"], "reversed_minor": amount}
        self.ledger["reversals"].append(kept)
        return outcome

    def _operation(
        self, kind: str, resource: str, key: str, home: str | None = None, **fields: Any
    ) -> Row:
        told = {"target_id": resource} | fields
        home = home or self.sagas[resource]["request"]["home_account"]
        return self._request(kind, resource, home, key, operation=True, **told)

    def _refuse(self, request: Row, told: str, reason: str) -> None:
        extra = {"hold": {"hold_id": request["target_id"]}}
        outcome = self._decide(
            request, self._step(request), [], told, reason, kind="hold.post", extra=extra,
            asks={"hold_id": request["target_id"], "amount_minor": request["amount_minor"]},
        )  # fmt: skip
        status = self.sagas[request["resource_id"]]["status"]
        self._tell(request, f"{request['type']}_refused", status, outcome)

    def _hold(self, payment_id: str) -> Row:
        return next(h for h in self.ledger["holds"] if h["hold_id"] == payment_id)

    def _step(self, request: Row) -> str:
        return f"{request['type'].partition('.')[2]}-{request['identity']}"

    def _show_transfer(self, outcome: Row, original: str | None, amount: int | None) -> None:
        self.views["view_transfers"].append(
            {"transfer_id": outcome["transfer_id"], "tenant": "demo", "status": "posted",
             "original_id": original, "reversed_minor": amount, "reason": None, "failed_leg": None,
             "ledger_position": outcome["position"],
             "entries": json.dumps(self.entries_of(outcome))}
        )  # fmt: skip

    def entries_of(self, outcome: Row) -> list[Row]:
        place = outcome["partition"], outcome["position"]
        return [e for e in self.ledger["entries"] if (e["share"], e["position"]) == place]

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
        for partition, offset, key, record, at_ms in self.logs[topic]:
            log.partitions.append(partition)
            log.offsets.append(offset)
            log.timestamps_ms.append(at_ms)
            log.keys.append(key)
            log.values.append(wire.encode(topic, record))
            log.headers.append(())
        return log

    def _log(self, topic: str, partition: int, key: str, record: Row) -> int:
        offset = self.next[topic, partition]
        self.next[topic, partition] += 2  # every record is followed by a marker
        self.ms += 1
        self.logs[topic].append((partition, offset, key.encode(), record, self.ms))
        return offset

    def _request(
        self, kind: str, resource: str, home: str, key: str, operation: bool = False, **fields: Any
    ) -> Row:
        self.now += 1_000
        said = f"{kind}{sorted(fields.items())}"
        common = {
            "resource_id": resource, "tenant": "demo", "idempotency_key": key,
            "identity": (
                ids.operation_identity("demo", key) if operation else ids.identity_of(resource)
            ),
            "slot": ids.slot_of(home), "home_account": home,
            "body_hash": hashlib.sha256(said.encode()).hexdigest(),
        }  # fmt: skip
        record = _blank("payments.requests") | common | fields | {"type": kind, "request_id": "r"}
        self._log("payments.requests", record["slot"] % PARTITIONS, home, record)
        return record

    def _decide(
        self, request: Row, step: str, legs: list[Row], told: str, reason: str | None,
        *, kind: str | None = None, moves: list[tuple[str, int, int]] | None = None,
        extra: Row | None = None, asks: Row | None = None, home: str | None = None,
    ) -> Row:  # fmt: skip
        """One command and its row and event; `moves` follows from the legs where it is None."""
        home = home or request["home_account"]
        partition = ids.slot_of(home) % PARTITIONS
        common = {name: request[name] for name in ("tenant", "identity", "body_hash")}
        common |= {"slot": ids.slot_of(home), "home_account": home}
        saga = {"saga_id": request["resource_id"],
                "command_id": ids.command_id(request["resource_id"], step, 1)}  # fmt: skip
        command = _blank("ledger.commands") | common | saga | {
            "type": kind or f"transfer.{step}", "step": step, "attempt": 1, "legs": legs,
        } | (asks or {})  # fmt: skip
        offset = self._log("ledger.commands", partition, home, command)
        position = 1 + sum(o["partition"] == partition for o in self.ledger["outcomes"])
        if moves is None:
            moves = [move for leg in legs for move in (
                (leg["source"], -leg["amount_minor"], 0),
                (leg["destination"], leg["amount_minor"], 0))]  # fmt: skip
        entries = [] if reason else self._post(partition, position, moves)
        outcome = {
            "partition": partition, "position": position, "command_offset": offset, "type": told,
            **saga, "step": step, "attempt": 1, "tenant": "demo", "identity": request["identity"],
            "body_hash": request["body_hash"], "transfer_id": request["resource_id"],
            "reason": reason, "failed_leg": 0 if reason else None, "repeated": False,
            "repeats_partition": None, "repeats_position": None, "booked_at_us": self.now,
            "effective_at_us": self.now,
            "extra": json.dumps(extra, sort_keys=True, separators=(",", ":")) if extra else None,
        }  # fmt: skip
        self._seal(outcome, entries, home)
        dry = bool((asks or {}).get("dry_run"))
        if reason != "idempotency_key_reused" and not dry:
            under = f"/{step}/1" if step.partition("-")[0] in FURTHER_STEPS else ""
            if request["type"] == "transfer.reverse" and not under:
                under = f"/{step}/1" if request["resource_id"].endswith(request["identity"]) else ""
            claimed = hashlib.sha256((request["identity"] + under).encode()).hexdigest()[:32]
            row = {"key": claimed, "partition": partition, "position": position}
            self.ledger["identities"].append(row)
        event = _blank("ledger.events") | common | saga | {
            name: outcome[name] for name in
            ("type", "position", "command_offset", "booked_at_us", "effective_at_us",
             "transfer_id", "reason", "failed_leg", "repeated", "chain_hash")
        }  # fmt: skip
        event |= {"ledger_partition": partition, "entries": entries, "dry_run": dry}
        event["event_id"] = ids.event_id("ledger.commands", partition, offset, 0)
        for part in (extra or {}).values() if not dry else ():
            event |= {name: value for name, value in part.items() if name in event
                      and name not in {"position", "legs"}}  # fmt: skip
        linked = {} if dry else (extra or {}).get("linked", {})
        back = linked.get("back", ())
        event["leg_indexes"] = [side[0] for side in linked.get("held", ())]
        event["original_legs"] = [leg[0] for leg in back]
        event["legs"] = [dict(zip(LEG, leg[1:], strict=True)) for leg in back]
        self._log("ledger.events", partition, home, event)
        if ids.slot_of(request["resource_id"]) % PARTITIONS != partition:
            self._forward(event, step)
        return outcome

    def _forward(self, event: Row, step: str) -> None:
        saga_id = event["saga_id"]
        names = ("tenant", "identity", "body_hash", "amount_minor")
        answer = _blank("payments.requests") | {name: event[name] for name in names} | {
            "type": "saga.answered", "request_id": event["event_id"], "resource_id": saga_id,
            "slot": ids.slot_of(saga_id), "home_account": saga_id, "answer": event["type"],
            "answer_reason": event["reason"], "answer_step": step,
            "answer_remaining_minor": event["remaining_minor"],
            "answer_failed_leg": event["failed_leg"], "answer_entries": event["entries"],
            "answer_leg_indexes": event["leg_indexes"], "answer_parts": event["parts"],
            "answer_legs": event["legs"], "answer_original_legs": event["original_legs"],
        }  # fmt: skip
        self._log("payments.requests", answer["slot"] % PARTITIONS, saga_id, answer)

    def _post(self, partition: int, position: int, moves: list[tuple[str, int, int]]) -> list[Row]:
        entries: list[Row] = []
        for who, amount, holding in moves:
            version, posted, held = self.shares.get((who, partition), (0, 0, 0))
            version, posted, held = version + 1, posted + amount, held + holding
            self.shares[who, partition] = (version, posted, held)
            entry = {
                "account_id": who, "share": partition, "version": version,
                "amount_minor": amount, "currency": "EUR", "posted_minor": posted,
                "held_minor": held,
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

    def _tell(self, request: Row, kind: str, status: str, outcome: Row | None) -> None:
        saga = self.sagas.setdefault(request["resource_id"], {})
        begun = saga.setdefault("request", request)
        saga.setdefault("place", outcome)
        if saga["place"] is None:
            saga["place"] = outcome
        version = saga["version"] = saga.get("version", 0) + 1
        saga["status"] = status
        amounts = ("authorized_minor", "captured_minor", "refunded_minor")
        for name in amounts:
            saga.setdefault(name, None)
        partition = begun["slot"] % PARTITIONS
        names = (
            "resource_id", "tenant", "idempotency_key", "body_hash", "slot", "home_account",
            "request_id", "amount_minor", "currency", "source_account", "destination_account",
            "capture",
        )  # fmt: skip
        event = _blank("payments.events") | {name: begun[name] for name in names}
        operation = request["identity"] if request["type"] in OPERATIONS else None
        same = outcome is not None and outcome["partition"] == partition
        refused = kind.endswith("_refused")
        place = outcome if same and not refused else None
        event |= {name: saga[name] for name in amounts} | {
            "type": kind, "status": status, "version": version, "occurred_at_us": self.now,
            "identity": begun["identity"], "operation_id": operation,
            "event_id": f"{kind}-{request['resource_id']}-{version}",
            "reason": outcome["reason"] if outcome else None,
            "ledger_partition": partition if place else None,
            "ledger_position": place["position"] if place else None,
        }  # fmt: skip
        request = begun
        self._log("payments.events", partition, request["home_account"], event)
        if not kind.startswith("payment."):
            return
        shown = {"payment_id": request["resource_id"], "status": status, "version": version,
                 "reason": None if refused else event["reason"]}  # fmt: skip
        shown |= {name: saga[name] for name in amounts}
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
            {"account_id": who, "share": share, "posted_minor": posted, "held_minor": held,
             "version": version}
            for (who, share), (version, posted, held) in self.shares.items()
        ]  # fmt: skip
        self.ledger["shares"], self.views["view_shares"] = shares, shares
        self.ledger["balances"] = []
        for row in self.ledger["accounts"]:
            posted = sum(s["posted_minor"] for s in shares if s["account_id"] == row["account_id"])
            held = sum(s["held_minor"] for s in shares if s["account_id"] == row["account_id"])
            self.ledger["balances"].append(
                {"account_id": row["account_id"], "posted_minor": posted, "held_minor": held,
                 "available_minor": posted - held}
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


def operated_world() -> World:
    """The small world, and everything that is done to payments, transfers and accounts later."""
    world = small_world()
    held = world.hold("h1", A, B, 900)
    world.capture(held, "h1-c1", 300)
    world.capture(held, "h1-c2", 700)
    world.capture(held, "h1-c3", None)
    world.refund(held, "h1-r1", 100)
    world.end_hold(world.hold("h2", A, C, 200), "h2-v")
    world.end_hold(world.hold("h3", A, C, 250), None)
    world.hold("h4", A, B, 40)
    two = world.transfer("t1", [(A, B, 50), (A, C, 60)])
    world.transfer("t2", [(A, B, 5)], dry=True)
    one = world.transfer("t3", [(A, B, 80)])
    world.reverse(one, "t3-1", A, B, 30, left=50)
    assert two != one
    world.open(D)
    world.flag(D, "f1", "freeze", credits_=True)
    world.flag(D, "f2", "unfreeze", credits_=False)
    world.pay("p-d", A, D, 10)
    world.flag(D, "f3", "freeze", credits_=False)
    world.open(E)
    world.flag(E, "f4", "close", credits_=False)
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
