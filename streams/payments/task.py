"""The payments task: requests and the ledger's answers in; commands, events and replies out.

Joins the pure modules over the engine's state, and decides nothing itself. One instance serves all
partitions of a process; what it keeps between calls are compiled rules and metrics. A request that
was routed to the wrong partition, or a ledger event without a saga, is poisoned; a gap in the
ledger's positions is a broken invariant.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from prometheus_client import Counter

from schemas import ids, wire
from schemas.errors import Corrupt, Poisoned
from streams.engine import Collection, Context, Input, Record, Task
from streams.payments import dedup, records, saga, state, velocity
from streams.payments.dedup import Use
from streams.payments.saga import Trigger
from streams.payments.state import CONFLICTS_MAX, WAITERS_MAX, Saga, Waiter
from streams.payments.velocity import Profile, RuleSet

Headers = Sequence[tuple[str, bytes]]

SAGAS: Collection[Saga] = Collection(1, "sagas", encode=state.encode, decode=state.decode)
PROFILES: Collection[Profile] = Collection(
    2,
    "profiles",
    encode=msgspec.msgpack.Encoder().encode,
    decode=msgspec.msgpack.Decoder(Profile).decode,
)
POSITIONS: Collection[int] = Collection(
    3, "positions", encode=lambda n: n.to_bytes(8, "big"), decode=lambda b: int.from_bytes(b, "big")
)

_EVENTS: Final = "payments.events"
_COMMANDS: Final = "ledger.commands"
_REPLIES: Final = "gateway.replies"
_TRACE: Final = "traceparent"

_USES = Counter("headrace_requests_total", "Requests by what their key made of them", ["use"])
_HITS = Counter("headrace_velocity_hits_total", "Payments that broke a rule", ["rule", "mode"])
_OUTCOMES = Counter("headrace_sagas_total", "Sagas that ended, by kind of event", ["type"])


def task(rules: RuleSet) -> Task:
    """Declare the task."""
    return Task(
        "payments",
        inputs=(
            Input("payments.requests", decode=wire.decoder("payments.requests")),
            Input("ledger.events", decode=wire.decoder("ledger.events")),
        ),
        outputs=(_EVENTS, _COMMANDS, _REPLIES),
        collections=(SAGAS, PROFILES, POSITIONS),
        handle=Payments(rules).handle,
    )


class Payments:
    """Handles batches of one partition."""

    def __init__(self, rules: RuleSet) -> None:
        self._rules = rules
        self._uses = {use: _USES.labels(use=use.value) for use in Use}
        self._encode_event = wire.encoder(_EVENTS)
        self._encode_command = wire.encoder(_COMMANDS)
        self._encode_reply = wire.encoder(_REPLIES)

    def handle(self, context: Context, batch: Sequence[Record]) -> None:
        """Apply the records in order."""
        for record in batch:
            if record.topic == "payments.requests":
                self._on_request(context, record)
            else:
                self._on_ledger_event(context, record)

    def _on_request(self, context: Context, record: Record) -> None:
        request = record.event
        slot = ids.slot_of(request["home_account"])
        if ids.partition_of(slot, context.partitions) != context.partition:
            raise Poisoned(f"{request['resource_id']} belongs to slot {slot}, not this partition")
        found, found_key = self._find(context, slot, request["identity"], record.at_us)
        use = dedup.judge(found.body_hash if found else None, request["body_hash"])
        self._uses[use].inc()
        if found is None:
            self._begin(context, record, slot)
            return
        if use is Use.CONFLICT:
            self._conflict(context, record, found)
        elif request["reply_partition"] is None:
            return
        else:
            self._wait_again(context, record, found)
        context.put(SAGAS, slot, found_key, found)

    def _begin(self, context: Context, record: Record, slot: int) -> None:
        request = record.event
        trigger, reason = self._admit(context, record, slot)
        transition = saga.step(None, trigger)
        assert transition is not None
        new = Saga(state=transition.to, version=0, **records.saga(request, record.at_us))
        waiter = _waiter(request, repeated=False)
        if waiter is not None:
            new.waiters.append(waiter)
        if transition.event is not None:
            extra = {key: request[key] for key in ("description", "reference", "metadata")}
            self._record(context, record, new, transition.event, extra)
        assert transition.command is not None
        command = records.command(new, transition.command, request, reason)
        self._emit(context, _COMMANDS, new, self._encode_command(command), _trace(record))
        key = dedup.key(request["identity"], dedup.generation(record.at_us))
        context.put(SAGAS, slot, key, new)

    def _admit(self, context: Context, record: Record, slot: int) -> tuple[Trigger, str | None]:
        """Ask the velocity rules about a debit of the home account, and count it if it passes."""
        request = record.event
        if request["type"] == "account.open":
            return Trigger.ACCOUNT_REQUESTED, None
        if request["type"] != "payment.create":
            raise Poisoned(f"request type {request['type']!r} is not known")
        source = request["source_account"]
        if not ids.is_guarded(source):
            return Trigger.PAYMENT_ALLOWED, None
        profile = context.get(PROFILES, slot, source.encode()) or velocity.empty()
        amount_minor = request["amount_minor"]
        verdict = velocity.check(
            profile, self._rules, record.at_us, amount_minor, request["currency"]
        )
        for rule in verdict.enforced + verdict.shadowed:
            _HITS.labels(rule=rule.id, mode=rule.mode).inc()
        if verdict.enforced:
            return Trigger.PAYMENT_REFUSED, verdict.enforced[0].reason
        velocity.add(profile, record.at_us, amount_minor)
        context.put(PROFILES, slot, source.encode(), profile)
        return Trigger.PAYMENT_ALLOWED, None

    def _conflict(self, context: Context, record: Record, found: Saga) -> None:
        """Show the conflict on the timeline of what the key was first used for; execute nothing."""
        request = record.event
        if found.conflicts < CONFLICTS_MAX:
            found.conflicts += 1
            kind = "account" if request["type"] == "account.open" else "payment"
            extra = {"request_id": request["request_id"], "reason": "idempotency_key_reused"}
            self._record(context, record, found, f"{kind}.conflicted", extra)
        waiter = _waiter(request, repeated=True)
        if waiter is not None:
            self._reply(context, record, found, waiter, conflict=True)

    def _wait_again(self, context: Context, record: Record, found: Saga) -> None:
        waiter = _waiter(record.event, repeated=True)
        assert waiter is not None
        if found.state in saga.FINAL:
            self._reply(context, record, found, waiter)
        elif len(found.waiters) < WAITERS_MAX:
            found.waiters.append(waiter)

    def _on_ledger_event(self, context: Context, record: Record) -> None:
        event = record.event
        if not _advance(context, event):
            return
        slot = ids.slot_of(event["saga_id"])
        found, found_key = self._find(context, slot, event["identity"], record.at_us)
        if found is None:
            raise Poisoned(f"{event['saga_id']} has no saga here")
        transition = saga.step(found.state, Trigger(event["type"]))
        if transition is None:
            return
        assert transition.event is not None
        found.state, found.reason, found.detail = transition.to, event["reason"], event["detail"]
        found.shares = [(e["account_id"], e["share"], e["version"]) for e in event["entries"]]
        extra: dict[str, Any] = {
            "ledger_partition": event["ledger_partition"],
            "ledger_position": event["position"],
        }
        for key in ("account_kind", "account_name", "min_balance_minor", "max_balance_minor"):
            extra[key] = event[key]
        self._record(context, record, found, transition.event, extra)
        for waiter in found.waiters:
            self._reply(context, record, found, waiter)
        found.waiters = []
        context.put(SAGAS, slot, found_key, found)
        _OUTCOMES.labels(type=transition.event).inc()

    def _find(
        self, context: Context, slot: int, identity: str, at_us: int
    ) -> tuple[Saga | None, bytes]:
        for key in dedup.keys(identity, at_us):
            found = context.get(SAGAS, slot, key)
            if found is not None:
                return found, key
        return None, b""

    def _record(
        self, context: Context, record: Record, of: Saga, kind: str, extra: dict[str, Any]
    ) -> None:
        """Add an event to the timeline and emit it."""
        of.version += 1
        reason = extra.get("reason", of.reason)
        of.timeline.append((record.at_us, kind.partition(".")[2], reason))
        event_id = ids.event_id(record.topic, record.partition, record.offset, 0)
        event = records.event(of, kind, event_id, record.at_us, extra)
        self._emit(context, _EVENTS, of, self._encode_event(event), _trace(record))

    def _reply(
        self, context: Context, record: Record, of: Saga, to: Waiter, *, conflict: bool = False
    ) -> None:
        reply = self._encode_reply(records.reply(of, to, record.at_us, conflict=conflict))
        partition = to.reply_partition % context.partitions
        context.emit(_REPLIES, partition, None, reply, _trace(record))

    def _emit(self, context: Context, topic: str, of: Saga, value: bytes, headers: Headers) -> None:
        context.emit(topic, context.partition, of.home_account.encode(), value, headers)


def _advance(context: Context, event: dict[str, Any]) -> bool:
    """Move on to the ledger's position; False where it was applied before."""
    key, position = b"ledger", event["position"]
    slot = context.partition
    last = context.get(POSITIONS, slot, key)
    if last is not None:
        if position <= last:
            return False
        if position != last + 1:
            raise Corrupt(f"the ledger's events jump from position {last} to {position}")
    context.put(POSITIONS, slot, key, position)
    return True


def _waiter(request: dict[str, Any], *, repeated: bool) -> Waiter | None:
    if request["reply_partition"] is None:
        return None
    return Waiter(request["reply_partition"], request["request_id"], repeated)


def _trace(record: Record) -> Headers:
    return tuple(header for header in record.headers if header[0] == _TRACE)
