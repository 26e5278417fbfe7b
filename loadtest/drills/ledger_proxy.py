"""A TCP proxy between writers and Postgres that cuts connections between statements.

What it does wrong follows a list of (how many requests from now, what), so a seed decides it. A
request is what a client sends after an answer; it is forwarded as it came. `held` and `release`
keep one request back, or its answer, while the world goes on.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from random import Random
from typing import Final

CHUNK_BYTES: Final = 1 << 20
KINDS: Final = (
    "cut before a request", "cut in a request", "cut after a request", "cut before its answer",
    "cut in its answer", "request held up", "answer held up",
)  # fmt: skip
HELD_UP_S: Final = (0.2, 1.5)
HOLDS_WITHIN_S: Final = 30.0


@dataclass(slots=True)
class Proxy:
    """`faults` counts what was done, by kind; `port` is where it listens."""

    host: str
    target: int
    rng: Random
    faults: Counter[str]
    port: int = 0
    requests: int = 0
    plan: deque[tuple[int, str]] = field(default_factory=deque)
    held: asyncio.Event = field(default_factory=asyncio.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)
    _due: int = -1

    def arm(self, faults: Iterable[tuple[int, str]]) -> None:
        """Do each of these so many requests after the one before it."""
        self.plan = deque(faults)
        self._due = self.requests + self.plan[0][0] if self.plan else -1

    def hold(self, what: str, requests: int) -> None:
        """Keep back one request, or answer, so many from now, until `release`."""
        self.held.clear()
        self.released.clear()
        self.arm([(requests, what)])

    def release(self) -> None:
        """Let what is kept back go on."""
        self.released.set()

    def fault(self) -> str:
        """Return what must go wrong with this request, if anything."""
        self.requests += 1
        if not self.plan or self.requests < self._due:
            return ""
        _, what = self.plan.popleft()
        self._due = self.requests + self.plan[0][0] if self.plan else -1
        self.faults[what] += 1
        return what

    async def pause(self, what: str) -> None:
        """Wait until released, if this one is to be kept back; else a moment."""
        if what.startswith("kept"):
            self.held.set()
            async with asyncio.timeout(HOLDS_WITHIN_S):
                await self.released.wait()
        else:
            await asyncio.sleep(self.rng.uniform(*HELD_UP_S))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection."""
        with suppress(OSError, TimeoutError):
            server_reader, server_writer = await asyncio.open_connection(self.host, self.target)
            carried = _Carried(self, reader, writer, server_reader, server_writer)
            await carried.run()
        writer.transport.abort()


class _Carried:
    """One connection's two directions."""

    def __init__(
        self,
        proxy: Proxy,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        server_reader: asyncio.StreamReader,
        server_writer: asyncio.StreamWriter,
    ) -> None:
        self._proxy = proxy
        self._client = reader, writer
        self._server = server_reader, server_writer
        self._answered = True
        self._next_answer = ""

    async def run(self) -> None:
        """End both directions when one of them ends."""
        tasks = [asyncio.create_task(self._requests()), asyncio.create_task(self._answers())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            # What was sent is delivered before the end is: Postgres may still do it.
            self._server[1].close()

    async def _requests(self) -> None:
        reader, server = self._client[0], self._server[1]
        while data := await reader.read(CHUNK_BYTES):
            what = ""
            if self._answered:
                self._answered = False
                what = self._proxy.fault()
            match what:
                case "cut before a request":
                    return
                case "cut in a request":
                    server.write(data[: len(data) // 2])
                    return
                case "cut after a request":
                    server.write(data)
                    await server.drain()
                    return
                case "request held up" | "kept request":
                    await self._proxy.pause(what)
                case _:
                    self._next_answer = what
            server.write(data)
            await server.drain()

    async def _answers(self) -> None:
        reader, client = self._server[0], self._client[1]
        while data := await reader.read(CHUNK_BYTES):
            what, self._next_answer = self._next_answer, ""
            self._answered = True
            match what:
                case "cut before its answer":
                    return
                case "cut in its answer":
                    client.write(data[: len(data) // 2])
                    await client.drain()
                    return
                case "answer held up" | "kept answer":
                    await self._proxy.pause(what)
            client.write(data)
            await client.drain()


@asynccontextmanager
async def open_proxy(host: str, target: int, rng: Random) -> AsyncIterator[Proxy]:
    """Listen on a free port of this machine."""
    proxy = Proxy(host, target, rng, Counter())
    server = await asyncio.start_server(proxy.serve, host, 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        proxy.release()
        server.close()
