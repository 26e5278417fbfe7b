"""Takes a validated request to its answer: repeat or new, durable, decided.

What answers: a repeat that is known here, at once; else the acknowledgement (202), or, for a
request that waits, the reply to it (201 or 200), or its time being over (202 if durable by then,
else when it is). A conflict is 422 wherever it is found out. An event is offered even if its client
has gone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from gateways import metrics
from gateways.http.exchange import Exchange
from gateways.kafka.outbox import Event, Outbox
from gateways.kafka.reply import Reply
from gateways.kafka.trace import HEADER, traceparent
from gateways.payments.prefer import Wait
from gateways.payments.recent import Recent, Seen, is_conflict
from gateways.payments.requests import TOPIC, Record
from gateways.payments.versions import Versions
from gateways.payments.waiters import Waiters
from gateways.problems import Down, FieldError, Refused
from schemas import ids, logs, wire

Present = Callable[[Record, Reply | None], Any]

NOT_FOUND: Final = frozenset({"payment_not_found"})
REPLAYED: Final = b"Idempotent-Replayed: true\r\n"

_encode = msgspec.json.Encoder().encode
_encode_record = wire.encoder(TOPIC)
_NEW: Final = metrics.IDEMPOTENCY.labels(outcome="new")
_REPLAYED: Final = metrics.IDEMPOTENCY.labels(outcome="replayed")
_CONFLICT: Final = metrics.IDEMPOTENCY.labels(outcome="conflict")


@dataclass(frozen=True, slots=True)
class Resource:
    """What is created or acted upon: where it is found, how it is shown.

    `rejection`: the problem that a rejection is answered with; None where it is shown as a status.
    `created`: the status of a first execution whose outcome is told. `reread` may take an answer
    over, where a repeat's outcome tells too little.
    """

    path: str
    present: Present
    rejection: str | None = None
    created: int = 201
    reread: Callable[[Exchange, Answered], bool] | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """What a request is about to be answered with."""

    status: int
    lines: bytes
    record: Record
    outcome: Reply


class Intake:
    """Shared by every route that creates something."""

    def __init__(
        self,
        *,
        outbox: Outbox,
        recent: Recent,
        waiters: Waiters,
        versions: Versions,
        can_wait: Callable[[], bool],
        partitions: int,
        log_sample: int,
    ) -> None:
        self.outbox = outbox
        self.recent = recent
        self.waiters = waiters
        self._versions = versions
        self._can_wait = can_wait
        self._partitions = partitions
        self._log_sample = log_sample
        self._log = logs.get()

    def submit(self, exchange: Exchange, resource: Resource, record: Record, wait: Wait) -> None:
        """Answer a request now or later; Refused or Down at once.

        A repeat that waits for an outcome not known here is written again: whoever decides answers
        each request that waits.
        """
        name = name_of(record)
        seen = self.recent.find(name)
        if seen is not None:
            refuse_other(seen, name, record["body_hash"])
            if not wait.seconds or seen.outcome is not None:
                _REPLAYED.inc()
                status = 200 if wait.seconds else 202
                lines = wait.applied + REPLAYED
                _answer(exchange, resource, status, seen.record(), seen.outcome, lines=lines)
                return
        if wait.seconds and not self._can_wait():
            raise Down("not_ready", "This gateway can't yet hear of outcomes. Retry later.")
        submission = _Submission(self, exchange, resource, record, wait, repeats=seen is not None)
        self.outbox.offer(self.event(exchange, record, submission.value, submission.acknowledged))
        (_NEW if seen is None else _REPLAYED).inc()
        if submission.waits:
            self.waiters.expect(exchange.request_id, wait.seconds, submission.decided)

    def event(
        self, exchange: Exchange, record: Record, value: bytes, done: Callable[[Down | None], None]
    ) -> Event:
        """Make the event of a request."""
        return Event(
            topic=TOPIC,
            partition=ids.partition_of(record["slot"], self._partitions),
            key=record["home_account"].encode(),
            value=value,
            headers=((HEADER, traceparent(exchange.headers.get(b"traceparent"))),),
            at_ms=record["received_at_us"] // 1000,
            done=done,
        )

    def remember(self, record: Record, value: bytes) -> None:
        """Note that a request is durable."""
        self.recent.accepted(name_of(record), record["body_hash"], value)
        if logs.sampled(record["identity"], self._log_sample):
            self._log.info(
                "accepted", payment_id=record["resource_id"], request_id=record["request_id"]
            )

    def on_reply(self, reply: Reply) -> None:
        """Learn from a reply, then hand it to whoever waits."""
        self._versions.learn(reply.shares)
        self._versions.learn_change(reply)
        self.recent.decided(reply)
        self.waiters.resolve(reply)


class _Submission:
    """One request on its way. Exactly one of the three events below answers it."""

    __slots__ = (
        "_durable",
        "_exchange",
        "_intake",
        "_lines",
        "_record",
        "_repeats",
        "_resource",
        "value",
        "waits",
    )

    def __init__(
        self,
        intake: Intake,
        exchange: Exchange,
        resource: Resource,
        record: Record,
        wait: Wait,
        *,
        repeats: bool,
    ) -> None:
        self.value = _encode_record(record)
        self._intake = intake
        self._exchange = exchange
        self._resource = resource
        self._record = record
        self._lines = wait.applied
        self._repeats = repeats
        self._durable = False
        self.waits = wait.seconds > 0 and not intake.waiters.full

    def acknowledged(self, error: Down | None) -> None:
        """Kafka has the event, or did not say so in time."""
        if self._exchange.answered:
            return
        if error is not None:
            self._intake.waiters.forget(self._exchange.request_id)
            self._exchange.refuse(error)
            return
        self._durable = True
        self._intake.remember(self._record, self.value)
        if not self.waits:
            self._answer(202, None)

    def decided(self, reply: Reply | None) -> None:
        """The outcome is known, or the time to wait for it is over."""
        if self._exchange.answered:
            return
        if reply is None:
            self.waits = False
            if self._durable:
                self._answer(202, None)  # else the acknowledgement answers
        elif is_conflict(reply):
            _CONFLICT.inc()
            self._exchange.refuse(reused())
        else:
            self._intake.recent.accepted(reply.name, self._record["body_hash"], self.value)
            self._intake.recent.decided(reply)
            self._repeats = reply.repeated
            self._answer(200 if reply.repeated else self._resource.created, reply)

    def _answer(self, status: int, reply: Reply | None) -> None:
        lines = self._lines + REPLAYED if self._repeats else self._lines
        _answer(self._exchange, self._resource, status, self._record, reply, lines=lines)


def refuse_other(seen: Seen, resource_id: str, body_hash: str) -> None:
    """Raise Refused when the key was used for another request."""
    if seen.body_hash != body_hash or seen.resource_id != resource_id:
        _CONFLICT.inc()
        raise reused()


def reused() -> Refused:
    """Say that the key belongs to another request."""
    detail = (
        "The key was used before with another request. Nothing was executed for this one: "
        "use a new key for a new request."
    )
    return Refused("idempotency_key_reused", detail)


def _answer(
    exchange: Exchange,
    resource: Resource,
    status: int,
    record: Record,
    outcome: Reply | None,
    *,
    lines: bytes,
) -> None:
    if resource.rejection is not None and outcome is not None and _refused(outcome):
        exchange.refuse(_refusal(resource.rejection, outcome))
        return
    lines += f"Location: {resource.path}/{record['resource_id']}\r\n".encode()
    if resource.reread is not None and outcome is not None:
        taken = resource.reread(exchange, Answered(status, lines, record, outcome))
        if taken:
            return
    exchange.answer(status, _encode(resource.present(record, outcome)), lines)


def name_of(record: Record) -> str:
    """Return what a request is remembered by: see Reply.name."""
    if record.get("target_id") is None or record["type"] == "transfer.reverse":
        name: str = record["resource_id"]
        return name
    return f"op_{record['identity']}"


def _refused(outcome: Reply) -> bool:
    return outcome.status == "rejected" or outcome.reason is not None


def _refusal(kind: str, outcome: Reply) -> Refused:
    code = outcome.reason or "rejected"
    detail = outcome.detail or f"The ledger refused it: {code}."
    if code in NOT_FOUND:
        return Refused("not_found", detail)
    pointer = f"/legs/{outcome.failed_leg}" if outcome.failed_leg is not None else ""
    return Refused(kind, detail, FieldError(pointer, code, detail))
