"""Upstream through a proxy: real tunnels, with TLS inside."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx
import pytest
from access.certificates import HERE, Authority, Files
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import SecretStr

from gateway.configuration import load_settings
from gateway.proxy import Proxy
from gateway.settings import ConfigurationError
from gateway.upstream.transport import Transport
from waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

TUNNEL = b"HTTP/1.1 200 Connection established\r\nvia: proxy\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
TENANTS = {"acme": {"client_id": "id", "client_secret": "secret"}}


class Other:
    """A proxy: it answers as it is told to, and hands on whatever comes then if that makes a tunnel."""

    def __init__(self, answer: bytes, *, waits: bool) -> None:
        self._answer = answer
        self._waits = waits
        self.port = 0
        self.heads: list[bytes] = []
        self.closed = 0

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            self.heads.append(await reader.readuntil(b"\r\n\r\n"))
            for each in (self._answer[:7], self._answer[7:]):  # as it may come
                writer.write(each)
                await writer.drain()
                await asyncio.sleep(0.01)
            if self._answer == TUNNEL:
                host, _, port = self.heads[-1].split()[1].decode().rpartition(":")
                there, on = await asyncio.open_connection(host, int(port))
                await asyncio.gather(hand_on(reader, on), hand_on(there, writer))
            elif self._waits:
                await reader.read()
        self.closed += 1


async def hand_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while part := await reader.read(65_536):
            writer.write(part)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def proxying(answer: bytes = TUNNEL, *, waits: bool = False) -> AsyncIterator[Other]:
    proxy = Other(answer, waits=waits)
    async with await asyncio.start_server(proxy.connected, "127.0.0.1", 0) as listening:
        proxy.port = listening.sockets[0].getsockname()[1]
        yield proxy


class Upstream:
    def __init__(self) -> None:
        self.url = ""
        self.requests: list[bytes] = []

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                self.requests.append(await reader.readuntil(b"\r\n\r\n"))
                writer.write(OK)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
async def upstream(authority: Authority, tmp_path: Path) -> AsyncIterator[Upstream]:
    files = Files.of(tmp_path, authority.issue(*HERE))
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files.certificate, files.key)
    server = Upstream()
    async with await asyncio.start_server(server.connected, "127.0.0.1", 0, ssl=context) as listening:
        server.url = f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}/x"
        yield server


def through(proxy: Other, folder: Path, *, user: str = "", connect_timeout: float = 3.0) -> Transport:
    url = SecretStr(f"http://{user}127.0.0.1:{proxy.port}")
    return Transport(proxy=Proxy.of(url), ca_file=folder / "ca.pem", connect_timeout=connect_timeout)


async def send(transport: Transport, url: str) -> bytes:
    response = await transport.handle_async_request(httpx.Request("GET", url, headers={"authorization": "Bearer hush"}))
    return await response.aread()


async def test_requests_go_through_a_tunnel_that_is_kept(upstream: Upstream, tmp_path: Path) -> None:
    async with proxying() as proxy:
        async with through(proxy, tmp_path) as transport:
            for _ in range(3):
                assert await send(transport, upstream.url) == b"ok"
        await eventually(lambda: proxy.closed == 1)
    there = upstream.url.removeprefix("https://").removesuffix("/x").encode()
    assert proxy.heads == [b"CONNECT %b HTTP/1.1\r\nhost: %b\r\n\r\n" % (there, there)]
    assert len(upstream.requests) == 3


async def test_the_proxy_sees_who_asks_and_upstream_does_not(upstream: Upstream, tmp_path: Path) -> None:
    async with proxying() as proxy, through(proxy, tmp_path, user="me%40here:p%3Ass@") as transport:
        assert await send(transport, upstream.url) == b"ok"
    (line,) = (each for each in proxy.heads[0].split(b"\r\n") if each.startswith(b"proxy-authorization: Basic "))
    assert base64.b64decode(line.rpartition(b" ")[2]) == b"me@here:p:ss"
    assert b"hush" not in proxy.heads[0]
    assert b"proxy" not in upstream.requests[0]


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n", "refuses with status 407"),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\nno such host", "refuses with status 502"),
        (b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:9/\r\n\r\n", "refuses with status 302"),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "no HTTP"),
        (b"HTTP/1.1 2000 OK\r\n\r\n", "no HTTP"),
        (b"HTTP/1.1 200 OK\r\n", "has ended the connection"),
        (TUNNEL + b"HTTP/1.1 200 OK\r\n\r\n", "says more"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"x" * 300_000, "too large"),
    ],
    ids=["407", "502", "302", "ssh", "odd", "cut", "more", "endless"],
)
async def test_a_proxy_that_makes_no_tunnel_is_no_connection(
    answer: bytes, problem: str, upstream: Upstream, tmp_path: Path
) -> None:
    async with proxying(answer) as proxy, through(proxy, tmp_path, user="me:canary@") as transport:
        with pytest.raises(httpx.ConnectError, match=problem) as caught:
            await send(transport, upstream.url)
        assert "canary" not in repr(caught.value)
        await eventually(lambda: proxy.closed == 1)
    assert upstream.requests == []


async def test_a_proxy_that_says_nothing_is_given_up_and_left(upstream: Upstream, tmp_path: Path) -> None:
    async with (
        proxying(b"HTTP/1.1 200", waits=True) as proxy,
        through(proxy, tmp_path, connect_timeout=0.3) as transport,
    ):
        with pytest.raises(httpx.ConnectTimeout):
            await send(transport, upstream.url)
        await eventually(lambda: proxy.closed == 1)


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("http://proxy.example", "proxy.example", 80),
        ("http://proxy.example:3128/", "proxy.example", 3128),
        ("http://me:canary@[::1]:8080", "::1", 8080),
    ],
)
def test_a_proxy_is_told_by_its_url(url: str, host: str, port: int) -> None:
    settings = load_settings(None, {"tenants": TENANTS, "upstream": {"proxy": url}})
    assert settings.upstream.proxy is not None
    proxy = Proxy.of(settings.upstream.proxy)
    assert (proxy.host, proxy.port) == (host, port)
    assert "canary" not in f"{settings!r} {proxy!r} {settings.model_dump_json()}"


@pytest.mark.parametrize(
    "url",
    [
        "https://canary@proxy.example:3128",
        "socks5://canary@proxy.example",
        "proxy.example:canary",
        "http://",
        "http://proxy.example:canary",
        "http://proxy.example:99999",
        "http://canary@proxy.example/path",
        "http://canary@proxy.example?x",
        "http://[canary",
        "http://canäry.example",
    ],
)
def test_what_is_no_proxy_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(None, {"tenants": TENANTS, "upstream": {"proxy": url}})
    assert caught.value.problems == ("upstream.proxy: must be http://[user:password@]host[:port]",)


@given(st.text())
@example(" a")
@example("a b")
@example("a\r\n")
def test_any_text_is_a_proxy_or_is_refused(text: str) -> None:
    try:
        proxy = Proxy.of(SecretStr(f"http://{text}"))
    except ValueError:
        return
    assert re.fullmatch(r"[\w.:-]+", proxy.host, re.ASCII)
