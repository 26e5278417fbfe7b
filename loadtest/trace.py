"""Show one payment's way through every topic: where each record lies, and how long each hop took.

The id alone tells the partition. Only that partition of each topic is read (every one of the topic
that is partitioned by gateway, and of the ledger's where an answer came from another one), not
further back than a bound, `read_committed`. Writes nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from aiokafka.errors import KafkaError

from loadtest import stack
from loadtest.kafka_log import LogReader
from loadtest.verify.frames import decode
from schemas.errors import HeadraceError
from schemas.ids import identity_of, is_payment_id, partition_of, slot_of
from schemas.topics import TOPICS, dead_letters

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtest.kafka_log import Log

RECORDS_MAX: Final = 200_000
_KEYED: Final = ("payments.requests", "ledger.commands", "ledger.events", "payments.events")
_LEDGER: Final = ("ledger.commands", "ledger.events")
_ANSWERED: Final = "saga.answered"
"""An answer from another partition: what is paid back is decided at the payee's home."""
_DEAD: Final = tuple(dead_letters(topic) for topic in _KEYED if dead_letters(topic) in TOPICS)
_REPLIES: Final = "gateway.replies"
_ID_FIELDS: Final = ("resource_id", "saga_id")


@dataclass(frozen=True, slots=True)
class Step:
    """One record of the payment's way. `after_ms` counts from the step before."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    event: str
    note: str
    after_ms: int = 0
    total_ms: int = 0


def main(argv: list[str]) -> int:
    """Print the way of the payment; 1 if the id is malformed or nothing of it was found."""
    parser = argparse.ArgumentParser(prog="headrace trace", description=__doc__)
    parser.add_argument("payment_id", help="as POST /v1/payments returned it: pay_...")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    parser.add_argument(
        "--records", type=int, default=RECORDS_MAX, help="how far back to look, per partition"
    )
    given = parser.parse_args(argv)
    if not is_payment_id(given.payment_id):
        print(f"headrace trace: {given.payment_id[:64]!r} is not a payment id; one looks like "
              "pay_2f1_ and 26 letters and digits", file=sys.stderr)  # fmt: skip
        return 1
    try:
        running = stack.read(stack.home())
        kafka = os.environ.get("HEADRACE_KAFKA") or running.kafka
        logs = asyncio.run(_read(kafka, running.partitions, given.payment_id, given.records))
    except (stack.NoStack, HeadraceError, KafkaError, OSError) as error:
        print(f"headrace trace: {error}", file=sys.stderr)
        return 1
    steps = steps_of(logs, given.payment_id)
    if not steps:
        print(f"headrace trace: nothing of {given.payment_id} among the last {given.records:,} "
              "records of its partition in any topic", file=sys.stderr)  # fmt: skip
        return 1
    if given.json:
        print(json.dumps({"payment_id": given.payment_id, "steps": [asdict(s) for s in steps]}))
    else:
        print("\n".join(lines_of(given.payment_id, steps)))
    return 0


def steps_of(logs: Sequence[Log], payment_id: str) -> list[Step]:
    """Find the payment's records and put them in the order of their timestamps."""
    found = []
    needle = identity_of(payment_id).encode()
    order = {topic: place for place, topic in enumerate((*_KEYED, _REPLIES, *_DEAD))}
    for log in logs:
        for i, value in enumerate(log.values):
            if value is not None and needle in value:
                step = _step(log, i, payment_id)
                if step is not None:
                    found.append(step)
    found.sort(key=lambda step: (step.timestamp_ms, order[step.topic], step.offset))
    timed, before = [], found[0].timestamp_ms if found else 0
    for step in found:
        total = step.timestamp_ms - found[0].timestamp_ms
        after = step.timestamp_ms - before
        timed.append(replace(step, after_ms=after, total_ms=total))
        before = step.timestamp_ms
    return timed


def lines_of(payment_id: str, steps: Sequence[Step]) -> list[str]:
    """Return the way as a table for people."""
    slot = slot_of(payment_id)
    rows = [("ms", "+ms", "topic", "partition:offset", "event", "")]
    rows += [
        (
            str(step.total_ms), f"+{step.after_ms}", step.topic, f"{step.partition}:{step.offset}",
            step.event, step.note,
        )
        for step in steps
    ]  # fmt: skip
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [f"{payment_id}  (slot {slot})"]
    for row in rows:
        cells = [
            cell.rjust(width) if i < 2 else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def _step(log: Log, i: int, payment_id: str) -> Step | None:
    """Return the record as a step; None where it belongs to another use of the same key."""
    place = (log.topic, log.partitions[i], log.offsets[i], log.timestamps_ms[i])
    if log.topic in _DEAD:
        headers = dict(log.headers[i])
        reason = headers.get("dlq.reason", b"").decode(errors="replace")
        return Step(*place, "dead letter", reason)
    record = decode(log.values[i])
    if record is None or payment_id not in {record.get(field) for field in _ID_FIELDS}:
        return None
    return Step(*place, str(record.get("type") or f"reply: {record['status']}"), _note(record))


def _note(record: dict[str, Any]) -> str:
    """Say what is particular about a record."""
    parts = []
    if record.get("amount_minor") is not None and "source_account" in record:
        parts.append(" ".join(str(record[k]) for k in ("amount_minor", "currency") if record[k]))
    if record.get("answer"):
        parts.append(record["answer"])
    if "position" in record:
        parts.append(f"journal {record['ledger_partition']}:{record['position']}")
    parts += [
        f"{entry['account_id']} {entry['amount_minor']:+d} = {entry['posted_minor']}"
        + (f" (held {entry['held_minor']})" if entry["held_minor"] else "")
        for entry in record.get("entries", [])
    ]
    if record.get("reason"):
        parts.append(record["reason"])
    parts += [name for name in ("repeated", "conflict") if record.get(name)]
    return ", ".join(parts)


async def _read(kafka: str, partitions: int, payment_id: str, records_max: int) -> list[Log]:
    partition = partition_of(slot_of(payment_id), partitions)
    keyed = [(topic, partition) for topic in (*_KEYED, *_DEAD)]
    replies = [(_REPLIES, number) for number in range(partitions)]
    async with LogReader(kafka, [*keyed, *replies]) as reader:
        await reader.start_near_end(records_max)
        await reader.advance()
        logs = list(reader.logs.values())
    if not any(step.event == _ANSWERED for step in steps_of(logs, payment_id)):
        return logs
    others = [(topic, n) for topic in _LEDGER for n in range(partitions) if n != partition]
    async with LogReader(kafka, others) as reader:
        await reader.start_near_end(records_max)
        await reader.advance()
        return logs + list(reader.logs.values())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
