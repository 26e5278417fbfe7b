"""Emits what the payments task says: commands, events, replies, forwarded answers.

Every record goes to the partition of whom it concerns; the trace context of the record that caused
it travels along.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from schemas import ids, wire
from streams.engine import Context, Record
from streams.payments import records, rows
from streams.payments.state import Operation, Saga, Waiter

EVENTS: Final = "payments.events"
COMMANDS: Final = "ledger.commands"
REPLIES: Final = "gateway.replies"
REQUESTS: Final = "payments.requests"
_TRACE: Final = "traceparent"

_encode_event = wire.row_encoder(EVENTS, rows.EVENT)
_encode_command = wire.encoder(COMMANDS)
_encode_opening = wire.row_encoder(COMMANDS, records.OPENING)
_encode_reply = wire.encoder(REPLIES)
_encode_request = wire.encoder(REQUESTS)


class Outlet:
    """What one record causes, on its way out; `slot` is that of whom the record concerns, so of its
    saga and of the saga's home.
    """

    __slots__ = ("_headers", "_ordinal", "context", "record", "slot")

    def __init__(self, context: Context, record: Record, slot: int) -> None:
        self.context = context
        self.slot = slot
        headers = record.headers
        self._headers: Sequence[tuple[str, bytes]] = headers and _trace(headers)
        self._ordinal = 0
        self.record = record

    def event(self, of: Saga, kind: str, extra: dict[str, Any]) -> None:
        """Add an event to the saga's timeline and emit it."""
        record = self.record
        of.version += 1
        event_id = ids.event_id(record.topic, record.partition, record.offset, self._ordinal)
        self._ordinal += 1
        row = rows.event(of, kind, event_id, self.slot, record.at_us)
        reason = extra.get("reason", of.reason)
        of.timeline.append((record.at_us, kind.partition(".")[2], reason))
        self._emit(EVENTS, self.slot, of.home_account, _encode_event(row, extra))

    def opening(self, of: Saga, kind: str, request: dict[str, Any], reason: str | None) -> None:
        """Send the command that begins the saga."""
        command = _encode_opening(*records.opening_command(of, kind, request, reason))
        self._emit(COMMANDS, self.slot, of.home_account, command)

    def command(self, command: dict[str, Any]) -> None:
        """Send a command to the ledger partition of its home account."""
        slot, home_account = command["slot"], command["home_account"]
        self._emit(COMMANDS, slot, home_account, _encode_command(command))

    def forward(self, answer: dict[str, Any]) -> None:
        """Send the ledger's answer on to the partition of the saga that asked, keyed by its id."""
        saga_id = answer["saga_id"]
        request = {
            "type": "saga.answered",
            "request_id": answer["event_id"],
            "resource_id": saga_id,
            "tenant": answer["tenant"],
            "idempotency_key": "",
            "identity": answer["identity"],
            "body_hash": answer["body_hash"],
            "slot": self.slot,
            "home_account": saga_id,
            "received_at_us": answer["booked_at_us"],
            "amount_minor": answer["amount_minor"],
            "answer": answer["type"],
            "answer_reason": answer["reason"],
            "answer_step": answer["command_id"].split("/")[1],
            "answer_remaining_minor": answer["remaining_minor"],
            "answer_detail": answer["detail"],
            "answer_failed_leg": answer["failed_leg"],
            "answer_booked_at_us": answer["booked_at_us"],
            "answer_entries": answer["entries"],
            "answer_leg_indexes": answer["leg_indexes"],
            "answer_parts": answer["parts"],
            "answer_legs": answer["legs"],
            "answer_original_legs": answer["original_legs"],
        }
        self._emit(REQUESTS, self.slot, saga_id, _encode_request(request))

    def reply(self, of: Saga, to: Waiter, extra: dict[str, Any]) -> None:
        """Answer a request that waits for a saga."""
        reply = records.reply(of, to, self.record.at_us, conflict=extra.pop("conflict", False))
        self._reply(to, reply | extra)

    def operation_reply(
        self,
        of: Operation,
        target: Saga | None,
        to: Waiter,
        *,
        conflict: bool = False,
        **extra: Any,
    ) -> None:
        """Answer a request that waits for an operation."""
        at_us = self.record.at_us
        reply = records.operation_reply(of, target, to, at_us, conflict=conflict)
        self._reply(to, reply | extra)

    def _reply(self, to: Waiter, reply: dict[str, Any]) -> None:
        partition = to.reply_partition % self.context.partitions
        self.context.emit(REPLIES, partition, None, _encode_reply(reply), self._headers)

    def _emit(self, topic: str, slot: int, concerns: str, value: bytes) -> None:
        """Write a record to the partition of whom it concerns, who has this slot."""
        context = self.context
        partition = ids.partition_of(slot, context.partitions)
        context.emit(topic, partition, concerns.encode(), value, self._headers)


def _trace(headers: Sequence[tuple[str, bytes]]) -> Sequence[tuple[str, bytes]]:
    return tuple(header for header in headers if header[0] == _TRACE)
