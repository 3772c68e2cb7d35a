"""The transport over real sockets: TLS, kept connections, what is never sent twice, and callers who go away."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx
import pytest
from access.certificates import HERE, Authority, Files

from gateway.settings import ConfigurationError, load_settings
from gateway.upstream.transport import Transport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

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
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if b"content-length" in line]
                self.requests.append(head + await reader.readexactly(int(lengths[0]) if lengths else 0))
                self.arrived.set()
                await self._behave(self, writer)
        self.closed += 1
        writer.close()


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
            async with asyncio.timeout(3):
                while server.closed < server.connections:
                    await asyncio.sleep(0.005)
            await asyncio.sleep(0.01)  # for the end of the connection to come over
        assert len(server.requests) == 3


@pytest.mark.parametrize("method", METHODS)
async def test_nothing_is_sent_twice_when_a_kept_connection_is_closed_under_it(method: str) -> None:
    """aiohttp's session would, for GET, PUT and DELETE. A PUT sent twice finds its version gone by its own doing."""
    async with serving(answers_once) as server, Transport() as transport:
        assert await send(transport, server.url, method) == b"ok"
        with pytest.raises(httpx.ReadError):
            await send(transport, server.url, method, b"{}")
        assert len(server.requests) == 2


async def test_callers_who_go_away_close_their_connections_and_leave_their_places() -> None:
    async with serving(answers_nothing) as server, Transport(max_connections=1) as transport:
        for number in range(1, 6):
            server.arrived.clear()
            call = asyncio.create_task(send(transport, server.url))
            await asyncio.wait_for(server.arrived.wait(), 3)
            call.cancel()
            await asyncio.wait([call], timeout=3)
            assert call.cancelled()
            async with asyncio.timeout(3):
                while server.closed < number:
                    await asyncio.sleep(0.005)
        assert len(server.requests) == 5


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


async def test_an_answer_that_nobody_asked_for_is_given_to_nobody() -> None:
    """It would be the next request's, and all after it would have the one before: other shoppers' sessions."""
    said = asyncio.Event()

    async def answers_again(server: Server, writer: asyncio.StreamWriter) -> None:
        await answers(server, writer)
        if len(server.requests) == 1:
            await asyncio.sleep(0.02)
            writer.write(OK.replace(b"ok", b"no"))
            await writer.drain()
            said.set()

    async with serving(answers_again) as server, Transport() as transport:
        assert await send(transport, server.url) == b"ok"
        await asyncio.wait_for(said.wait(), 3)
        await asyncio.sleep(0.05)  # for it to come over
        with pytest.raises(httpx.ConnectError):
            await send(transport, server.url, "POST", b"{}")
        assert await send(transport, server.url) == b"ok"
        assert (server.connections, len(server.requests)) == (2, 2), "the POST was not sent"


async def test_a_connection_whose_answer_came_too_soon_is_not_used_again() -> None:
    """The rest of the request is on its way yet, and would be read as the next."""
    seen: list[bytes] = []

    async def refuses(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(OK)
        with contextlib.suppress(ConnectionError):
            await asyncio.sleep(0.2)
        writer.close()

    listening = await asyncio.start_server(refuses, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/x"
    async with Transport() as transport:
        assert await send(transport, url, "PUT", b"x" * 20_000_000) == b"ok"
        assert await send(transport, url) == b"ok"
    listening.close()
    assert [head.split()[0] for head in seen] == [b"PUT", b"GET"]


@pytest.mark.parametrize(
    "request_",
    [
        httpx.Request("GET", "http://127.0.0.1:9/", headers={"saas-token": "a\r\nemporix-tenant: b"}),
        httpx.Request("GET", "http://127.0.0.1:9/", headers=[(b"x\nemporix-tenant", b"b")]),
        httpx.Request("GET", "http://127.0.0.1:9/", extensions={"target": b"/a b"}),
        httpx.Request("GET", "http://127.0.0.1:9/", extensions={"target": b"/a\r\nx: b"}),
        httpx.Request("GET /x HTTP/1.1\r\nx:", "http://127.0.0.1:9/"),
        httpx.Request("PUT", "http://127.0.0.1:9/", stream=httpx.ByteStream(b"{}")),
        httpx.Request("PUT", "http://127.0.0.1:9/", headers={"content-length": "1"}, stream=httpx.ByteStream(b"{}")),
    ],
    ids=["value", "name", "space", "target", "method", "no length", "another length"],
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
