"""POST /v1/webhooks/{source}: verify, keep, then answer.

Verified deliveries go to webhooks.received and are answered 200 once durable; the others go to
webhooks.quarantine, with the verdict, and are answered 401 once durable. Bytes and headers are kept
as they came. A partner may send the same event again: who reads the topic finds that out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from gateways import metrics
from gateways.http.exchange import Exchange
from gateways.kafka.outbox import Event, Outbox
from gateways.kafka.trace import HEADER, traceparent
from gateways.problems import Down, Refused
from gateways.webhooks.sources import Source
from gateways.webhooks.verify import VERIFIED, Verdict, verify
from schemas import ids, wire

RECEIVED: Final = "webhooks.received"
QUARANTINE: Final = "webhooks.quarantine"

_ENCODERS: Final = {topic: wire.encoder(topic) for topic in (RECEIVED, QUARANTINE)}


class Receive:
    """Handler of the route."""

    def __init__(self, outbox: Outbox, sources: Mapping[str, Source], partitions: int) -> None:
        self._outbox = outbox
        self._sources = sources
        self._partitions = partitions

    def handle(self, exchange: Exchange) -> None:
        """Take one delivery."""
        name = exchange.params[0]
        source = self._sources.get(name)
        if source is None:
            raise Refused("not_found", f"There is no webhook source {name[:64]!r}.")
        verdict = verify(
            source.scheme, source.secrets, exchange.headers, exchange.body, exchange.received_at_us
        )
        metrics.WEBHOOKS.labels(source=name, result=verdict.result).inc()
        topic = RECEIVED if verdict.result == VERIFIED else QUARANTINE
        key = ids.webhook_key(name, verdict.event_id)
        slot = ids.slot_of_key(key)
        event = Event(
            topic=topic,
            partition=ids.partition_of(slot, self._partitions),
            key=key.encode(),
            value=_ENCODERS[topic](_record(exchange, name, verdict, slot)),
            headers=((HEADER, traceparent(exchange.headers.get(b"traceparent"))),),
            at_ms=exchange.received_at_us // 1000,
            done=lambda error: _answer(exchange, source, verdict, error),
        )
        self._outbox.offer(event)


def _answer(exchange: Exchange, source: Source, verdict: Verdict, error: Down | None) -> None:
    if error is not None:
        exchange.refuse(error)
    elif verdict.result == VERIFIED:
        exchange.answer(200, source.scheme.answer)
    else:
        detail = f"The delivery is kept in quarantine: {verdict.result}."
        exchange.refuse(Refused("webhook_unverified", detail))


def _record(exchange: Exchange, source: str, verdict: Verdict, slot: int) -> dict[str, Any]:
    return {
        "delivery_id": exchange.request_id,
        "source": source,
        "partner_event_id": verdict.event_id,
        "slot": slot,
        "received_at_us": exchange.received_at_us,
        "verdict": verdict.result,
        "secret_id": verdict.secret_id,
        "remote_address": exchange.peer,
        "path": exchange.path,
        "headers": [{"name": name, "value": value} for name, value in exchange.raw_headers],
        "body": exchange.body,
        "body_hash": hashlib.sha256(exchange.body).hexdigest(),
    }
