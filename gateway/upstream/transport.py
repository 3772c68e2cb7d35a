"""The way out: an `httpx.AsyncBaseTransport` over aiohttp's client.

Nothing is done that was not asked for: no redirect is followed, no cookie kept, no proxy of the environment obeyed, no
answer decoded, nothing sent again. Every error says truly whether a request may have reached upstream.
"""

from __future__ import annotations

import ssl
from functools import lru_cache
from io import BytesIO
from typing import TYPE_CHECKING, Final

import aiohttp
import httpx
from yarl import URL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path
    from types import TracebackType
    from typing import Self

__all__ = ["MAX_CONNECTIONS", "Transport"]

MAX_CONNECTIONS: Final = 256
"""At a time, in one process."""
_IDLE: Final = 30.0
"""Seconds for which an unused connection is kept: less than what servers and load balancers have (60 and more), so
that it is we who close it, and not they while a request is on its way."""
_SMALL: Final = 1_048_576
"""Bytes that aiohttp writes in one piece without a warning."""


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
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._max_connections, keepalive_timeout=_IDLE, ssl=self._ssl),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=self._timeout,
            auto_decompress=False,
            trust_env=False,
            skip_auto_headers=("user-agent", "accept", "accept-encoding", "content-type"),
            middlewares=(_translating,),
        )
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
        if self._session is not None:
            await self._session.close()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send, and come back with the answer's head. Raises httpx.TransportError."""
        if self._session is None:
            raise RuntimeError("the transport has not been entered")
        stream = request.stream
        content = b"".join(stream) if isinstance(stream, httpx.ByteStream) else await request.aread()
        response = await self._session.request(
            request.method,
            _url(request),
            headers=[(name.decode("ascii"), value.decode("latin-1")) for name, value in request.headers.raw],
            data=(content if len(content) <= _SMALL else BytesIO(content)) if content else None,
            allow_redirects=False,
        )
        answer = httpx.Response(response.status, headers=response.raw_headers, stream=_Body(response), request=request)
        answer.headers.encoding = "latin-1"  # else httpx finds out which it is, at every look
        return answer


def _url(request: httpx.Request) -> URL:
    """Its URL, or else its origin with the path and query that go along as an extension."""
    target: bytes | None = request.extensions.get("target")
    if target is None:
        return URL(str(request.url), encoded=True)
    if b"?" in target:
        return URL(f"{request.url}{target[1:].decode()}", encoded=True)
    url = request.url
    return _origin(url.scheme, url.host, url.port).with_path(target.decode(), encoded=True)


@lru_cache(maxsize=16)
def _origin(scheme: str, host: str, port: int | None) -> URL:
    return URL.build(scheme=scheme, host=host, port=port)


async def _translating(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Turn aiohttp's errors into httpx's below its session, which would send GET, PUT and DELETE again after some."""
    try:
        return await send(request)
    except aiohttp.ClientError as error:
        raise _meaning(error) from error


class _Body(httpx.AsyncByteStream):
    """Its own iterator: what has come already is read without a wait, as all of most answers is."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self._content = response.content

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        content = self._content
        if content.at_eof():
            raise StopAsyncIteration
        try:
            return content.read_nowait() if content.is_eof() else await content.readany()
        except aiohttp.ClientError as error:
            raise _meaning(error) from error

    async def aclose(self) -> None:
        """Close the connection, unless the body was read to its end: then it has been given back."""
        if not self._content.at_eof():
            self._response.close()


_MEANINGS: Final[tuple[tuple[type[aiohttp.ClientError], type[httpx.TransportError]], ...]] = (
    (aiohttp.ConnectionTimeoutError, httpx.ConnectTimeout),
    (aiohttp.ServerTimeoutError, httpx.ReadTimeout),
    (aiohttp.ClientConnectorError, httpx.ConnectError),
    (aiohttp.InvalidURL, httpx.UnsupportedProtocol),
    (aiohttp.ClientResponseError, httpx.RemoteProtocolError),
)
"""First come, first served: from the special to the general."""


def _meaning(error: aiohttp.ClientError) -> httpx.TransportError:
    """What is none of the above came when the request may have been on its way."""
    return next((ours for theirs, ours in _MEANINGS if isinstance(error, theirs)), httpx.ReadError)(str(error))
