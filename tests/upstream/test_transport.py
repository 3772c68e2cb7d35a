"""The transport over real sockets: TLS, kept connections, what is never sent twice, and callers who go away."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
import ssl
import struct
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx
import pytest
from access.certificates import HERE, Authority, Files

from gateway.configuration import load_settings
from gateway.deadline import Deadline
from gateway.errors import UpstreamNotAsked, UpstreamTimeout
from gateway.proxy import Proxy
from gateway.settings import ConfigurationError
from gateway.upstream.connections import Origin
from gateway.upstream.http import Http
from gateway.upstream.http2 import Http2Connection
from gateway.upstream.transport import Transport
from waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
    from pathlib import Path

    from aiohappyeyeballs import AddrInfoType

    from gateway.upstream.connections import Connection
    from gateway.upstream.http import Answer, Send

METHODS = ["GET", "PUT", "POST", "PATCH", "DELETE"]
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Server:
    """Counts connections and requests, and does with each request as it is told."""

    def __init__(self, behave: Callable[[Server, asyncio.StreamWriter], Awaitable[object]]) -> None:
        self._behave = behave
        self.url = ""
        self.requests: list[bytes] = []
        self.connections = 0
        self.closed = 0
        self.arrived = asyncio.Event()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.closing(writer), contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if b"content-length" in line]
                self.requests.append(head + await reader.readexactly(int(lengths[0]) if lengths else 0))
                self.arrived.set()
                await self._behave(self, writer)
        self.closed += 1


@asynccontextmanager
async def serving(
    behave: Callable[[Server, asyncio.StreamWriter], Awaitable[object]], tls: ssl.SSLContext | None = None
) -> AsyncIterator[Server]:
    server = Server(behave)
    listening = await asyncio.start_server(server.connected, "127.0.0.1", 0, ssl=tls, limit=2**24)
    server.url = f"{'https' if tls else 'http'}://127.0.0.1:{listening.sockets[0].getsockname()[1]}/x"
    try:
        yield server
    finally:
        listening.close()


async def answers(server: Server, writer: asyncio.StreamWriter) -> None:
    writer.write(OK)
    await writer.drain()


async def answers_and_closes(server: Server, writer: asyncio.StreamWriter) -> None:
    await answers(server, writer)
    writer.close()


async def answers_once(server: Server, writer: asyncio.StreamWriter) -> None:
    """And closes the connection when another request comes on it."""
    if len(server.requests) == 1:
        await answers(server, writer)
    else:
        writer.close()


async def answers_nothing(server: Server, writer: asyncio.StreamWriter) -> None:
    """For longer than any test."""
    await asyncio.sleep(0)


async def send(transport: Transport, url: str, method: str = "GET", content: bytes | None = None) -> bytes:
    response = await transport.handle_async_request(httpx.Request(method, url, content=content))
    try:
        return await response.aread()
    finally:
        await response.aclose()


ANSWERS = {
    "whole": [OK],
    "in pieces": [OK[:-1], OK[-1:]],
    "after the head": [OK[:-2], OK[-2:]],
    "compressed": [b"HTTP/1.1 200 OK\r\ncontent-length: 22\r\nContent-Encoding: gzip\r\n\r\n", gzip.compress(b"ok")],
    "announced": [b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n", OK],
    "to the end of the connection": [b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n", b"ok"],
}


@pytest.mark.parametrize("pieces", ANSWERS.values(), ids=ANSWERS.keys())
async def test_answers_are_the_same_however_they_come(pieces: list[bytes]) -> None:
    async def in_pieces(_: Server, writer: asyncio.StreamWriter) -> None:
        for each in pieces:
            writer.write(each)
            await writer.drain()
            await asyncio.sleep(0.02)
        if b"connection: close" in pieces[0]:
            writer.close()

    async with serving(in_pieces) as server, Transport() as transport:
        for _ in range(2):
            answer = await transport.handle_async_request(httpx.Request("GET", server.url))
            encoded = b"gzip" in pieces[0]
            assert answer.extensions.get("identity", False) is not encoded
            assert await answer.aread() == b"ok"
            assert answer.headers.get("content-encoding") == ("gzip" if encoded else None)
            await answer.aclose()


async def test_an_answers_fields_are_those_that_came() -> None:
    async def odd(_: Server, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nX-Odd: caf\xe9\r\nx-odd: b\r\n\r\n")

    async with serving(odd) as server, Transport() as transport:
        answer = await transport.handle_async_request(httpx.Request("GET", server.url))
        assert answer.headers.get_list("x-odd") == ["caf\xe9", "b"]
        assert answer.headers.raw[1:] == [(b"X-Odd", b"caf\xe9"), (b"x-odd", b"b")]
        assert answer.headers is answer.headers


async def test_connections_are_kept() -> None:
    async with serving(answers) as server, Transport() as transport:
        for _ in range(3):
            assert await send(transport, server.url) == b"ok"
        assert (server.connections, len(server.requests)) == (1, 3)


@pytest.mark.parametrize("method", METHODS)
async def test_a_kept_connection_that_was_closed_fails_nothing(method: str) -> None:
    async with serving(answers_and_closes) as server, Transport() as transport:
        for _ in range(3):
            assert await send(transport, server.url, method) == b"ok"
            await eventually(lambda: server.closed == server.connections)
            await asyncio.sleep(0.01)  # for the end of the connection to come over
        assert len(server.requests) == 3


@pytest.mark.parametrize("method", METHODS)
async def test_nothing_is_sent_twice_when_a_kept_connection_is_closed_under_it(method: str) -> None:
    """Many clients would, for GET, PUT and DELETE. A PUT sent twice finds its version gone by its own doing."""
    async with serving(answers_once) as server, Transport() as transport:
        assert await send(transport, server.url, method) == b"ok"
        with pytest.raises(httpx.ReadError):
            await send(transport, server.url, method, b"{}")
        assert len(server.requests) == 2


async def test_callers_who_go_away_close_their_connections() -> None:
    async with serving(answers_nothing) as server, Transport() as transport:
        for _ in range(5):
            server.arrived.clear()
            call = asyncio.create_task(send(transport, server.url))
            await asyncio.wait_for(server.arrived.wait(), 3)
            call.cancel()
            await asyncio.wait([call], timeout=3)
            assert call.cancelled()
            await eventually(lambda: server.closed == server.connections)
        assert len(server.requests) == 5


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_caller_who_goes_away_as_the_connection_is_made_leaves_none(
    scheme: str, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing all that there are would wait for it in vain."""
    there: set[Connection] = set()
    leaving: asyncio.Task[bytes] | None = None
    opened, ended = Origin.opened, Origin.ended

    def open_(origin: Origin, connection: Connection) -> None:
        opened(origin, connection)
        there.add(connection)
        if leaving is not None:
            leaving.cancel()

    def end(origin: Origin, connection: Connection) -> None:
        ended(origin, connection)
        there.discard(connection)

    monkeypatch.setattr(Origin, "opened", open_)
    monkeypatch.setattr(Origin, "ended", end)
    tls = TestTls.context(tmp_path, authority) if scheme == "https" else None
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    async with serving(answers, tls) as server, Transport(ca_file=tmp_path / "ca.pem") as transport:
        for _ in range(5):
            leaving = asyncio.create_task(send(transport, server.url))
            await asyncio.wait([leaving], timeout=3)
            assert leaving.cancelled()
            await eventually(lambda: not there)
        leaving = None
        assert await send(transport, server.url) == b"ok"
        assert len(there) == 1


class TestWhenTheTimeIsUp:
    """Whether a request may have reached upstream is told truly: a write that was not sent leaves no doubt."""

    @staticmethod
    async def error(http: Http) -> UpstreamTimeout:
        with pytest.raises(UpstreamTimeout) as caught:
            await http.send("PUT", "/x", deadline=Deadline.after(0.3), headers={}, content=b"{}")
        return caught.value

    async def test_and_no_connection_is_made_yet_nothing_was_sent(self) -> None:
        with deaf_server() as port:
            async with Transport(connect_timeout=60.0) as transport:
                for _ in range(2):
                    error = await self.error(Http(transport, f"http://127.0.0.1:{port}", timeout=60.0))
                    assert (type(error), error.leaves_doubt) == (UpstreamNotAsked, False)

    @pytest.mark.parametrize("kind", ["TLS", "HTTP/2", "proxy"])
    async def test_and_a_connection_is_not_agreed_on_yet_nothing_was_sent(self, kind: str) -> None:
        async def says_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.closing(writer), contextlib.suppress(ConnectionError):
                await reader.read()

        listening = await asyncio.start_server(says_nothing, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        there = Transport(
            connect_timeout=60.0,
            proxy=Proxy("127.0.0.1", port) if kind == "proxy" else None,
            http2=Http2Connection if kind == "HTTP/2" else None,
        )
        scheme = "http" if kind == "proxy" else "https"
        async with there as transport:
            error = await self.error(Http(transport, f"{scheme}://127.0.0.1:{port}", timeout=60.0))
            assert (type(error), error.leaves_doubt) == (UpstreamNotAsked, False)
        listening.close()

    @pytest.mark.parametrize("kept", [False, True], ids=["a new connection", "a kept connection"])
    async def test_and_it_was_sent_there_is_a_doubt(self, kept: bool) -> None:
        async def answers_get(server: Server, writer: asyncio.StreamWriter) -> None:
            if server.requests[-1].startswith(b"GET"):
                await answers(server, writer)

        async with serving(answers_get) as server, Transport() as transport:
            if kept:
                assert await send(transport, server.url) == b"ok"
            error = await self.error(Http(transport, server.url, timeout=60.0))
            assert (type(error), error.leaves_doubt) == (UpstreamTimeout, True)
            assert server.requests[-1].startswith(b"PUT")

    async def test_of_a_later_attempt_that_was_sent_there_is_a_doubt(self) -> None:
        """Whatever was true of an earlier one of the same request."""
        with deaf_server() as port:
            async with serving(answers_nothing) as server, Transport(connect_timeout=60.0) as transport:

                def twice(once: Send) -> Send:
                    async def attempts(request: httpx.Request, deadline: Deadline) -> Answer:
                        request.url = httpx.URL(f"http://127.0.0.1:{port}/")
                        with pytest.raises(UpstreamNotAsked):
                            await once(request, Deadline.after(0.1))
                        request.url = httpx.URL(server.url)
                        return await once(request, Deadline.after(0.3))

                    return attempts

                error = await self.error(Http(transport, server.url, timeout=60.0, policy=twice))
                assert (type(error), error.leaves_doubt) == (UpstreamTimeout, True)
                assert len(server.requests) == 1


@contextlib.contextmanager
def deaf_server() -> Iterator[int]:
    """Its port: what wants to connect to it is not even refused."""
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        stack.enter_context(socket.create_connection(full.getsockname()))
        yield full.getsockname()[1]


async def test_large_bodies_are_sent_whole() -> None:
    async with serving(answers) as server, Transport() as transport:
        await send(transport, server.url, "PUT", b"x" * 3_000_000)
        assert server.requests[0].endswith(b"\r\n\r\n" + b"x" * 3_000_000)


@pytest.mark.parametrize(
    "before", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"]
)
async def test_an_answer_is_waited_for_after_those_that_only_announce_it(before: bytes) -> None:
    async def announces(server: Server, writer: asyncio.StreamWriter) -> None:
        writer.write(before)
        await writer.drain()
        await asyncio.sleep(0.01)
        await answers(server, writer)

    async with serving(announces) as server, Transport() as transport:
        for _ in range(2):
            assert await send(transport, server.url) == b"ok"
        assert server.connections == 1


UNASKED = {
    "an answer": OK.replace(b"ok", b"no"),
    "part of an answer": b"HTTP/1.1 200 OK\r\nx-next: ",
    "no HTTP": b"no",
    "an announcement": b"HTTP/1.1 103 Early Hints\r\n\r\n",
}


@pytest.mark.parametrize("later", [False, True], ids=["at once", "later"])
@pytest.mark.parametrize("unasked", UNASKED.values(), ids=UNASKED.keys())
async def test_what_nobody_asked_for_is_given_to_nobody(unasked: bytes, later: bool) -> None:
    """It would be the next request's, and all after it would have the one before: other shoppers' sessions."""

    async def says_more(server: Server, writer: asyncio.StreamWriter) -> None:
        if len(server.requests) == 1 and not later:
            writer.write(OK + unasked)
            await writer.drain()
            return
        await answers(server, writer)
        if len(server.requests) == 1:
            await asyncio.sleep(0.02)
            writer.write(unasked)
            await writer.drain()

    async with serving(says_more) as server, Transport() as transport:
        assert await send(transport, server.url) == b"ok"
        await eventually(lambda: server.closed == 1)
        for _ in range(2):
            assert await send(transport, server.url, "POST", b"{}") == b"ok"
        assert (server.connections, len(server.requests)) == (2, 3)


NO_ANSWERS = {
    "two lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok",
    "a length and chunks": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "a length that is none": b"HTTP/1.1 200 OK\r\ncontent-length: two\r\n\r\nok",
    "a chunk's length that is none": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\ntwo\r\nok\r\n0\r\n\r\n",
    "a space in a field's name": b"HTTP/1.1 200 OK\r\ncontent-length : 2\r\n\r\nok",
    "a field in two lines": b"HTTP/1.1 200 OK\r\nx: a\r\n b\r\ncontent-length: 2\r\n\r\nok",
    "lines that end otherwise": b"HTTP/1.1 200 OK\ncontent-length: 2\n\nok",
    "another protocol": b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
    "endless fields": b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 100_000,
    "an endless chunk's length": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2;" + b"x" * 300_000,
    "an endless trailer": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n" + b"x: y\r\n" * 100_000,
}


@pytest.mark.parametrize("what", NO_ANSWERS.values(), ids=NO_ANSWERS.keys())
async def test_what_is_no_answer_fails_and_closes_the_connection(what: bytes) -> None:
    async def answers_so(_: Server, writer: asyncio.StreamWriter) -> None:
        writer.write(what)
        await writer.drain()

    async with serving(answers_so) as server, Transport() as transport:
        with pytest.raises(httpx.RemoteProtocolError, match="upstream's answer"):
            await send(transport, server.url)
        await eventually(lambda: server.closed == 1)


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        (OK, True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2;x=y\r\nok\r\n0\r\nx-sum: 1\r\n\r\n", True),
        (OK.replace(b"\r\n", b"\r\nupgrade: h2c\r\nconnection: upgrade, keep-alive\r\n", 1), True),
        (OK.replace(b"\r\n", b"\r\nconnection: close\r\n", 1), False),
        (OK.replace(b"/1.1", b"/1.0"), False),
        (OK.replace(b"/1.1 200 OK", b"/1.0 200 OK\r\nconnection: keep-alive"), True),
    ],
    ids=["a length", "no body", "chunks", "another protocol on offer", "close", "HTTP/1.0", "HTTP/1.0, keep-alive"],
)
async def test_a_connection_is_kept_if_the_answer_leaves_it_so(answer: bytes, kept: bool) -> None:
    async def answers_so(_: Server, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()

    async with serving(answers_so) as server, Transport() as transport:
        for _ in range(3):
            assert await send(transport, server.url) == (b"" if b"204" in answer else b"ok")
        assert server.connections == (1 if kept else 3)


async def test_a_trailer_is_no_part_of_the_head() -> None:
    async def trails(_: Server, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\nretry-after: 9\r\n\r\n")

    async with serving(trails) as server, Transport() as transport:
        answer = await transport.handle_async_request(httpx.Request("GET", server.url))
        assert answer.headers.raw == [(b"transfer-encoding", b"chunked")]


async def test_an_answer_that_is_cut_by_a_reset_is_not_taken_for_its_end() -> None:
    async def resets(_: Server, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\no")
        await writer.drain()
        await asyncio.sleep(0.02)
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.close()

    async with serving(resets) as server, Transport() as transport:
        with pytest.raises(httpx.ReadError):
            await send(transport, server.url)


async def test_as_many_connections_are_made_as_there_are_requests_at_a_time() -> None:
    async def takes_a_while(server: Server, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.01)
        await answers(server, writer)

    async with serving(takes_a_while) as server, Transport() as transport:
        for _ in range(3):
            await asyncio.gather(*(send(transport, server.url) for _ in range(10)))
        assert (server.connections, len(server.requests)) == (10, 30)


async def test_unused_connections_are_closed_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.upstream.connections._UNUSED", 0.3)
    async with serving(answers) as server, Transport() as transport:
        await asyncio.gather(*(send(transport, server.url) for _ in range(3)))
        for _ in range(8):
            await asyncio.sleep(0.1)
            await send(transport, server.url)
        assert (server.connections, server.closed) == (3, 2), "the one in use is kept"
        await eventually(lambda: server.closed == 3)


async def test_a_connection_that_is_old_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy it is: the name may lead to another server by now."""
    monkeypatch.setattr("gateway.upstream.connections._OLD", 0.0)
    async with serving(answers) as before, serving(answers) as after, Transport() as transport:
        there = before

        async def leads_there(_: Origin) -> list[AddrInfoType]:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", httpx.URL(there.url).port))]

        monkeypatch.setattr(Origin, "_look_up", leads_there)
        for _ in range(2):
            assert await send(transport, before.url) == b"ok"
        there = after
        for _ in range(2):
            assert await send(transport, before.url) == b"ok"
        assert (len(before.requests), len(after.requests)) == (2, 2)
        await eventually(lambda: before.closed == after.closed == 2)


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Resolver:
    resolver = Resolver()

    async def resolved(origin: Origin) -> list[AddrInfoType]:
        return await resolver.resolved(origin)

    monkeypatch.setattr(Origin, "_resolved", resolved)
    monkeypatch.setattr("gateway.upstream.connections._KNOWN", 0.0)
    monkeypatch.setattr("gateway.upstream.connections._OLD", 0.0)
    return resolver


@dataclass
class Resolver:
    """DNS, which leads all names to this machine."""

    failure: Exception | None = None
    hangs: bool = False

    async def resolved(self, origin: Origin) -> list[AddrInfoType]:
        if self.hangs:
            await asyncio.sleep(30)
        if self.failure is not None:
            raise self.failure
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", origin.port))]


@pytest.mark.parametrize("failure", [socket.gaierror(socket.EAI_AGAIN, "try again"), None], ids=["fails", "hangs"])
async def test_while_dns_is_out_of_order_the_last_addresses_remain_in_use(
    resolver: Resolver, failure: Exception | None
) -> None:
    """Connections last for a minute: otherwise all calls would fail after that."""
    async with serving(answers) as server, Transport(connect_timeout=5.0) as transport:
        url = server.url.replace("127.0.0.1", "upstream.test")
        assert await send(transport, url) == b"ok"
        resolver.failure, resolver.hangs = failure, failure is None
        assert await send(transport, url) == b"ok"
        assert server.connections == 2


async def test_a_name_that_is_gone_leads_nowhere(resolver: Resolver) -> None:
    async with serving(answers) as server, Transport() as transport:
        url = server.url.replace("127.0.0.1", "upstream.test")
        assert await send(transport, url) == b"ok"
        resolver.failure = socket.gaierror(socket.EAI_NONAME, "unknown name")
        with pytest.raises(httpx.ConnectError):
            await send(transport, url)


async def test_without_dns_from_the_start_there_is_no_connection(resolver: Resolver) -> None:
    resolver.failure = socket.gaierror(socket.EAI_AGAIN, "try again")
    async with Transport() as transport:
        with pytest.raises(httpx.ConnectError):
            await send(transport, "http://upstream.test/")


async def test_no_more_is_read_than_somebody_wants() -> None:
    taken = 0

    async def answers_much(_: Server, writer: asyncio.StreamWriter) -> None:
        nonlocal taken
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n")
        for part in [b"x" * 100_000] * 1000:
            writer.write(part)
            await writer.drain()
            taken += len(part)

    async with serving(answers_much) as server, Transport() as transport:
        answer = await transport.handle_async_request(httpx.Request("GET", server.url))
        before = -1
        while before < taken:
            before = taken
            await asyncio.sleep(0.2)
        assert taken < 30_000_000, "what the sockets hold"
        assert isinstance(answer.stream, httpx.AsyncByteStream)
        assert sum([len(part) async for part in answer.stream]) == 100_000_000
        assert len(await send(transport, server.url)) == 100_000_000
        assert server.connections == 1


async def test_all_addresses_of_a_name_are_tried() -> None:
    """The server listens on one of those of localhost."""
    async with serving(answers) as server, Transport() as transport:
        assert await send(transport, server.url.replace("127.0.0.1", "localhost")) == b"ok"


async def test_an_address_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(answers) as server:
        port = httpx.URL(server.url).port
        with contextlib.ExitStack() as stack:
            full = stack.enter_context(socket.create_server(("127.0.0.2", port or 0), backlog=0))
            stack.enter_context(socket.create_connection(full.getsockname()))  # what comes now is not even refused

            async def both(_: Origin) -> list[AddrInfoType]:
                kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
                return [(*kind, full.getsockname()), (*kind, ("127.0.0.1", port))]

            monkeypatch.setattr(Origin, "_look_up", both)
            async with Transport(connect_timeout=5.0) as transport:
                assert await send(transport, server.url) == b"ok"


async def test_a_name_that_leads_nowhere_is_no_connection() -> None:
    async with Transport() as transport:
        for name in ("nowhere.invalid", "x" * 70):
            with pytest.raises(httpx.ConnectError):
                await send(transport, f"http://{name}/")


async def test_who_says_nothing_in_a_handshake_is_given_up_and_left() -> None:
    left = asyncio.Event()

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read()
        left.set()
        writer.close()

    listening = await asyncio.start_server(deaf, "127.0.0.1", 0)
    url = f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}/x"
    async with Transport(connect_timeout=0.2) as transport:
        with pytest.raises(httpx.ConnectTimeout):
            await send(transport, url)
        await asyncio.wait_for(left.wait(), 3)
    listening.close()


async def test_a_connection_that_was_made_while_the_process_stood_still_is_taken() -> None:
    async with serving(answers) as server, Transport(connect_timeout=0.2) as transport:
        asyncio.get_running_loop().call_soon(time.sleep, 0.5)  # as if it had been stopped
        assert await send(transport, server.url) == b"ok"


async def test_closing_the_transport_ends_what_is_under_way() -> None:
    async with serving(answers_nothing) as server:
        async with Transport() as transport:
            call = asyncio.create_task(send(transport, server.url))
            await asyncio.wait_for(server.arrived.wait(), 3)
        with pytest.raises(httpx.ReadError):
            await asyncio.wait_for(call, 3)
        await eventually(lambda: server.closed == 1)
        with pytest.raises(httpx.ConnectError):
            await send(transport, server.url)


async def test_what_came_before_the_connection_was_closed_can_be_read() -> None:
    """Also where no more was to be read from it for the time being."""

    async def answers_much(_: Server, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n" + b"x" * 10_000_000)
        await writer.drain()

    async with serving(answers_much) as server:
        async with Transport() as transport:
            answer = await transport.handle_async_request(httpx.Request("GET", server.url))
            await asyncio.sleep(0.3)
        parts = answer.aiter_raw()
        assert 256 * 1024 < len(await anext(parts)) < 10_000_000
        with pytest.raises(httpx.ReadError):
            await anext(parts)


async def test_closing_the_transport_leaves_no_connection_that_is_made_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked, found = asyncio.Event(), asyncio.Event()
    look_up = Origin._look_up

    async def slow(origin: Origin) -> Sequence[AddrInfoType]:
        asked.set()
        await found.wait()
        return await look_up(origin)

    monkeypatch.setattr(Origin, "_look_up", slow)
    async with serving(answers) as server:
        async with Transport() as transport:
            call = asyncio.create_task(send(transport, server.url))
            await asyncio.wait_for(asked.wait(), 3)
        found.set()
        with pytest.raises(httpx.ConnectError, match="closed meanwhile"):
            await asyncio.wait_for(call, 3)
        await eventually(lambda: server.connections == server.closed == 1)
        assert server.requests == []


@pytest.mark.parametrize("answer", [OK, OK.replace(b"200 OK", b"413 Too Large")], ids=["200", "413"])
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_connection_whose_answer_came_too_soon_is_not_used_again(
    scheme: str, answer: bytes, authority: Authority, tmp_path: Path
) -> None:
    """The rest of the request is on its way yet, and would be read as the next, or by nobody."""
    seen: list[bytes] = []
    done = asyncio.Event()

    async def refuses(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(ConnectionError):
            seen.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(answer)
            await done.wait()

    tls = TestTls.context(tmp_path, authority) if scheme == "https" else None
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    listening = await asyncio.start_server(refuses, "127.0.0.1", 0, ssl=tls)
    url = f"{scheme}://127.0.0.1:{listening.sockets[0].getsockname()[1]}/x"
    try:
        async with Transport(ca_file=tmp_path / "ca.pem") as transport:
            assert await send(transport, url, "PUT", b"x" * 20_000_000) == b"ok"
            assert await asyncio.wait_for(send(transport, url), 10) == b"ok"
    finally:
        done.set()
        listening.close()
    assert [head.split()[0] for head in seen] == [b"PUT", b"GET"]


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_connection_is_kept_after_a_large_request_that_was_taken_whole(
    scheme: str, authority: Authority, tmp_path: Path
) -> None:
    tls = TestTls.context(tmp_path, authority) if scheme == "https" else None
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    async with serving(answers, tls) as server, Transport(ca_file=tmp_path / "ca.pem") as transport:
        for _ in range(3):
            assert await send(transport, server.url, "PUT", b"x" * 3_000_000) == b"ok"
        assert (server.connections, len(server.requests)) == (1, 3)
        assert all(each.endswith(b"\r\n\r\n" + b"x" * 3_000_000) for each in server.requests)


@pytest.mark.parametrize(
    "request_",
    [
        httpx.Request("GET", "http://127.0.0.1:9/", headers={"saas-token": "a\r\nemporix-tenant: b"}),
        httpx.Request("GET", "http://127.0.0.1:9/", headers=[(b"x\nemporix-tenant", b"b")]),
        httpx.Request("GET", "http://127.0.0.1:9/", extensions={"target": b"/a b"}),
        httpx.Request("GET", "http://127.0.0.1:9/", extensions={"target": b"/a\r\nx: b"}),
        httpx.Request("GET /x HTTP/1.1\r\nx:", "http://127.0.0.1:9/"),
        httpx.Request("HEAD", "http://127.0.0.1:9/"),
        httpx.Request("PUT", "http://127.0.0.1:9/", stream=httpx.ByteStream(b"{}")),
        httpx.Request("PUT", "http://127.0.0.1:9/", headers={"content-length": "1"}, stream=httpx.ByteStream(b"{}")),
    ],
    ids=["value", "name", "space", "target", "method", "HEAD", "no length", "another length"],
)
async def test_what_would_be_read_as_another_request_is_not_sent(request_: httpx.Request) -> None:
    async with Transport() as transport:
        with pytest.raises(ValueError, match="request"):
            await transport.handle_async_request(request_)


async def test_a_body_that_is_not_bytes_is_refused() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"{}"

    async with Transport() as transport:
        with pytest.raises(TypeError, match="bytes"):
            await transport.handle_async_request(httpx.Request("PUT", "http://127.0.0.1:9/", content=pieces()))


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "/x"])
async def test_what_is_no_http_is_not_supported(url: str) -> None:
    async with Transport() as transport:
        with pytest.raises(httpx.UnsupportedProtocol):
            await transport.handle_async_request(httpx.Request("GET", url))


async def test_proxies_that_the_environment_names_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    async with serving(answers) as server, Transport() as transport:
        assert await send(transport, server.url) == b"ok"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


class TestTls:
    @staticmethod
    def context(folder: Path, authority: Authority, *, expired: bool = False) -> ssl.SSLContext:
        files = Files.of(folder, authority.issue(*HERE, expired=expired))
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(files.certificate, files.key)
        return context

    async def test_trusts_a_ca_of_ones_own(self, authority: Authority, tmp_path: Path) -> None:
        (tmp_path / "ca.pem").write_bytes(authority.pem)
        async with (
            serving(answers, self.context(tmp_path, authority)) as server,
            Transport(ca_file=tmp_path / "ca.pem") as transport,
        ):
            assert await send(transport, server.url) == b"ok"

    async def test_trusts_no_other(self, authority: Authority, tmp_path: Path) -> None:
        async with serving(answers, self.context(tmp_path, authority)) as server, Transport() as transport:
            with pytest.raises(httpx.ConnectError):
                await send(transport, server.url)
            assert server.requests == []

    async def test_takes_no_certificate_that_has_expired(self, authority: Authority, tmp_path: Path) -> None:
        (tmp_path / "ca.pem").write_bytes(authority.pem)
        async with (
            serving(answers, self.context(tmp_path, authority, expired=True)) as server,
            Transport(ca_file=tmp_path / "ca.pem") as transport,
        ):
            with pytest.raises(httpx.ConnectError):
                await send(transport, server.url)

    @pytest.mark.parametrize("content", [None, b"no certificate"], ids=["missing", "nonsense"])
    def test_cas_that_cannot_be_read_are_told_of_at_once(self, tmp_path: Path, content: bytes | None) -> None:
        if content is not None:
            (tmp_path / "ca.pem").write_bytes(content)
        tenants = {"acme": {"client_id": "id", "client_secret": "secret"}}
        with pytest.raises(ConfigurationError) as caught:
            load_settings(None, {"tenants": tenants, "upstream": {"ca_file": str(tmp_path / "ca.pem")}})
        assert caught.value.problems[0].startswith("upstream.ca_file: holds no certificates of CAs")
