"""Fault drills of the stream engine: seeded runs on a real broker, compared with a model.

`headrace drill streams`; RUNS (200), SEED (repeats one), JOBS (2 at a time) in the environment.
What was done and found is kept in drills/streams.json below HEADRACE_HOME. Exit 0 only without a
difference.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final

from aiokafka.errors import KafkaError

from deploy.local.home import PROJECT
from deploy.local.kafka import Kafka
from deploy.local.settings import settings_from
from loadtest.drills import report
from loadtest.drills.streams_broker import Broker, open_broker
from loadtest.drills.streams_kinds import FAULTS, KINDS, Kind, kind_of
from loadtest.drills.streams_run import DrillError, Run, Workers

USAGE: Final = "headrace drill streams   (RUNS, SEED, JOBS by environment)"
RUNS: Final = 200
JOBS: Final = 2
RUN_WITHIN_S: Final = 900.0


@dataclass(slots=True)
class Verdict(report.Verdict):
    """What one run came to; so many records were `checked`."""

    checked: int = 0

    def amount(self) -> str:
        """Say how much was checked."""
        return f"{self.checked:6,d} checked"


@dataclass(frozen=True, slots=True)
class Drill:
    """What all runs share."""

    folder: Path
    broker: Broker
    server: Kafka
    workers: Workers

    async def run(self, seed: int) -> Verdict:
        """Run one seed, whatever comes of it."""
        name = kind_of(seed)
        verdict = Verdict(seed, name)
        began = time.monotonic()
        try:
            async with asyncio.timeout(RUN_WITHIN_S):
                await self._run(verdict, KINDS[name])
        except (DrillError, AssertionError, KafkaError, TimeoutError) as error:
            verdict.differences.append(f"{type(error).__name__}: {error}")
        verdict.seconds = time.monotonic() - began
        return verdict

    async def _run(self, verdict: Verdict, kind: Kind) -> None:
        outputs = []
        for each, tag in ((kind, ""), (kind.twin, "b")):
            if each is not None:
                outputs.append(await self._one(verdict, each, tag))
        if len(outputs) > 1:
            verdict.faults["same input twice"] += 1
            if outputs[0] != outputs[1]:
                verdict.differences.append("the same input gave other bytes")
        unnamed = verdict.faults.keys() - set(FAULTS)
        assert not unnamed, f"FAULTS lacks {unnamed}"

    async def _one(self, verdict: Verdict, kind: Kind, tag: str) -> Any:
        seed = verdict.seed
        prefix = f"{self.folder.name}-{seed}{tag}"
        run = Run(
            seed=seed,
            prefix=prefix,
            folder=self.folder / f"{seed}{tag}",
            broker=self.broker,
            server=self.server,
            mix=kind.mix,
            tuning=kind.tuning,
            rng=Random(seed),
            faults=verdict.faults,
            stop_on_poison=kind.stop_on_poison,
            started=self.workers,
        )
        shutil.rmtree(run.folder, ignore_errors=True)
        await self.broker.create(prefix, kind.mix.partitions, compacting=kind.compacting)
        try:
            found = await kind.script(run)
            await run.settle(kind.finisher)
            checked, differing = await run.compare(kind.finisher)
            outputs = await run.outputs() if kind.twin or tag else None
        finally:
            await run.clear()
        verdict.checked += checked
        verdict.differences += found + differing
        if not verdict.differences:
            await self.broker.delete(prefix)
            await asyncio.to_thread(shutil.rmtree, run.folder, ignore_errors=True)
        return outputs


async def drill(
    folder: Path,
    server: Kafka,
    seeds: Iterable[int],
    jobs: int,
    workers: Workers = Workers(),  # noqa: B008  frozen
) -> list[Verdict]:
    """Run seeds, `jobs` at a time; those that break the broker afterwards, alone."""
    verdicts: list[Verdict] = []
    together: list[int] = []
    alone: list[int] = []
    for seed in seeds:
        (alone if KINDS[kind_of(seed)].alone else together).append(seed)

    async def work(shared: Drill, source: list[int]) -> None:
        while source:
            verdict = await shared.run(source.pop(0))
            verdicts.append(verdict)
            verdict.say()

    async with open_broker(server.bootstrap) as broker:
        await broker.hurry_compaction()
        shared = Drill(folder, broker, server, workers)
        await asyncio.gather(*(work(shared, together) for _ in range(jobs)))
        await work(shared, alone)
    return sorted(verdicts, key=lambda each: each.seed)


def main(argv: list[str]) -> int:
    """Run the drills; returns the exit code."""
    if argv:
        print(f"{__doc__}\n{USAGE}")
        return 0 if argv[0] in {"-h", "--help"} else 2
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    settings = settings_from(os.environ, PROJECT, Path.cwd())
    seeds = report.seeds_of(os.environ, RUNS)
    folder = settings.home / "drills" / "streams"
    for name in ("runs", "kafka"):
        shutil.rmtree(folder / name, ignore_errors=True)
    server = Kafka(folder / "kafka", settings.cache, folder / "kafka.log", settings.java)
    server.start()
    began = time.monotonic()
    try:
        jobs = int(os.environ.get("JOBS") or JOBS)
        verdicts = asyncio.run(drill(folder / "runs", server, seeds, jobs))
    finally:
        server.stop()
        shutil.rmtree(folder / "kafka", ignore_errors=True)
    counted = {
        "records_checked": sum(each.checked for each in verdicts),
        "never_done": [name for name in FAULTS if not any(each.faults[name] for each in verdicts)],
    }
    kept = report.summary("streams", verdicts, time.monotonic() - began, counted)
    return report.conclude(kept, folder)
