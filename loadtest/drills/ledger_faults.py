"""What is done to the ledger's writers: one script a kind of run, chosen and steered by the seed.

Moments are counts (commands decided, requests seen) wherever they can be. A script starts writers,
breaks them and returns what was wrong already then; the run goes on to its end and is compared
with the model whatever happened.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from signal import SIGCONT, SIGSTOP
from typing import Final

from ledger_writer.crash import POINTS
from loadtest.drills.ledger_proxy import KINDS as CUTS
from loadtest.drills.ledger_run import REACHED_WITHIN_S, Mix, Run

Script = Callable[[Run], Awaitable[None]]

STORM_EVENTS: Final = 7
ONCE_A_START: Final = ("after_acquire", "after_gap_filled")
SELDOM: Final = ("after_bury", "after_refused", "in_gap")
PASSES_MAX: Final = 6


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of run."""

    script: Script
    mix: Mix


async def crash_points(run: Run) -> None:
    """SIGKILL at named points: all of them in turn by seed, then some more of this seed's own."""
    await run.feed(0.2)
    turn = POINTS[run.seed // 2 % len(POINTS)]
    for point in (turn, *run.rng.sample(POINTS, 2)):
        passes = (
            1 if point in (*ONCE_A_START, *SELDOM, "on_stop") else run.rng.randint(1, PASSES_MAX)
        )
        if point == "in_gap":
            await _leave_a_gap(run)
        await _crash(run, point, passes)


async def sigkills(run: Run) -> None:
    """SIGKILL after some number of rows, wherever the process then stands."""
    await run.feed(0.1)
    for _ in range(3):
        if not run.running("w0"):
            await run.start()
        feeding = asyncio.create_task(run.trickle(0.25))
        await run.until_rows(run.rng.randint(1, 90))
        await run.kill()
        run.faults["SIGKILL at a random instant"] += 1
        await feeding


async def in_commit(run: Run) -> None:
    """SIGKILL between the request of a commit and its answer, or before it is sent."""
    await run.feed(0.3)
    for _ in range(3):
        what = run.rng.choice(("kept request", "kept answer"))
        run.proxy.hold(what, run.rng.randint(10, 60))
        await run.start(proxied=True)
        feeding = asyncio.create_task(run.trickle(0.2))
        await _held(run)
        await run.kill()
        run.faults[f"SIGKILL with a {what.removeprefix('kept ')} under way"] += 1
        run.proxy.release()
        await feeding


async def zombie(run: Run) -> None:
    """Pause a writer until another has taken over, then wake it: it must write nothing more."""
    await run.feed(0.2)
    await run.start("w0")
    await run.until_rows(run.rng.randint(5, 60))
    await run.trickle(0.2, slices=3, pause_s=0.01)
    run.signal(SIGSTOP, "w0")
    run.faults["writer paused past its session"] += 1
    await run.take_over("w1")
    feeding = asyncio.create_task(run.trickle(0.4))
    await run.until_rows(run.rng.randint(5, 60))
    run.signal(SIGCONT, "w0")
    await feeding


async def late_commit(run: Run) -> None:
    """Hold a request back, let another writer take over, then let it reach Postgres after all."""
    await run.feed(0.2)
    await run.start("w0", proxied=True)
    await run.until_rows(run.rng.randint(5, 40))
    run.proxy.hold("kept request", run.rng.randint(1, 12))
    feeding = asyncio.create_task(run.trickle(0.3))
    await _held(run)
    run.signal(SIGSTOP, "w0")
    await run.take_over("w1")
    await run.until_rows(run.rng.randint(1, 40))
    run.proxy.release()
    run.faults["request delivered after another took over"] += 1
    await feeding
    run.signal(SIGCONT, "w0")
    await run.trickle(0.2)


async def cuts(run: Run) -> None:
    """Cut connections to Postgres between, before, after and in the middle of statements."""
    rng = run.rng
    run.proxy.arm([(rng.randint(1, 25), rng.choice(CUTS)) for _ in range(16)])
    await run.feed(0.2)
    await run.start("w0", proxied=True)
    if rng.random() < 0.5:
        await run.start("w1", proxied=True)
    await run.trickle(0.7, slices=25)


async def postgres_stopped(run: Run) -> None:
    """Stop Postgres at once, in mid-commit, and start it again."""
    await run.feed(0.2)
    await run.start()
    for _ in range(2):
        feeding = asyncio.create_task(run.trickle(0.3))
        await run.until_rows(run.rng.randint(1, 60))
        await asyncio.to_thread(run.postgres.stop_immediately)
        await asyncio.to_thread(run.postgres.start)
        run.faults["Postgres stopped at once and restarted"] += 1
        await feeding


async def kafka_broken(run: Run) -> None:
    """Kill the broker or freeze it for a while, in the middle of publishing."""
    await run.feed(0.4)
    await run.start()
    await run.until_rows(run.rng.randint(1, 90))
    if run.rng.random() < 0.6:
        await asyncio.to_thread(run.kafka.kill)
        await asyncio.to_thread(run.kafka.start)
        run.faults["broker killed and restarted"] += 1
    else:
        run.kafka.pause()
        await asyncio.sleep(run.rng.uniform(0.5, 3.0))
        run.kafka.resume()
        run.faults["broker frozen for seconds"] += 1
    await run.trickle(0.5)


async def rebalances(run: Run) -> None:
    """Writers join and leave, by SIGTERM and SIGKILL, in the middle of batches."""
    names = ("w0", "w1", "w2")
    await run.feed(0.1)
    await run.start()
    feeding = asyncio.create_task(run.trickle(0.8, slices=40, pause_s=0.1))
    for _ in range(STORM_EVENTS):
        name = run.rng.choice(names)
        if not run.running(name):
            await run.start(name)
            run.faults["writer joined"] += 1
        elif run.rng.random() < 0.5:
            await run.kill(name)
            run.faults["writer left by SIGKILL"] += 1
        else:
            await run.stop(name)
            run.faults["writer left by SIGTERM"] += 1
        await asyncio.sleep(run.rng.uniform(0.05, 0.6))
    await feeding


async def races(run: Run) -> None:
    """Two writers side by side on slow connections: freezes, closings, keys and caps meet."""
    rng = run.rng
    slow = ("request held up", "answer held up")
    run.proxy.arm([(rng.randint(5, 30), rng.choice(slow)) for _ in range(8)])
    await run.start("w0", proxied=True)
    await run.start("w1")
    await run.trickle(0.9, slices=30)
    run.faults["partitions racing"] += 1


async def _crash(run: Run, point: str, passes: int) -> None:
    """Start a writer that dies when it passes `point` so many times, and wait until it has."""
    if point == "on_stop":
        await run.take_over("w0", f"{point}:{passes}")
    else:
        await run.start(crash=f"{point}:{passes}")
    feeding = asyncio.create_task(run.trickle(0.2))
    if point == "on_stop":
        await asyncio.to_thread(run.writers["w0"].stop)
    if await run.until_ended("w0"):
        run.faults[f"SIGKILL {point}"] += 1
    else:
        await run.kill()
        run.faults[f"not reached {point}"] += 1
    await feeding


async def _leave_a_gap(run: Run) -> None:
    """End a writer between a commit and its events."""
    await run.start(crash="after_commit:2")
    if await run.until_ended("w0"):
        run.faults["SIGKILL after_commit"] += 1
    else:
        await run.kill()


async def _held(run: Run) -> None:
    async with asyncio.timeout(REACHED_WITHIN_S):
        await run.proxy.held.wait()


_USUAL: Final = Mix()
_MEETING: Final = {
    "freeze": 1.2, "unfreeze": 2.0, "close": 2.0, "open": 2.0, "reverse": 4.0, "fund": 8.0,
}  # fmt: skip

KINDS: Final[dict[str, Kind]] = {
    "crash points": Kind(crash_points, replace(_USUAL, batch_max=10)),
    "SIGKILL": Kind(sigkills, _USUAL),
    "in commit": Kind(in_commit, _USUAL),
    "zombie": Kind(zombie, replace(_USUAL, session_timeout_ms=1_500)),
    "late commit": Kind(late_commit, replace(_USUAL, session_timeout_ms=1_500)),
    "cuts": Kind(cuts, _USUAL),
    "Postgres": Kind(postgres_stopped, _USUAL),
    "Kafka": Kind(kafka_broken, replace(_USUAL, session_timeout_ms=6_000)),
    "rebalances": Kind(rebalances, replace(_USUAL, session_timeout_ms=1_500)),
    "races": Kind(races, replace(_USUAL, commands=700, batch_max=6, favored=_MEETING)),
}

_CYCLE: Final = (
    "races", "crash points", "cuts", "crash points", "SIGKILL", "zombie", "crash points",
    "in commit", "races", "crash points", "Postgres", "late commit", "cuts", "crash points",
    "rebalances", "races", "crash points", "Kafka", "in commit", "SIGKILL",
)  # fmt: skip


def kind_of(seed: int) -> str:
    """Say which kind of run a seed is."""
    return _CYCLE[seed % len(_CYCLE)]


def mix_of(seed: int) -> Mix:
    """Return a seed's load: its kind's, with batches of a size of its own."""
    mix = KINDS[kind_of(seed)].mix
    sizes = (mix.batch_max, 1 + mix.batch_max // 5, 5 * mix.batch_max)
    return replace(mix, batch_max=sizes[seed // 3 % 3])
