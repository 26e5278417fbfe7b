"""The plain task on Quix Streams, exactly once; run in the peer's own venv.

Arguments: bootstrap, consumer group, input topic, output topic, state folder, commit interval in
seconds. State values are bytes, which is what Quix stores fastest.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

from quixstreams import Application  # type: ignore[import-not-found]

from loadtest.bench import streams_records as records


def main(arguments: list[str]) -> None:
    """Run until told to end."""
    bootstrap, group, in_topic, out_topic, folder, interval_s = arguments
    app = Application(
        broker_address=bootstrap,
        consumer_group=group,
        processing_guarantee="exactly-once",
        commit_interval=float(interval_s),
        state_dir=folder,
        auto_offset_reset="earliest",
        loglevel=logging.WARNING,
    )
    decode = records.decoder(records.IN_SCHEMA)
    encode = records.encoder(records.OUT_SCHEMA, records.OUT_FRAME)
    ring_of, bytes_of = records.RING.unpack, records.RING.pack

    def count(value: bytes, state: Any) -> bytes:
        payment = decode(value)
        kept = state.get_bytes("ring")
        ring = list(ring_of(kept)) if kept else [0] * 3 * records.BUCKETS
        amount_minor = payment["amount_minor"]
        held, total = records.turn(ring, payment["requested_at_us"], amount_minor)
        state.set_bytes("ring", bytes_of(*ring))
        return encode(records.velocity(payment, held, total))

    payments = app.topic(in_topic, key_deserializer="bytes", value_deserializer="bytes")
    velocities = app.topic(out_topic, key_serializer="bytes", value_serializer="bytes")
    app.dataframe(payments).apply(count, stateful=True).to_topic(velocities)
    app.run()


if __name__ == "__main__":
    main(sys.argv[1:])
