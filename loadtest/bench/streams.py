"""The stream engine measured: one worker process on a real Kafka of four partitions.

`headrace bench streams`; N (events), SECONDS (of each latency run), BATCH, COMMIT_MS (the worker's
commit interval), ROUNDS and AGAINST=1 (peers beside it) in the environment. Inputs are written
first, then the worker starts; what is measured lies between its first and its last commits.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from deploy.local.admin import ensure_topics
from deploy.local.home import PROJECT
from deploy.local.settings import Settings, settings_from
from loadtest.bench import (
    streams_against,
    streams_codec,
    streams_latency,
    streams_rates,
    streams_restore,
)
from loadtest.bench import streams_kafka as kafka
from loadtest.bench import streams_records as records
from loadtest.bench.report import Report, print_table, say
from loadtest.bench.streams_latency import Flow, cut
from loadtest.bench.streams_meter import Steady
from loadtest.bench.streams_payments import ANSWERS, REQUESTS, Load
from loadtest.bench.streams_rig import (
    ACCOUNTS,
    PARTITIONS,
    Rig,
    Sizes,
    await_ready,
    payment_topics,
    payments_worker,
    plain_worker,
    running,
)

USAGE: Final = "headrace bench streams   (N, SECONDS, BATCH, COMMIT_MS, ROUNDS, AGAINST=1)"
ANSWER_AFTER_S: Final = 1.0
WARM_RUNS: Final = 3
"""Runs of a hop before the one that counts. A broker that was just started compiles its own code
for half a minute of such load, on the cores that are measured; one in service has done so.
"""

PAYMENT_HOP: Final = "payment request to ledger command"
Hop = Callable[[Rig, float], Awaitable[streams_latency.Latency]]


def main(argv: list[str]) -> int:
    """Run the bench; returns the exit code."""
    if argv:
        print(f"{__doc__}\n{USAGE}")
        return 0 if argv[0] in {"-h", "--help"} else 2
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    settings = settings_from(os.environ, PROJECT, Path.cwd())
    sizes = Sizes.of(os.environ)
    folder = settings.home / "bench" / "streams"
    folder.mkdir(parents=True, exist_ok=True)
    _clean(folder)
    say(f"stream bench: {sizes}")
    broker = kafka.broker(folder, settings.cache, settings.java)
    broker.start()
    try:
        codec = streams_codec.build(folder / "codec")
        rig = Rig(folder, broker.bootstrap, broker.pid, sizes, codec)
        asyncio.run(_measure(rig, settings))
    finally:
        broker.stop()
        _clean(folder)
    return 0


async def _measure(rig: Rig, settings: Settings) -> None:
    report = Report("streams", "events/s, plain task, one process")
    plain = await _plain(rig, report)
    payments = await _payments(rig, report)
    await _latency(rig, report, plain, payments)
    await _large(rig, report, plain)
    if rig.sizes.against:
        say("peers, in turns")
        results = await streams_against.compare(rig, settings.cache, settings.java)
        streams_against.report(results, report)
    report.headline = plain.rate
    report.finish()


async def _plain(rig: Rig, report: Report) -> Steady:
    sizes = rig.sizes
    say(f"plain task, {'compiled codecs' if rig.codec else 'fastavro'}")
    await streams_rates.input_topic(rig, "plain.in", sizes.events)
    runs, engine = [], []
    for number in range(sizes.rounds):
        task = f"plain-{number}"
        measured, cut_up = await streams_rates.plain(rig, task, "plain.in", sizes.events)
        runs.append(measured)
        engine.append({"task": "plain", **cut_up})
        if number == 0:
            found = await kafka.outcome(rig.bootstrap, f"{task}.out")
            made = records.payments(sizes.events, ACCOUNTS, PARTITIONS)
            wrong = found.differences(kafka.outcome_of(records.expected(made)))
            report.at_most("plain task: differences from the model", float(wrong), 0)
        await kafka.delete(rig.bootstrap, streams_rates.task_topics(task))
    await kafka.delete(rig.bootstrap, ("plain.in", "plain.in.dlq"))
    _show(report, "plain", [streams_rates.row("plain task", runs)])
    _show(report, "plain transactions", engine[:1])
    return streams_rates.median(runs)


async def _payments(rig: Rig, report: Report) -> Steady:
    say("payment task: requests and the ledger's answers, six velocity rules")
    count = max(1_000, rig.sizes.events * 2 // 5)
    rows, cuts = [], []
    chosen: Steady | None = None
    for accounts, name in ((ACCOUNTS, "payments"), (ACCOUNTS // 10, "payments, full windows")):
        runs = []
        for _ in range(rig.sizes.rounds if chosen is None else 1):
            measured, cut_up = await streams_rates.payments(rig, count, accounts)
            runs.append(measured)
        chosen = chosen or streams_rates.median(runs)
        rows.append(streams_rates.row(name, runs))
        cuts.append({"task": name, **cut_up})
    assert chosen is not None, "at least one round"
    _show(report, "payments", rows)
    _show(report, "payment transactions", cuts)
    report.at_least(
        "whole payment task, per core", chosen.rate / max(1.0, chosen.cores), 15_000, "payments/s"
    )
    return chosen


async def _latency(rig: Rig, report: Report, plain: Steady, payments: Steady) -> None:
    say("latency of one hop at half load")
    found = [
        (await _warm(_plain_hop, rig, plain.rate / 2)).row("plain"),
        (await _warm(_payment_hop, rig, payments.rate / 2)).row(PAYMENT_HOP),
    ]
    _show(report, "latency", found)
    for row in found:
        report.at_most(f"{row['hop']}: p50 at half load", row["p50 ms"], 25, "ms")
        report.at_most(f"{row['hop']}: p99 at half load", row["p99 ms"], 100, "ms")


async def _warm(hop: Hop, rig: Rig, rate: float) -> streams_latency.Latency:
    """Return the last of several runs: see WARM_RUNS."""
    for _ in range(WARM_RUNS):
        before = await hop(rig, rate)
        say(f"  warm-up: p50 {before.p50_ms:.0f} ms, p99 {before.p99_ms:.0f} ms")
    return await hop(rig, rate)


async def _plain_hop(rig: Rig, rate: float) -> streams_latency.Latency:
    seconds = rig.sizes.seconds
    made = records.payments(round(rate * seconds) + PARTITIONS, ACCOUNTS, PARTITIONS)
    ticks = await asyncio.to_thread(cut, made, rate, seconds, PARTITIONS)
    names = {"hop.in": kafka.PLAIN, "hop.in.dlq": kafka.PLAIN, **streams_rates.task_topics("hop")}
    await kafka.create(rig.bootstrap, names, PARTITIONS)
    rig.wipe("bench-0")
    worker = plain_worker(rig, "hop", "hop.in")
    with running(worker.child):
        await asyncio.to_thread(await_ready, worker)
        pids = (worker.child.pid, rig.broker_pid)
        found = await streams_latency.measure(
            rig.bootstrap, [Flow("hop.in", ticks)], "hop.out", pids
        )
    await kafka.delete(rig.bootstrap, names)
    return found


async def _payment_hop(rig: Rig, rate: float) -> streams_latency.Latency:
    seconds = rig.sizes.seconds
    await kafka.delete(rig.bootstrap, payment_topics())
    rig.wipe("bench-0")
    await ensure_topics(rig.bootstrap, PARTITIONS)
    now_us = time.time_ns() // 1000
    load = Load(round(rate * seconds) + PARTITIONS, ACCOUNTS, PARTITIONS, starts_at_us=now_us)
    flows = []
    for topic, made, after_s in (
        (REQUESTS, load.requests(), 0.0),
        (ANSWERS, load.answers(), ANSWER_AFTER_S),
    ):
        ready = (each[:3] for each in made)
        ticks = await asyncio.to_thread(cut, ready, rate, seconds, PARTITIONS)
        flows.append(Flow(topic, ticks, after_s))
    worker = payments_worker(rig)
    with running(worker.child):
        await asyncio.to_thread(await_ready, worker)
        pids = (worker.child.pid, rig.broker_pid)
        found = await streams_latency.measure(rig.bootstrap, flows, "ledger.commands", pids)
    await kafka.delete(rig.bootstrap, payment_topics())
    return found


async def _large(rig: Rig, report: Report, small: Steady) -> None:
    sizes = rig.sizes
    say(f"a state of {sizes.large:,} accounts")
    topics = ("large.in", "large.in.dlq")
    await kafka.create(rig.bootstrap, dict.fromkeys(topics, kafka.PLAIN), PARTITIONS)
    await streams_restore.seed(rig, "large.in")
    rows = [
        _restore_row("restore, disk wiped", streams_restore.restore(rig, "large.in", wiped=True))
    ]
    report.at_least("restore", rows[0]["records/s"], 300_000, "changelog records/s")
    rows.append(
        _restore_row("start, disk kept", streams_restore.restore(rig, "large.in", wiped=False))
    )
    runs = []
    total = 0
    for name, active in (("few accounts active", ACCOUNTS), ("all accounts active", sizes.large)):
        made = records.payments(sizes.events, active, PARTITIONS)
        await kafka.fill(rig.bootstrap, "large.in", PARTITIONS, kafka.stamped(made))
        begin, total = total, total + sizes.events
        measured = await streams_rates.work_off(rig, streams_restore.TASK, "large.in", begin, total)
        runs.append(_large_row(report, f"{sizes.large:,} accounts, {name}", measured, small))
    _show(report, "large state", runs)
    for name, wiped in (("SIGKILL, disk kept", False), ("SIGKILL, disk wiped", True)):
        back = streams_restore.crash(rig, "large.in", wiped=wiped)
        rows.append(_restore_row(name, back))
        bound = streams_restore.bound_s(back)
        report.at_most(f"{name}: running again", back.serves_after_s, bound, "s")
    moved = streams_restore.move(rig, "large.in")
    rows.append(_restore_row("SIGKILL, moved to another worker", moved))
    bound = streams_restore.bound_s(moved)
    report.at_most("SIGKILL, moved: running again", moved.serves_after_s, bound, "s")
    _show(report, "restore", rows)
    await streams_restore.drop(rig)
    await kafka.delete(rig.bootstrap, topics)


def _large_row(report: Report, name: str, measured: Steady, small: Steady) -> dict[str, Any]:
    slower = (1 - measured.rate / small.rate) * 100
    report.at_most(f"{name}: slower than {ACCOUNTS:,}", slower, 20, "%")
    return measured.row(name) | {"slower %": slower}


def _restore_row(name: str, found: streams_restore.Restored) -> dict[str, Any]:
    return {
        "what": name,
        "records": found.records,
        "restore s": found.seconds,
        "records/s": found.rate if found.records > PARTITIONS * 100 else None,
        "serves after s": found.serves_after_s,
        "CPU s": found.cpu_s,
    }


def _show(report: Report, leg: str, rows: list[dict[str, Any]]) -> None:
    print_table(leg, rows)
    report.results += [{"leg": leg, **row} for row in rows]


def _clean(folder: Path) -> None:
    for name in ("kafka", "state"):
        shutil.rmtree(folder / name, ignore_errors=True)
