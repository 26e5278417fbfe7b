"""Kafka, as a gateway needs it: make events durable, read replies.

`outbox` batches and bounds (over the `Link` port), `link` is the one producer and its health,
`replies` the consumer of this gateway's partition (`reply` is what it reads), `memory` the fake of
the port, `trace` the trace context of a record.
"""
