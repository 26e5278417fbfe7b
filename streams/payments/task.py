"""The payments task: requests and the ledger's answers in; commands, events and replies out.

Routes each record to whoever decides on it, and decides nothing itself. A request that was routed
to the wrong partition, or has a type that nobody knows, is poisoned.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from schemas import ids, wire
from schemas.errors import Poisoned
from streams.engine import HORIZON_S, Collection, Context, Input, OnPoison, Record, Task
from streams.payments import answers, requests
from streams.payments.operation import OPERATIONS as OPERATION_KINDS
from streams.payments.outlet import COMMANDS, EVENTS, REPLIES, REQUESTS
from streams.payments.stores import OPERATIONS, POSITIONS, PROFILES, SAGAS
from streams.payments.velocity import Profile, RuleSet

_LEDGER: Final = "ledger.events"
_CREATIONS: Final = frozenset({"payment.create", "transfer.create", "account.open"})


def task(rules: RuleSet, horizon_s: int = HORIZON_S) -> Task:
    """Declare the task; `horizon_s` is how long an idempotency key is remembered at least."""
    return Task(
        "payments",
        inputs=(
            Input(REQUESTS, decode=wire.decoder(REQUESTS), reads=_profile_of),
            # The ledger's word is never passed over: what can't be applied is for people to see to.
            Input(_LEDGER, decode=wire.decoder(_LEDGER), on_poison=OnPoison.STOP),
        ),
        outputs=(EVENTS, COMMANDS, REPLIES, REQUESTS),
        collections=(SAGAS, PROFILES, POSITIONS, OPERATIONS),
        timers=True,
        horizon_s=horizon_s,
        handle=Payments(rules).handle,
    )


def _profile_of(key: bytes) -> tuple[Collection[Profile], int, bytes]:
    """Name what a payment asks for; the key of a request is its home account."""
    return PROFILES, ids.slot_of(key.decode()), key


class Payments:
    """Handles batches of one partition; what it keeps between calls are the compiled rules."""

    def __init__(self, rules: RuleSet) -> None:
        self._rules = rules

    def handle(self, context: Context, batch: Sequence[Record]) -> None:
        """Apply the records in order."""
        for record in batch:
            if record.timer is not None:
                timer = record.timer
                requests.on_expiry(context, record, timer.slot, timer.key.decode())
            elif record.topic == _LEDGER:
                answers.on_ledger_event(context, record)
            else:
                self._on_request(context, record)
        requests.uses.tell()
        answers.outcomes.tell()

    def _on_request(self, context: Context, record: Record) -> None:
        request = record.event
        kind = request["type"]
        routed_by = request["home_account"] if kind != "saga.answered" else request["resource_id"]
        slot = ids.slot_of(routed_by)
        if ids.partition_of(slot, context.partitions) != context.partition:
            raise Poisoned(f"{request['resource_id']} belongs to slot {slot}, not this partition")
        if kind in _CREATIONS:
            requests.on_creation(context, record, slot, self._rules)
        elif kind in OPERATION_KINDS:
            requests.on_operation(context, record, slot)
        elif kind == "saga.answered":
            answers.on_forwarded(context, record)
        else:
            raise Poisoned(f"request type {kind!r} is not known")
