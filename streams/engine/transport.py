"""The faust transport `headrace://`: tasks by our delivery, agents and timers by faust's own.

What a task reads never passes through faust's consumer, conductor, acknowledgements or
transactions. Control topics (agents) do, at least once, in a group of their own; their handlers
must be idempotent. That consumer and its producer run only in an app that has agents.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import faust
from faust.app.base import BootStrategy
from faust.transport.drivers import TRANSPORTS
from faust.transport.drivers import aiokafka as driver

from streams.engine.delivery import Delivery
from streams.engine.partition import Shared
from streams.engine.settings import EngineSettings
from streams.engine.task import Task

SCHEME = "headrace"


class Transport(driver.Transport):  # type: ignore[misc]
    """Kafka, with delivery of whole batches to tasks beside what faust delivers to agents."""

    def create_deliveries(self, app: App) -> list[Delivery]:
        """Return one service per task."""
        shared = Shared.of(app.engine)
        shared.readiness.expect(task.name for task in app.tasks)
        return [Delivery(task, shared, beacon=app.beacon, loop=app.loop) for task in app.tasks]


class Boot(BootStrategy):  # type: ignore[misc]
    """Which services an app starts: its tasks, and faust's own Kafka clients where agents need
    them.
    """

    def kafka_consumer(self) -> Iterable[Any]:
        """Return the tasks' deliveries, then faust's consumer."""
        app: App = self.app
        return [*app.transport.create_deliveries(app), *super().kafka_consumer()]

    def _should_enable_kafka_consumer(self) -> bool:
        return bool(self.app.agents) and super()._should_enable_kafka_consumer()

    def _should_enable_kafka_producer(self) -> bool:
        return bool(self.app.agents) and super()._should_enable_kafka_producer()


class App(faust.App):  # type: ignore[misc]
    """A faust app with tasks. Agents, timers and services are added to it as to any other."""

    BootStrategy = Boot

    def __init__(self, name: str, engine: EngineSettings, tasks: Iterable[Task]) -> None:
        TRANSPORTS.aliases.setdefault(SCHEME, f"{Transport.__module__}:Transport")
        self.engine = engine
        self.tasks = tuple(tasks)
        names = [task.name for task in self.tasks]
        assert len(set(names)) == len(names), f"two tasks have one name: {names}"
        super().__init__(
            f"{name}-control",
            broker=";".join(f"{SCHEME}://{each}" for each in engine.bootstrap),
            broker_session_timeout=engine.session_timeout_ms / 1000,
            broker_heartbeat_interval=engine.heartbeat_ms / 1000,
            consumer_group_instance_id=engine.worker,
            datadir=str(engine.state_dir / "faust"),
            topic_disable_leader=True,
            topic_allow_declare=False,
            table_standby_replicas=0,
            stream_wait_empty=False,
            web_enabled=False,
            cython_optimizations=True,
        )

    def _create_directories(self) -> None:
        self.engine.state_dir.mkdir(parents=True, exist_ok=True)
        super()._create_directories()

    async def _wait_for_table_recovery_completed(self) -> bool:
        if not self.agents:
            return False
        return bool(await super()._wait_for_table_recovery_completed())
