"""A gateway over memory ports on a real socket, and a client that speaks bytes."""

from __future__ import annotations

import asyncio
import hashlib
import json
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateways.assembly import Gateway, Ports, assemble
from gateways.auth import Keyring, Principal
from gateways.http.limits import Limits
from gateways.kafka.memory import MemoryLink
from gateways.kafka.outbox import Bounds
from gateways.kafka.reply import Reply, Step
from gateways.payments.memory import MemoryViews
from gateways.settings import Settings
from gateways.webhooks.sources import Source, parse_sources
from schemas import ids, wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from gateways.quota import Quota

KEY = "hr_test"
OTHER_KEY = "hr_other"
READER_KEY = "hr_reader"
TENANT = "demo"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ALICE = ids.account_id(TENANT, "alice", "customer")
BOB = ids.account_id(TENANT, "bob", "customer")
BANK = ids.account_id(TENANT, "bank", "external")
SETTINGS = Settings(
    kafka="127.0.0.1:1",
    partitions=4,
    host="127.0.0.1",
    port=0,
    index=1,
    api_keys_file="",
    webhook_sources_file="",
    views_dsn="",
    metrics_port=0,
    log_level="error",
    log_sample=1_000_000,
)
SOURCES = {"sources": {"demo": {"scheme": "standard-webhooks", "secrets": [
    {"id": "s1", "secret": SECRET}]}}}  # fmt: skip


def keyring(quota: Quota | None = None) -> Keyring:
    every = frozenset({"accounts:read", "accounts:write", "payments:read", "payments:write"})
    principals = (
        (KEY, Principal("demo", TENANT, every, quota)),
        (OTHER_KEY, Principal("other", "other", every)),
        (READER_KEY, Principal("reader", TENANT, frozenset({"payments:read"}))),
    )
    return Keyring({hashlib.sha256(key.encode()).digest(): who for key, who in principals})


@dataclass
class Replies:
    """Says whether replies are read."""

    positioned: bool = True


@dataclass
class Got:
    """One answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, method: str = "GET") -> Got:
        """Read one answer; a final one, not 100 Continue, unless that is all that comes."""
        async with asyncio.timeout(10):
            head = await self.reader.readuntil(b"\r\n\r\n")
            lines = head.decode("latin-1").split("\r\n")
            status = int(lines[0].split(" ")[1])
            headers = {}
            for line in filter(None, lines[1:]):
                name, _, value = line.partition(": ")
                assert name.lower() not in headers, f"{name} twice"
                headers[name.lower()] = value
            length = 0 if method == "HEAD" else int(headers.get("content-length", 0))
            return Got(status, headers, await self.reader.readexactly(length))

    async def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Got:
        await self.send(request(method, path, body, **headers))
        return await self.answer(method)

    async def ended(self) -> bytes:
        """Read what is left until the other side ends."""
        async with asyncio.timeout(10):
            return await self.reader.read()

    async def close(self) -> None:
        self.writer.close()
        with suppress(ConnectionError, TimeoutError):
            await asyncio.wait_for(self.writer.wait_closed(), 2)


def request(method: str, path: str, body: bytes | None = None, **headers: str) -> bytes:
    """Build one request; underscores in header names stand for hyphens."""
    lines = [f"{method} {path} HTTP/1.1", "Host: test"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + (body or b"")


@dataclass
class Rig:
    """A running gateway over memory."""

    gateway: Gateway
    link: MemoryLink
    views: MemoryViews
    replies: Replies
    port: int
    clients: list[Client] = field(default_factory=list)

    async def connect(self) -> Client:
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port))
        self.clients.append(client)
        return client

    async def call(
        self, method: str, path: str, body: Any = None, *, key: str | None = KEY, **headers: str
    ) -> Got:
        """Ask once, on a connection of its own. A body that is not bytes is sent as JSON."""
        client = await self.connect()
        if key is not None:
            headers.setdefault("Authorization", f"Bearer {key}")
        if body is not None and not isinstance(body, bytes):
            headers.setdefault("Content_Type", "application/json")
            body = json.dumps(body).encode()
        try:
            return await client.ask(method, path, body, **headers)
        finally:
            await client.close()

    async def pay(self, key: str, body: Any = None, **headers: str) -> Got:
        return await self.call(
            "POST",
            "/v1/payments",
            payment() if body is None else body,
            Idempotency_Key=key,
            **headers,
        )

    def written(self, topic: str = "payments.requests") -> list[dict[str, Any]]:
        """Return every durable record of a topic."""
        return [wire.decode(topic, value) for value in self.link.values(topic)]

    def reply(self, record: Mapping[str, Any], status: str, **fields: Any) -> None:
        """Answer a written request as the processor would."""
        step = Step(record["received_at_us"] + 1_000, status, fields.get("reason"))
        target = record.get("target_id")
        operation = record["identity"] if target is not None else None
        values: dict[str, Any] = {
            "request_id": record["request_id"],
            "resource_id": record["resource_id"],
            "identity": record["identity"],
            "status": status,
            "version": 2,
            "reason": None,
            "detail": None,
            "conflict": False,
            "repeated": False,
            "occurred_at_us": step.at_us,
            "timeline": (Step(record["received_at_us"], "accepted"), step),
            "operation_id": operation,
        }
        self.gateway.intake.on_reply(Reply(**values | fields))


def payment(**changes: Any) -> dict[str, Any]:
    """Return a payment's body."""
    body = {
        "amount": 1_250,
        "currency": "EUR",
        "source": {"account": ALICE},
        "destination": {"account": BOB},
    }
    return body | changes


def is_stopped(pid: int) -> bool:
    """Tell whether every thread of a process has taken its SIGSTOP."""
    stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return all(stat.rpartition(")")[2].split()[0] == "T" for stat in stats)


async def until(condition: Any, within_s: float = 5.0) -> None:
    """Wait for a condition."""
    deadline = asyncio.get_running_loop().time() + within_s
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "it does not come true"
        await asyncio.sleep(0.005)


@asynccontextmanager
async def running(
    limits: Limits | None = None,
    bounds: Bounds | None = None,
    sources: Mapping[str, Source] | None = None,
    settings: Settings = SETTINGS,
    quota: Quota | None = None,
) -> AsyncIterator[Rig]:
    """Run a gateway over memory; everything is closed at the end."""
    link, views, replies = MemoryLink(), MemoryViews(), Replies()
    known = sources if sources is not None else parse_sources(json.dumps(SOURCES).encode())
    ports = Ports(link, replies, views, keyring(quota), known)
    patient = Bounds(deadline_s=20.0)  # whatever else the machine does
    gateway = assemble(settings, ports, limits, bounds or patient)
    port = await gateway.server.start("127.0.0.1", 0)
    outbox = asyncio.create_task(gateway.outbox.run())
    rig = Rig(gateway, link, views, replies, port)
    try:
        yield rig
    finally:
        link.speak()
        for client in rig.clients:
            await client.close()
        await gateway.server.drain(1.0)
        await gateway.outbox.drain(1.0)
        outbox.cancel()
        await asyncio.wait([outbox])
