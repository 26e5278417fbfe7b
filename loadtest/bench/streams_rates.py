"""Throughput: a process works off a topic that was written before it started."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable
from typing import Any, Final

from deploy.local.admin import ensure_topics
from loadtest.bench import streams_kafka as kafka
from loadtest.bench import streams_records as records
from loadtest.bench.report import say
from loadtest.bench.streams_meter import BenchError, Steady, scrape, steady, transactions, watch
from loadtest.bench.streams_payments import ANSWERS, REQUESTS, STEP_US, Load
from loadtest.bench.streams_rig import (
    ACCOUNTS,
    PARTITIONS,
    PAYMENT_INPUTS,
    Rig,
    payment_topics,
    payments_worker,
    plain_worker,
    running,
)

WITHIN_S: Final = 900.0


def task_topics(task: str) -> dict[str, dict[str, str]]:
    """Return the topics of a plain task besides its input, with their settings."""
    return {f"{task}.out": kafka.PLAIN, f"{task}.changelog": kafka.COMPACTED}


async def input_topic(rig: Rig, topic: str, count: int, accounts: int = ACCOUNTS) -> None:
    """Write the plain task's input."""
    began = time.monotonic()
    await kafka.create(rig.bootstrap, {topic: kafka.PLAIN, f"{topic}.dlq": kafka.PLAIN}, PARTITIONS)
    made = records.payments(count, accounts, PARTITIONS)
    await kafka.fill(rig.bootstrap, topic, PARTITIONS, kafka.stamped(made))
    say(f"  wrote {count:,} payments to {topic} in {time.monotonic() - began:.1f} s")


async def plain(rig: Rig, task: str, topic: str, count: int) -> tuple[Steady, dict[str, float]]:
    """Measure the plain task from an empty state over an input that stands; its output remains."""
    rig.wipe("bench-0")
    await kafka.create(rig.bootstrap, task_topics(task), PARTITIONS)
    worker = plain_worker(rig, task, topic)
    with running(worker.child) as child:
        looks = await watch(rig.bootstrap, rig.watched(child, task, topic), count, WITHIN_S)
        measured = steady(looks, child.pid)
        engine = transactions(scrape(worker.port), count)
    return measured, engine


async def work_off(rig: Rig, task: str, topic: str, begin: int, end: int) -> Steady:
    """Measure the plain task over records `begin` to `end`, with the state that it has."""
    worker = plain_worker(rig, task, topic)
    with running(worker.child) as child:
        looks = await watch(rig.bootstrap, rig.watched(child, task, topic), end, WITHIN_S)
        return steady([each for each in looks if each.done >= begin], child.pid, begin=begin)


async def payments(rig: Rig, count: int, accounts: int) -> tuple[Steady, dict[str, float]]:
    """Measure the whole payment task, requests and answers in; figures are per payment."""
    await kafka.delete(rig.bootstrap, payment_topics())
    rig.wipe("bench-0")
    await ensure_topics(rig.bootstrap, PARTITIONS)
    load = Load(count, accounts, PARTITIONS, starts_at_us=time.time_ns() // 1000 - count * STEP_US)
    began = time.monotonic()
    await kafka.fill(rig.bootstrap, REQUESTS, PARTITIONS, load.requests())
    await kafka.fill(rig.bootstrap, ANSWERS, PARTITIONS, load.answers())
    say(f"  wrote {count:,} requests and their answers in {time.monotonic() - began:.1f} s")
    worker = payments_worker(rig)
    with running(worker.child) as child:
        watched = rig.watched(child, "payments", *PAYMENT_INPUTS)
        looks = await watch(rig.bootstrap, watched, 2 * count, WITHIN_S)
        measured = _per_payment(steady(looks, child.pid))
        scraped = scrape(worker.port)
    settled, dead = scraped["headrace_sagas_total"], scraped["headrace_streams_dead_letters_total"]
    if settled != count or dead:
        raise BenchError(f"{settled:.0f} of {count} payments settled, {dead:.0f} dead letters")
    return measured, transactions(scraped, count)


def median(runs: Iterable[Steady]) -> Steady:
    """Return the run whose CPU per event is the median."""
    ordered = sorted(runs, key=lambda each: each.cpu_us)
    wanted = statistics.median_low(each.cpu_us for each in ordered)
    return next(each for each in ordered if each.cpu_us == wanted)


def row(name: str, runs: list[Steady]) -> dict[str, Any]:
    """Return the table's row of several runs of one thing: the median run, and the rates' range."""
    rates = [each.rate for each in runs]
    return {**median(runs).row(name), "runs": len(runs), "from": min(rates), "to": max(rates)}


def _per_payment(each: Steady) -> Steady:
    return Steady(
        records=each.records // 2,
        seconds=each.seconds,
        rate=each.rate / 2,
        cpu_us=each.cpu_us * 2,
        broker_us=each.broker_us * 2,
        cores=each.cores,
        others=each.others,
        resident_mb=each.resident_mb,
    )
