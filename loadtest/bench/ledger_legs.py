"""The legs of the ledger bench: the writer from memory and from Kafka, and its growth curve."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Sequence
from typing import Any, Final

import asyncpg
import orjson

from deploy.local.child import Child, Command
from deploy.local.home import PROJECT
from deploy.local.ports import free_port
from loadtest.bench.ledger_load import PARTITIONS, Load, Shape
from loadtest.bench.ledger_rig import Rig, bytes_on_disk, fill, ledger, outcomes
from loadtest.bench.ledger_writers import Feeds, Measured, Writers, on_kafka
from loadtest.bench.report import say
from loadtest.bench.streams_meter import BenchError, cpu_s

APPLIED: Final = frozenset({"transfer.posted", "hold.posted"})
CURVE_STEP: Final = 250_000
WARM_UP: Final = 0.15
WITHIN_S: Final = 300.0
POLL_S: Final = 0.05
BATCH_MAX_OF_SERVICE: Final = 1_000

_DECIDED: Final = "select coalesce(sum(next_position - 1), 0)::int8 from ledger.partitions"


def commands_of(rig: Rig, batch: int) -> int:
    """Return how many commands a leg takes: fewer where batches are small."""
    few = {1: 3_000, 10: 20_000, 100: 80_000}
    return min(rig.sizes.commands, few.get(batch, rig.sizes.commands))


async def memory(rig: Rig, shape: Shape, batch: int) -> dict[str, Any]:
    """Measure writers that are fed from memory: half as many commands first, to be warm."""
    count = commands_of(rig, batch)
    load = Load(shape)
    async with ledger(rig, load) as owner:
        feeds = Feeds()
        feeds.feed(load.commands(count // 2))
        async with Writers(rig.dsn("ledger_writer"), feeds, batch).running() as writers:
            await writers.reach(count // 2)
            feeds.feed(load.commands(count))
            _settle_memory()
            measured = await writers.reach(count // 2 + count)
        return await _row(owner, "memory", shape, batch, measured)


async def kafka(rig: Rig, shape: Shape, batch: int) -> dict[str, Any]:
    """Measure writers in this process on commands that lie in Kafka already."""
    count = commands_of(rig, batch)
    load = Load(shape)
    await fill(rig, load, count)
    async with ledger(rig, load) as owner:
        logs = on_kafka(rig.broker.bootstrap)
        _settle_memory()
        async with Writers(rig.dsn("ledger_writer"), logs, batch).running() as writers:
            measured = await writers.reach(count)
        return await _row(owner, "Kafka", shape, batch, measured)


async def processes(rig: Rig, shape: Shape, batch: int, count: int) -> dict[str, Any]:
    """Measure the service itself, as that many processes, on commands that lie in Kafka."""
    load = Load(shape)
    commands = rig.sizes.commands * 2
    await fill(rig, load, commands)
    async with ledger(rig, load) as owner:
        children = [_process(rig, batch, number) for number in range(count)]
        try:
            for child in children:
                child.start()
            measured = await _watched(owner, children, commands)
        finally:
            for child in children:
                child.stop()
        what = f"Kafka, {count} service process{'es' if count > 1 else ''}"
        return await _row(owner, what, shape, batch, measured)


async def audit(rig: Rig, shape: Shape) -> dict[str, Any]:
    """Measure `headrace ledger audit`, a process of its own, on a journal that opens its accounts
    and to which nobody writes; raises BenchError when it finds anything.
    """
    load, feeds, count = Load(shape), Feeds(), 2 * rig.sizes.commands
    async with ledger(rig, load, opened=False):
        feeds.feed(load.openings())
        async with Writers(rig.dsn("ledger_writer"), feeds, rig.sizes.batch).running() as writers:
            await writers.reach(len(load.opened))
            feeds.feed(load.commands(count))
            await writers.reach(len(load.opened) + count)
        told = await _audited(rig)
    say(f"  audit: {told['rows_per_cpu_second']:,} rows/s of CPU")
    row = {"rows": told["rows"], "rows/s": told["rows_per_second"], "wall s": told["seconds"]}
    return {"what": "audit", **row, "rows/s of CPU": told["rows_per_cpu_second"]}


async def _audited(rig: Rig) -> dict[str, Any]:
    environment = _environment({"HEADRACE_LEDGER_READER_DSN": rig.dsn("ledger_reader")})
    argv = (sys.executable, "-m", "ledger_writer.audit")
    process = await asyncio.create_subprocess_exec(
        *argv, env=environment, cwd=PROJECT, stdout=PIPE, stderr=DEVNULL
    )
    async with asyncio.timeout(WITHIN_S):
        said, _ = await process.communicate()
    if process.returncode:
        raise BenchError(f"the audit ended with {process.returncode}: {said[:2_000].decode()}")
    told: dict[str, Any] = orjson.loads(said)
    return told


async def curve(rig: Rig) -> list[dict[str, Any]]:
    """Measure as the journal grows, a quarter of a million after the other and one beyond the last;
    load is made between the timings.

    A row tells the rate over a million, and `at the end`: over the quarters before and after it.
    """
    load, feeds, sizes = Load(Shape()), Feeds(), list[float]()
    each, steps = 1_000_000 // CURVE_STEP, list[Measured]()
    async with ledger(rig, load) as owner:
        writers = Writers(rig.dsn("ledger_writer"), feeds, rig.sizes.batch)
        async with writers.running():
            for number in range(1, rig.sizes.millions * each + 2):
                feeds.feed(load.commands(CURVE_STEP))
                _settle_memory()
                steps.append(await writers.reach(number * CURVE_STEP))
                if number % each == 0:
                    sizes.append(await bytes_on_disk(owner) / (number * CURVE_STEP))
                    say(f"  million {number // each}: {_rate(steps[-each:]):,.0f}/s")
    ends = range(each, len(steps), each)
    return [
        {
            "million": number,
            "commands/s": _rate(steps[end - each : end]),
            "at the end": _rate(steps[end - 1 : end + 1]),
            "writer us each": sum(step.cpu_s for step in steps[end - each : end]),
            "bytes each": size,
        }
        for number, (end, size) in enumerate(zip(ends, sizes, strict=True), 1)
    ]


def _rate(steps: Sequence[Measured]) -> float:
    """Return the commands per second over some steps of the curve."""
    return len(steps) * CURVE_STEP / sum(step.seconds for step in steps)


async def _row(
    owner: asyncpg.Connection, what: str, shape: Shape, batch: int, measured: Measured
) -> dict[str, Any]:
    found = await outcomes(owner)
    decided = sum(found.values())
    applied = sum(rows for kind, rows in found.items() if kind in APPLIED)
    row = {"from": what, "batch": batch, **shape.row(), **measured.row()}
    row["applied/s"] = row["commands/s"] * applied / decided
    row["bytes each"] = await bytes_on_disk(owner) / decided
    say(f"  {what}, batch {batch}: {row['applied/s']:,.0f} applied transfers/s")
    return row


def _process(rig: Rig, batch: int, number: int) -> Child:
    variables = {
        "HEADRACE_KAFKA": rig.broker.bootstrap,
        "HEADRACE_LEDGER_DSN": rig.dsn("ledger_writer"),
        "HEADRACE_WORKER": f"bench-{number}",
        "HEADRACE_BATCH_MAX": str(min(batch, BATCH_MAX_OF_SERVICE)),
        "HEADRACE_METRICS_PORT": str(free_port()),
    }
    name = f"ledger_writer-{number}"
    return Child(
        Command(
            name=name,
            argv=(sys.executable, "-m", "ledger_writer"),
            log=rig.folder / "logs" / f"{name}.log",
            env=_environment(variables),
            cwd=PROJECT,
            stop_within_s=20.0,
        )
    )


def _environment(variables: dict[str, str]) -> dict[str, str]:
    """Return a process's environment: these, and nothing of ours but the paths."""
    common = {"PATH": os.environ.get("PATH", os.defpath), "PYTHONPATH": str(PROJECT)}
    return common | {"HEADRACE_PARTITIONS": str(PARTITIONS)} | variables


async def _watched(owner: asyncpg.Connection, children: list[Child], commands: int) -> Measured:
    """Measure from the first look past the warm-up to the end, all processes together."""
    deadline = time.monotonic() + WITHIN_S
    first: tuple[float, int, float] | None = None
    while True:
        done: int = await owner.fetchval(_DECIDED)
        now = (time.monotonic(), done, sum(cpu_s(child.pid) for child in children))
        if first is None and done >= WARM_UP * commands:
            first = now
        if done >= commands:
            assert first is not None
            return Measured(done - first[1], now[0] - first[0], now[2] - first[2])
        if now[0] > deadline or not all(child.running() for child in children):
            log = children[0].command.log
            raise BenchError(f"the writers decided {done} of {commands}: read {log}")
        await asyncio.sleep(POLL_S)


def _settle_memory() -> None:
    """Leave the load out of the collector's rounds, as a service has nothing like it."""
    gc.collect()
    gc.freeze()
