"""Brings one whole stack up and keeps it up: the composition root of the supervisor process.

Order: servers, topics and databases, migrations, services, edge; then `stack.json`. Whatever
fails on the way is written to the record for `up` to show, and everything started is stopped.
"""

from __future__ import annotations

import asyncio
import fcntl
import signal
import sys
from contextlib import contextmanager
from functools import partial
from typing import IO, TYPE_CHECKING

from deploy.local.admin import TopicError, ensure_topics, warm_up
from deploy.local.child import Child, Command, wait_for
from deploy.local.credentials import Credentials, api_keys, load_or_create, webhook_sources
from deploy.local.credentials import write_private as write_json
from deploy.local.home import PROJECT, Home
from deploy.local.jars import FetchError
from deploy.local.kafka import KafkaRecipe
from deploy.local.plan import (
    MIGRATIONS,
    Addresses,
    Worker,
    migration_variables,
    worker_names,
    workers,
)
from deploy.local.ports import free_port
from deploy.local.postgres import PostgresRecipe
from deploy.local.roles import ROLES, database_of
from deploy.local.server import Recipe, ServerError
from deploy.local.stackfile import describe
from deploy.local.supervisor import StartError, Supervisor
from deploy.local.units import Stage, Unit, serves

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deploy.local.settings import Settings

_MIGRATION_WITHIN_S = 60.0


async def run(settings: Settings) -> int:
    """Bring the stack up, keep it until SIGTERM, stop it. Returns the exit code."""
    home = Home(settings.home)
    home.record.parent.mkdir(parents=True, exist_ok=True)
    with _only_one(home):
        supervisor = Supervisor(home)
        loop = asyncio.get_running_loop()
        for sig in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(sig, supervisor.stopping.set)
        try:
            await _bring_up(settings, home, supervisor)
            await supervisor.keep()
        except (StartError, ServerError, FetchError, TopicError) as error:
            stopped = supervisor.stopping.is_set()
            await supervisor.stop()
            supervisor.note("stopped" if stopped else "failed", str(error))
            return 0 if stopped else 1
        await supervisor.stop()
        supervisor.note("stopped")
    return 0


async def _bring_up(settings: Settings, home: Home, supervisor: Supervisor) -> None:
    credentials = load_or_create(home.credentials)
    write_json(home.api_keys, api_keys(credentials))
    write_json(home.webhook_sources, webhook_sources(credentials))
    kafka, postgres = _recipes(settings, home, credentials)
    recipes: list[Recipe] = [recipe for recipe in (kafka, postgres) if recipe is not None]
    print("setting up: " + (", ".join(type(r).__name__[:-6] for r in recipes) or "no server"))
    commands = await asyncio.gather(*(asyncio.to_thread(r.prepare) for r in recipes))
    await supervisor.start(
        Unit(command.name, Stage.SERVER, Child(command), recipe.ready)
        for command, recipe in zip(commands, recipes, strict=True)
    )
    addresses = _addresses(settings, home, kafka, postgres)
    await asyncio.gather(*(asyncio.to_thread(recipe.settle) for recipe in recipes))
    created = await ensure_topics(addresses.kafka, settings.partitions)
    print(f"topics are as the table says ({created} new)")
    migrations = [_migrate(settings, home, addresses, module) for module in MIGRATIONS]
    await asyncio.gather(warm_up(addresses.kafka), *migrations)
    print("tables are up to date")
    await supervisor.start(
        _unit(settings, home, worker) for worker in workers(settings, home, addresses)
    )
    supervisor.publish(describe(settings, addresses, credentials))


def _recipes(
    settings: Settings, home: Home, credentials: Credentials
) -> tuple[KafkaRecipe | None, PostgresRecipe | None]:
    kafka = postgres = None
    if settings.kafka is None:
        kafka = KafkaRecipe(home.kafka, settings.cache, home.log("kafka"), settings.java)
    if settings.own_databases:
        postgres = PostgresRecipe(home.postgres, home.log("postgres"), credentials.passwords)
    return kafka, postgres


def _addresses(
    settings: Settings, home: Home, kafka: KafkaRecipe | None, postgres: PostgresRecipe | None
) -> Addresses:
    dsns = dict(settings.dsns)
    if postgres is not None:
        own = [role for role in ROLES if database_of(role) in settings.own_databases]
        dsns |= {role: postgres.address.dsn(role, database_of(role)) for role in own}
    bootstrap = settings.kafka or (kafka.bootstrap if kafka else "")
    names = worker_names(settings)
    gateways = {name: free_port(settings.gateway_port) for name in names["gateway"]}
    metrics = {name: free_port() for role in names.values() for name in role}
    warehouse = settings.warehouse or home.warehouse.as_uri()
    return Addresses(bootstrap, dsns, warehouse, gateways, metrics)


def _unit(settings: Settings, home: Home, worker: Worker) -> Unit:
    command = Command(
        name=worker.name,
        argv=(sys.executable, "-m", worker.module),
        log=home.log(worker.name),
        env=settings.environment | worker.variables,
        cwd=PROJECT,
    )
    return Unit(
        role=worker.role,
        stage=Stage.EDGE if worker.role == "gateway" else Stage.SERVICE,
        child=Child(command),
        is_ready=partial(serves, worker.metrics_url, worker.ready_url),
        metrics_url=worker.metrics_url,
    )


async def _migrate(settings: Settings, home: Home, addresses: Addresses, module: str) -> None:
    child = Child(
        Command(
            name=module,
            argv=(sys.executable, "-m", module),
            log=home.log(module),
            env=settings.environment | migration_variables(settings, addresses, module),
            cwd=PROJECT,
        )
    )
    child.start()
    await asyncio.to_thread(wait_for, lambda: not child.running(), _MIGRATION_WITHIN_S)
    child.kill()
    if child.exit_code():
        raise StartError(
            f"the migration {module} failed ({child.exit_code()}). Its log "
            f"({child.command.log}) ends:\n{child.log_tail()}"
        )


@contextmanager
def _only_one(home: Home) -> Iterator[IO[str]]:
    """Hold the home's lock; an error if another supervisor lives there."""
    with home.lock.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit(f"another supervisor runs in {home.root}: headrace down") from None
        yield lock
