"""Measures processes from outside while they work off a topic: rate, CPU and memory.

A run is over when the consumer group has committed all of it, so every system is measured by what
it has made true. Where commits are rare, what happens between them is told by how far the output
topic has grown (`by_output`). CPU is the kernel's account of the whole process, all threads.
Nothing here slows what is measured but some twenty small requests a second to the broker.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import time
import urllib.request
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from deploy.local.admin import connected
from deploy.local.child import Child
from loadtest.bench.streams_kafka import committed, lengths

POLL_S: Final = 0.1
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_SAMPLE: Final = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$")


class BenchError(RuntimeError):
    """What was measured ended or stood still; the text says which log to read."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One look: when, records committed, CPU seconds used so far; `others_s` by all the rest;
    `written` is the output topic's length, markers included.
    """

    at_s: float
    done: int
    worker_s: float
    broker_s: float
    others_s: float = 0.0
    written: int = 0


@dataclass(frozen=True, slots=True)
class Steady:
    """What happened between two looks. CPU per record in microseconds, `cores` a mean; `others`
    are the cores that this machine spent on neither worker, broker nor bench meanwhile.
    """

    records: int
    seconds: float
    rate: float
    cpu_us: float
    broker_us: float
    cores: float
    others: float
    resident_mb: float

    def row(self, name: str) -> dict[str, Any]:
        """Return a table's row."""
        return {
            "what": name,
            "events/s": self.rate,
            "CPU us/event": self.cpu_us,
            "broker us/event": self.broker_us,
            "cores": self.cores,
            "others' cores": self.others,
            "resident MB": self.resident_mb,
        }


@dataclass(frozen=True, slots=True)
class Watched:
    """A process that works off `topics` as `group`, and the broker beside it; `out` where its
    output's length is to be seen too.
    """

    child: Child
    broker_pid: int
    group: str
    topics: tuple[str, ...]
    out: str | None = None


async def watch(bootstrap: str, watched: Watched, until: int, within_s: float) -> list[Seen]:
    """Look again and again until `until` records are committed; raises BenchError when they
    are not.
    """
    looks: list[Seen] = []
    deadline = time.monotonic() + within_s
    async with connected(bootstrap) as admin, lengths(bootstrap) as length:
        while not looks or looks[-1].done < until:
            child = watched.child
            if not child.running():
                raise BenchError(f"{child.command.name} ended: read {child.command.log}")
            if time.monotonic() > deadline:
                raise BenchError(
                    f"{child.command.name} committed {looks[-1].done if looks else 0} of {until}"
                    f" records in {within_s:.0f} s: read {child.command.log}"
                )
            done = await committed(admin, watched.group, watched.topics)
            written = await length(watched.out) if watched.out else 0
            looks.append(look(watched, done, written))
            await asyncio.sleep(POLL_S)
    return looks


def look(watched: Watched, done: int, written: int = 0) -> Seen:
    """Look once."""
    worker_s, broker_s = cpu_s(watched.child.pid), cpu_s(watched.broker_pid)
    others_s = machine_s() - worker_s - broker_s - time.process_time()
    return Seen(time.monotonic(), done, worker_s, broker_s, others_s, written)


def by_output(looks: list[Seen]) -> list[Seen]:
    """Return the same looks with progress by output: its share of the whole, as records done."""
    done, written = looks[-1].done, max(1, looks[-1].written)
    return [replace(each, done=each.written * done // written) for each in looks]


def steady(looks: list[Seen], pid: int, skip: float = 0.15, begin: int = 0) -> Steady:
    """Return the part between the first commit past `skip` of the records from `begin` and the
    last one before their end (or the end itself, where one commit was half of it).
    """
    end = looks[-1].done
    enough = begin + skip * (end - begin)
    moved = [now for before, now in itertools.pairwise(looks) if now.done > before.done]
    if not moved:
        raise BenchError("nothing was seen to happen: raise N")
    first = next((each for each in moved if each.done >= enough), moved[0])
    inside = [each for each in moved if first.done < each.done < end]
    last = (
        inside[-1] if inside and inside[-1].done - first.done >= 0.3 * (end - begin) else moved[-1]
    )
    return between(first, last, pid)


def between(first: Seen, last: Seen, pid: int) -> Steady:
    """Return what happened between two looks."""
    records, seconds = last.done - first.done, last.at_s - first.at_s
    if records <= 0 or seconds <= 0:
        raise BenchError("too few commits to measure between: raise N")
    used = last.worker_s - first.worker_s
    return Steady(
        records=records,
        seconds=seconds,
        rate=records / seconds,
        cpu_us=used / records * 1e6,
        broker_us=(last.broker_s - first.broker_s) / records * 1e6,
        cores=used / seconds,
        others=(last.others_s - first.others_s) / seconds,
        resident_mb=resident_mb(pid),
    )


def cpu_s(pid: int) -> float:
    """CPU seconds that a process has used, all threads, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def machine_s() -> float:
    """CPU seconds that all processes have used since the machine started."""
    with Path("/proc/stat").open() as lines:
        user, nice, system, _, _, irq, soft, steal = map(int, lines.readline().split()[1:9])
    return (user + nice + system + irq + soft + steal) / _TICKS


def resident_mb(pid: int) -> float:
    """The most memory that a process has held, in megabytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return 0.0


def scrape(port: int) -> dict[str, float]:
    """Read a worker's metrics, each family's samples summed over its labels; stages by name."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    sums: dict[str, float] = defaultdict(float)
    for line in text.splitlines():
        found = _SAMPLE.match(line)
        if found is None or found[1].endswith("_bucket"):
            continue
        stage = re.search(r'stage="(\w+)"', found[2] or "")
        sums[f"{found[1]}:{stage[1]}" if stage else found[1]] += float(found[3])
    return dict(sums)


def transactions(metrics: dict[str, float], events: int) -> dict[str, float]:
    """Say how the engine cut its work: transactions, records in one, and where their time went."""
    prefix = "headrace_streams"
    count = max(1.0, metrics.get(f"{prefix}_batch_records_count", 0.0))
    row = {
        "transactions": count,
        "records each": metrics.get(f"{prefix}_batch_records_sum", 0.0) / count,
        "ms each": metrics.get(f"{prefix}_transaction_seconds_sum", 0.0) / count * 1e3,
        "changes/event": metrics.get(f"{prefix}_changes_total", 0.0) / max(1, events),
        "aborts": metrics.get(f"{prefix}_aborts_total", 0.0),
        "dead letters": metrics.get(f"{prefix}_dead_letters_total", 0.0),
    }
    for stage in ("read", "handle", "send", "commit", "store"):
        seconds = metrics.get(f"{prefix}_stage_seconds_sum:{stage}", 0.0)
        row[f"{stage} us/event"] = seconds / max(1, events) * 1e6
    return row
