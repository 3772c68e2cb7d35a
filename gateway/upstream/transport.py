"""The way out: an `httpx.AsyncBaseTransport` over aiohttp's connections.

Its connector makes, keeps and bounds connections, with TLS, and its parser reads answers. Its session, request and
response are left out: they are three fifths of what an exchange costs, and for what a gateway must not do. So nothing
is done that was not asked for: no redirect is followed, no cookie kept, no proxy of the environment obeyed, no answer
decoded, nothing sent again. Every error says truly whether a request may have reached upstream.
"""

from __future__ import annotations

import ssl
from functools import cached_property, partial
from typing import TYPE_CHECKING, Final

import aiohttp
import httpx
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from aiohttp.client_proto import ResponseHandler
    from aiohttp.connector import Connection
    from aiohttp.http import RawResponseMessage
    from aiohttp.streams import StreamReader

__all__ = ["MAX_CONNECTIONS", "Transport"]

MAX_CONNECTIONS: Final = 256
"""At a time, in one process."""
_IDLE: Final = 30.0
"""Seconds for which an unused connection is kept: less than what servers and load balancers have (60 and more), so
that it is we who close it, and not they while a request is on its way."""
_CONTROL: Final = bytes([*range(9), *range(10, 32), 127])
"""What neither a request's line nor a field may hold (RFC 9110, section 5.5): it could end one, and begin another."""
_IDENTITY: Final = {"identity": True}
_NO_FIELDS: Final = httpx.Headers()


class Transport(httpx.AsyncBaseTransport):
    """Connections to upstream, kept between requests. Must be entered on the event loop that uses it, and left there.

    `connect_timeout` bounds the wait for a free connection and the making of one together, in seconds. Time-outs of a
    request (`extensions["timeout"]`) are left to whoever sends it: to cancel it closes its connection. `ca_file` holds
    certificates of CAs, in PEM, that are trusted besides the system's.
    """

    def __init__(
        self, *, connect_timeout: float = 3.0, ca_file: Path | None = None, max_connections: int = MAX_CONNECTIONS
    ) -> None:
        self._timeout = aiohttp.ClientTimeout(total=None, connect=connect_timeout)
        self._ssl = ssl.create_default_context()
        if ca_file is not None:
            self._ssl.load_verify_locations(ca_file)
        self._max_connections = max_connections
        self._connector: aiohttp.TCPConnector | None = None
        self._origins: dict[tuple[str, str, int | None], aiohttp.ClientRequest] = {}
        """Of each origin a request that is never sent: it is how aiohttp is told where to connect to."""

    async def __aenter__(self) -> Self:
        self._connector = aiohttp.TCPConnector(limit=self._max_connections, keepalive_timeout=_IDLE, ssl=self._ssl)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections, those in use too."""
        if self._connector is not None:
            await self._connector.close()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, whose body is bytes, and come back with the answer's head.

        Raises httpx.TransportError; ValueError for what must not stand in a request; TypeError for a
        body that is not bytes.
        """
        head, body = _head(request), _body(request)
        connection = await self._connection(request.url)
        try:
            protocol = _write(connection, head, body)
            message, content = await protocol.read()
            while message.code < 200 and message.code != 101:  # it only announces another (RFC 9110, section 15.2)
                message, content = await protocol.read()
            # Most answers are all there by now.
            stream = httpx.ByteStream(content.read_nowait()) if content.is_eof() else _Body(connection, content)
        except BaseException as error:
            connection.close()
            if isinstance(error, HttpProcessingError):
                raise httpx.RemoteProtocolError(error.message) from error
            if isinstance(error, aiohttp.ClientError):
                raise httpx.ReadError(str(error)) from error
            raise
        content.on_eof(partial(_give_back, connection))
        return _Response(message, stream, request)

    async def _connection(self, url: httpx.URL) -> Connection:
        """One that was kept, or a new one."""
        if self._connector is None:
            raise RuntimeError("the transport has not been entered")
        try:
            return await self._connector.connect(self._to(url), traces=[], timeout=self._timeout)
        except TimeoutError as error:
            raise httpx.ConnectTimeout(f"no connection to {url.host} in time") from error
        except aiohttp.ClientError as error:
            raise httpx.ConnectError(str(error)) from error

    def _to(self, url: httpx.URL) -> aiohttp.ClientRequest:
        origin = (url.scheme, url.host, url.port)
        if origin not in self._origins:
            if url.scheme not in {"http", "https"}:
                raise httpx.UnsupportedProtocol(f"{url.scheme!r} is neither http nor https")
            self._origins[origin] = aiohttp.ClientRequest("GET", URL(str(url.join("/"))))
        return self._origins[origin]


def _head(request: httpx.Request) -> bytes:
    target: bytes = request.extensions.get("target") or request.url.raw_path
    line = b"%b %b HTTP/1.1" % (request.method.encode("ascii"), target)
    fields = [*map(b": ".join, request.headers.raw)]
    held = b"".join((line, *fields))
    if line.count(b" ") != 2 or len(held.translate(None, _CONTROL)) != len(held):
        raise ValueError("a request's method, target or fields hold what would end them")
    return b"\r\n".join((line, *fields, b"\r\n"))


def _body(request: httpx.Request) -> bytes:
    if not isinstance(request.stream, httpx.ByteStream):
        raise TypeError("a request's body has to be bytes")
    body = b"".join(request.stream)
    if body and request.headers.get("content-length") != str(len(body)):
        raise ValueError("a request's body needs its content-length")
    return body


def _write(connection: Connection, head: bytes, body: bytes) -> ResponseHandler:
    protocol, transport = connection.protocol, connection.transport
    if protocol is None or transport is None or protocol.should_close:
        raise httpx.ConnectError("the connection has ended, or an answer came on it that nobody had asked for")
    protocol.set_response_params(read_until_eof=True, auto_decompress=False)
    transport.writelines((head, body) if body else (head,))
    return protocol


def _give_back(connection: Connection) -> None:
    """Keep it, unless the answer has come before all of the request was on its way."""
    transport = connection.transport
    if transport is not None and transport.get_write_buffer_size():
        connection.close()
    else:
        connection.release()


class _Response(httpx.Response):
    """An answer whose fields are read when somebody looks at them, as nobody does at those of most answers.

    `extensions["identity"]` tells beforehand that the content is in no encoding (RFC 9110, section 8.4).
    """

    def __init__(self, message: RawResponseMessage, stream: httpx.ByteStream | _Body, request: httpx.Request) -> None:
        encoded = "content-encoding" in message.headers
        extensions = None if encoded else _IDENTITY
        super().__init__(message.code, headers=_NO_FIELDS, stream=stream, request=request, extensions=extensions)
        self._fields = message.raw_headers
        del self.headers

    @cached_property
    def headers(self) -> httpx.Headers:  # type: ignore[override]  # an attribute there, which may be set here too
        headers = httpx.Headers(self._fields)
        headers.encoding = "latin-1"  # else httpx finds out which it is, at every look
        return headers


class _Body(httpx.AsyncByteStream):
    """Its own iterator: what has come already is read without a wait."""

    def __init__(self, connection: Connection, content: StreamReader) -> None:
        self._connection = connection
        self._content = content

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        content = self._content
        if content.at_eof():
            raise StopAsyncIteration
        try:
            return content.read_nowait() if content.is_eof() else await content.readany()
        except aiohttp.ClientError as error:
            raise httpx.ReadError(str(error)) from error

    async def aclose(self) -> None:
        """Close the connection, unless the body was read to its end: then it has been given back."""
        if not self._content.at_eof():
            self._connection.close()
