"""Upstream by HTTP/2, over real sockets and TLS: what is agreed on, shared, bounded, refused, and given up."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from typing import TYPE_CHECKING

import httpx
import pytest
from access.certificates import HERE, Authority, Files
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from http2_server import End, serving
from hyperframe.frame import DataFrame, Frame, GoAwayFrame, HeadersFrame, PingFrame, RstStreamFrame, SettingsFrame

from gateway.proxy import Proxy
from gateway.upstream.http2 import Http2Connection
from gateway.upstream.transport import Transport
from waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from http2_server import Behave, Request, Server

METHODS = ["GET", "PUT", "POST", "PATCH", "DELETE"]


class Tls:
    def __init__(self, folder: Path) -> None:
        authority = Authority()
        self.ca = folder / "ca.pem"
        self.ca.write_bytes(authority.pem)
        self._files = Files.of(folder, authority.issue(*HERE))

    def context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self._files.certificate, self._files.key)
        return context

    def transport(self) -> Transport:
        return Transport(ca_file=self.ca, http2=Http2Connection)

    @contextlib.asynccontextmanager
    async def serving(
        self, behave: Behave, settings: dict[SettingCodes, int] | None = None, early: Behave | None = None
    ) -> AsyncIterator[tuple[Server, Transport]]:
        async with (
            serving(behave, self.context(), settings, early) as server,
            self.transport() as transport,
        ):
            yield server, transport


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    return Tls(tmp_path_factory.mktemp("tls"))


def answers(request: Request) -> None:
    request.answer()


def nothing(_: Request) -> None:
    """For longer than any test."""


async def send(transport: Transport, url: str, method: str = "GET", content: bytes | None = None) -> bytes:
    async with asyncio.timeout(10):
        response = await transport.handle_async_request(httpx.Request(method, url, content=content))
        try:
            return await response.aread()
        finally:
            await response.aclose()


class TestAgreement:
    async def test_is_on_http2_where_upstream_has_it(self, tls: Tls) -> None:
        async with tls.serving(answers) as (server, transport):
            answer = await transport.handle_async_request(httpx.Request("GET", server.url))
            assert (answer.status_code, answer.http_version, await answer.aread()) == (200, "HTTP/2", b"ok")

    @pytest.mark.parametrize("offers", [["http/1.1"], None], ids=["HTTP/1.1", "nothing"])
    async def test_is_on_http_1_where_it_has_not(self, tls: Tls, offers: list[str] | None) -> None:
        """And requests at a time have as many connections, made side by side."""
        arrived = 0

        async def answers_when_all_are_there(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal arrived
            with contextlib.closing(writer), contextlib.suppress(ConnectionError):
                await reader.readuntil(b"\r\n\r\n")
                arrived += 1
                await eventually(lambda: arrived == 4)
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                await reader.read()

        context = tls.context()
        if offers is not None:
            context.set_alpn_protocols(offers)
        listening = await asyncio.start_server(answers_when_all_are_there, "127.0.0.1", 0, ssl=context)
        url = f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}/x"
        async with tls.transport() as transport:
            assert await asyncio.gather(*(send(transport, url) for _ in range(4))) == [b"ok"] * 4
        listening.close()

    async def test_is_not_on_http2_unless_it_is_asked_for(self, tls: Tls) -> None:
        async with serving(answers, tls.context()) as server, Transport(ca_file=tls.ca) as transport:
            with pytest.raises(httpx.TransportError):
                await send(transport, server.url)
            assert server.requests == []

    async def test_is_on_http_1_without_tls(self) -> None:
        heads = []

        async def answers_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.closing(writer), contextlib.suppress(ConnectionError):
                heads.append(await reader.readuntil(b"\r\n\r\n"))
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                await reader.read()

        listening = await asyncio.start_server(answers_once, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/x"
        async with Transport(http2=Http2Connection) as transport:
            answer = await transport.handle_async_request(httpx.Request("GET", url))
            assert (answer.http_version, await answer.aread()) == ("HTTP/1.1", b"ok")
        listening.close()
        assert heads[0].startswith(b"GET /x HTTP/1.1\r\n")


class TestARequest:
    async def test_comes_as_it_was_sent(self, tls: Tls) -> None:
        async with tls.serving(answers) as (server, transport):
            for method in METHODS:
                sent = httpx.Request(
                    method, server.url, headers={"X-Odd": "a: b", "connection": "keep-alive"}, content=b"{}"
                )
                sent.extensions["target"] = b"/session-context/a%2Fb?q=1"
                await (await transport.handle_async_request(sent)).aread()
        assert [each.headers[":method"] for each in server.requests] == METHODS
        for each in server.requests:
            assert each.headers == {
                ":method": each.headers[":method"],
                ":scheme": "https",
                ":authority": httpx.URL(server.url).netloc.decode(),
                ":path": "/session-context/a%2Fb?q=1",
                "x-odd": "a: b",
                "content-length": "2",
            }
            assert each.body == b"{}"

    async def test_whose_body_is_large_comes_whole(self, tls: Tls) -> None:
        """It waits for the windows, those of others do not, and another that needs none is answered meanwhile."""
        bodies = [bytes([number]) * 1_000_000 for number in range(3)]
        async with tls.serving(answers, {SettingCodes.INITIAL_WINDOW_SIZE: 10_000}) as (server, transport):
            await send(transport, server.url)  # from then on, it is known how large windows are
            await asyncio.gather(*(send(transport, server.url, "PUT", b) for b in bodies), send(transport, server.url))
        assert [each.body for each in server.requests[:2]] == [b"", b""]
        assert sorted(each.body for each in server.requests[2:]) == bodies
        assert len(server.ends) == 1

    async def test_whose_answer_comes_before_its_end_is_sent_no_further(self, tls: Tls) -> None:
        async with tls.serving(answers, early=answers) as (server, transport):
            assert await send(transport, server.url, "PUT", b"x" * 5_000_000) == b"ok"
            await eventually(lambda: server.ends[0].resets == [(1, ErrorCodes.CANCEL)])
            server.early = None
            assert await send(transport, server.url) == b"ok"
            assert (len(server.ends), len(server.requests)) == (1, 1)

    async def test_can_be_of_no_more_lines_than_it_has(self, tls: Tls) -> None:
        async with tls.serving(answers) as (server, transport):
            for headers in ({"a": "b\r\nemporix-tenant: c"}, {"a": "b\nc"}):
                with pytest.raises(ValueError, match="request"):
                    await transport.handle_async_request(httpx.Request("GET", server.url, headers=headers))
            assert server.ends == []

    async def test_has_a_token_that_no_table_of_fields_keeps(self, tls: Tls) -> None:
        """Else who can put fields beside it, and see lengths, might guess it (RFC 7541, section 7.1.3)."""
        literal_never_indexed = 0x10
        async with tls.serving(answers) as (server, transport):
            await send(transport, server.url)
            server.ends[0].heard.clear()
            sent = httpx.Request("GET", server.url, headers={"authorization": "Bearer canary"})
            await (await transport.handle_async_request(sent)).aread()
        assert server.requests[1].headers["authorization"] == "Bearer canary"
        # The name is the table's 23rd: four bits for the kind, of the number as much as there is room, and the rest.
        assert bytes([literal_never_indexed | 0x0F, 23 - 0x0F]) in b"".join(server.ends[0].heard)


class TestAnAnswer:
    @pytest.mark.parametrize("size", [0, 1, 20_000, 3_000_000])
    async def test_comes_whole(self, tls: Tls, size: int) -> None:
        def much(request: Request) -> None:
            request.answer(b"x" * size, whole=size > 0)
            if not size:
                request.end.h2.end_stream(request.stream)

        async with tls.serving(much) as (server, transport):
            for _ in range(40):
                assert len(await send(transport, server.url)) == size
            assert len(server.ends) == 1

    async def test_may_be_announced_and_may_have_a_trailer(self, tls: Tls) -> None:
        def announced(request: Request) -> None:
            request.end.h2.send_headers(request.stream, [(":status", "103"), ("link", "</a>")])
            request.answer(whole=False, x="y")
            request.end.h2.send_headers(request.stream, [("retry-after", "9")], end_stream=True)

        async with tls.serving(announced) as (server, transport):
            answer = await transport.handle_async_request(httpx.Request("GET", server.url))
            assert (answer.status_code, answer.headers.raw, await answer.aread()) == (200, [(b"x", b"y")], b"ok")

    async def test_that_is_encoded_is_decoded_by_httpx(self, tls: Tls) -> None:
        def encoded(request: Request) -> None:
            request.end.h2.send_headers(request.stream, [(":status", "200"), ("content-encoding", "identity, gzip")])
            request.send(b"\x1f\x8b\x08\0\0\0\0\0\0\x03\xcb\xcf\x06\0\x47\xdd\xdc\x79\x02\0\0\0")

        async with tls.serving(encoded) as (server, transport):
            assert await send(transport, server.url) == b"ok"

    async def test_of_which_nobody_reads_more_keeps_nobody_waiting(self, tls: Tls) -> None:
        def much(request: Request) -> None:
            request.answer(b"x" * 1_000_000 if len(server.requests) <= 30 else b"ok")

        async with tls.serving(much) as (server, transport):
            slow = [await transport.handle_async_request(httpx.Request("GET", server.url)) for _ in range(30)]
            for _ in range(3):
                assert await send(transport, server.url) == b"ok"
            assert all(len(body) >= 700_000 for body, _ in server.ends[0].unsent.values()), "as much as was wanted"
            assert [len(await each.aread()) for each in slow] == [1_000_000] * 30
            assert len(server.ends) == 1

    async def test_that_is_reset_is_lost(self, tls: Tls) -> None:
        def resets(request: Request) -> None:
            if request.headers[":method"] == "PUT":
                request.answer(b"o", whole=False)
                request.end.h2.reset_stream(request.stream, ErrorCodes.INTERNAL_ERROR)
            else:
                request.answer()

        async with tls.serving(resets) as (server, transport):
            with pytest.raises(httpx.ReadError, match="INTERNAL_ERROR"):
                await send(transport, server.url, "PUT")
            assert await send(transport, server.url) == b"ok"
            assert len(server.ends) == 1

    async def test_is_lost_with_its_connection(self, tls: Tls) -> None:
        def breaks(request: Request) -> None:
            if len(server.requests) == 3:
                request.end.transport.abort()

        async with tls.serving(breaks) as (server, transport):
            calls = await asyncio.gather(*(send(transport, server.url) for _ in range(3)), return_exceptions=True)
            assert [type(each) for each in calls] == [httpx.ReadError] * 3
            server.behave = answers
            assert await send(transport, server.url) == b"ok"


def head(request: Request, *fields: tuple[str, str], flags: tuple[str, ...] = ("END_HEADERS",)) -> HeadersFrame:
    return HeadersFrame(request.stream, request.end.h2.encoder.encode(fields), flags=list(flags))


NO_ANSWERS = {
    "a body first": lambda request: [DataFrame(request.stream, b"ok")],
    "no status": lambda request: [head(request, ("x", "y"))],
    "a status that is none": lambda request: [head(request, (":status", "2x0"))],
    "a long status": lambda request: [head(request, (":status", "2000"))],
    "a name in capitals": lambda request: [head(request, (":status", "200"), ("X-Y", "z"))],
    "a field of HTTP/1": lambda request: [head(request, (":status", "200"), ("transfer-encoding", "chunked"))],
    "another length": lambda request: [
        head(request, (":status", "200"), ("content-length", "3")),
        DataFrame(request.stream, b"ok", flags=["END_STREAM"]),
    ],
    "endless fields": lambda request: [head(request, (":status", "200"), *[("x" * 15, "y" * 100)] * 1000)],
    "a stream that nobody began": lambda request: [DataFrame(request.stream + 8, b"ok")],
    "a frame that is too large": lambda _: [PingFrame(0, b"x" * 8), DataFrame(1, b"x" * 16_385)],
    "a GOAWAY that is cut short": lambda _: [Raw(b"\0\0\x04\x07\0\0\0\0\0\0\0\0\0")],
    "no HTTP/2": lambda _: [Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")],
}


class Raw(Frame):
    def __init__(self, data: bytes) -> None:
        super().__init__(0)
        self._data = data

    def serialize(self) -> bytes:
        return self._data


@pytest.mark.parametrize("what", NO_ANSWERS.values(), ids=NO_ANSWERS.keys())
async def test_what_is_no_answer_fails_and_closes_the_connection(tls: Tls, what: object) -> None:
    def answers_so(request: Request) -> None:
        assert callable(what)
        request.end.put(*what(request))

    async with tls.serving(answers_so) as (server, transport):
        with pytest.raises(httpx.RemoteProtocolError, match="upstream's answer"):
            await send(transport, server.url)
        await eventually(lambda: server.closed == 1)
        server.behave = answers
        assert await send(transport, server.url) == b"ok"


class TestAConnection:
    async def test_is_one_for_many_requests(self, tls: Tls) -> None:
        """Also where none has been made yet."""
        waiting: list[Request] = []

        def last_first(request: Request) -> None:
            waiting.append(request)
            if len(waiting) == 50:
                for each in reversed(waiting):
                    each.answer(each.headers[":path"].encode())

        async with tls.serving(last_first) as (server, transport):
            paths = [f"/{number}" for number in range(50)]
            got = await asyncio.gather(*(send(transport, server.url[:-2] + path) for path in paths))
            assert got == [each.encode() for each in paths]
            assert len(server.ends) == 1

    async def test_has_as_many_as_upstream_allows(self, tls: Tls) -> None:
        """Which it says before it is asked anything."""
        waiting: list[Request] = []

        def all_at_once(request: Request) -> None:
            waiting.append(request)
            if len(waiting) == 7:
                for each in waiting:
                    each.answer()

        async with tls.serving(all_at_once, {SettingCodes.MAX_CONCURRENT_STREAMS: 3}) as (server, transport):
            assert await asyncio.gather(*(send(transport, server.url) for _ in range(7))) == [b"ok"] * 7
            server.behave = answers
            assert await send(transport, server.url) == b"ok"
            assert len(server.ends) == 3

    async def test_goes_on_when_a_caller_goes_away(self, tls: Tls) -> None:
        def one_in_two(request: Request) -> None:
            if request.headers[":method"] == "GET":
                request.answer()

        async with tls.serving(one_in_two) as (server, transport):
            for number in range(5):
                call = asyncio.create_task(send(transport, server.url, "PUT"))
                await eventually(lambda: len(server.requests) == 2 * number + 1)  # noqa: B023 - waited for here
                call.cancel()
                await asyncio.wait([call], timeout=3)
                assert call.cancelled()
                assert await send(transport, server.url) == b"ok"
            await eventually(lambda: len(server.ends[0].resets) == 5)
            assert {code for _, code in server.ends[0].resets} == {ErrorCodes.CANCEL}
            assert len(server.ends) == 1

    async def test_takes_what_comes_for_callers_who_went_away(self, tls: Tls) -> None:
        """It counts for the connection's window, which would be used up by it some day."""

        def much(request: Request) -> None:
            request.answer(b"x" * 250_000)

        async with tls.serving(much) as (server, transport):
            for _ in range(300):
                answer = await transport.handle_async_request(httpx.Request("GET", server.url))
                await answer.aclose()
            assert len(await send(transport, server.url)) == 250_000
            assert len(server.ends) == 1

    @pytest.mark.parametrize("waits", [0.05, 0.2], ids=["short ones", "one"])
    async def test_on_which_nothing_is_heard_is_asked_no_more(
        self, tls: Tls, monkeypatch: pytest.MonkeyPatch, waits: float
    ) -> None:
        monkeypatch.setattr("gateway.upstream.http2._SILENCE", 0.15)
        async with tls.serving(answers) as (server, transport):
            assert await send(transport, server.url) == b"ok"
            server.behave = nothing
            for _ in range(round(0.2 / waits)):
                assert len(server.ends) == 1
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(send(transport, server.url), waits)
            server.behave = answers
            assert await send(transport, server.url) == b"ok"
            assert len(server.ends) == 2
            await eventually(lambda: server.closed == 1)

    async def test_that_is_slow_on_one_stream_alone_is_kept(self, tls: Tls, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("gateway.upstream.http2._SILENCE", 0.15)

        def one_in_two(request: Request) -> None:
            if request.headers[":method"] == "GET":
                request.answer()

        async with tls.serving(one_in_two) as (server, transport):
            slow = asyncio.create_task(send(transport, server.url, "PUT"))
            for _ in range(10):
                await asyncio.sleep(0.03)
                assert await send(transport, server.url) == b"ok"
            slow.cancel()
            await asyncio.wait([slow])
            assert await send(transport, server.url) == b"ok"
            assert len(server.ends) == 1

    async def test_is_closed_when_it_is_not_used_for_a_while(self, tls: Tls, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("gateway.upstream.connections._UNUSED", 0.3)
        async with tls.serving(answers) as (server, transport):
            for _ in range(8):
                await asyncio.sleep(0.1)
                assert await send(transport, server.url) == b"ok"
                server.ends[0].h2.ping(b"x" * 8)  # that it says something is no use of it
                server.ends[0].flush()
            assert (len(server.ends), server.closed) == (1, 0)
            await eventually(lambda: server.closed == 1)

    async def test_in_use_is_not_closed_after_that_while(self, tls: Tls, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("gateway.upstream.connections._UNUSED", 0.1)
        async with tls.serving(answers) as (server, transport):
            assert await send(transport, server.url) == b"ok"
            server.behave = nothing
            call = asyncio.create_task(send(transport, server.url))
            await asyncio.sleep(0.4)
            server.requests[-1].answer()
            assert await call == b"ok"

    async def test_ends_with_the_transport(self, tls: Tls) -> None:
        async with tls.serving(nothing) as (server, transport):
            calls = [asyncio.create_task(send(transport, server.url)) for _ in range(3)]
            await eventually(lambda: len(server.requests) == 3)
            await transport.aclose()
            done = await asyncio.gather(*calls, return_exceptions=True)
            assert [type(each) for each in done] == [httpx.ReadError] * 3
            await eventually(lambda: server.closed == 1)


async def test_it_goes_through_a_proxys_tunnel(tls: Tls) -> None:
    heads = []

    async def hand_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(ConnectionError):
            while part := await reader.read(65_536):
                writer.write(part)
                await writer.drain()

    async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        host, _, port = heads[-1].split()[1].decode().rpartition(":")
        there, on = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await asyncio.gather(hand_on(reader, on), hand_on(there, writer))

    async with (
        serving(answers, tls.context()) as server,
        await asyncio.start_server(tunnel, "127.0.0.1", 0) as listening,
    ):
        proxy = Proxy("127.0.0.1", listening.sockets[0].getsockname()[1])
        async with Transport(ca_file=tls.ca, proxy=proxy, http2=Http2Connection) as transport:
            for _ in range(3):
                answer = await transport.handle_async_request(httpx.Request("GET", server.url))
                assert (answer.http_version, await answer.aread()) == ("HTTP/2", b"ok")
    assert [head.split()[:2] for head in heads] == [[b"CONNECT", httpx.URL(server.url).netloc]]


class TestAServerThatLeaves:
    """It sends GOAWAY, as servers do that are deployed anew, or that have answered enough (nginx: 1,000 requests)."""

    @staticmethod
    def goaway(last: int) -> GoAwayFrame:
        return GoAwayFrame(0, last_stream_id=last, error_code=ErrorCodes.NO_ERROR, additional_data=b"shutting down")

    @pytest.mark.parametrize("pieces", [1, 2, 30], ids=["whole", "in two", "byte by byte"])
    async def test_answers_what_it_has_taken(self, tls: Tls, pieces: int) -> None:
        async with tls.serving(nothing) as (server, transport):
            calls = [asyncio.create_task(send(transport, server.url)) for _ in range(3)]
            await eventually(lambda: len(server.requests) == 3)
            end = server.ends[0]
            sent = self.goaway(3).serialize()
            size = -(-len(sent) // pieces)
            for at in range(0, len(sent), size):
                end.transport.write(sent[at : at + size])
                await asyncio.sleep(0.005)
            with pytest.raises(httpx.ConnectError, match="not taken"):
                await calls[2]
            server.behave = answers
            assert await send(transport, server.url) == b"ok"
            assert (len(server.ends), server.closed) == (2, 0)
            for each in server.requests[:2]:
                each.answer()
            assert [await each for each in calls[:2]] == [b"ok", b"ok"]
            await eventually(lambda: server.closed == 1)

    async def test_while_nothing_is_under_way_is_left(self, tls: Tls) -> None:
        async with tls.serving(answers) as (server, transport):
            for number in range(1, 4):
                assert await send(transport, server.url) == b"ok"
                server.ends[-1].put(self.goaway(1))
                await eventually(lambda: server.closed == number)  # noqa: B023 - waited for here
            assert len(server.ends) == 3

    async def test_at_once_has_taken_nothing(self, tls: Tls) -> None:
        """Before it has been asked anything. So is it with one that closes the connection."""
        async with tls.serving(answers) as (server, transport):
            made = End.connection_made

            def leaves(end: End, transport: asyncio.BaseTransport) -> None:
                made(end, transport)
                end.put(self.goaway(0))

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(End, "connection_made", leaves)
                with pytest.raises(httpx.ConnectError):
                    await asyncio.wait_for(send(transport, server.url), 5)
            assert await send(transport, server.url) == b"ok"

    @pytest.mark.parametrize("method", METHODS)
    async def test_refuses_and_has_taken_nothing(self, tls: Tls, method: str) -> None:
        def refuses(request: Request) -> None:
            request.end.put(RstStreamFrame(request.stream, error_code=ErrorCodes.REFUSED_STREAM))

        async with tls.serving(refuses) as (server, transport):
            with pytest.raises(httpx.ConnectError, match="not taken"):
                await send(transport, server.url, method, b"{}")
            server.behave = answers
            assert await send(transport, server.url, method, b"{}") == b"ok"
            assert len(server.ends) == 1

    async def test_changes_its_mind_about_how_many_it_takes(self, tls: Tls) -> None:
        async with tls.serving(answers) as (server, transport):
            assert await send(transport, server.url) == b"ok"
            server.ends[0].put(SettingsFrame(0, settings={SettingCodes.MAX_CONCURRENT_STREAMS: 0}))
            await asyncio.sleep(0.05)
            first = await send(transport, server.url)
            assert (first, len(server.ends)) == (b"ok", 2)


async def test_a_socket_that_is_shut_half_way_through_the_handshake_is_no_connection(tls: Tls) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    url = f"https://127.0.0.1:{listening.getsockname()[1]}/x"

    async def shut() -> None:
        connection, _ = await asyncio.get_running_loop().run_in_executor(None, listening.accept)
        connection.close()

    async with tls.transport() as transport:
        shutting = asyncio.create_task(shut())
        with pytest.raises(httpx.ConnectError):
            await send(transport, url)
        await shutting
    listening.close()
