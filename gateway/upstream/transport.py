"""The transport to upstream: an `httpx.AsyncBaseTransport` with connections of our own.

httpx's own costs several times as much as the rest of an exchange, and other clients do what a gateway must not. This
one follows no redirects, keeps no cookies, ignores proxies in the environment, decodes no answers and repeats nothing.
Its errors tell reliably whether a request may have reached upstream.
"""

from __future__ import annotations

import ssl
from functools import cached_property
from typing import TYPE_CHECKING, Final

import httpx

from gateway.deadline import Deadline
from gateway.errors import UpstreamTimeout
from gateway.upstream.connections import HTTP_1, HTTP_2, Origin
from gateway.upstream.http1 import Http1Connection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from gateway.proxy import Proxy
    from gateway.upstream.connections import Connection
    from gateway.upstream.incoming import Incoming

__all__ = ["Transport"]

_PORTS: Final = {"http": 80, "https": 443}
_CONTROL: Final = bytes([*range(9), *range(10, 32), 127])
"""Forbidden in a request's line and fields (RFC 9110, section 5.5): they could end one, and begin another."""
_NO_FIELDS: Final = httpx.Headers()


class Transport(httpx.AsyncBaseTransport):
    """Connections to upstream, kept between requests. Belongs to the event loop on which it is first used.

    `connect_timeout` bounds connecting, in seconds. Other timeouts (`extensions["timeout"]` is ignored) and the number
    of concurrent requests are up to the caller: cancelling a request closes its connection, or its stream. `ca_file`
    has CA certificates, in PEM, that are trusted in addition to the system's. `http2` makes connections with HTTP/2, if
    upstream offers it; without it, and without TLS, connections use HTTP/1.1.
    """

    def __init__(
        self,
        *,
        connect_timeout: float = 3.0,
        ca_file: Path | None = None,
        proxy: Proxy | None = None,
        http2: Callable[[Origin], Connection] | None = None,
    ) -> None:
        self._connect_timeout = connect_timeout
        self._proxy = proxy
        self._tls = ssl.create_default_context()
        self._kinds: dict[str, Callable[[Origin], Connection]] = {HTTP_1: Http1Connection}
        if http2 is not None:
            self._kinds = {HTTP_2: http2, **self._kinds}
        self._tls.set_alpn_protocols(list(self._kinds))
        if ca_file is not None:
            self._tls.load_verify_locations(ca_file)
        self._origins: dict[tuple[str, str, int | None], Origin] = {}
        self._latest: tuple[httpx.URL, Origin] | None = None
        """The last request's URL object and origin: most callers use the same URL object for all requests."""

    async def aclose(self) -> None:
        """Close all connections, those in use too."""
        for origin in self._origins.values():
            await origin.aclose()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, whose body is bytes, and return when the answer's head has arrived.

        While nothing of the request has been sent, its `extensions["unsent"]` is true, for callers that cancel it.
        Raises httpx.TransportError; ValueError for what a request must not contain; TypeError for a body that is not
        bytes.
        """
        sent = _bytes_of(request)
        origin = self._origin(request.url)
        connection = origin.available()
        if connection is None:
            request.extensions["unsent"] = True
            connection = await self._connect(origin)
        request.extensions["unsent"] = False  # from here on; an earlier attempt may have left it otherwise
        answer = connection.ask(sent)
        try:
            await answer.head()
        except BaseException:
            answer.close()
            raise
        # Most answers have arrived completely by now.
        return _Response(answer, httpx.ByteStream(answer.rest()) if answer.ended else _Body(answer), request)

    async def _connect(self, origin: Origin) -> Connection:
        try:
            with Deadline.after(self._connect_timeout).bound("connecting"):
                return await origin.connect()
        except UpstreamTimeout as error:
            raise httpx.ConnectTimeout(f"no connection to {origin.host} in time") from error
        except (OSError, UnicodeError) as error:
            raise httpx.ConnectError(str(error)) from error

    def _origin(self, url: httpx.URL) -> Origin:
        if self._latest is not None and self._latest[0] is url:
            return self._latest[1]
        key = (url.scheme, url.host, url.port)
        origin = self._origins.get(key)
        if origin is None:
            if url.scheme not in _PORTS:
                raise httpx.UnsupportedProtocol(f"{url.scheme!r} is neither http nor https")
            host, port = url.raw_host.decode("ascii"), url.port or _PORTS[url.scheme]
            tls = self._tls if url.scheme == "https" else None
            origin = self._origins[key] = Origin(host, port, tls, self._kinds, self._proxy)
        self._latest = url, origin
        return origin


def _bytes_of(request: httpx.Request) -> bytes:
    """A request as it goes over the connection (RFC 9112, section 2.1)."""
    if request.method in {"HEAD", "CONNECT"}:
        raise ValueError(f"a request by {request.method} is answered in a way that is not read here")
    target: bytes = request.extensions.get("target") or request.url.raw_path
    line = b"%b %b HTTP/1.1" % (request.method.encode("ascii"), target)
    lines = [line, *map(b": ".join, request.headers.raw), b"", b""]
    head = b"\r\n".join(lines)
    if line.count(b" ") != 2 or len(head) - len(head.translate(None, _CONTROL)) != 2 * (len(lines) - 1):
        raise ValueError("a request's method, target or fields hold what would end them")
    if not isinstance(request.stream, httpx.ByteStream):
        raise TypeError("a request's body has to be bytes")
    body = b"".join(request.stream)
    if body and request.headers.get("content-length") != str(len(body)):
        raise ValueError("a request's body needs its content-length")
    return head + body


class _Response(httpx.Response):
    """An answer whose header fields are parsed only when needed, which most are not.

    `extensions["identity"]` tells that the content has no encoding (RFC 9110, section 8.4).
    """

    def __init__(self, answer: Incoming, stream: httpx.ByteStream | _Body, request: httpx.Request) -> None:
        extensions = {"http_version": answer.version, "identity": not _is_encoded(answer.fields)}
        super().__init__(answer.status, headers=_NO_FIELDS, stream=stream, request=request, extensions=extensions)
        self._fields = answer.fields
        del self.headers

    @cached_property
    def headers(self) -> httpx.Headers:  # type: ignore[override]  # an attribute there, which may be set here too
        headers = httpx.Headers(self._fields)
        headers.encoding = "latin-1"  # else httpx finds out which it is, at every look
        return headers


def _is_encoded(fields: list[tuple[bytes, bytes]]) -> bool:
    for name, _ in fields:  # noqa: SIM110 - `any` makes a step of each of them
        if len(name) == 16 and name.lower() == b"content-encoding":
            return True
    return False


class _Body(httpx.AsyncByteStream):
    """The rest of an answer's body. It is its own iterator, which does not wait for what has already arrived."""

    def __init__(self, answer: Incoming) -> None:
        self._answer = answer

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        part = await self._answer.part()
        if not part:
            raise StopAsyncIteration
        return part

    async def aclose(self) -> None:
        """Close the connection, unless the whole body has arrived: then it has been returned already."""
        self._answer.close()
