"""headrace and its peers on the plain task, in turns on one broker, each round all of them.

Each reads the same payments from a topic that stands, from an empty state, in one process; what it
wrote is compared with the model in the first round. A peer that cannot be set up is left out and
said so. Kafka Streams is measured over the second half of its input, when its code is compiled.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from deploy.local.admin import connected
from deploy.local.child import Child
from deploy.local.kafka import find_java
from loadtest.bench import streams_kafka as kafka
from loadtest.bench import streams_rates as rates
from loadtest.bench import streams_records as records
from loadtest.bench.report import Report, print_table, say
from loadtest.bench.streams_meter import Steady, by_output, steady, watch
from loadtest.bench.streams_peers import setup
from loadtest.bench.streams_rig import ACCOUNTS, PARTITIONS, Rig, command, plain_worker, running

OURS: Final = "headrace"
KAFKA_STREAMS: Final = "Kafka Streams"
QUIX_FAST: Final = "Quix, commit every 0.1 s"
QUIX_SLOW: Final = "Quix, commit every 5 s"
FAUST: Final = "faust, not exactly-once"
WITHIN_S: Final = 600.0

Argv = Callable[[str, str, str, Path], tuple[str, ...]]
"""From group, input topic, output topic and state folder to a command."""


@dataclass(frozen=True, slots=True)
class System:
    """One competitor: how much of the input it gets, and which share of it is warm-up."""

    name: str
    group: str
    events: int
    argv: Argv
    warm_up: float = 0.15
    exact: bool = True

    @property
    def topic(self) -> str:
        """Its input: the first `events` payments."""
        return f"against.in.{self.events}"


@dataclass(slots=True)
class Result:
    """All rounds of one system, and how what it wrote differs from the model."""

    runs: list[Steady] = field(default_factory=list)
    differences: int | None = None


async def compare(rig: Rig, cache: Path, java: str | None) -> dict[str, Result]:
    """Run every round of every system."""
    systems = list(_systems(rig, cache, java))
    for events in sorted({each.events for each in systems}):
        await rates.input_topic(rig, f"against.in.{events}", events)
    results = {each.name: Result() for each in systems}
    for number in range(rig.sizes.rounds):
        for system in systems:
            await _round(rig, system, results[system.name], compared=number == 0)
    await kafka.delete(rig.bootstrap, _leftovers(systems))
    return results


def report(results: dict[str, Result], to: Report) -> None:
    """Print the table, fill in `against` and judge the aims."""
    rows = [
        rates.row(name, found.runs) | {"differences": found.differences}
        for name, found in results.items()
    ]
    print_table("plain task, side by side", rows)
    medians = {name: rates.median(found.runs) for name, found in results.items()}
    to.results += [{"leg": "against", **row} for row in rows]
    to.against = {name: each.rate for name, each in medians.items() if name != OURS}
    ours = medians[OURS]
    to.at_most(
        "CPU per event against warm Kafka Streams",
        _ratio(ours.cpu_us, medians, KAFKA_STREAMS, lambda each: each.cpu_us),
        1.5,
        "x",
    )
    for name in (QUIX_FAST, QUIX_SLOW):
        ratio = _ratio(ours.rate, medians, name, lambda each: each.rate)
        to.at_least(f"rate against {name}", ratio, 4, "x")
    to.at_least(
        "rate against stock faust",
        _ratio(ours.rate, medians, FAUST, lambda each: each.rate),
        30,
        "x",
    )
    wrong = sum(found.differences or 0 for name, found in results.items() if name != FAUST)
    to.at_most("differences between the exactly-once systems' outputs", float(wrong), 0)


def _ratio(
    ours: float, medians: dict[str, Steady], name: str, figure: Callable[[Steady], float]
) -> float | None:
    return ours / figure(medians[name]) if name in medians else None


def _systems(rig: Rig, cache: Path, java: str | None) -> Iterator[System]:
    events = rig.sizes.events
    yield System(OURS, "against", events, _unused)
    folder = rig.folder / "peers"
    streams = setup.kafka_streams(folder, cache)
    if streams is not None:
        yield System(
            KAFKA_STREAMS, "against-ks", 4 * events, _java(rig, find_java(java), *streams), 0.5
        )
    python = setup.quix(folder)
    if python is not None:
        few = max(150_000, events * 3 // 5)
        many = max(600_000, events * 6 // 5)  # several commits, five seconds apart
        yield System(QUIX_FAST, "against-quix-f", few, _quix(rig, python, "0.1"))
        yield System(QUIX_SLOW, "against-quix-s", many, _quix(rig, python, "5"))
    yield System(FAUST, "against-faust", max(5_000, events // 10), _faust(rig), exact=False)


def _unused(*_: Any) -> tuple[str, ...]:
    raise AssertionError("headrace starts its own worker")


def _java(rig: Rig, java: str, classes: str, schemas: Path) -> Argv:
    options = ("-Xmx1g", "--enable-native-access=ALL-UNNAMED")

    def argv(group: str, topic: str, out: str, state: Path) -> tuple[str, ...]:
        told = (rig.bootstrap, group, topic, out, str(state), str(schemas))
        return (java, *options, "-cp", classes, "PlainTask", *told)

    return argv


def _quix(rig: Rig, python: Path, interval: str) -> Argv:
    def argv(group: str, topic: str, out: str, state: Path) -> tuple[str, ...]:
        program = str(setup.HERE / "quix_plain.py")
        return (str(python), program, rig.bootstrap, group, topic, out, str(state), interval)

    return argv


def _faust(rig: Rig) -> Argv:
    def argv(group: str, topic: str, out: str, state: Path) -> tuple[str, ...]:
        program = str(setup.HERE / "faust_plain.py")
        return (sys.executable, program, rig.bootstrap, group, topic, out, str(state))

    return argv


async def _round(rig: Rig, system: System, result: Result, *, compared: bool) -> None:
    out = f"{system.group}.out"
    topics = rates.task_topics(system.group) if system.name == OURS else {out: kafka.PLAIN}
    await kafka.create(rig.bootstrap, topics, PARTITIONS)
    with _process(rig, system, out) as child:
        watched = replace(rig.watched(child, system.group, system.topic), out=out)
        looks = await watch(rig.bootstrap, watched, system.events, WITHIN_S)
        measured = steady(by_output(looks), child.pid, system.warm_up)
    say(f"  {system.name}: {measured.rate:,.0f} events/s, {measured.cpu_us:.1f} us CPU each")
    result.runs.append(measured)
    if compared:
        found = await kafka.outcome(rig.bootstrap, out)
        made = records.payments(system.events, ACCOUNTS, PARTITIONS)
        result.differences = found.differences(kafka.outcome_of(records.expected(made)))
        if system.exact and result.differences:
            say(f"  {system.name} differs from the model in {result.differences} accounts")
    await _forget(rig, system)


@contextmanager
def _process(rig: Rig, system: System, out: str) -> Iterator[Child]:
    state = rig.state(system.group)
    shutil.rmtree(state, ignore_errors=True)
    state.mkdir(parents=True)
    if system.name == OURS:
        rig.wipe("bench-0")
        child = plain_worker(rig, system.group, system.topic).child
    else:
        argv = system.argv(system.group, system.topic, out, state)
        child = Child(command(rig, system.group, argv, {}))
    with running(child):
        yield child


async def _forget(rig: Rig, system: System) -> None:
    """Delete all that a system has made at the broker: topics of its own name and its group."""
    async with connected(rig.bootstrap) as admin:
        topics = [
            name
            for name in await admin.list_topics()
            if system.group in name and not name.startswith("against.in.")
        ]
        mine = [name for name in topics if _is_of(name, system)]
    await kafka.delete(rig.bootstrap, mine)


def _is_of(topic: str, system: System) -> bool:
    """Tell whether a topic is this system's; `against` is the start of every group."""
    return topic.startswith(f"{system.group}.") if system.name == OURS else True


def _leftovers(systems: list[System]) -> list[str]:
    inputs = {each.topic for each in systems}
    return sorted(inputs | {f"{topic}.dlq" for topic in inputs})
