"""One exchange with upstream: a request is sent, and a complete answer of limited size is received.

Uses an `httpx.AsyncBaseTransport` without `httpx.AsyncClient`: a gateway must not keep upstream's cookies from one
caller to the next, nor follow redirects with a token; and the client costs more than the rest of the exchange.
"""

from __future__ import annotations

import zlib
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol

import httpx
from msgspec import Struct

from gateway.errors import (
    UpstreamError,
    UpstreamMalformed,
    UpstreamNotAsked,
    UpstreamNotTaken,
    UpstreamTimeout,
    UpstreamTooLarge,
    UpstreamUnavailable,
    UpstreamUnreachable,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from gateway.deadline import Deadline

__all__ = ["Answer", "Auth", "Exchange", "Http", "Send", "cause_of"]

MAX_BODY: Final = 10 * 1024 * 1024
"""Bytes of the largest answer that the platform sends: its limit for a body (API reference)."""
_ROOM: Final = 67_108_864
"""Bytes that all large answers together may take while they arrive: more than any of them alone."""
_SMALL: Final = 262_144
"""Bytes of an answer that is not large: a connection buffers as much of one that nobody reads."""
_RETRY_AFTER: Final = 1.0
"""Seconds after which there may be room again."""
_USER_AGENT: Final = (b"user-agent", b"session-gateway")
"""Sent with every request (RFC 9110, 10.1.5): firewalls in front of an API may refuse requests without one."""
_WINDOWS: Final = {"gzip": (31,), "x-gzip": (31,), "deflate": (15, -15)}
"""By coding, zlib's `wbits`: some servers send deflate without the zlib header (RFC 9110, 8.4.1.2)."""
_MEMBERS: Final = 100
"""Members of an encoded answer that are read: each costs a copy of all that follow it."""


class Answer(Struct, frozen=True):
    """Upstream's complete answer. `head` has its header fields; `body` is never shown to a caller."""

    status: int
    head: httpx.Response
    body: bytes


class Exchange(Protocol):
    """Sends a request with this value of the header `authorization`. Can be called again."""

    def __call__(self, authorization: str) -> Awaitable[Answer]:
        """Send it."""
        ...


class Auth(Protocol):
    """Adds credentials to a request."""

    def __call__(self, exchange: Exchange, deadline: Deadline) -> Awaitable[Answer]:
        """Exchange with credentials, again if necessary. Everything else it waits for ends with the deadline."""
        ...


class Send(Protocol):
    """Sends one request, and returns the complete answer by the deadline. Can be called again with the same."""

    def __call__(self, request: httpx.Request, deadline: Deadline) -> Awaitable[Answer]:
        """Send it. Raises UpstreamTimeout, UpstreamUnavailable or UpstreamMalformed."""
        ...


class Http:
    """Sends requests to one base URL. It does not close the transport.

    A transport may tell, by a request's extension `unsent`, that it has not begun to send it: if the time is up then,
    there is no doubt about a write.

    `timeout` bounds one exchange, in seconds; a caller's deadline that comes sooner bounds it further. `max_answer` is
    the largest answer that is read, in bytes. `policy` is laid around each of the exchanges.
    """

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport,
        base_url: str,
        *,
        timeout: float,
        max_answer: int = MAX_BODY,
        policy: Callable[[Send], Send] | None = None,
    ) -> None:
        self._transport = transport
        self._timeout = timeout
        self._max_answer = max_answer
        self._send = self._exchange if policy is None else policy(self._exchange)
        self._origin = httpx.URL(base_url).join("/")
        self._host = self._origin.netloc
        self._prefix = httpx.URL(base_url).raw_path.rstrip(b"/")
        self._arriving = 0
        """Bytes of large answers that have come so far, and not whole."""

    def headers(self, headers: Mapping[str, str]) -> httpx.Headers:
        """These and the common headers, for `send`. Callers that send the same headers often make them once."""
        given = ((name.encode(), value.encode()) for name, value in headers.items())
        return httpx.Headers([(b"host", self._host), _USER_AGENT, *given])

    def send(
        self,
        method: str,
        target: str,
        *,
        deadline: Deadline,
        headers: Mapping[str, str],
        content: bytes | None = None,
        auth: Auth | None = None,
    ) -> Awaitable[Answer]:
        """Send a request, with whatever further exchanges `auth` makes.

        `target` is an encoded path with its query. Headers that were made by `headers` are sent as they are. Raises
        UpstreamTimeout, UpstreamUnavailable if no complete answer was received, UpstreamMalformed if it cannot be
        decoded, and what `auth` raises.
        """
        made = headers if isinstance(headers, httpx.Headers) else self.headers(headers)
        if auth is None:
            return self._send(self._request(method, target, made, content), deadline)

        def exchange(authorization: str) -> Awaitable[Answer]:
            request = self._request(method, target, made, content)
            request.headers["authorization"] = authorization
            return self._send(request, deadline)

        return auth(exchange, deadline)

    def _request(self, method: str, target: str, headers: httpx.Headers, content: bytes | None) -> httpx.Request:
        request = _Request(method, self._origin, httpx.Headers(headers), content, self._prefix + target.encode("ascii"))
        if content is not None:
            request.headers["content-length"] = str(len(content))
        return request

    async def _exchange(self, request: httpx.Request, deadline: Deadline) -> Answer:
        """One exchange, with its failures as errors by meaning."""
        try:
            with deadline.bound("asking upstream", within=self._timeout):
                response = await self._transport.handle_async_request(request)
                return Answer(response.status_code, response, await self._read(response))
        except UpstreamTimeout as error:
            if request.extensions.get("unsent"):
                raise UpstreamNotAsked("no connection to upstream could be made in time") from error
            raise
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise UpstreamUnreachable("no connection to upstream could be made or used") from error
        except httpx.TimeoutException as error:
            raise UpstreamTimeout("upstream did not answer in time") from error
        except httpx.DecodingError as error:
            raise UpstreamMalformed("upstream's answer is not in an encoding that can be read") from error
        except httpx.TransportError as error:
            raise UpstreamUnavailable("the connection to upstream failed") from error

    async def _read(self, response: httpx.Response) -> bytes:
        """All of it, decoded. A transport may say by the extension `identity` that it is in no encoding."""
        stream = response.stream
        if not isinstance(stream, httpx.AsyncByteStream):
            raise TypeError("an asynchronous transport answers with an asynchronous stream")
        coding = None if response.extensions.get("identity") else response.headers.get("content-encoding")
        if isinstance(stream, httpx.ByteStream):  # it has come whole
            body = b"".join(stream)
            if len(body) > self._max_answer:
                raise _too_large(self._max_answer)
        else:
            body = await self._gathered(stream)
        return _decoded(body, coding, self._max_answer) if coding and body else body

    async def _gathered(self, stream: httpx.AsyncByteStream) -> bytes:
        """The chunks of an answer, joined. Raises UpstreamNotTaken for a large one without room beside others."""
        chunks: list[bytes] = []
        size, counted = 0, 0
        try:
            async for chunk in stream:
                chunks.append(chunk)
                size += len(chunk)
                if size > self._max_answer:
                    raise _too_large(self._max_answer)
                if size > _SMALL:
                    self._arriving += size - counted
                    counted = size
                    if self._arriving > _ROOM:
                        raise UpstreamNotTaken("too many large answers are arriving", retry_after=_RETRY_AFTER)
        finally:
            self._arriving -= counted
            await stream.aclose()
        return b"".join(chunks)


def cause_of(error: UpstreamError) -> str | None:
    """Why a connection failed, if one did, for the log. Callers are not told, since it contains addresses."""
    cause = error.__cause__
    return str(cause) or type(cause).__name__ if isinstance(cause, httpx.TransportError) else None


class _Request(httpx.Request):
    """A request made of ready parts, without httpx's own processing of them.

    Its URL is the origin, parsed once; path and query are an extension
    (https://www.python-httpx.org/advanced/extensions/#target).
    """

    def __init__(
        self, method: str, origin: httpx.URL, headers: httpx.Headers, content: bytes | None, target: bytes
    ) -> None:
        self.method = method
        self.url = origin
        self.headers = headers
        self.stream = httpx.ByteStream(content or b"")
        self.extensions = {"target": target}


def _decoded(body: bytes, coding: str, max_size: int) -> bytes:
    """Out of an encoding, which servers may choose where none was asked for (RFC 9110, section 12.5.3).

    Not with httpx, which decodes everything, and several codings, before the size can be checked: a few KB can stand
    for GB. An unknown coding is left as it is.
    """
    if "," in coding:
        raise httpx.DecodingError("an answer in several encodings")
    windows = _WINDOWS.get(coding.strip().lower())
    if windows is None:
        return body
    for window in windows:
        with suppress(zlib.error):
            return _inflated(body, window, max_size)
    raise httpx.DecodingError("an answer that is not in the encoding it names")


def _inflated(body: bytes, window: int, max_size: int) -> bytes:
    """All of its members, of which gzip may have several (RFC 1952, section 2.2). Raises zlib.error."""
    parts: list[bytes] = []
    size = 0
    for _ in range(_MEMBERS):
        decoder = zlib.decompressobj(window)
        part = decoder.decompress(body, max_size - size + 1)
        size += len(part)
        if size > max_size:
            raise _too_large(max_size)
        if not decoder.eof:
            raise zlib.error("the end is missing")
        parts.append(part)
        body = decoder.unused_data
        if not body:
            return b"".join(parts)
    raise zlib.error("too many members")


def _too_large(max_size: int) -> UpstreamTooLarge:
    return UpstreamTooLarge(f"upstream's answer is larger than {max_size} bytes")
