"""A gateway process: builds every part once, runs until SIGTERM, ends in order.

Order of the end: say not ready, stop listening, end the waits (202), let answers go out, let the
outbox empty, close Kafka and Postgres. All of it within 5 s. If a background task fails, the
process ends with an error: a supervisor starts it again, and nothing that was answered 2xx is lost.
"""

from __future__ import annotations

import asyncio
import gc
import signal
from pathlib import Path
from typing import Final

from gateways.assembly import Gateway, Ports, assemble
from gateways.auth import parse_keys
from gateways.kafka.link import KafkaLink
from gateways.kafka.replies import ReplyReader
from gateways.kafka.reply import TOPIC as REPLIES
from gateways.kafka.reply import Reply
from gateways.payments.requests import TOPIC as REQUESTS
from gateways.payments.views import PostgresViews
from gateways.settings import Settings
from gateways.webhooks.receive import QUARANTINE, RECEIVED
from gateways.webhooks.sources import parse_sources
from schemas import logs, metrics
from schemas.environment import SettingError

TOPICS: Final = (REQUESTS, RECEIVED, QUARANTINE, REPLIES)
CLOSE_WITHIN_S: Final = 1.0
READY_EVERY_S: Final = 0.5
_GARBAGE_THRESHOLD: Final = 20_000
"""Objects of a request die by reference count; looking for cycles more often finds none."""


class Process:
    """One gateway with its real ports."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._log = logs.get()
        self._link = KafkaLink(settings.kafka, settings.name, TOPICS, settings.partitions)
        self._replies = ReplyReader(
            settings.kafka,
            settings.name,
            settings.reply_partition,
            generation=lambda: self._link.generation,
            on_reply=self._on_reply,
        )
        self._views = PostgresViews(
            settings.views_dsn, settings.views_connections_max, settings.name
        )
        ports = Ports(
            link=self._link,
            replies=self._replies,
            views=self._views,
            keyring=parse_keys(_read("HEADRACE_API_KEYS_FILE", settings.api_keys_file)),
            sources=parse_sources(
                _read("HEADRACE_WEBHOOK_SOURCES_FILE", settings.webhook_sources_file)
            ),
        )
        self._gateway: Gateway = assemble(settings, ports)

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT."""
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await self._listen()
        tasks = [
            loop.create_task(work, name=name)
            for name, work in (
                ("link", self._link.run()),
                ("replies", self._replies.run()),
                ("outbox", self._gateway.outbox.run()),
                ("readiness", self._watch()),
            )
        ]
        gc.collect()
        gc.freeze()
        gc.set_threshold(_GARBAGE_THRESHOLD, 20, 50)
        stopping = loop.create_task(stop.wait(), name="stop")
        ended, _ = await asyncio.wait({stopping, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        await self._end(tasks)
        for task in ended - {stopping}:
            task.result()  # raises what ended it

    async def _listen(self) -> None:
        settings = self._settings
        try:
            metrics.serve(settings.metrics_port)
            port = await self._gateway.server.start(settings.host, settings.port)
        except OSError as error:
            ports = f"{settings.host}:{settings.port} or metrics port {settings.metrics_port}"
            raise SettingError(f"cannot listen on {ports}: {error}") from error
        self._log.info("listening", host=settings.host, port=port)

    async def _end(self, tasks: list[asyncio.Task[None]]) -> None:
        gateway = self._gateway
        self._log.info("draining", in_flight=gateway.server.in_flight)
        gateway.health.draining = True
        gateway.health.readiness()
        gateway.server.stop_listening()
        gateway.waiters.expire_all()
        await gateway.server.drain(self._settings.drain_s)
        await gateway.outbox.drain(CLOSE_WITHIN_S / 2)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=CLOSE_WITHIN_S)
        await self._views.close(CLOSE_WITHIN_S / 2)
        self._log.info("ended")

    def _on_reply(self, reply: Reply) -> None:
        self._gateway.intake.on_reply(reply)

    async def _watch(self) -> None:
        while True:
            self._gateway.health.readiness()
            await asyncio.sleep(READY_EVERY_S)


def _read(variable: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise SettingError(f"{variable}: cannot read {path}: {error.strerror}") from error
