"""What a partition's memory of payments costs: kept, dropped, and brought back after a crash.

`headrace bench state`; N (1,000,000) payments and UPDATES (5) of each changelogged value in the
environment. A real broker and a real store, no worker: what is measured is the state alone.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import random
import resource
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from aiokafka import TopicPartition

from deploy.local.home import PROJECT
from deploy.local.settings import settings_from
from loadtest.bench import streams_kafka as kafka
from loadtest.bench.report import Report, print_table
from schemas.topics import TOPICS
from streams.engine import Context, EngineSettings
from streams.engine.crash import CrashPoint
from streams.engine.generations import Sweep
from streams.engine.restore import Source, restore
from streams.engine.store import Disk, Mark, Store
from streams.payments import state
from streams.payments.saga import State
from streams.payments.state import Saga
from streams.payments.stores import SAGAS, find
from streams.payments.task import task as payments_task
from streams.payments.velocity import RuleSet

USAGE: Final = "headrace bench state   (N, UPDATES by environment)"
PAYMENTS: Final = 1_000_000
UPDATES: Final = 5
BATCH: Final = 2_000
WRITTEN_A_SECOND: Final = 60_000
"""Changelog records a second and partition: several times what a busy worker writes."""
CHANGELOG: Final = "payments.changelog"
SECOND_US: Final = 1_000_000
STARTS_AT_US: Final = 1_760_000_000 * SECOND_US
MEGABYTE: Final = 1e6


@dataclass(slots=True)
class Ids:
    """One partition's memory of payments, written batch by batch as a worker does."""

    store: Store
    context: Context
    sweep: Sweep
    at_us: int = STARTS_AT_US
    told: int = 0

    @classmethod
    def on(cls, disk: Disk) -> Ids:
        """Begin an empty one."""
        store = disk.open("payments", 0)
        task = payments_task(RuleSet(1, ()))
        context = Context(task, 0, 1, store.get)
        return cls(store, context, Sweep(task, context, store.rows))

    def pay(self, first: int, count: int) -> int:
        """See `count` keys; return how many of them were known."""
        known = 0
        for number in range(first, first + count):
            slot, identity = number % 1024, identity_of(number)
            found, key = find(self.context, SAGAS, slot, identity, self.at_us)
            known += found is not None
            if found is None:
                self.context.put(SAGAS, slot, key, saga(number))
        self.commit(count)
        return known

    def commit(self, records: int) -> None:
        """Write what the batch came to."""
        self.context.seal()
        gone = self.sweep.step(self.at_us, records)
        effects = self.context.take()
        self.told += len(effects.changes) + len(gone)
        self.store.write(effects.changes, Mark("bench", 1, time.time()))
        self.context.committed()


def identity_of(number: int) -> str:
    """Return 26 characters that compress as badly as a hash."""
    return hashlib.blake2b(b"%d" % number, digest_size=13).hexdigest()


def saga(number: int) -> Saga:
    """Return a payment that was settled, as the task keeps it."""
    slot, identity = number % 1024, identity_of(number)
    payer, payee = (f"acct_c{slot:03x}_{identity_of(number % 50_000 + n)}" for n in (1, 2))
    return Saga(
        resource_id=f"pay_{slot:03x}_{identity}",
        tenant="demo",
        idempotency_key=f"order-{number:012d}",
        body_hash=hashlib.sha256(b"%d" % number).hexdigest(),
        home_account=payer,
        request_id=f"req-{number:012d}",
        received_at_us=STARTS_AT_US,
        accepted_at_us=STARTS_AT_US,
        state=State.SETTLED,
        version=2,
        amount_minor=number,
        currency="EUR",
        source_account=payer,
        destination_account=payee,
        method="payment",
        capture="automatic",
        timeline=[(STARTS_AT_US, "accepted", None), (STARTS_AT_US, "settled", None)],
        shares=[(payer, 0, number), (payee, 1, number)],
    )


def measure_ids(folder: Path, payments: int) -> dict[str, Any]:
    """Keep `payments` keys, ask for them again, then let their generation end."""
    disk = Disk(folder)
    ids = Ids.on(disk)
    before_kb = _resident_kb()
    began = time.perf_counter()
    for first in range(0, payments, BATCH):
        ids.pay(first, BATCH)
    new_s = time.perf_counter() - began
    ids.store.settle()
    grown_kb, disk_bytes = _resident_kb() - before_kb, _bytes_of(folder)
    began = time.perf_counter()
    repeats = sum(ids.pay(first, BATCH) for first in range(0, payments, 10 * BATCH))
    repeat_s = (time.perf_counter() - began) / max(1, repeats)
    assert repeats, "what was kept is known"
    ids.at_us += 2 * ids.context.horizon_s * SECOND_US
    ids.commit(0)
    began, batches, longest_s, told = time.perf_counter(), 0, 0.0, ids.told
    while batches == 0 or ids.sweep.busy:
        step = time.perf_counter()
        ids.commit(BATCH)
        longest_s = max(longest_s, time.perf_counter() - step)
        batches += 1
    drop_s = time.perf_counter() - began
    ids.store.settle()
    left = _bytes_of(folder)
    ids.store.close()
    return {
        "payments": payments,
        "disk MB/M": round(disk_bytes / MEGABYTE * 1e6 / payments),
        "memory MB": round(grown_kb / 1024),
        "new us": round(new_s * 1e6 / payments, 1),
        "repeat us": round(repeat_s * 1e6, 1),
        "drop us/key": round(drop_s * 1e6 / payments, 2),
        "longest batch ms": round(longest_s * 1000),
        "changelog records": ids.told - told,
        "disk MB left": round(left / MEGABYTE, 1),
    }


async def measure_restore(folder: Path, bootstrap: str, keys: int, updates: int) -> dict[str, Any]:
    """Touch every key `updates` times at a busy worker's pace, then restore at once."""
    await kafka.create(bootstrap, {CHANGELOG: TOPICS[CHANGELOG].kafka_config()}, 1)
    began = time.perf_counter()
    written = await kafka.fill(bootstrap, CHANGELOG, 1, _paced(_churn(keys, updates)))
    fill_s = time.perf_counter() - began
    store = Disk(folder).open("payments", 0)
    settings = EngineSettings(kafka=bootstrap, worker="bench", state_dir=folder)
    source = Source(TopicPartition(CHANGELOG, 0), "cluster")
    done = await restore(store, source, settings, CrashPoint(), lambda _reached, _end: None)
    entries = sum(1 for _ in store.items())
    store.close()
    assert entries == keys, f"{entries} keys were restored, not {keys}"
    return {
        "keys": keys,
        "written": written,
        "written/s": round(written / fill_s),
        "read": done.records,
        "read/key": round(done.records / keys, 2),
        "seconds": round(done.seconds, 2),
        "records/s": round(done.records / done.seconds),
    }


def _churn(keys: int, updates: int) -> Iterator[tuple[int, bytes, bytes, int]]:
    """Every key once, then again in an order of chance."""
    at_ms, chance = int(time.time() * 1000), random.Random(1)
    values = [state.encode(saga(number)) for number in range(1_000)]
    end = (0).to_bytes(4, "big")
    names = [SAGAS.prefixes[n % 1024] + end + identity_of(n).encode() for n in range(keys)]
    for number, name in enumerate(names):
        yield 0, name, values[number % 1_000], at_ms
    for number in range(keys * (updates - 1)):
        yield 0, names[chance.randrange(keys)], values[number % 1_000], at_ms


def _paced(records: Iterator[tuple[int, bytes, bytes, int]]) -> Iterator[Any]:
    began = time.monotonic()
    for written, record in enumerate(records):
        yield record
        if written % 10_000 == 0:
            time.sleep(max(0.0, began + written / WRITTEN_A_SECOND - time.monotonic()))


def _resident_kb() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() // 1024


def _bytes_of(folder: Path) -> int:
    return sum(each.stat().st_size for each in folder.rglob("*") if each.is_file())


def main(argv: list[str]) -> int:
    """Run the bench; returns the exit code."""
    if argv:
        print(f"{__doc__}\n{USAGE}")
        return 0 if argv[0] in {"-h", "--help"} else 2
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    settings = settings_from(os.environ, PROJECT, Path.cwd())
    payments = int(os.environ.get("N") or PAYMENTS)
    updates = int(os.environ.get("UPDATES") or UPDATES)
    folder = settings.home / "bench" / "state"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    report = Report("state", "seconds to restore 1,000,000 keys of a changelog under churn")
    try:
        kept = measure_ids(folder / "ids", payments)
        print_table("memory of payments", [kept])
        server = kafka.broker(folder, settings.cache, settings.java)
        server.start()
        try:
            restored = asyncio.run(
                measure_restore(folder / "restored", server.bootstrap, payments, updates)
            )
        finally:
            server.stop()
        print_table("restore of a changelog under churn", [restored])
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    per_million = restored["seconds"] * 1e6 / payments
    report.results += [kept, restored]
    report.headline = round(per_million, 2)
    report.at_most("1,000,000 keys back after a crash", per_million, 5.0, "s")
    report.at_most("changelog records per key under churn", restored["read/key"], 2.0)
    report.at_most("disk of a million payments", kept["disk MB/M"], 500, "MB")
    report.at_most("memory beside what is kept", kept["memory MB"], 256, "MB")
    report.at_most("disk after their generation", kept["disk MB left"], 10, "MB")
    report.finish()
    return 0
