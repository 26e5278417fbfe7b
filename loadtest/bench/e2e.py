"""Bench: the highest rate of payments that still end within a second at p99, end to end.

Starts a fresh stack of its own, raises the offered rate step by step (open loop, no kills), narrows
down between the last step that met the aim and the first that did not, verifies the whole stack,
and stops it. Settings by environment: RATE (first step), SECONDS (of each step), ACCOUNTS, SEED.
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import uvloop

from loadtest import stack
from loadtest.bench.report import Report, print_table, say
from loadtest.proof.figures import latencies
from loadtest.proof.run import Run, Setting
from loadtest.verify.command import summary, verify

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from loadtest.proof.run import Result

P99_MS_MAX: Final = 1_000.0
ACHIEVED_SHARE_MIN: Final = 0.9
"""Of what was offered; the tail of the last payments counts as time too."""

WARM_UP_S: Final = 3.0
_GROWTH: Final = 1.5
_STEPS_MAX: Final = 10
_NARROWING: Final = 2


@dataclass(frozen=True, slots=True)
class Settings:
    """How the ramp goes: `rate` is its first step."""

    rate: float
    seconds: float
    accounts: int
    seed: int

    @classmethod
    def of(cls, env: Mapping[str, str]) -> Settings:
        """Read the environment."""
        return cls(
            rate=float(env.get("RATE", "400")),
            seconds=float(env.get("SECONDS", "15")),
            accounts=int(env.get("ACCOUNTS", "300")),
            seed=int(env.get("SEED", "1")),
        )


def main(argv: list[str]) -> int:
    """Run the bench; 0 if it could be measured and nothing was lost, whatever the rate."""
    if argv:
        print(__doc__)
        return 0 if argv[0] in {"-h", "--help"} else 2
    settings = Settings.of(os.environ)
    folder = stack.home() / "bench-e2e"
    stack.stop(folder, {})
    shutil.rmtree(folder, ignore_errors=True)
    try:
        stack.start(folder, {})
        report, ok = uvloop.run(measure(folder, settings))
    except stack.NoStack as error:
        print(f"headrace bench e2e: {error}", file=sys.stderr)
        return 1
    finally:
        stack.stop(folder, {})
    report.finish()
    return 0 if ok else 1


async def measure(folder: Path, settings: Settings) -> tuple[Report, bool]:
    """Climb, narrow down, verify; returns the report and whether verify found no difference."""
    steps: list[dict[str, Any]] = []
    rate: float | None = settings.rate
    while rate is not None:
        steps.append(await _step(folder, settings, rate, len(steps)))
        rate = following([(step["rate"], step["ok"]) for step in steps])
    good = max((step["rate"] for step in steps if step["ok"]), default=0.0)
    evidence, verdicts = await verify(stack.read(folder))
    verdict = summary(evidence.unsettled, verdicts)
    print_table("end to end: intended send to final event", steps)
    report = Report("e2e", "payments/s", headline=good, results=steps)
    report.at_least("rate with p99 under 1 s", good, 1_000, "payments/s")
    report.at_most("differences that verify finds", verdict["differences"], 0)
    return report, bool(verdict["ok"])


def following(tried: Sequence[tuple[float, bool]]) -> float | None:
    """Return the next rate to try, given (rate, met the aim) so far; None when it is enough.

    Climbs until a rate fails, then halves the gap to it a few times (down towards zero
    if none was good).
    """
    good = max((rate for rate, ok in tried if ok), default=0.0)
    bad = min((rate for rate, ok in tried if not ok), default=0.0)
    if not bad:
        return round(good * _GROWTH) if len(tried) < _STEPS_MAX else None
    first_bad = next(i for i, (_, ok) in enumerate(tried) if not ok)
    if len(tried) - 1 - first_bad >= _NARROWING:
        return None
    return round((good + bad) / 2)


async def _step(folder: Path, settings: Settings, rate: float, number: int) -> dict[str, Any]:
    setting = Setting(
        payments=round(rate * settings.seconds), rate=rate, accounts=settings.accounts,
        seed=settings.seed + number, prefix=f"e2e-{number}",
    )  # fmt: skip
    result = await Run(folder, setting, say).go()
    return row(result, rate, setting.load_s)


def row(result: Result, rate: float, load_s: float) -> dict[str, Any]:
    """Return what one step showed; its first seconds warm up and don't count."""
    lives = [life for life in result.judged.lives if life[0] >= min(WARM_UP_S, load_s / 3)]
    count = len(result.judged.lives)
    offered = count / max((sent for sent, _ in lives), default=load_s)
    achieved = count / max((seen for _, seen in lives), default=load_s)
    values = latencies(lives)
    right = not result.judged.surprises and not result.judged.in_flight
    ok = right and values["p99"] < P99_MS_MAX and achieved >= ACHIEVED_SHARE_MIN * offered
    cpu_ms = 1000 * sum(result.cpu_s.values()) / max(1, count)
    late = result.health.dispatch_late.quantile(0.99) * 1000
    return {
        "rate": rate,
        "offered": offered,
        "achieved": achieved,
        **{f"{name}_ms": value for name, value in values.items()},
        "cpu_ms_per_payment": cpu_ms,
        "generator_late_p99_ms": late,
        "surprises": len(result.judged.surprises),
        "in_flight": len(result.judged.in_flight),
        "ok": ok,
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
