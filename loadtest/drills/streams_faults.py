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
from loadtest.drills.streams_run import ENDS_WITHIN_S, DrillError, Run
from streams.engine.crash import POINTS

Script = Callable[[Run], Awaitable[list[str]]]
"""Breaks a run; returns what it found wrong by itself."""

ONCE_A_START: Final = frozenset({"after_fence", "after_restore", "on_stop"})
IN_A_BATCH: Final = POINTS[POINTS.index("after_handle") : POINTS.index("on_stop")]
PASSES_MAX: Final = 15
STORM_EVENTS: Final = 14
REACHED_WITHIN_S: Final = 60.0
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
                await _work_a_little(run)
            _wipe(run)
        most = run.mix.partitions if point in ONCE_A_START else PASSES_MAX
        await _crash(run, point, 1 if point == "in_restore" else run.rng.randrange(most) + 1)
        if wiped:
            _wipe(run)
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
            _wipe(run)
    return []


async def zombie(run: Run) -> list[str]:
    """Pause an owner until another has taken over, then wake it: it must write nothing and end."""
    await run.feed(0.3)
    await run.start("w0")
    await run.until_done(round(0.1 * run.mix.records))
    await run.trickle(0.1, run.rng.uniform(0.05, 0.5))
    run.signal(SIGSTOP, "w0")
    run.faults["owner paused past its time-outs"] += 1
    before = await run.done()
    await run.start("w1")
    await run.feed(0.2)
    await run.until_done(before + round(0.15 * run.mix.records))
    run.signal(SIGCONT, "w0")
    await run.trickle(0.2, 1.0)
    if not await run.died("w0", ENDS_WITHIN_S):
        return ["the zombie did not end"]
    if run.workers["w0"].exit_code() == 0:
        return ["the zombie ended as if nothing were wrong"]
    return []


async def broker_killed(run: Run) -> list[str]:
    """Kill the broker, or freeze it, in the middle of transactions; the worker has to cope."""
    await run.feed(0.3)
    await run.start()
    await run.until_done(round(0.05 * run.mix.records))
    for _ in range(2):
        await run.trickle(0.1, run.rng.uniform(0.1, 0.6))
        if run.rng.random() < 0.5:
            await asyncio.to_thread(run.server.kill)
            await asyncio.to_thread(run.server.start)
            run.faults["broker killed and restarted"] += 1
        else:
            await asyncio.to_thread(run.server.pause)
            await asyncio.sleep(run.rng.uniform(1.0, 6.0))
            await asyncio.to_thread(run.server.resume)
            run.faults["broker frozen for seconds"] += 1
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
    _wipe(run)
    return []


async def stops_at_poison(run: Run) -> list[str]:
    """By policy a worker ends at a poisoned record, passing nothing over; then that changes."""
    await run.feed_all()
    await run.start()
    if not await run.died("w0", ENDS_WITHIN_S):
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
    await _crash(run, point, run.rng.randrange(6, 16))
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
        await _crash(run, point, run.rng.randrange(3, 12))
        if run.rng.random() < 0.3:
            _wipe(run)
    found = await _refused_clock(run)
    run.clock_off_s = run.rng.choice(clocks) if run.mix.timed else 0.0
    return found


async def forgetting(run: Run) -> list[str]:
    """SIGKILL in batches that drop generations of a collection that forgets."""
    await run.feed(0.3)
    for point in run.rng.sample(IN_A_BATCH, 3):
        await _crash(run, point, run.rng.randrange(3, 16))
        if run.rng.random() < 0.5:
            _wipe(run)
    return []


async def _refused_clock(run: Run) -> list[str]:
    """Start a worker so far ahead that it can write nothing: it must end, and pass nothing over."""
    before = await run.done()
    await run.feed(0.05)
    run.clock_off_s = REFUSED_CLOCK_S
    await run.start()
    run.faults["worker's clock refused by the broker"] += 1
    if not await run.died("w0", ENDS_WITHIN_S):
        return ["a worker whose clock the broker refuses did not end"]
    if run.workers["w0"].exit_code() == 0 or await run.done() != before:
        return ["a worker whose clock the broker refuses went on"]
    return []


async def _work_a_little(run: Run) -> None:
    before = await run.done()
    await run.start()
    await run.until_done(before + round(0.1 * run.mix.records))
    await run.kill()
    run.faults["SIGKILL at a random instant"] += 1


async def _crash(run: Run, point: str, passes: int = 1) -> None:
    """Start a worker that dies when it passes `point` for so many times, and wait until it has."""
    await run.start(crash=f"{point}:{passes}")
    feeding = asyncio.create_task(run.trickle(0.2, 1.0))
    if point == "on_stop":
        # When all is done, every partition has been taken over and will be given up.
        await feeding
        await run.until_done(run.fed)
        await run.stop()
    reached = await run.died("w0", REACHED_WITHIN_S)
    await feeding
    if not reached:
        await run.kill()
        raise DrillError(f"crash point {point}:{passes} was not reached")
    if run.workers["w0"].exit_code() != -9:
        raise DrillError(f"{point}:{passes} ended with {run.workers['w0'].exit_code()}, not -9")
    run.faults[f"SIGKILL {point}"] += 1


async def _has_holes(run: Run) -> bool:
    """Tell whether every changelog has lost records to compaction: a transaction writes one at
    least and takes one offset for its marker, so without holes half of the offsets are records.
    """
    found = await run.broker.read(run.prefix, ["changelog"], run.mix.partitions)
    return all(
        records and records[-1].offset - records[0].offset >= 2 * len(records)
        for records in found.values()
    )


def _wipe(run: Run) -> None:
    run.wipe()
    run.faults["disk wiped"] += 1
