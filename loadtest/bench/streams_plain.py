"""The plain task on the engine, and the worker process that runs it (`python -m` this module).

What a stranger would write: decode, ring, one output. It decides nothing about the bench.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from loadtest.bench import streams_codec
from loadtest.bench import streams_records as records
from schemas import logs, metrics
from streams.engine import Collection, Context, EngineSettings, Input, Record, Task, run


def _pack(ring: list[int]) -> bytes:
    return records.RING.pack(*ring)


def _unpack(data: bytes) -> list[int]:
    return list(records.RING.unpack(data))


RINGS: Final[Collection[list[int]]] = Collection(1, "rings", encode=_pack, decode=_unpack)


def _ring_of(key: bytes) -> tuple[Collection[list[int]], int, bytes]:
    return RINGS, records.slot_of(key.decode()), key


class Worker(msgspec.Struct, frozen=True):
    """What a worker process is told, as JSON in its one argument."""

    task: str
    topic: str
    kafka: str
    worker: str
    state_dir: str
    metrics_port: int
    batch_max: int
    commit_interval_ms: int
    session_timeout_ms: int
    codec: str | None = None


@dataclass(frozen=True, slots=True)
class Names:
    """The topics of one run of the plain task."""

    task: str
    topic: str

    @property
    def out(self) -> str:
        """What it writes."""
        return f"{self.task}.out"


def plain(names: Names, codec: Path | None) -> Task:
    """Declare the task."""
    decode, encode = streams_codec.codecs(codec)
    out = names.out

    def handle(context: Context, batch: Sequence[Record]) -> None:
        get, put, emit, partition = context.get, context.put, context.emit, context.partition
        for record in batch:
            event: dict[str, Any] = record.event
            slot, key = records.slot_of(event["account_id"]), record.key
            assert key is not None, "every payment has its account as key"
            ring = get(RINGS, slot, key)
            if ring is None:
                ring = [0] * 3 * records.BUCKETS
            count, total = records.turn(ring, event["requested_at_us"], event["amount_minor"])
            put(RINGS, slot, key, ring)
            emit(out, partition, key, encode(records.velocity(event, count, total)))

    return Task(
        names.task,
        inputs=(Input(names.topic, decode=decode, reads=_ring_of),),
        outputs=(out,),
        collections=(RINGS,),
        handle=handle,
    )


def work(argument: str) -> None:
    """Run the worker until it is told to end."""
    told = msgspec.json.decode(argument, type=Worker)
    logs.configure("streams", told.worker, "info")
    metrics.serve(told.metrics_port)
    settings = EngineSettings(
        kafka=told.kafka,
        worker=told.worker,
        state_dir=Path(told.state_dir),
        batch_max=told.batch_max,
        commit_interval_ms=told.commit_interval_ms,
        session_timeout_ms=told.session_timeout_ms,
    )
    task = plain(Names(told.task, told.topic), Path(told.codec) if told.codec else None)
    run(settings, [task])


if __name__ == "__main__":
    work(sys.argv[1])
