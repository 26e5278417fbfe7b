"""The open-loop generator against a small server that stalls, refuses, drops and answers late."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from loadtest.generator.open_loop import OpenLoop, Shot
from loadtest.generator.render import Target, request

Respond = Callable[[int, asyncio.StreamWriter], Awaitable[None]]

OK = b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\n{}"


class Stub:
    """Answers by request number; counts what it saw by idempotency key."""

    def __init__(self, respond: Respond) -> None:
        self._respond = respond
        self.count = 0
        self.keys: Counter[str] = Counter()
        self.at_once = 0
        self.at_once_max = 0
        self.writers: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.add(writer)
        self.at_once += 1
        self.at_once_max = max(self.at_once_max, self.at_once)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while not writer.is_closing():
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                number, self.count = self.count, self.count + 1
                self.keys[head.split("Key: ")[1].split("\r\n")[0]] += 1
                await self._respond(number, writer)
        self.at_once -= 1
        writer.close()

    async def close(self) -> None:
        for writer in self.writers:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
        await until(lambda: self.at_once == 0)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110  the condition is another's plain attribute
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def serving(respond: Respond) -> AsyncIterator[tuple[Stub, Target]]:
    stub = Stub(respond)
    server = await asyncio.start_server(stub.serve, "127.0.0.1", 0)
    async with server:
        yield stub, Target("127.0.0.1", server.sockets[0].getsockname()[1], "k")
        await stub.close()


def shots(target: Target, count: int, gap_s: float = 0.0) -> list[Shot]:
    return [
        Shot(i * gap_s, request(target, "POST", "/", {"Idempotency-Key": str(i)}, b""), i)
        for i in range(count)
    ]


async def drive(target: Target, fired: list[Shot], **settings: float) -> OpenLoop:
    loop = OpenLoop(target, **settings)  # type: ignore[arg-type]
    try:
        await asyncio.wait_for(loop.run(fired), 30)
    finally:
        await loop.close()
    return loop


async def test_every_request_is_answered_once_over_a_bounded_number_of_connections() -> None:
    async def respond(_: int, writer: asyncio.StreamWriter) -> None:
        writer.write(OK)

    async with serving(respond) as (stub, target):
        fired = shots(target, 200)
        loop = await drive(target, fired, connections_max=5)
    assert all(shot.answer is not None and shot.answer.status == 202 for shot in fired)
    assert stub.count == loop.accepted == 200
    assert stub.at_once_max <= 5


async def test_a_stalled_server_hides_no_wait() -> None:
    """Ten requests 10 ms apart behind one that stalls: all of them were made to wait."""
    gate = asyncio.Event()

    async def respond(number: int, writer: asyncio.StreamWriter) -> None:
        if number == 0:
            await gate.wait()
        writer.write(OK)

    async with serving(respond) as (_, target):
        fired = shots(target, 10, gap_s=0.01)
        loop = OpenLoop(target, connections_max=1)
        run = asyncio.create_task(loop.run(fired))
        await until(lambda: loop.sent == 10)
        gate.set()
        health = await run
        await loop.close()
    released = fired[0].done_s
    for shot in fired:
        assert shot.done_s >= released
        assert shot.latency_s == pytest.approx(shot.done_s - shot.at_s)
    assert fired[0].latency_s > 0.08
    assert health.queued_max == 9


async def test_503_is_sent_again_with_the_same_key_after_the_time_the_server_asks_for() -> None:
    async def respond(number: int, writer: asyncio.StreamWriter) -> None:
        busy = b"HTTP/1.1 503 Busy\r\nRetry-After: 0.2\r\nContent-Length: 0\r\n\r\n"
        writer.write(busy if number == 0 else OK)

    async with serving(respond) as (stub, target):
        fired = shots(target, 1)
        loop = await drive(target, fired)
    assert stub.keys == {"0": 2}
    assert fired[0].answer is not None
    assert fired[0].answer.status == 202
    assert fired[0].latency_s >= 0.2
    assert loop.health.errors == {"http_503": 1}


async def test_a_dropped_connection_is_retried_and_counted() -> None:
    async def respond(number: int, writer: asyncio.StreamWriter) -> None:
        if number % 3 == 0:
            writer.transport.abort()
        else:
            writer.write(OK)

    async with serving(respond) as (stub, target):
        fired = shots(target, 30)
        loop = await drive(target, fired, connections_max=4)
    assert all(shot.answer is not None and shot.answer.ok for shot in fired)
    assert loop.health.errors["reset"] == stub.count - 30


async def test_a_late_answer_never_meets_another_request() -> None:
    """The first attempt times out; its answer comes later, on a connection closed by then."""

    async def respond(number: int, writer: asyncio.StreamWriter) -> None:
        if number == 0:
            await asyncio.sleep(0.6)
            writer.write(b"HTTP/1.1 200 Late\r\nContent-Length: 4\r\n\r\nlate")
        else:
            writer.write(OK)

    async with serving(respond) as (_, target):
        fired = shots(target, 2)
        loop = await drive(target, fired, connections_max=1, timeout_s=0.2)
    assert [shot.answer.body for shot in fired if shot.answer] == [b"{}", b"{}"]
    assert loop.health.errors["timed_out"] == 1


async def test_a_server_that_comes_back_gets_everything_that_waited() -> None:
    async def respond(_: int, writer: asyncio.StreamWriter) -> None:
        writer.write(OK)

    async with serving(respond) as (_, target):
        pass
    fired = shots(target, 50)
    loop = OpenLoop(target, connections_max=8)
    run = asyncio.create_task(loop.run(fired))
    await until(lambda: loop.health.errors["refused"] >= 50)
    stub = Stub(respond)
    async with await asyncio.start_server(stub.serve, target.host, target.port):
        await asyncio.wait_for(run, 30)
        await loop.close()
        await stub.close()
    assert all(shot.answer is not None and shot.answer.ok for shot in fired)
    assert stub.keys == {str(i): 1 for i in range(50)}
