"""Deduplicate verified deliveries by (source, partner's event id).

The first delivery is accepted; a later one is repeated (same body) or conflicted (another body
under the same id). The bytes stay in webhooks.received; the event points to them. An id is
remembered for at least the task's horizon, longer than any partner retries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from schemas import ids, wire
from schemas.errors import Poisoned
from streams.engine import HORIZON_S, Collection, Context, Input, Record, Task, generations
from streams.payments import dedup
from streams.payments.dedup import Use

_TYPES: Final = {
    Use.NEW: "webhook.accepted",
    Use.REPEAT: "webhook.repeated",
    Use.CONFLICT: "webhook.conflicted",
}


class Seen(msgspec.Struct, array_like=True):
    """What is kept of a partner's event: its body and how often it came."""

    body_hash: str
    deliveries: int


SEEN: Collection[Seen] = Collection(
    1,
    "seen",
    encode=msgspec.msgpack.Encoder().encode,
    decode=msgspec.msgpack.Decoder(Seen).decode,
    carry=lambda _: False,
)


def handle(context: Context, batch: Sequence[Record]) -> None:
    """Judge the deliveries in order."""
    for record in batch:
        delivery = record.event
        key = ids.webhook_key(delivery["source"], delivery["partner_event_id"])
        slot = ids.slot_of_key(key)
        if ids.partition_of(slot, context.partitions) != context.partition:
            raise Poisoned(f"{key} belongs to slot {slot}, not to this partition")
        remembered = generations.find(context, SEEN, slot, key.encode(), record.at_us)
        found, seen_key = remembered
        use = dedup.judge(found.body_hash if found else None, delivery["body_hash"])
        seen = Seen(delivery["body_hash"], 0) if found is None else found
        seen.deliveries += 1
        context.put(SEEN, slot, seen_key, seen)
        event = _event(record, use, slot, seen)
        context.emit("webhooks.events", context.partition, key.encode(), _ENCODE(event))


def task(horizon_s: int = HORIZON_S) -> Task:
    """Declare the task; `horizon_s` is how long a partner's event id is remembered at least."""
    return Task(
        "webhooks",
        inputs=(Input("webhooks.received", decode=wire.decoder("webhooks.received")),),
        outputs=("webhooks.events",),
        collections=(SEEN,),
        handle=handle,
        horizon_s=horizon_s,
    )


_ENCODE: Final = wire.encoder("webhooks.events")


def _event(record: Record, use: Use, slot: int, seen: Seen) -> wire.Record:
    delivery = record.event
    return {
        "type": _TYPES[use],
        "event_id": ids.event_id(record.topic, record.partition, record.offset, 0),
        "source": delivery["source"],
        "partner_event_id": delivery["partner_event_id"],
        "slot": slot,
        "delivery_id": delivery["delivery_id"],
        "received_partition": record.partition,
        "received_offset": record.offset,
        "body_hash": delivery["body_hash"],
        "received_at_us": delivery["received_at_us"],
        "occurred_at_us": record.at_us,
        "deliveries": seen.deliveries,
    }
