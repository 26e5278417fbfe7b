"""Two sinks, a maintenance job and a failing world on one real Iceberg catalog, in seeded disorder.

Owners crash at every named point, lose the answer of commits that landed, act in the middle of each
other's commits, and meet expiry and compaction everywhere. Afterwards each committed record must
stand in the lake exactly once. The same world with one rule of the protocol taken away must end in
a violation: the simulator would see it. `SEEDS=50` runs more of them.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.exceptions import CommitFailedException, ValidationException
from sqlalchemy.exc import OperationalError

from schemas import wire
from schemas.errors import Fenced, Unavailable
from streams.lake.bronze import commit, landing, tables
from streams.lake.bronze.commit import OpenTable, open_table
from streams.lake.buffer import Buffer
from streams.lake.catalog import open_catalog

TOPIC = "webhooks.events"
PARTITIONS = 2
RECORDS = 400
SEEDS = range(int(os.environ.get("SEEDS", "4")))
STEPS_MAX = 2_000


class Crash(Exception):
    """The process is gone."""


@dataclass(frozen=True)
class Record:
    partition: int
    offset: int
    value: bytes
    timestamp: int = 0
    key: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass
class Log:
    """Committed records, with the gaps that markers and aborted records leave, also at the end."""

    records: dict[int, list[Record]]
    ends: dict[int, int]
    bad: set[tuple[int, int]]


def make_log(rng: random.Random) -> Log:
    log = Log({}, {}, set())
    for partition in range(PARTITIONS):
        offset, records = 0, []
        for _ in range(RECORDS):
            offset += rng.choice((1, 1, 1, 1, 2, 5))
            bad = rng.random() < 0.04
            records.append(Record(partition, offset, b"\x00bad" if bad else event(offset)))
            if bad:
                log.bad.add((partition, offset))
        log.records[partition], log.ends[partition] = records, offset + 3
    return log


def event(offset: int) -> bytes:
    return wire.encode(
        TOPIC,
        {
            "type": "webhook.accepted",
            "event_id": f"webhooks.received-0-{offset}-0",
            "source": "acme",
            "partner_event_id": str(offset),
            "slot": 1,
            "delivery_id": "d",
            "received_partition": 0,
            "received_offset": offset,
            "body_hash": "h",
            "received_at_us": offset,
            "occurred_at_us": offset,
            "deliveries": 1,
        },
    )


@dataclass
class World:
    """What happens to whom comes from one generator; `depth` bounds acting inside one another."""

    rng: random.Random
    folder: Path
    log: Log
    depth: int = 0
    happened: Counter[str] = field(default_factory=Counter)
    owners: list[Owner] = field(default_factory=list)
    calm: bool = False

    def chance(self, probability: float) -> bool:
        return not self.calm and self.rng.random() < probability

    def interfere(self, actor: Owner) -> None:
        """Let another owner or the maintenance job act in the middle of `actor`'s work."""
        if self.depth or not self.chance(0.35):
            return
        self.depth += 1
        try:
            if self.chance(0.3):
                self.maintain()
            else:
                self.rng.choice([owner for owner in self.owners if owner is not actor]).act()
        finally:
            self.depth -= 1

    def maintain(self) -> None:
        catalog = open_catalog(uri(self.folder), self.folder.as_uri())
        try:
            name = f"bronze.{TOPIC.replace('.', '_')}" + self.rng.choice(("", "__dlq"))
            table = catalog.load_table(name)
            if self.rng.random() < 0.25 and (rows := table.scan().to_arrow()):
                table.overwrite(rows)
                self.happened["compactions"] += 1
            else:
                heads = {ref.snapshot_id for ref in table.metadata.refs.values()}
                old = [s.snapshot_id for s in table.snapshots() if s.snapshot_id not in heads]
                table.maintenance.expire_snapshots().by_ids(old).commit()
                self.happened["expiries"] += 1
        except (CommitFailedException, ValidationException, ValueError):
            self.happened["maintenance refused"] += 1
        finally:
            catalog.close()


def uri(folder: Path) -> str:
    return f"sqlite:///{folder}/catalog.db"


@dataclass
class Owner:
    """One sink process, over the code that the real one runs; every restart is a new process."""

    world: World
    table: OpenTable | None = None
    buffer: Buffer | None = None
    positions: dict[int, int] = field(default_factory=dict)
    catalog: Any = None

    def act(self) -> None:
        """Do one thing; a failure of any kind is followed by a restart, later."""
        try:
            if self.table is None:
                self._start()
            elif self.world.chance(0.02):
                self._die("killed between steps")
            elif self.world.rng.random() < 0.6:
                self._read()
            else:
                self._land()
        except Crash:
            self._die("crashed")
        except Fenced:
            self._die("fenced")
        except Unavailable:
            self._die("unavailable")

    def _start(self) -> None:
        catalog = open_catalog(uri(self.world.folder), self.world.folder.as_uri())
        self.catalog = catalog
        self.table = open_table(catalog, TOPIC, self._step)
        self.buffer = Buffer(TOPIC, self.table.offsets)
        self.positions = {p: self.buffer.stored.get(p, 0) for p in range(PARTITIONS)}
        catalog.commit_table = self._failing(catalog.commit_table)

    def _read(self) -> None:
        assert self.buffer is not None
        partition = self.world.rng.randrange(PARTITIONS)
        ahead = [
            record
            for record in self.world.log.records[partition]
            if record.offset >= self.positions[partition]
        ]
        taken = ahead[: self.world.rng.randrange(1, 40)]
        self.buffer.add(partition, taken, 0.0)
        whole = len(taken) == len(ahead)
        end = self.world.log.ends[partition] if whole else taken[-1].offset + 1
        self.positions[partition] = end

    def _land(self) -> None:
        assert self.buffer is not None
        assert self.table is not None
        batch = self.buffer.cut(self.positions, self.world.rng.choice((5, 20, 40, 1000)), 0.0)
        if not batch.chunks:
            return
        table = self.table
        self.world.happened["landings begun"] += 1
        table.land(batch)
        self.world.happened["landings acknowledged"] += 1
        if self.table is table and self.buffer is not None:
            self.buffer.landed(batch)

    def _step(self, name: str) -> None:
        self.world.interfere(self)
        if self.world.chance(0.05):
            self.world.happened[f"crash {name}"] += 1
            raise Crash(name)

    def _failing(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def commit_table(*args: Any) -> Any:
            self.world.interfere(self)  # between the comparison and the swap
            if self.world.chance(0.04):
                raise OperationalError("lost before", None, Exception("connection"))
            answer = real(*args)
            if self.world.chance(0.06):
                self.world.happened["lost acknowledgement"] += 1
                raise OperationalError("lost after", None, Exception("connection"))
            return answer

        return commit_table

    def _die(self, why: str) -> None:
        self.world.happened[why] += 1
        if self.catalog is not None:
            self.catalog.close()
        self.table = self.buffer = self.catalog = None


def run(seed: int, folder: Path) -> tuple[World, list[str]]:
    """Run one world until everything should have landed; return it with its violations."""
    rng = random.Random(seed)
    world = World(rng, folder, make_log(rng))
    world.owners = [Owner(world), Owner(world)]
    world.owners[0].act()  # the tables exist
    for step in range(STEPS_MAX):
        world.calm = step > STEPS_MAX // 2
        rng.choice(world.owners).act()
        if step % 20 == 0 and landed(world) == world.log.ends:
            break
    found = violations(world)
    for owner in world.owners:
        owner._die("ended")
    return world, found


def landed(world: World) -> dict[int, int]:
    catalog = open_catalog(uri(world.folder), world.folder.as_uri())
    try:
        return landing.offsets_of(catalog.load_table(tables.table_of(TOPIC).name).properties)
    finally:
        catalog.close()


def violations(world: World) -> list[str]:
    """Compare the lake with the log, record by record."""
    catalog = open_catalog(uri(world.folder), world.folder.as_uri())
    spec = tables.table_of(TOPIC)
    assert spec.rejects is not None
    good = catalog.load_table(spec.name).scan().to_arrow().to_pylist()
    bad = catalog.load_table(spec.rejects).scan().to_arrow().to_pylist()
    catalog.close()
    lake_good = Counter((row["_partition"], row["_offset"]) for row in good)
    lake_bad = Counter((row["partition"], row["offset"]) for row in bad)
    everything = {(r.partition, r.offset) for rs in world.log.records.values() for r in rs}
    found = []
    if landed(world) != world.log.ends:
        found.append(f"the table ends at {landed(world)}, the log at {world.log.ends}")
    for name, lake, log in (
        ("rows", lake_good, everything - world.log.bad),
        ("rejects", lake_bad, world.log.bad),
    ):
        lost, foreign = log - set(lake), set(lake) - log
        doubled = [key for key, count in lake.items() if count > 1]
        if lost or foreign or doubled:
            found.append(
                f"{name}: {len(lost)} lost, {len(foreign)} foreign, {len(doubled)} doubled"
            )
    return found


@pytest.fixture
def plain_landing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Snapshots expire in line from the start, so that this races too."""
    monkeypatch.setattr(commit, "SNAPSHOTS_MAX", 4)
    monkeypatch.setattr(commit, "SNAPSHOTS_KEPT", 2)
    yield
    tables.table_of.cache_clear()


@pytest.mark.usefixtures("plain_landing")
@pytest.mark.parametrize("seed", SEEDS)
def test_every_record_lands_exactly_once_whatever_happens(seed: int, tmp_path: Path) -> None:
    world, found = run(seed, tmp_path)
    assert found == [], (seed, dict(world.happened))
    for fault in ("fenced", "crashed", "lost acknowledgement"):
        assert world.happened[fault], f"seed {seed} never met {fault}: the world is too kind"
    print(seed, dict(world.happened))


def caught(tmp_path: Path) -> bool:
    """Tell whether the simulator sees, in any of its seeds, that something is wrong."""
    for seed in SEEDS:
        folder = tmp_path / str(seed)
        folder.mkdir()
        try:
            if run(seed, folder)[1]:
                return True
        except ValidationException:  # the library gives up on a base that has expired
            return True
    return False


@pytest.mark.usefixtures("plain_landing")
def test_without_comparing_before_each_commit_records_double(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landing, "continues", lambda stored, batch: True)
    assert caught(tmp_path)


@pytest.mark.usefixtures("plain_landing")
def test_with_the_librarys_own_retries_records_double(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(tables._PROPERTIES, "commit.retry.num-retries", "4")
    monkeypatch.setitem(tables._PROPERTIES, "commit.retry.min-wait-ms", "0")
    monkeypatch.setitem(tables._PROPERTIES, "commit.retry.max-wait-ms", "1")
    tables.table_of.cache_clear()
    assert caught(tmp_path)


@pytest.mark.usefixtures("plain_landing")
def test_without_reading_back_half_landed_rejects_they_double(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit, "_half_landed", lambda main, rejects: {})
    assert caught(tmp_path)
