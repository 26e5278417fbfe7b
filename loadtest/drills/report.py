"""What every drill is told to do, and how it tells, and keeps, what came of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(slots=True)
class Verdict:
    """What one run came to."""

    seed: int
    kind: str
    seconds: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    differences: list[str] = field(default_factory=list)

    def amount(self) -> str:
        """Say how much was checked, as wide in every run."""
        raise NotImplementedError

    def say(self) -> None:
        """Print it in one line, and a line for each difference."""
        what = ", ".join(f"{name} x{count}" for name, count in self.faults.items())
        end = f"{len(self.differences)} DIFFERENCES" if self.differences else "ok"
        took = f"{self.seconds:5.1f} s  {self.amount()}"
        print(f"seed {self.seed:4d}  {self.kind:12s} {took}  {end}  ({what})", flush=True)
        for each in self.differences:
            print(f"    {each}", flush=True)


def seeds_of(env: Mapping[str, str], runs: int) -> list[int]:
    """Return SEED alone, or as many as RUNS says, from 1 on."""
    only = env.get("SEED")
    return [int(only)] if only else list(range(1, int(env.get("RUNS") or runs) + 1))


def total(counts: Iterable[Counter[str]]) -> Counter[str]:
    """Return the sum, by name."""
    added: Counter[str] = Counter()
    for each in counts:
        added += each
    return Counter(dict(sorted(added.items())))


def summary(
    drill: str, verdicts: Sequence[Verdict], seconds: float, counted: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what is kept of a drill; `counted` is what only this one counts."""
    return {
        "drill": drill,
        "runs": len(verdicts),
        "seeds": [each.seed for each in verdicts],
        "kinds": dict(sorted(Counter(each.kind for each in verdicts).items())),
        "seconds": round(seconds, 1),
        "faults": dict(total(each.faults for each in verdicts)),
        **counted,
        "differences": sum(len(each.differences) for each in verdicts),
        "failed": [
            {
                "seed": each.seed,
                "kind": each.kind,
                "what": each.differences,
                "repeat": f"SEED={each.seed} headrace drill {drill}",
            }
            for each in verdicts
            if each.differences
        ],
    }


def conclude(kept: Mapping[str, Any], folder: Path) -> int:
    """Keep a summary beside the drill's folder and print it; returns the exit code."""
    text = json.dumps(kept, indent=2)
    folder.with_suffix(".json").write_text(text + "\n")
    print(text)
    for failed in kept["failed"]:
        print(f"seed {failed['seed']} ({failed['kind']}) differs; logs in {folder / 'runs'}")
        print(f"  repeat it: {failed['repeat']}")
    return 1 if kept["differences"] else 0
