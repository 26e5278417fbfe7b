"""Fault drills of the ledger: seeded runs of real writers on a real broker and Postgres.

`headrace drill ledger`; RUNS (100), SEED (repeats one) in the environment. Each run is compared
with a plain model, outcome by outcome and balance by balance. What was done and found is kept in
drills/ledger.json below HEADRACE_HOME. Exit 0 only without a difference.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

import asyncpg
from aiokafka.errors import KafkaError

from deploy.local.credentials import load_or_create
from deploy.local.home import PROJECT
from deploy.local.kafka import Kafka
from deploy.local.postgres import Postgres
from deploy.local.roles import DATABASES, SUPERUSER
from deploy.local.settings import settings_from
from loadtest.drills import report
from loadtest.drills.ledger_faults import KINDS, kind_of, mix_of
from loadtest.drills.ledger_feed import open_feeder
from loadtest.drills.ledger_proxy import open_proxy
from loadtest.drills.ledger_run import DrillError, Run
from loadtest.drills.ledger_saga import Sagas
from loadtest.drills.ledger_watch import OBSERVE
from schemas.errors import HeadraceError

USAGE: Final = "headrace drill ledger   (RUNS, SEED by environment)"
RUNS: Final = 100
RUN_WITHIN_S: Final = 240.0
LATE: Final = 0.1
"""How often a saga gives up waiting for the homes of a transfer."""
TEMPLATE: Final = "ledger_drill_template"
ROLES: Final = DATABASES["ledger"]


@dataclass(slots=True)
class Verdict(report.Verdict):
    """What one run came to: what was counted, and what commands came to."""

    counts: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)

    def amount(self) -> str:
        """Say how much was checked."""
        return f"{self.counts['commands']:5,d} commands {self.counts['transfers']:5,d} applied"


@dataclass(frozen=True, slots=True)
class Drill:
    """What all runs share."""

    folder: Path
    kafka: Kafka
    postgres: Postgres

    async def run(self, seed: int) -> Verdict:
        """Run one seed, whatever comes of it."""
        name = kind_of(seed)
        verdict = Verdict(seed, name)
        began = time.monotonic()
        try:
            async with asyncio.timeout(RUN_WITHIN_S):
                await self._run(verdict)
        except (DrillError, AssertionError, KafkaError, HeadraceError, TimeoutError) as error:
            verdict.differences.append(f"{type(error).__name__}: {error}")
        verdict.seconds = time.monotonic() - began
        return verdict

    async def _run(self, verdict: Verdict) -> None:
        seed, mix, rng = verdict.seed, mix_of(verdict.seed), Random(verdict.seed)
        folder, database = self.folder / str(seed), f"ledger_drill_{seed}"
        late = Random(seed)  # of its own: when events come is not the seed's to say
        shutil.rmtree(folder, ignore_errors=True)
        await self.create(database)
        address, kafka = self.postgres.address, self.kafka
        async with (
            open_feeder(kafka.bootstrap, seed, mix.partitions) as feeder,
            open_proxy(address.host, address.port, rng) as proxy,
        ):
            run = Run(
                seed=seed,
                folder=folder,
                kafka=kafka,
                postgres=self.postgres,
                dsns={role: address.dsn(role, database) for role in ROLES},
                mix=mix,
                rng=rng,
                proxy=proxy,
                feeder=feeder,
                faults=verdict.faults,
                sagas=Sagas(lambda: late.random() < LATE),
            )
            try:
                await KINDS[verdict.kind].script(run)
                await run.settle()
                verdict.differences += await run.compare()
            finally:
                await run.clear()
                verdict.faults += proxy.faults
                if run.proof is not None:
                    verdict.counts += run.proof.counts
                    verdict.outcomes += run.proof.outcomes
        if not verdict.differences:
            await self.drop(database)
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def prepare(self) -> None:
        """Make the database that every run's is a copy of: tables, and the watch over commits."""
        await self.drop(TEMPLATE)
        await self.create(TEMPLATE, "template1")
        owner = self.postgres.address.dsn(ROLES[0], TEMPLATE)
        migrating = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "ledger_writer.migrate"),
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(PROJECT),
                "HEADRACE_LEDGER_OWNER_DSN": owner,
            },
            cwd=PROJECT,
            stdout=asyncio.subprocess.DEVNULL,
        )
        assert await migrating.wait() == 0, "python -m ledger_writer.migrate failed"
        connection = await asyncpg.connect(owner)
        try:
            await connection.execute(OBSERVE)
        finally:
            await connection.close()

    async def create(self, name: str, template: str = TEMPLATE) -> None:
        """Copy a database, for the ledger's roles only."""
        await self.drop(name)
        roles = ", ".join(ROLES)
        for sql in (
            f'create database "{name}" template "{template}" owner {ROLES[0]}',
            f'revoke connect, temporary on database "{name}" from public',
            f'grant connect on database "{name}" to {roles}',
        ):
            await self._execute(sql)

    async def drop(self, name: str) -> None:
        """Drop a database, if there is one."""
        await self._execute(f'drop database if exists "{name}" with (force)')

    async def _execute(self, sql: str) -> None:
        connection = await asyncpg.connect(self.postgres.address.dsn(SUPERUSER, "postgres"))
        try:
            await connection.execute(sql)
        finally:
            await connection.close()


async def drill(
    folder: Path, kafka: Kafka, postgres: Postgres, seeds: Iterable[int]
) -> list[Verdict]:
    """Run seeds, one after the other: topics have the names that the writers know."""
    shared = Drill(folder, kafka, postgres)
    await shared.prepare()
    verdicts = []
    for seed in seeds:
        verdict = await shared.run(seed)
        verdicts.append(verdict)
        verdict.say()
    await shared.drop(TEMPLATE)
    return verdicts


def summary(verdicts: list[Verdict], seconds: float) -> dict[str, Any]:
    """Return what is kept of the drills."""
    counts = report.total(each.counts for each in verdicts)
    counted = {
        "faults_in_all": report.total(each.faults for each in verdicts).total(),
        "commands_checked": counts["commands"],
        "transfers_checked": counts["transfers"],
        "checked": dict(counts),
        "outcomes": dict(report.total(each.outcomes for each in verdicts)),
    }
    return report.summary("ledger", verdicts, seconds, counted)


def main(argv: list[str]) -> int:
    """Run the drills; returns the exit code."""
    if argv:
        print(f"{__doc__}\n{USAGE}")
        return 0 if argv[0] in {"-h", "--help"} else 2
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    settings = settings_from(os.environ, PROJECT, Path.cwd())
    seeds = report.seeds_of(os.environ, RUNS)
    folder = settings.home / "drills" / "ledger"
    for name in ("runs", "kafka", "postgres"):
        shutil.rmtree(folder / name, ignore_errors=True)
    passwords = load_or_create(folder / "credentials.json").passwords
    kafka = Kafka(folder / "kafka", settings.cache, folder / "kafka.log", settings.java)
    postgres = Postgres(folder / "postgres", folder / "postgres.log", passwords)
    began = time.monotonic()
    try:
        kafka.start()
        postgres.start()
        began = time.monotonic()
        verdicts = asyncio.run(drill(folder / "runs", kafka, postgres, seeds))
    finally:
        kafka.stop()
        postgres.stop()
    return report.conclude(summary(verdicts, time.monotonic() - began), folder)
