"""Real services for every test that asks: one Kafka and one Postgres a session, ended by pid.

`kafka` and `postgres` are shared by all tests of a session, so a test takes its own topics
(`new_topic`, `clean_topics`) and its own database (`new_database`) and may restart, kill or pause
the servers as long as it leaves them running.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import asyncpg
import pytest
from aiokafka.admin import NewTopic

from deploy.local import blocking
from deploy.local.admin import connected, ensure_topics
from deploy.local.child import identify
from deploy.local.credentials import load_or_create
from deploy.local.databases import create_database
from deploy.local.kafka import Kafka, find_java
from deploy.local.postgres import Postgres
from deploy.local.roles import DATABASES, SUPERUSER
from deploy.local.server import Server
from schemas.topics import TOPICS

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
RUNS = ROOT / ".headrace" / "tests"
CACHE = ROOT / ".headrace" / "cache"


SLOWEST_FIRST = ("integration", "sim", "contract", "unit", "tidy")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the folders of slow tests first: what is left at the end is short, so that all workers
    end at about the same time.
    """

    def place(item: pytest.Item) -> int:
        return SLOWEST_FIRST.index(item.path.relative_to(ROOT / "tests").parts[0])

    items.sort(key=place)


class NewTopicMaker(Protocol):
    """Makes a topic with a unique name and returns the name."""

    def __call__(
        self, hint: str = "topic", partitions: int = 4, config: dict[str, str] | None = None
    ) -> str: ...


class TopicCleaner(Protocol):
    """Empties every topic of the table by creating it again; returns the bootstrap servers."""

    def __call__(self, partitions: int = 4) -> str: ...


class DatabaseMaker(Protocol):
    """Makes an empty database like "ledger", "views" or "lake"; returns its URL by role."""

    def __call__(self, like: str) -> dict[str, str]: ...


@pytest.fixture(scope="session")
def run_folder() -> Iterator[Path]:
    """A folder of this session below the project's data folder; its logs stay until the next."""
    RUNS.mkdir(parents=True, exist_ok=True)
    for left in RUNS.iterdir():
        pid, _, _ = left.name.partition("-")
        if pid.isdigit() and identify(int(pid)) is None:
            shutil.rmtree(left, ignore_errors=True)
    folder = RUNS / f"{os.getpid()}-{secrets.token_hex(3)}"
    folder.mkdir()
    yield folder
    for path in folder.glob("*/*"):
        if path.is_file():
            path.unlink()
        elif path.name != "logs":
            shutil.rmtree(path)


@pytest.fixture(scope="session")
def java(run_folder: Path) -> str:
    """A Java that compiles little: a broker that lives for a test starts with half the CPU."""
    launcher = run_folder / "java"
    launcher.write_text(f'#!/bin/sh\nexec "{find_java()}" -XX:TieredStopAtLevel=1 "$@"\n')
    launcher.chmod(0o755)
    return str(launcher)


@pytest.fixture(scope="session")
def kafka(run_folder: Path, java: str) -> Iterator[Kafka]:
    """A running broker without topics: `kafka.bootstrap`, and all of deploy.local.server.Server."""
    home = run_folder / "servers"
    broker = Kafka(home / "kafka", CACHE, home / "logs" / "kafka.log", java)
    try:
        broker.start()
        yield broker
    finally:
        broker.stop()


@pytest.fixture(scope="session")
def postgres(run_folder: Path) -> Iterator[Postgres]:
    """A running server with the roles and empty databases: `postgres.address.dsn(role, name)`."""
    home = run_folder / "servers"
    credentials = load_or_create(home / "credentials.json")
    server = Postgres(home / "postgres", home / "logs" / "postgres.log", credentials.passwords)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(autouse=True)
def servers_serve_again(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that fails between killing a server and starting it fails alone."""
    names = [name for name in ("kafka", "postgres") if name in request.fixturenames]
    servers: list[Server] = [request.getfixturevalue(name) for name in names]
    yield
    for server in servers:
        server.revive()


@pytest.fixture
def new_topic(kafka: Kafka) -> NewTopicMaker:
    """Topics of this test alone."""

    def make(hint: str = "topic", partitions: int = 4, config: dict[str, str] | None = None) -> str:
        name = f"{hint}-{secrets.token_hex(4)}"

        async def create() -> None:
            async with connected(kafka.bootstrap) as admin:
                topic = NewTopic(name, partitions, 1, topic_configs=config or {})
                answer = await admin.create_topics([topic])
                assert answer.topic_errors[0][1] == 0, answer

        blocking.run(create)
        return name

    return make


@pytest.fixture
def clean_topics(kafka: Kafka) -> TopicCleaner:
    """The table's topics, empty, without committed offsets: for tests that run real services."""

    def clean(partitions: int = 4) -> str:
        blocking.run(lambda: _recreate_topics(kafka.bootstrap, partitions))
        return kafka.bootstrap

    return clean


@pytest.fixture
def new_database(postgres: Postgres) -> Iterator[DatabaseMaker]:
    """Databases of this test alone, dropped after it."""
    made: list[str] = []

    def make(like: str) -> dict[str, str]:
        name = f"{like}_{secrets.token_hex(4)}"
        blocking.run(lambda: _create_database(postgres, name, DATABASES[like]))
        made.append(name)
        return {role: postgres.address.dsn(role, name) for role in DATABASES[like]}

    yield make
    blocking.run(lambda: _drop_databases(postgres, made))


async def _recreate_topics(bootstrap: str, partitions: int) -> None:
    async with connected(bootstrap) as admin:
        old = set(await admin.list_topics()) & set(TOPICS)
        if old:
            await admin.delete_topics(sorted(old))
        for _ in range(200):  # the broker learns of it a little after the controller
            if not old & set(await admin.list_topics()):
                break
            await asyncio.sleep(0.02)
    assert await ensure_topics(bootstrap, partitions) == len(TOPICS)


async def _create_database(server: Postgres, name: str, roles: tuple[str, ...]) -> None:
    connection = await asyncpg.connect(server.address.dsn(SUPERUSER, "postgres"))
    try:
        await create_database(connection, name, roles)
    finally:
        await connection.close()


async def _drop_databases(server: Postgres, names: list[str]) -> None:
    connection = await asyncpg.connect(server.address.dsn(SUPERUSER, "postgres"))
    try:
        for name in names:
            await connection.execute(f'drop database "{name}" with (force)')
    finally:
        await connection.close()
