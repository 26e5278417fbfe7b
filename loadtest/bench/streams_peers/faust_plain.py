"""The plain task on stock faust: a RocksDB table, its default guarantee, its default settings.

Arguments: bootstrap, application id, input topic, output topic, state folder.
"""

from __future__ import annotations

import sys
from typing import Any

import faust

from loadtest.bench import streams_records as records


def main(arguments: list[str]) -> None:
    """Run until told to end."""
    bootstrap, name, in_topic, out_topic, folder = arguments
    app = faust.App(
        name,
        broker=f"kafka://{bootstrap}",
        store="rocksdb://",
        datadir=folder,
        topic_partitions=4,
        topic_replication_factor=1,
        web_enabled=False,
    )
    decode = records.decoder(records.IN_SCHEMA)
    encode = records.encoder(records.OUT_SCHEMA, records.OUT_FRAME)
    payments = app.topic(in_topic, key_serializer="raw", value_serializer="raw")
    velocities = app.topic(out_topic, key_serializer="raw", value_serializer="raw")
    rings = app.Table("rings", partitions=4, key_type=bytes, value_type=bytes)

    async def count(stream: Any) -> None:
        async for key, value in stream.items():
            payment = decode(value)
            kept = rings.get(key)
            ring = list(records.RING.unpack(kept)) if kept else [0] * 3 * records.BUCKETS
            amount_minor = payment["amount_minor"]
            held, total = records.turn(ring, payment["requested_at_us"], amount_minor)
            rings[key] = records.RING.pack(*ring)
            said = encode(records.velocity(payment, held, total))
            await velocities.send(key=key, value=said)

    app.agent(payments)(count)
    sys.argv = [name, "worker", "--without-web", "--loglevel", "warn"]
    app.main()


if __name__ == "__main__":
    main(sys.argv[1:])
