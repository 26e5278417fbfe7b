"""What the fault scripts are made of: a worker that dies or stops at a named step, a lost disk."""

from __future__ import annotations

import asyncio
from typing import Final

from loadtest.drills.streams_run import DrillError, Run

PASSES_MAX: Final = 15
"""A point is passed this often at most before a worker dies or stops there."""


async def work_a_little(run: Run) -> None:
    before = await run.done()
    await run.start()
    await run.until_done(before + round(0.1 * run.mix.records), kept="w0")
    await run.kill()
    run.faults["SIGKILL at a random instant"] += 1


async def crash(run: Run, point: str, passes: int = 1) -> None:
    """Start a worker that dies when it passes `point` for so many times, and wait until it has."""
    await run.start(crash=f"{point}:{passes}")
    feeding = asyncio.create_task(run.trickle(0.2, 1.0))
    if point == "on_stop":
        # When all is done, every partition has been taken over and will be given up.
        await feeding
        await run.until_done(run.fed)
        await run.stop()
    reached = await run.died("w0")
    await feeding
    if not reached:
        await run.kill()
        raise DrillError(f"crash point {point}:{passes} was not reached")
    if run.workers["w0"].exit_code() != -9:
        raise DrillError(f"{point}:{passes} ended with {run.workers['w0'].exit_code()}, not -9")
    run.faults[f"SIGKILL {point}"] += 1


async def pause(run: Run, point: str) -> None:
    """Start a worker that stops at one of the first passes of `point`, and wait until it has."""
    await run.start(crash=f"{point}:{run.rng.randrange(3, PASSES_MAX) + 1}:pause")
    feeding = asyncio.create_task(run.trickle(0.15, 1.0))
    stands = await run.stands("w0")
    await feeding
    if not stands:
        raise DrillError(f"{point} was not reached")


async def goes_on(run: Run) -> None:
    """Wait until the worker that was disturbed has applied what came since, then end it."""
    await run.trickle(0.05, 0.3)
    await run.catch_up()
    await run.stop()


def wipe(run: Run) -> None:
    run.wipe()
    run.faults["disk wiped"] += 1
