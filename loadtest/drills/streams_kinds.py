"""The kinds of runs: a script of faults, its load, and the settings of its workers.

A seed names its kind by its place in a cycle of 20, half of which are the named crash points.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from loadtest.drills import streams_faults as faults
from loadtest.drills.streams_load import SKEW_MS, Mix
from loadtest.drills.streams_run import Tuning
from streams.engine.crash import POINTS


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of run: its script, load and settings. One that breaks the broker runs alone."""

    script: faults.Script
    mix: Mix
    tuning: Tuning
    alone: bool = False
    compacting: bool = False
    finisher: str = "w0"
    stop_on_poison: bool = False
    twin: Kind | None = None


_MIX: Final = Mix(records=2_400, keys=100, partitions=4)
_TIMED: Final = Mix(records=1_600, keys=30, partitions=2, timed=True)
_KNOWING: Final = replace(_TIMED, keys=300, know=600)
_USUAL: Final = Tuning(batch_max=40, commit_interval_ms=10)
_SHORT: Final = replace(_USUAL, session_timeout_ms=1_500, transaction_timeout_ms=2_000)

KINDS: Final[dict[str, Kind]] = {
    "crash points": Kind(faults.crash_points, _MIX, _USUAL),
    "SIGKILL": Kind(faults.sigkills, replace(_MIX, keys=30, long_timers=True), _USUAL),
    "zombie": Kind(faults.zombie, _MIX, _SHORT, finisher="w1"),
    "storm": Kind(faults.storm, _MIX, _SHORT),
    "refused": Kind(
        faults.refused,
        Mix(records=800, keys=30, partitions=2, big=4),
        replace(_USUAL, batch_max=16),
    ),
    "timed out": Kind(faults.timed_out, _MIX, replace(_USUAL, transaction_timeout_ms=2_000)),
    "compacted": Kind(
        faults.compacted, Mix(records=2_400, keys=12, partitions=2), _USUAL, compacting=True
    ),
    "stop policy": Kind(
        faults.stops_at_poison,
        Mix(records=1_200, keys=30, partitions=2, bad=2),
        _USUAL,
        stop_on_poison=True,
    ),
    "clock skew": Kind(faults.clock_skew, replace(_TIMED, skew_ms=SKEW_MS), _USUAL),
    "wrong clock": Kind(faults.clock_skew, replace(_MIX, keys=30), _USUAL),
    "generations": Kind(
        faults.forgetting,
        _KNOWING,
        _USUAL,
        twin=Kind(faults.sigkills, _KNOWING, replace(_USUAL, batch_max=7, commit_interval_ms=1)),
    ),
    "same bytes": Kind(
        faults.quiet,
        _TIMED,
        _USUAL,
        twin=Kind(faults.sigkills, _TIMED, replace(_USUAL, batch_max=7, commit_interval_ms=1)),
    ),
    "broker": Kind(
        faults.broker_killed,
        _MIX,
        replace(_USUAL, session_timeout_ms=3_000, transaction_timeout_ms=3_000),
        alone=True,
    ),
}

_CYCLE: Final = (
    "crash points", "SIGKILL", "crash points", "zombie", "crash points", "storm", "crash points",
    "refused", "crash points", "SIGKILL", "timed out", "compacted", "generations",
    "stop policy", "crash points", "clock skew", "crash points", "same bytes",
    "wrong clock", "broker",
)  # fmt: skip
assert len(_CYCLE) == faults.CYCLE, "a script that takes turns counts by it"


FAULTS: Final = (
    *(f"SIGKILL {point}" for point in POINTS),
    "SIGKILL at a random instant",
    "disk wiped",
    *(f"zombie paused {point}" for point in (*faults.IN_A_BATCH, "at a random instant")),
    "broker killed and restarted in mid-transaction",
    "broker frozen for seconds in mid-transaction",
    "transaction given up by its coordinator",
    "send refused by the broker",
    "worker joined",
    "worker left by SIGKILL",
    "worker left by SIGTERM",
    "restore from a compacted changelog",
    "stopped at a poisoned record",
    "timestamps jump by days",
    "timers by a wrong clock",
    "worker's clock wrong",
    "worker's clock refused by the broker",
    "poisoned record",
    "same input twice",
)
"""All that the runs do, by the names under which they count it."""


def kind_of(seed: int) -> str:
    """Say which kind of run a seed is."""
    return _CYCLE[seed % faults.CYCLE]
