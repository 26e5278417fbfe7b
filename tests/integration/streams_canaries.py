"""Engines broken on purpose, each in one way that the drills must notice.

`python -m tests.integration.streams_canaries` runs every one against seeds of the kind that should
find it, and says which went unnoticed. With a name it is a drill's worker that runs that engine.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import aiokafka
from aiokafka.errors import KafkaError

from deploy.local.kafka import Kafka
from loadtest.drills import streams_task
from loadtest.drills.streams import drill
from loadtest.drills.streams_run import Workers
from streams.engine.batch import Batches
from streams.engine.context import Context
from streams.engine.crash import CrashPoint
from streams.engine.keys import POSITION
from streams.engine.outbox import Outbox
from streams.engine.owned import Owned
from streams.engine.store import Store
from streams.engine.task import Task
from streams.engine.transaction import Transaction
from tests.conftest import CACHE


@dataclass(frozen=True, slots=True)
class Canary:
    """How to break the engine, and the seeds of which one at least must show a difference."""

    breaks: Callable[[], Any]
    seeds: tuple[int, ...]


def commits_over_a_failed_send() -> Any:
    send = Transaction._send

    async def swallowing(self: Transaction, waiting: dict[Any, Any], *others: Any) -> Any:
        wanted = tuple(waiting)
        try:
            return await send(self, waiting, *others)
        except KafkaError:
            return dict.fromkeys(wanted, 0)

    return patch.object(Transaction, "_send", swallowing)


def commits_before_the_offsets() -> Any:
    transact = Outbox._transact

    async def late(self: Outbox, parcel: Any) -> Any:
        """Commit everything but the offsets, then those; dies between the two, if anywhere."""
        crash, self._crash = self._crash, CrashPoint()
        try:
            done = await transact(self, replace(parcel, offsets={}))
            crash.at("after_send")
            changes = {POSITION: parcel.changes[POSITION]}
            await transact(self, replace(parcel, outputs={}, changes=changes))
        finally:
            self._crash = crash
        return done

    return patch.object(Outbox, "_transact", late)


def writes_the_store_before_the_commit() -> Any:
    commit = Owned._commit

    async def hasty(self: Owned, effects: Any, *others: Any) -> Any:
        mark = self.store.mark()
        assert mark is not None
        self.store.write(effects.changes, mark)
        return await commit(self, effects, *others)

    return patch.object(Owned, "_commit", hasty)


def skips_the_store() -> Any:
    def skip(self: Store, *_: Any) -> None:
        del self

    return patch.object(Store, "write", skip)


def drops_dead_letters() -> Any:
    return patch.object(Batches, "_bury", lambda *_: None)


def keeps_what_a_failed_handler_did() -> Any:
    return patch.object(Context, "drop", Context.seal)


def applies_offsets_late() -> Any:
    commit = Owned._commit
    last: dict[int, Any] = {}

    async def late(self: Owned, effects: Any, gone: Any, after: Any, fetched: Any) -> Any:
        before = last.get(self.number, self.position)
        last[self.number] = after
        return await commit(self, effects, gone, before, fetched)

    return patch.object(Owned, "_commit", late)


def fences_nobody() -> Any:
    def unique(self: Task, partition: int) -> str:
        return f"{self.name}-{partition}-{os.getpid()}"

    return patch.object(Task, "transactional_id", unique)


def restores_what_was_aborted() -> Any:
    consumer = aiokafka.AIOKafkaConsumer

    def reading(*args: Any, **settings: Any) -> Any:
        return consumer(*args, **(settings | {"isolation_level": "read_uncommitted"}))

    return patch("streams.engine.restore.aiokafka.AIOKafkaConsumer", reading)


def leaves_fired_timers_in_the_state() -> Any:
    return patch.object(Context, "remove_timer", lambda *_: None)


CANARIES = {
    "commits_over_a_failed_send": Canary(commits_over_a_failed_send, (7,)),
    "commits_before_the_offsets": Canary(commits_before_the_offsets, (14,)),
    "writes_the_store_before_the_commit": Canary(writes_the_store_before_the_commit, (14,)),
    "skips_the_store": Canary(skips_the_store, (2,)),
    "drops_dead_letters": Canary(drops_dead_letters, (2,)),
    "keeps_what_a_failed_handler_did": Canary(keeps_what_a_failed_handler_did, (2,)),
    "applies_offsets_late": Canary(applies_offsets_late, (1,)),
    "fences_nobody": Canary(fences_nobody, (3,)),
    "restores_what_was_aborted": Canary(restores_what_was_aborted, (6,)),
    "leaves_fired_timers_in_the_state": Canary(leaves_fired_timers_in_the_state, (2,)),
}


async def noticed(kafka: Kafka, folder: Path, name: str) -> list[str]:
    """Return what the drill finds wrong with an engine broken in this way."""
    workers = Workers(("-m", "tests.integration.streams_canaries", name), patience_s=15.0)
    verdicts = await drill(folder / name, kafka, CANARIES[name].seeds, 2, workers)
    return [each for verdict in verdicts for each in verdict.differences]


def main(names: list[str]) -> int:
    """Run canaries; returns how many went unnoticed."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    unnoticed = []
    with tempfile.TemporaryDirectory() as folder:
        kafka = Kafka(Path(folder) / "kafka", CACHE, Path(folder) / "kafka.log")
        kafka.start()
        try:
            for name in names:
                print(f"-- {name}", flush=True)
                if not asyncio.run(noticed(kafka, Path(folder), name)):
                    unnoticed.append(name)
        finally:
            kafka.stop()
    print(f"unnoticed: {unnoticed or 'none'} of {len(names)}")
    return len(unnoticed)


if __name__ == "__main__":
    match sys.argv[1:]:
        case [name, argument] if argument.startswith("{"):
            with CANARIES[name].breaks():
                streams_task.work(argument)
        case names:
            sys.exit(main(names or list(CANARIES)))
