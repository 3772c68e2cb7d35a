"""One exchange over real sockets, with servers that break off, hang, and answer nonsense."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
import tracemalloc
import zlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest

import gateway.upstream.http
from gateway.deadline import Deadline
from gateway.errors import (
    GatewayError,
    SessionNotFound,
    UpstreamMalformed,
    UpstreamNotTaken,
    UpstreamTimeout,
    UpstreamUnavailable,
    UpstreamUnreachable,
)
from gateway.upstream.http import MAX_BODY, Http
from gateway.upstream.transport import Transport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from gateway.upstream.http import Answer, Exchange


class Connection:
    """One connection, as the server sees it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def request(self) -> bytes:
        """The head and the body of the next request, as they came."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = [
            int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")
        ]
        return head + await self._reader.readexactly(length[0] if length else 0)

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def closed_by_peer(self) -> bool:
        """Wait until nothing more can come."""
        with contextlib.suppress(ConnectionError):
            while await self._reader.read(65_536):
                pass
        return True


@asynccontextmanager
async def server(behave: Callable[[Connection], Awaitable[object]]) -> AsyncIterator[str]:
    """A server that treats every connection so, and then closes it."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await behave(Connection(reader, writer))

    listening = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    finally:
        listening.close()


async def send(
    url: str,
    *,
    timeout: float = 5.0,
    deadline: Deadline | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
) -> Answer:
    async with Transport() as own:
        http = Http(transport or own, url, timeout=timeout)
        return await http.send("GET", "/x", deadline=deadline or Deadline.after(5), headers={})


def once(answer: bytes) -> Callable[[Connection], Awaitable[None]]:
    async def behave(connection: Connection) -> None:
        await connection.request()
        await connection.send(answer)

    return behave


def whole(body: bytes, *headers: bytes, status: bytes = b"200 OK") -> bytes:
    lines = (b"HTTP/1.1 " + status, *headers, b"content-length: %d" % len(body), b"", body)
    return b"\r\n".join(lines)


class TestAnAnswer:
    async def test_comes_back_with_status_headers_and_body(self) -> None:
        async with server(once(whole(b"{}", b"x-odd: 1", status=b"418 Teapot"))) as url:
            answer = await send(url)
        assert (answer.status, answer.head.headers["x-odd"], answer.body) == (418, "1", b"{}")

    async def test_comes_back_without_a_body(self) -> None:
        async with server(once(b"HTTP/1.1 204 No Content\r\n\r\n")) as url:
            assert (await send(url)).body == b""

    async def test_comes_back_in_one_piece_when_it_came_in_many(self) -> None:
        async with server(
            once(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n")
        ) as url:
            assert (await send(url)).body == b"abc"

    @pytest.mark.parametrize(
        ("encoding", "window"), [(b"gzip", 31), (b"X-Gzip", 31), (b"deflate", 15), (b"deflate", -15)]
    )
    async def test_comes_back_decoded(self, encoding: bytes, window: int) -> None:
        body = zlib.compress(b'{"a":1}', wbits=window)
        async with server(once(whole(body, b"content-encoding: " + encoding))) as url:
            assert (await send(url)).body == b'{"a":1}'

    async def test_comes_back_decoded_from_all_its_members(self) -> None:
        body = gzip.compress(b'{"a"') + gzip.compress(b"") + gzip.compress(b":1}")
        async with server(once(whole(body, b"content-encoding: gzip"))) as url:
            assert (await send(url)).body == b'{"a":1}'

    async def test_that_is_as_large_as_may_be_when_it_is_decoded_comes_back(self) -> None:
        body = gzip.compress(bytes(MAX_BODY - 1)) + gzip.compress(b"x") + gzip.compress(b"")
        async with server(once(whole(body, b"content-encoding: gzip"))) as url:
            assert len((await send(url)).body) == MAX_BODY

    async def test_that_ends_with_the_connection_comes_back(self) -> None:
        async with server(once(b"HTTP/1.1 200 OK\r\n\r\nabc")) as url:
            assert (await send(url)).body == b"abc"

    async def test_that_is_as_large_as_may_be_comes_back(self) -> None:
        async with server(once(whole(b"x" * MAX_BODY))) as url:
            assert len((await send(url)).body) == MAX_BODY

    async def test_that_leads_elsewhere_is_not_followed(self) -> None:
        async with server(once(whole(b"", b"location: http://127.0.0.1:9/", status=b"302 Found"))) as url:
            assert (await send(url)).status == 302


LARGE = b"x" * 400_000


class TestALargeAnswer:
    async def test_is_given_up_where_there_is_no_room_for_it_beside_others(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Any shopper can make his session context as large as the platform takes, and have it read."""
        monkeypatch.setattr(gateway.upstream.http, "_ROOM", 500_000)
        rest = asyncio.Event()

        async def behave(connection: Connection) -> None:
            head, answer = await connection.request(), whole(LARGE, b"connection: close")
            if b"/slow" in head:
                await connection.send(answer[:300_000])
                await rest.wait()
                await connection.send(answer[300_000:])
            else:
                await connection.send(whole(b"{}", b"connection: close") if b"/small" in head else answer)

        async with server(behave) as url, Transport() as transport, asyncio.TaskGroup() as tasks:
            http = Http(transport, url, timeout=5)

            async def body_of(target: str) -> bytes:
                return (await http.send("GET", target, deadline=Deadline.after(5), headers={})).body

            slow = tasks.create_task(body_of("/slow"))
            async with asyncio.timeout(5):
                with contextlib.suppress(UpstreamNotTaken):  # as soon as so much of the other has come
                    while True:
                        await body_of("/large")
            assert await body_of("/small") == b"{}"
            rest.set()
            assert await slow == LARGE
            assert await body_of("/large") == LARGE


class TestARequest:
    async def test_goes_out_as_it_is_given(self) -> None:
        came: list[bytes] = []

        async def behave(connection: Connection) -> None:
            came.append(await connection.request())
            await connection.send(whole(b""))

        async with server(behave) as url, Transport() as transport:
            await Http(transport, f"{url}/", timeout=5.0).send(
                "PUT",
                "/a%2Fb/%252e?upsert=true",
                deadline=Deadline.never(),
                headers={"saas-token": "t", "content-type": "application/json"},
                content=b'{"a":1}',
            )
        head, _, body = came[0].partition(b"\r\n\r\n")
        assert head.startswith(b"PUT /a%2Fb/%252e?upsert=true HTTP/1.1\r\n")
        assert b"\r\nsaas-token: t" in head.lower()
        assert b"\r\nuser-agent: session-gateway\r\n" in head.lower()
        assert body == b'{"a":1}'

    async def test_carries_no_cookie_of_the_answer_before(self) -> None:
        came: list[bytes] = []

        async def behave(connection: Connection) -> None:
            for _ in range(2):
                came.append(await connection.request())
                await connection.send(whole(b"", b"set-cookie: who=another; Path=/"))

        async with server(behave) as url, Transport() as transport:
            for _ in range(2):
                await send(url, transport=transport)
        assert len(came) == 2
        assert b"cookie" not in came[1].lower()

    async def test_is_repeated_as_often_as_the_credentials_ask_for(self) -> None:
        async def thrice(exchange: Exchange, deadline: Deadline) -> Answer:
            for number in range(3):
                answer = await exchange(f"Bearer {number}")
                statuses.append(answer.status)
            return answer

        statuses: list[int] = []
        came: list[str] = []

        async def handle(request: httpx.Request) -> httpx.Response:
            came.append(request.headers["authorization"])
            return httpx.Response(200 + len(came), content=b"%d" % len(came))

        http = Http(httpx.MockTransport(handle), "http://upstream.test", timeout=5.0)
        answer = await http.send("GET", "/", deadline=Deadline.after(5), headers={}, auth=thrice)
        assert came == ["Bearer 0", "Bearer 1", "Bearer 2"]
        assert statuses == [201, 202, 203]
        assert (answer.status, answer.body) == (203, b"3")

    async def test_is_not_sent_when_the_credentials_cannot_be_had(self) -> None:
        async def refuses(exchange: Exchange, deadline: Deadline) -> Answer:
            raise SessionNotFound("any error of the tree")

        http = Http(httpx.MockTransport(lambda request: pytest.fail("sent")), "http://upstream.test", timeout=5.0)
        with pytest.raises(SessionNotFound):
            await http.send("GET", "/", deadline=Deadline.after(5), headers={}, auth=refuses)

    async def test_is_not_sent_when_the_deadline_has_passed(self) -> None:
        sent: list[httpx.Request] = []

        async def handle(request: httpx.Request) -> httpx.Response:
            sent.append(request)
            return httpx.Response(200)

        http = Http(httpx.MockTransport(handle), "http://upstream.test", timeout=5.0)
        with contextlib.suppress(UpstreamTimeout):
            await http.send("PUT", "/", deadline=Deadline.after(-1), headers={})
        assert sent == []


BROKEN: dict[str, bytes] = {
    "before anything": b"",
    "in the status line": b"HTTP/1.1 20",
    "in the headers": b"HTTP/1.1 200 OK\r\ncontent-le",
    "after the headers": b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n",
    "in the body": b'HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{"a"',
    "in a chunk": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab",
    "before the last chunk": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n",
    "speaking another protocol": b"SSH-2.0-OpenSSH_9.6\r\n",
    "with a status that is none": b"HTTP/1.1 what OK\r\n\r\n",
    "with headers that are none": b"HTTP/1.1 200 OK\r\n\x00: \x00\r\n\r\n",
    "with endless headers": b"HTTP/1.1 200 OK\r\nx: " + b"x" * 300_000,
}


class TestABrokenConnection:
    @pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN.keys())
    async def test_is_upstream_unavailable_wherever_it_breaks(self, answer: bytes) -> None:
        async with server(once(answer)) as url:
            with pytest.raises(UpstreamUnavailable) as caught:
                await send(url)
        assert type(caught.value) is UpstreamUnavailable, "the request may have been carried out"

    async def test_is_upstream_unavailable_when_the_request_cannot_be_written(self) -> None:
        async def behave(connection: Connection) -> None:
            connection._writer.transport.abort()

        async with server(behave) as url, Transport() as transport:
            with pytest.raises(UpstreamUnavailable):
                await Http(transport, url, timeout=5.0).send(
                    "PUT", "/", deadline=Deadline.after(5), headers={}, content=b"x" * 5_000_000
                )

    async def test_is_followed_by_a_new_one(self) -> None:
        answers = iter([b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n", whole(b"fine")])

        async def behave(connection: Connection) -> None:
            await once(next(answers))(connection)

        async with server(behave) as url, Transport() as transport:
            with pytest.raises(UpstreamUnavailable):
                await send(url, transport=transport)
            assert (await send(url, transport=transport)).body == b"fine"


class TestNoConnection:
    async def test_is_upstream_unreachable_when_it_is_refused(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        with pytest.raises(UpstreamUnreachable):
            await send(f"http://127.0.0.1:{port}")

    async def test_is_upstream_unreachable_when_the_other_side_speaks_no_tls(self) -> None:
        async with server(lambda connection: connection.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as url:
            with pytest.raises(UpstreamUnreachable):
                await send(url.replace("http://", "https://"))

    async def test_is_upstream_unreachable_when_it_is_not_made_in_time(self) -> None:
        async with (
            server(lambda connection: connection.closed_by_peer()) as url,
            Transport(connect_timeout=0.2) as transport,
        ):
            with pytest.raises((UpstreamTimeout, UpstreamUnreachable)) as caught:
                await send(url.replace("http://", "https://"), transport=transport)
        assert type(caught.value) is UpstreamUnreachable, "nothing was sent"

    @pytest.mark.parametrize(
        "error",
        [httpx.ConnectError("x"), httpx.ConnectTimeout("x"), httpx.PoolTimeout("x")],
        ids=type,
    )
    async def test_is_upstream_unreachable_by_whatever_error(self, error: httpx.TransportError) -> None:
        assert type(await _error_of(error)) is UpstreamUnreachable


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (httpx.ReadTimeout, UpstreamTimeout),
        (httpx.WriteTimeout, UpstreamTimeout),
        (httpx.ReadError, UpstreamUnavailable),
        (httpx.WriteError, UpstreamUnavailable),
        (httpx.CloseError, UpstreamUnavailable),
        (httpx.RemoteProtocolError, UpstreamUnavailable),
        (httpx.LocalProtocolError, UpstreamUnavailable),
        (httpx.ProxyError, UpstreamUnavailable),
        (httpx.UnsupportedProtocol, UpstreamUnavailable),
        (httpx.DecodingError, UpstreamMalformed),
    ],
)
async def test_every_error_of_the_transport_has_its_meaning(
    error: type[httpx.RequestError], kind: type[GatewayError]
) -> None:
    assert type(await _error_of(error("hush"))) is kind


async def _error_of(error: httpx.RequestError) -> GatewayError:
    def fail(request: httpx.Request) -> httpx.Response:
        raise error

    with pytest.raises(GatewayError) as caught:
        await send("http://upstream.test", transport=httpx.MockTransport(fail))
    assert caught.value.__cause__ is error
    assert "hush" not in str(caught.value)
    return caught.value


class TestAMalformedAnswer:
    @pytest.mark.parametrize("encoding", [b"gzip", b"gzip, gzip"])
    async def test_is_one_that_is_not_in_the_encoding_it_names(self, encoding: bytes) -> None:
        async with server(once(whole(b'{"a":1}', b"content-encoding: " + encoding))) as url:
            with pytest.raises(UpstreamMalformed):
                await send(url)

    async def test_is_one_that_is_larger_than_may_be(self) -> None:
        async with server(once(whole(b"x" * (MAX_BODY + 1)))) as url:
            with pytest.raises(UpstreamMalformed):
                await send(url)

    async def test_is_one_without_end_of_which_no_more_is_read_than_may_be(self) -> None:
        sent = 0
        gone = asyncio.Event()

        async def behave(connection: Connection) -> None:
            nonlocal sent
            await connection.request()
            await connection.send(b"HTTP/1.1 200 OK\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                while sent < 10 * MAX_BODY:
                    await connection.send(b"x" * 65_536)
                    sent += 65_536
            gone.set()

        async with server(behave) as url:
            with pytest.raises(UpstreamMalformed):
                await send(url)
            await asyncio.wait_for(gone.wait(), 3)
        assert sent < 4 * MAX_BODY

    @pytest.mark.parametrize("sizes", [[2 * MAX_BODY], [1, MAX_BODY], [MAX_BODY, 1]])
    async def test_is_one_that_grows_too_large_when_it_is_decoded(self, sizes: list[int]) -> None:
        bomb = b"".join(gzip.compress(bytes(each)) for each in sizes)
        async with server(once(whole(bomb, b"content-encoding: gzip"))) as url:
            with pytest.raises(UpstreamMalformed):
                await send(url)

    @pytest.mark.parametrize("times", [1, 2])
    async def test_is_not_decoded_any_further_than_may_be_read(self, times: int) -> None:
        """A few KB that were compressed twice can stand for more than there is memory."""
        bomb = bytes(10 * MAX_BODY)
        for _ in range(times):
            bomb = gzip.compress(bomb)
        async with server(once(whole(bomb, b"content-encoding: " + b", ".join([b"gzip"] * times)))) as url:
            tracemalloc.start()
            try:
                with pytest.raises(UpstreamMalformed):
                    await send(url)
                assert tracemalloc.get_traced_memory()[1] < 4 * MAX_BODY
            finally:
                tracemalloc.stop()

    @pytest.mark.parametrize(
        "body",
        [
            gzip.compress(b'{"a":1}')[:-5],
            gzip.compress(b'{"a":1}') + gzip.compress(b" ")[:-5],
            gzip.compress(b'{"a":1}') + b"}",
            gzip.compress(b'{"a":1}') + gzip.compress(b" ") * 200,
        ],
        ids=["the end is missing", "the end of another is missing", "more comes after it", "of very many members"],
    )
    async def test_is_one_that_is_compressed_otherwise_than_may_be(self, body: bytes) -> None:
        async with server(once(whole(body, b"content-encoding: gzip"))) as url:
            with pytest.raises(UpstreamMalformed):
                await send(url)


class TestTime:
    @pytest.mark.parametrize("before", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nab"], ids=["head", "body"])
    @pytest.mark.parametrize("by", ["time-out", "deadline"])
    async def test_ends_an_exchange_and_its_connection_while_upstream_hangs(self, before: bytes, by: str) -> None:
        closed = asyncio.Event()

        async def behave(connection: Connection) -> None:
            await connection.request()
            await connection.send(before)
            if await connection.closed_by_peer():
                closed.set()

        async with server(behave) as url, Transport() as transport:
            timeout, deadline = (0.5, Deadline.never()) if by == "time-out" else (5.0, Deadline.after(0.5))
            with pytest.raises(UpstreamTimeout):
                await send(url, transport=transport, timeout=timeout, deadline=deadline)
            await asyncio.wait_for(closed.wait(), 3)

    async def test_ends_an_exchange_that_trickles_on_and_on(self) -> None:
        async def behave(connection: Connection) -> None:
            await connection.request()
            await connection.send(b"HTTP/1.1 200 OK\r\n\r\n")
            while True:
                await connection.send(b"x")
                await asyncio.sleep(0.02)

        async with server(behave) as url:
            async with asyncio.timeout(3):
                with pytest.raises(UpstreamTimeout):
                    await send(url, timeout=0.2)

    async def test_ends_a_flow_of_several_exchanges_by_the_deadline(self) -> None:
        async def endless(exchange: Exchange, deadline: Deadline) -> Answer:
            while True:
                await exchange("Bearer hush")

        async def handle(request: httpx.Request) -> httpx.Response:
            await asyncio.sleep(0)
            return httpx.Response(401)

        http = Http(httpx.MockTransport(handle), "http://upstream.test", timeout=5.0)
        async with asyncio.timeout(3):
            with pytest.raises(UpstreamTimeout):
                await http.send("GET", "/", deadline=Deadline.after(0.05), headers={}, auth=endless)


class Stream(httpx.AsyncByteStream):
    """A body that never ends, and tells whether it was closed."""

    def __init__(self, chunk: bytes = b"") -> None:
        self._chunk = chunk
        self.reading = asyncio.Event()
        self.is_closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self.reading.set()
        while self._chunk:
            yield self._chunk
        await asyncio.Event().wait()

    async def aclose(self) -> None:
        self.is_closed = True


class TestTheResponse:
    @staticmethod
    def _http(stream: Stream, **response: Any) -> Http:
        return Http(
            httpx.MockTransport(lambda request: httpx.Response(200, stream=stream, **response)),
            "http://upstream.test",
            timeout=5.0,
        )

    async def test_is_closed_when_the_deadline_passes(self) -> None:
        stream = Stream()
        with pytest.raises(UpstreamTimeout):
            await self._http(stream).send("GET", "/", deadline=Deadline.after(0.05), headers={})
        assert stream.is_closed

    async def test_is_closed_when_the_caller_goes_away(self) -> None:
        stream = Stream()
        call = asyncio.ensure_future(self._http(stream).send("GET", "/", deadline=Deadline.never(), headers={}))
        await asyncio.wait_for(stream.reading.wait(), 3)
        call.cancel()
        await asyncio.wait([call], timeout=3)
        assert call.cancelled()
        assert stream.is_closed

    async def test_is_closed_when_it_is_too_large(self) -> None:
        stream = Stream(b"x" * 1_000_000)
        with pytest.raises(UpstreamMalformed):
            await self._http(stream).send("GET", "/", deadline=Deadline.never(), headers={})
        assert stream.is_closed

    async def test_is_closed_when_it_cannot_be_decoded(self) -> None:
        stream = Stream(b"no gzip")
        with pytest.raises(UpstreamMalformed):
            await self._http(stream, headers={"content-encoding": "gzip"}).send(
                "GET", "/", deadline=Deadline.never(), headers={}
            )
        assert stream.is_closed
