"""The HTTP core, by bytes over a real socket, without Kafka."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from contextlib import asynccontextmanager

import pytest
import structlog

from gateways.http.dispatch import Dispatch
from gateways.http.limits import Limits
from gateways.http.routing import Route, Router
from gateways.http.server import Server
from tests.unit.gateway_rig import Client, request, until


class Site:
    """A server of four routes: /now, /later (answered by the test), /echo and /boom."""

    def __init__(self, limits):
        self.held = []
        self.bodies = []
        dispatch = Dispatch(lambda exchange: None)
        routes = [
            Route("GET", "/now", "now", lambda e: e.answer(200, b'"now"')),
            Route("GET", "/later", "later", self.held.append),
            Route("POST", "/later", "later", self.held.append),
            Route("POST", "/echo", "echo", self.echo, body_bytes_max=1_000, takes_body=True),
            Route("GET", "/boom", "boom", self.boom),
            Route("GET", "/always", "always", lambda e: e.answer(200, b"1"), always=True),
        ]
        ids = iter(f"req_{n}" for n in range(10_000))
        self.server = Server(Router(routes), dispatch, lambda: next(ids), limits)

    def echo(self, exchange):
        self.bodies.append(exchange.body)
        exchange.answer(200, exchange.body)

    @staticmethod
    def boom(exchange):
        raise ZeroDivisionError("ours")


@asynccontextmanager
async def site(**limits):
    site = Site(Limits(tick_s=0.02, **limits))
    port = await site.server.start("127.0.0.1", 0)
    clients = []

    async def connect():
        clients.append(Client(*await asyncio.open_connection("127.0.0.1", port)))
        return clients[-1]

    site.connect = connect
    try:
        yield site
    finally:
        for client in clients:
            await client.close()
        await site.server.drain(1.0)


GET = request("GET", "/now")


async def test_a_connection_is_kept_for_the_next_request():
    async with site() as s:
        client = await s.connect()
        for _ in range(3):
            got = await client.ask("GET", "/now")
            assert (got.status, got.body) == (200, b'"now"')
            assert "connection" not in got.headers


async def test_every_answer_names_its_request_and_the_date():
    async with site() as s:
        client = await s.connect()
        first, second = await client.ask("GET", "/now"), await client.ask("GET", "/nowhere")
        assert first.headers["request-id"] != second.headers["request-id"]
        assert second.json["request_id"] == second.headers["request-id"]
        assert first.headers["date"].endswith("GMT")


async def test_pipelined_requests_are_answered_in_their_order():
    async with site() as s:
        client = await s.connect()
        await client.send(request("GET", "/later") + request("GET", "/later") + GET)
        await until(lambda: len(s.held) == 2)
        s.held[1].answer(200, b"2")
        s.held[0].answer(200, b"1")
        bodies = [(await client.answer()).body for _ in range(3)]
        assert bodies == [b"1", b"2", b'"now"']


async def test_a_request_in_pieces_is_one_request():
    async with site() as s:
        client = await s.connect()
        for byte in request("POST", "/echo", b"hello", X_Long="v" * 20):
            await client.send(bytes([byte]))
        assert (await client.answer()).body == b"hello"


async def test_a_chunked_body_arrives_whole_and_its_trailers_are_left_out():
    async with site() as s:
        client = await s.connect()
        head = b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        await client.send(head + b"5\r\nhello\r\n")
        await client.send(b"1;ext=1\r\n!\r\n0\r\nTrailer: x\r\n\r\n" + GET)
        assert (await client.answer()).body == b"hello!"
        assert (await client.answer()).body == b'"now"'


async def test_a_client_that_expects_100_gets_it_before_its_body():
    async with site() as s:
        client = await s.connect()
        head = (
            b"POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
        )
        await client.send(head)
        assert (await client.answer()).status == 100
        await client.send(b"ok")
        assert (await client.answer()).body == b"ok"


async def test_100_continue_waits_for_the_answers_before_it():
    async with site() as s:
        client = await s.connect()
        head = (
            b"POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
        )
        await client.send(request("GET", "/later") + head)
        await until(lambda: s.held)
        s.held[0].answer(200, b"first")
        assert (await client.answer()).body == b"first"
        assert (await client.answer()).status == 100
        await client.send(b"ok")
        assert (await client.answer()).body == b"ok"


async def test_a_body_that_came_without_waiting_gets_no_100():
    async with site() as s:
        client = await s.connect()
        data = (
            b"POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nok"
        )
        await client.send(request("GET", "/later") + data)
        await until(lambda: s.held)
        s.held[0].answer(200, b"first")
        assert [(await client.answer()).body for _ in range(2)] == [b"first", b"ok"]


async def test_an_unknown_expectation_is_refused():
    async with site() as s:
        client = await s.connect()
        await client.send(request("POST", "/echo", b"x", Expect="a-miracle"))
        assert (await client.answer()).status == 417


async def test_http_1_0_ends_after_the_answer_unless_it_asks_to_be_kept():
    async with site() as s:
        client = await s.connect()
        await client.send(b"GET /now HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert (await client.answer()).headers["connection"] == "keep-alive"
        await client.send(b"GET /now HTTP/1.0\r\n\r\n")
        got = await client.answer()
        assert (got.status, got.headers["connection"]) == (200, "close")
        assert await client.ended() == b""


async def test_connection_close_ends_it_and_what_follows_is_not_heard():
    async with site() as s:
        client = await s.connect()
        await client.send(
            request("GET", "/now", Connection="close") + request("POST", "/echo", b"x")
        )
        got = await client.answer()
        assert (got.status, got.headers["connection"]) == (200, "close")
        assert await client.ended() == b""
        assert s.bodies == []


async def test_head_has_the_head_of_get_and_no_body():
    async with site() as s:
        client = await s.connect()
        got = await client.ask("HEAD", "/now")
        assert (got.status, got.headers["content-length"]) == (200, "5")
        assert (await client.ask("GET", "/now")).body == b'"now"'


async def test_another_method_is_405_and_names_what_is_allowed():
    async with site() as s:
        client = await s.connect()
        got = await client.ask("DELETE", "/now")
        assert (got.status, got.headers["allow"]) == (405, "GET, HEAD")
        assert got.headers["content-type"] == "application/problem+json"


async def test_an_unknown_path_is_404_and_the_connection_goes_on():
    async with site() as s:
        client = await s.connect()
        assert (await client.ask("POST", "/nowhere", b"{}")).status == 404
        assert (await client.ask("GET", "/now")).status == 200


async def test_a_target_in_absolute_form_is_understood():
    async with site() as s:
        client = await s.connect()
        assert (await client.ask("GET", "http://elsewhere:1/now?x=1")).status == 200


MALFORMED = {
    "two framings": b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n"
    b"Content-Length: 2\r\n\r\nx",
    "signed length": b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nx",
    "bare line feeds": b"GET /now HTTP/1.1\nHost: a\n\n",
    "space before the colon": b"GET /now HTTP/1.1\r\nHost : a\r\n\r\n",
    "folded header": b"GET /now HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",
    "no host": b"GET /now HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /now HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "two authorizations": b"GET /now HTTP/1.1\r\nHost: a\r\nAuthorization: b\r\n"
    b"authorization: c\r\n\r\n",
    "unknown coding": b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\nx",
    "no method": b"?? / HTTP/1.1\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "upgrade with a body": b"POST /echo HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\n"
    b"Upgrade: h2c\r\nContent-Length: 1\r\n\r\nx",
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_what_is_not_http_is_answered_400_once_and_ended(name):
    async with site() as s:
        client = await s.connect()
        await client.send(GET + MALFORMED[name] + GET)
        assert (await client.answer()).status == 200
        got = await client.answer()
        assert (got.status, got.headers["connection"]) == (400, "close")
        assert got.json["code"] == "request_malformed"
        assert await client.ended() == b""


@pytest.mark.parametrize("version", ["0.9", "2.0"])
async def test_other_versions_are_refused(version):
    async with site() as s:
        client = await s.connect()
        await client.send(f"GET /now HTTP/{version}\r\nHost: a\r\n\r\n".encode())
        assert (await client.answer()).status == 505


async def test_an_offered_upgrade_is_passed_over():
    async with site() as s:
        client = await s.connect()
        offer = request("GET", "/now", Connection="Upgrade, HTTP2-Settings", Upgrade="h2c")
        await client.send(offer * 3 + GET)
        assert [(await client.answer()).status for _ in range(4)] == [200] * 4


async def test_a_compressed_body_is_not_taken():
    async with site() as s:
        client = await s.connect()
        await client.send(request("POST", "/echo", b"x", Content_Encoding="gzip"))
        assert (await client.answer()).status == 415


async def test_a_declared_body_above_the_bound_is_refused_before_it_is_sent():
    async with site() as s:
        client = await s.connect()
        await client.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n"
                          b"Expect: 100-continue\r\n\r\n")  # fmt: skip
        got = await client.answer()
        assert (got.status, got.json["code"]) == (413, "body_too_large")


async def test_the_client_can_read_413_though_it_goes_on_sending():
    async with site() as s:
        client = await s.connect()
        client.writer.write(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\n\r\n")
        for _ in range(40):
            client.writer.write(b"x" * 50_000)
        assert (await client.answer()).status == 413
        assert s.bodies == []


async def test_the_answer_is_not_torn_down_by_what_was_sent_after_the_end():
    def converse(port):
        with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
            client.sendall(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\n\r\n")
            for _ in range(5):
                client.sendall(b"x" * 10_000)
                time.sleep(0.02)
            return client.recv(100)

    async with site() as s:
        port = s.server._listener.sockets[0].getsockname()[1]
        assert b" 413 " in await asyncio.to_thread(converse, port)


async def test_a_chunked_body_above_the_bound_is_413():
    async with site() as s:
        client = await s.connect()
        await client.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        await client.send((b"200\r\n" + b"x" * 512 + b"\r\n") * 2)
        assert (await client.answer()).status == 413


async def test_chunks_of_one_byte_with_long_extensions_are_bounded_too():
    async with site() as s:
        client = await s.connect()
        await client.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(200):
            await client.send(b"1;" + b"e" * 100 + b"\r\nx\r\n")
        assert (await client.answer()).status == 413


async def test_a_body_at_the_bound_is_taken():
    async with site() as s:
        client = await s.connect()
        assert (await client.ask("POST", "/echo", b"x" * 1_000)).status == 200


@pytest.mark.parametrize(
    "data",
    [
        b"GET /now HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 101 + b"\r\n",
        b"GET /now HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 20_000 + b"\r\n\r\n",
        b"GET /now HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 20_000,
    ],
    ids=["too many", "too long", "too long and never ended"],
)
async def test_headers_above_the_bound_are_431(data):
    async with site() as s:
        client = await s.connect()
        for start in range(0, len(data), 5_000):
            await client.send(data[start : start + 5_000])
            await asyncio.sleep(0)
        got = await client.answer()
        assert (got.status, got.json["code"]) == (431, "headers_too_large")


async def test_a_target_above_the_bound_is_414():
    async with site() as s:
        client = await s.connect()
        await client.send(b"GET /" + b"x" * 5_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await client.answer()).status == 414


async def test_a_request_that_trickles_in_is_ended_with_408():
    async with site(read_s=0.1) as s:
        client = await s.connect()
        await client.send(b"GET /now HT")
        assert (await client.answer()).status == 408
        assert await client.ended() == b""


async def test_the_time_to_arrive_counts_from_a_pipelined_request_too():
    async with site(read_s=0.1) as s:
        client = await s.connect()
        await client.send(GET + b"GET /now HT")
        assert [(await client.answer()).status for _ in range(2)] == [200, 408]


async def test_an_idle_connection_is_ended_without_a_word():
    async with site(idle_s=0.1) as s:
        client = await s.connect()
        assert (await client.ask("GET", "/now")).status == 200
        assert await client.ended() == b""


async def test_a_connection_that_waits_for_its_answer_is_not_idle():
    async with site(idle_s=0.05, read_s=0.05) as s:
        client = await s.connect()
        await client.send(request("GET", "/later"))
        await until(lambda: s.held)
        await asyncio.sleep(0.3)
        s.held[0].answer(200, b"at last")
        assert (await client.answer()).body == b"at last"


async def test_a_client_that_reads_nothing_is_cut_off():
    async with site(write_s=0.2) as s:
        client = await s.connect()
        for _ in range(200):
            await client.send(request("GET", "/later"))
        client.reader._transport.pause_reading()
        await until(lambda: len(s.held) >= 32)
        answered = 0
        while s.server._connections:
            async with asyncio.timeout(10):
                for exchange in s.held[answered:]:
                    exchange.answer(200, b"x" * 1_000_000)
                answered = len(s.held)
                await asyncio.sleep(0.01)
        assert s.server.in_flight == 0


async def test_a_client_that_stops_sending_still_gets_its_answer():
    async with site() as s:
        client = await s.connect()
        await client.send(request("GET", "/later"))
        client.writer.write_eof()
        await until(lambda: s.held)
        s.held[0].answer(200, b"yours")
        assert (await client.answer()).body == b"yours"
        assert await client.ended() == b""


async def test_a_client_that_is_gone_before_the_answer_harms_nothing():
    async with site() as s:
        reset, closed = await s.connect(), await s.connect()
        for client in (reset, closed):
            await client.send(request("GET", "/later") * 2)
        await until(lambda: len(s.held) == 4)
        await closed.close()
        linger = struct.pack("ii", 1, 0)
        reset.writer.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, linger
        )
        await reset.close()
        await until(lambda: len(s.server._connections) == 1)
        for exchange in s.held:
            exchange.answer(200, b"to nobody")
        await until(lambda: not s.server._connections)
        assert s.server.in_flight == 0
        assert (await (await s.connect()).ask("GET", "/now")).status == 200


async def test_pipelined_requests_past_the_bound_wait_in_the_socket():
    async with site(pipelined_max=4) as s:
        client = await s.connect()
        for _ in range(6):
            await client.send(request("GET", "/later"))
            await asyncio.sleep(0.02)
        await until(lambda: len(s.held) >= 4)
        held = len(s.held)
        assert held < 6
        for count in range(6):
            await until(lambda count=count: len(s.held) > count)
            s.held[count].answer(200, b"%d" % count)
        assert [(await client.answer()).body for _ in range(6)] == [b"%d" % n for n in range(6)]


async def test_requests_past_the_bound_are_503_at_once_and_health_is_answered():
    async with site(in_flight_max=2) as s:
        for _ in range(2):
            await (await s.connect()).send(request("GET", "/later"))
        await until(lambda: len(s.held) == 2)
        client = await s.connect()
        got = await client.ask("GET", "/now")
        assert (got.status, got.json["code"], got.headers["retry-after"]) == (
            503,
            "overloaded",
            "1",
        )
        assert (await client.ask("GET", "/always")).status == 200
        s.held[0].answer(200, b"")
        assert (await client.ask("GET", "/now")).status == 200


async def test_connections_past_the_bound_are_told_so():
    async with site(connections_max=2) as s:
        first, second = await s.connect(), await s.connect()
        assert (await second.ask("GET", "/now")).status == 200
        third = await s.connect()
        got = await third.answer()
        assert (got.status, got.headers["retry-after"]) == (503, "1")
        assert await third.ended() == b""
        assert (await first.ask("GET", "/now")).status == 200


@pytest.fixture
def logged():
    """Collects what is logged."""
    with structlog.testing.capture_logs() as lines:
        yield lines


async def test_a_failure_of_ours_is_500_without_its_text_and_the_connection_goes_on(logged):
    async with site() as s:
        client = await s.connect()
        got = await client.ask("GET", "/boom")
        assert (got.status, got.json["code"]) == (500, "internal_error")
        assert b"ours" not in got.body
        assert (await client.ask("GET", "/now")).status == 200
    (line,) = logged
    assert isinstance(line["exc_info"], ZeroDivisionError)
    assert line["request_id"] == got.headers["request-id"]


async def test_a_drain_answers_what_is_in_progress_and_takes_nothing_new():
    async with site() as s:
        busy, idle, half = await s.connect(), await s.connect(), await s.connect()
        assert (await idle.ask("GET", "/now")).status == 200
        await half.send(b"GET /now HTTP/1.1\r\nHo")
        await busy.send(request("POST", "/later", b"x"))
        await until(lambda: s.held)
        draining = asyncio.create_task(s.server.drain(5.0))
        assert await idle.ended() == b""
        with pytest.raises(ConnectionError):
            await s.connect()
        await half.send(b"st: a\r\n\r\n")
        got = await half.answer()
        assert (got.status, got.headers["connection"]) == (200, "close")
        s.held[0].answer(200, b"acknowledged")
        got = await busy.answer()
        assert (got.body, got.headers["connection"]) == (b"acknowledged", "close")
        assert await busy.ended() == b""
        await draining


async def test_a_drain_cuts_off_what_does_not_end_in_time():
    async with site() as s:
        client = await s.connect()
        await client.send(request("GET", "/later"))
        await until(lambda: s.held)
        await s.server.drain(0.1)
        assert await client.ended() == b""
        s.held[0].answer(200, b"too late")
