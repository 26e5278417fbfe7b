"""What a bench says at its end: tables for people, then one JSON object as the last line.

Nothing here measures. An aim is judged where it is stated: one that could not be measured in this
run is not met.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any


@dataclass(frozen=True, slots=True)
class Aim:
    """A target in words, what was measured against it, and whether it is met."""

    name: str
    aim: str
    measured: float | None
    ok: bool


@dataclass(slots=True)
class Report:
    """Collects a bench's results; `headline` is its one figure, in `unit`."""

    bench: str
    unit: str
    headline: float | None = None
    results: list[dict[str, Any]] = field(default_factory=list)
    against: dict[str, float] = field(default_factory=dict)
    aims: list[Aim] = field(default_factory=list)

    def at_most(self, name: str, measured: float | None, bound: float, unit: str = "") -> None:
        """State an aim that is met at or below `bound`."""
        ok = measured is not None and measured <= bound
        self.aims.append(Aim(name, f"<= {bound:,g} {unit}".strip(), rounded(measured), ok))

    def at_least(self, name: str, measured: float | None, bound: float, unit: str = "") -> None:
        """State an aim that is met at or above `bound`."""
        ok = measured is not None and measured >= bound
        self.aims.append(Aim(name, f">= {bound:,g} {unit}".strip(), rounded(measured), ok))

    def finish(self, out: IO[str] | None = None) -> None:
        """Print the aims, then the JSON line; nothing may be printed after it."""
        stream = sys.stdout if out is None else out
        rows = [
            {"aim": each.name, "wanted": each.aim, "measured": each.measured, "met": each.ok}
            for each in self.aims
        ]
        print_table("aims", rows, stream)
        print(json.dumps(self.line(), separators=(",", ":")), file=stream, flush=True)

    def line(self) -> dict[str, Any]:
        """Return the last line's object."""
        return {
            "bench": self.bench,
            "machine": machine(),
            "headline": rounded(self.headline),
            "unit": self.unit,
            "results": [
                {key: rounded(value) for key, value in row.items()} for row in self.results
            ],
            "against": {name: rounded(figure) for name, figure in self.against.items()},
            "aims": [asdict(each) for each in self.aims],
        }


def say(text: str) -> None:
    """Show progress."""
    print(text, flush=True)


def print_table(title: str, rows: Sequence[dict[str, Any]], out: IO[str] | None = None) -> None:
    """Print rows of equal or differing keys as one table; columns in order of first sight."""
    stream = sys.stdout if out is None else out
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [names, *([_cell(row.get(name)) for name in names] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(names))]
    print(f"\n{title}", file=stream)
    for line in cells:
        padded = (
            text.ljust(width) if i == 0 else text.rjust(width)
            for i, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        print("  " + "  ".join(padded).rstrip(), file=stream)
    print(file=stream, flush=True)


def machine() -> str:
    """Say what this was measured on, and how busy others kept it."""
    model = platform.processor() or platform.machine()
    for line in _lines("/proc/cpuinfo"):
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    total_kb = next(
        (int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0
    )
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    return (
        f"{os.cpu_count()} x {model}, {total_kb / 1024**2:.0f} GiB, {platform.system()}"
        f" {platform.release()}, Python {platform.python_version()}, load {load}"
    )


def rounded(value: Any) -> Any:
    """Cut a float to what it can mean; leave anything else."""
    if not isinstance(value, float):
        return value
    return round(value, 1) if abs(value) >= 1000 else float(f"{value:.4g}")


def _cell(value: Any) -> str:
    match rounded(value):
        case None:
            return "-"
        case bool() as truth:
            return "yes" if truth else "no"
        case int() | float() as number:
            return f"{number:,}"
        case other:
            return str(other)


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
