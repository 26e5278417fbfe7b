"""The faults, each a short script over a run: what is broken, when, and in which order.

Every script leaves the run so that one worker can finish it. Instants are drawn from the run's
seed; what the operating system makes of them differs, so a seed repeats the faults and the load,
not every interleaving.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from signal import SIGCONT, SIGSTOP
from typing import Final

from loadtest.drills.streams_model import REFUSED, prefix_differences
from loadtest.drills.streams_run import DrillError, Run
from loadtest.drills.streams_strikes import PASSES_MAX, crash, goes_on, pause, wipe, work_a_little
from streams.engine.crash import POINTS

Script = Callable[[Run], Awaitable[list[str]]]
"""Breaks a run; returns what it found wrong by itself."""

ONCE_A_START: Final = frozenset({"after_fence", "after_restore", "on_stop"})
IN_A_BATCH: Final = POINTS[POINTS.index("after_handle") : POINTS.index("on_stop")]
IN_A_TRANSACTION: Final = POINTS[POINTS.index("after_begin") : POINTS.index("after_commit")]
STORM_EVENTS: Final = 14
ABORTED_AFTER_S: Final = 1.2
"""How long after its time-out the broker looks for a transaction at the latest."""
CYCLE: Final = 20
"""How many seeds there are from a kind of run to the next of that kind."""
COMPACTED_WITHIN_S: Final = 150.0
"""The broker has one thread for all that it compacts, and little of a busy machine."""
HOUR_S: Final = 3_600.0
CLOCKS_S: Final = (-50 * HOUR_S, -3 * HOUR_S, 0.0, 0.8 * HOUR_S)
"""How far off the clock of a worker is; below zero it is behind."""
REFUSED_CLOCK_S: Final = 30 * HOUR_S
"""A broker takes no record from more than an hour ahead of its own clock."""


async def crash_points(run: Run) -> list[str]:
    """SIGKILL at named steps, one after another, then finish."""
    await run.feed(0.3)
    points = list(POINTS)
    turn, place = divmod(run.seed // 2, len(points))
    first, wiped = points[place], (turn + place) % 2 == 0
    for point in (first, *run.rng.sample(points, run.rng.randrange(1, 3))):
        if point == "in_restore":
            if await run.done() == 0:
                await work_a_little(run)
            wipe(run)
        most = run.mix.partitions if point in ONCE_A_START else PASSES_MAX
        await crash(run, point, 1 if point == "in_restore" else run.rng.randrange(most) + 1)
        if wiped:
            wipe(run)
    return []


async def sigkills(run: Run) -> list[str]:
    """SIGKILL at random instants, from the start of the process to the middle of its work."""
    await run.feed(0.2)
    wiped = run.rng.random() < 0.5
    kills = run.rng.randrange(2, 4)
    for _ in range(kills):
        await run.start()
        await run.trickle(0.6 / kills, run.rng.uniform(0.4, 2.0))
        await run.kill()
        run.faults["SIGKILL at a random instant"] += 1
        if wiped:
            wipe(run)
    return []


async def zombie(run: Run) -> list[str]:
    """Pause an owner, at a named step or anywhere, until another has taken over, then wake it: it
    must write nothing and end.
    """
    await run.feed(0.3)
    places = (*IN_A_BATCH, "")
    place = places[run.seed // CYCLE % len(places)]
    if place:
        await pause(run, place)
    else:
        await run.start("w0")
        await run.until_done(round(0.1 * run.mix.records), kept="w0")
        await run.trickle(0.1, run.rng.uniform(0.05, 0.5))
        run.workers["w0"].send(SIGSTOP)
    run.faults[f"zombie paused {place or 'at a random instant'}"] += 1
    before = await run.done()
    await run.start("w1")
    await run.feed(0.2)
    await run.until_done(before + round(0.15 * run.mix.records), kept="w1")
    run.workers["w0"].send(SIGCONT)
    await run.trickle(0.2, 1.0)
    if not await run.died("w0"):
        return ["the zombie did not end"]
    if run.workers["w0"].exit_code() == 0:
        return ["the zombie ended as if nothing were wrong"]
    return []


async def broker_killed(run: Run) -> list[str]:
    """Kill the broker, or freeze it, and the coordinators with it, while a worker stands in the
    middle of a transaction.
    """
    await run.feed(0.3)
    for killed in run.rng.sample((True, False), 2):
        await pause(run, run.rng.choice(IN_A_TRANSACTION))
        if killed:
            await asyncio.to_thread(run.server.kill)
            if run.rng.random() < 0.5:
                run.workers["w0"].send(SIGCONT)
            await asyncio.to_thread(run.server.start)
            run.workers["w0"].send(SIGCONT)
        else:
            await asyncio.to_thread(run.server.pause)
            run.workers["w0"].send(SIGCONT)
            await asyncio.sleep(run.rng.uniform(1.0, 6.0))
            await asyncio.to_thread(run.server.resume)
        what = "killed and restarted" if killed else "frozen for seconds"
        run.faults[f"broker {what} in mid-transaction"] += 1
        await goes_on(run)
    return []


async def timed_out(run: Run) -> list[str]:
    """Pause a worker in a transaction until the coordinator has given that up, but not the member:
    it is fenced, and has to go on by itself.
    """
    await run.feed(0.3)
    for point in run.rng.sample(IN_A_TRANSACTION, 2):
        await pause(run, point)
        await asyncio.sleep(run.tuning.transaction_timeout_ms / 1000 + ABORTED_AFTER_S)
        run.workers["w0"].send(SIGCONT)
        run.faults["transaction given up by its coordinator"] += 1
        await goes_on(run)
    return []


async def refused(run: Run) -> list[str]:
    """Records whose output the broker refuses: the transaction must abort, the rest go on."""
    await run.feed(0.6)
    await run.start()
    await run.trickle(0.2, 0.5)
    await run.feed_all()
    expected = await run.expected()
    reasons = [reason for each in expected.values() for reason, _ in each.dead.values()]
    run.faults["send refused by the broker"] += reasons.count(REFUSED)
    return []


async def storm(run: Run) -> list[str]:
    """Workers join and leave, by SIGTERM and SIGKILL, every second or so under load."""
    names = ("w0", "w1", "w2")
    await run.feed(0.1)
    feeding = asyncio.create_task(run.trickle(0.8, 8.0))
    for _ in range(STORM_EVENTS):
        name = run.rng.choice(names)
        worker = run.workers.get(name)
        if worker is None or not worker.running():
            if run.rng.random() < 0.3:
                run.wipe(name)
                run.faults["disk wiped"] += 1
            await run.start(name)
            run.faults["worker joined"] += 1
        elif run.rng.random() < 0.5:
            await run.kill(name)
            run.faults["worker left by SIGKILL"] += 1
        else:
            await run.stop(name)
            run.faults["worker left by SIGTERM"] += 1
        await asyncio.sleep(run.rng.uniform(0.3, 1.5))
    await feeding
    for name in run.workers:
        await run.stop(name)
    return []


async def compacted(run: Run) -> list[str]:
    """Restore from a changelog of which the broker has compacted the beginning."""
    await run.feed(0.2)
    await run.start()
    await run.trickle(0.2, 2.0)
    deadline = time.monotonic() + COMPACTED_WITHIN_S
    while not await _has_holes(run):
        if time.monotonic() > deadline:
            raise DrillError("the broker does not compact the changelog")
        await run.trickle(0.01, 0.5)
    await run.kill()
    run.faults["restore from a compacted changelog"] += 1
    wipe(run)
    return []


async def stops_at_poison(run: Run) -> list[str]:
    """By policy a worker ends at a poisoned record, passing nothing over; then that changes."""
    await run.feed_all()
    await run.start()
    if not await run.died("w0"):
        return ["the worker did not end at the poisoned record"]
    run.faults["stopped at a poisoned record"] += 1
    found = []
    if run.workers["w0"].exit_code() == 0:
        found.append("the worker ended as if nothing were wrong")
    expected = await run.expected()
    out = await run.broker.read(run.prefix, ["out"], run.mix.partitions)
    passed = {
        tp.partition: offset
        for tp, offset in (await run.broker.committed(run.prefix)).items()
        if tp.topic == f"{run.prefix}.in"
    }
    for number, wanted in expected.items():
        found += prefix_differences(wanted, out["out", number], passed.get(number, 0))
    run.stop_on_poison = False
    return found


async def quiet(run: Run) -> list[str]:
    """One crash on made-up timestamps: log time must follow from the input alone."""
    await run.feed(0.5)
    point = run.rng.choice(("after_send", "after_commit", "after_store"))
    await crash(run, point, run.rng.randrange(6, 16))
    return []


async def clock_skew(run: Run) -> list[str]:
    """Producers whose clocks are days apart, and workers whose clocks are wrong, each otherwise.

    With timers a worker's clock is only ever behind, and right at the end: they fire late, once.
    """
    await run.feed(0.3)
    run.faults["timestamps jump by days" if run.mix.skew_ms else "timers by a wrong clock"] += 1
    clocks = [clock for clock in CLOCKS_S if run.mix.timed or clock < 0]
    for point in ("after_send", "after_commit", "after_store"):
        run.clock_off_s = run.rng.choice(clocks)
        run.faults["worker's clock wrong"] += bool(run.clock_off_s)
        await crash(run, point, run.rng.randrange(3, 12))
        if run.rng.random() < 0.3:
            wipe(run)
    found = await _refused_clock(run)
    run.clock_off_s = run.rng.choice(clocks) if run.mix.timed else 0.0
    return found


async def forgetting(run: Run) -> list[str]:
    """SIGKILL in batches that drop generations of a collection that forgets."""
    await run.feed(0.3)
    for point in run.rng.sample(IN_A_BATCH, 3):
        await crash(run, point, run.rng.randrange(3, 16))
        if run.rng.random() < 0.5:
            wipe(run)
    return []


async def _refused_clock(run: Run) -> list[str]:
    """Start a worker so far ahead that it can write nothing: it must end, and pass nothing over."""
    before = await run.done()
    await run.feed(0.05)
    run.clock_off_s = REFUSED_CLOCK_S
    await run.start()
    run.faults["worker's clock refused by the broker"] += 1
    if not await run.died("w0"):
        return ["a worker whose clock the broker refuses did not end"]
    if run.workers["w0"].exit_code() == 0 or await run.done() != before:
        return ["a worker whose clock the broker refuses went on"]
    return []


async def _has_holes(run: Run) -> bool:
    """Tell whether every changelog has lost records to compaction: a transaction writes one at
    least and takes one offset for its marker, so without holes half of the offsets are records.
    """
    found = await run.broker.read(run.prefix, ["changelog"], run.mix.partitions)
    return all(
        records and records[-1].offset - records[0].offset >= 2 * len(records)
        for records in found.values()
    )
