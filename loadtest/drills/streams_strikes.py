"""What the fault scripts are made of: a worker that dies or stops at a named step, a lost disk."""

from __future__ import annotations

import asyncio
from signal import SIGKILL
from typing import Final

from loadtest.drills.streams_run import DrillError, Run

TRIES: Final = 5
PASSES_MAX: Final = 15
"""A point is passed this often at most before a worker dies or stops there."""


async def work_a_little(run: Run) -> None:
    before = await run.done()
    await run.start()
    await run.until_done(before + round(0.1 * run.mix.records), kept="w0")
    await run.kill()
    run.faults["SIGKILL at a random instant"] += 1


async def crash(run: Run, point: str, passes: int = 1) -> None:
    """Have a worker die when it passes `point` for so many times. One that ends otherwise, because
    its group has dropped it or, at a stop, because it did not run all of its partitions at that
    moment, is started again.
    """
    for _ in range(TRIES):
        ended = await _end_at(run, point, passes)
        if ended == -SIGKILL:
            run.faults[f"SIGKILL {point}"] += 1
            return
    raise DrillError(f"{point}:{passes} ended with {ended}, {TRIES} times")


async def _end_at(run: Run, point: str, passes: int) -> int | None:
    """Start a worker that is to die at `point`; returns how it ended."""
    await run.start(crash=f"{point}:{passes}")
    feeding = asyncio.create_task(run.trickle(0.2, 1.0))
    if point == "on_stop":
        # When all is done, every partition has been taken over and will be given up.
        await feeding
        await run.until_done(run.fed, kept="w0")
        await run.stop()
    reached = await run.died("w0")
    await feeding
    if not reached:
        await run.kill()
        raise DrillError(f"crash point {point}:{passes} was not reached")
    return run.workers["w0"].exit_code()


async def pause(run: Run, point: str) -> None:
    """Have a worker stop at one of the first passes of `point`; one that ends is started again."""
    passes = run.rng.randrange(3, PASSES_MAX) + 1
    for _ in range(TRIES):
        await run.start(crash=f"{point}:{passes}:pause")
        feeding = asyncio.create_task(run.trickle(0.15, 1.0))
        stands = await run.stands("w0")
        await feeding
        if stands:
            return
    raise DrillError(f"{point}:{passes} was not reached")


async def goes_on(run: Run) -> None:
    """Wait until the worker that was disturbed has applied what came since, then end it."""
    await run.trickle(0.05, 0.3)
    await run.catch_up()
    await run.stop()


def wipe(run: Run) -> None:
    run.wipe()
    run.faults["disk wiped"] += 1
