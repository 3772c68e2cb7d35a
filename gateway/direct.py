"""Requests that are answered directly by the protocol, without ASGI.

Running an ASGI application the way uvicorn does is the larger part of what an answer from memory costs. So a POST to
one path that has arrived whole, as nearly all do, is handed over as it is, and its answer is written in one piece.
Everything else goes uvicorn's way: other methods and paths, bodies that arrive in parts, pipelined requests.
Connection, parser and limits are the same for both.

Nearly all requests of a client have the same head. So a connection remembers some heads that it has read, byte for
byte, and what was made of them: a request that begins with one of these, and has the right length, is not parsed.
"""

from __future__ import annotations

import asyncio
import sys
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, Protocol, TypeAlias, TypeVar

from msgspec import Struct

from gateway.protocol import BoundedProtocol, Client

if TYPE_CHECKING:
    from collections.abc import Awaitable, Coroutine

    from starlette.types import Send

__all__ = ["Direct", "DirectProtocol", "Headers", "Response"]

Headers: TypeAlias = list[tuple[bytes, bytes]]
"""As ASGI has them; names are in lower case."""

_MEMORY: Final = 32_768
"""Bytes of memory for the heads that a connection remembers, about: anybody may open a thousand connections."""
_PER_FIELD: Final = 256
"""Bytes of memory, by measurement, that a field takes in addition to its text, which is kept twice."""

Head = TypeVar("Head")
"""What is made of the headers."""


class Response(Struct, frozen=True):
    """A whole response."""

    status: int
    headers: Headers
    body: bytes

    async def send(self, send: Send) -> None:
        """Send it through ASGI."""
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        await send({"type": "http.response.body", "body": self.body})

    def encoded(self, headers: Headers, *, close: bool) -> bytes:
        """As it goes over the wire (RFC 9112), with further `headers`. `close` tells the client that it is the last."""
        parts = [_STATUS_LINE[self.status]]
        for name, value in headers:
            parts += name, b": ", value, b"\r\n"
        for name, value in self.headers:
            parts += name, b": ", value, b"\r\n"
        parts += (b"connection: close\r\n\r\n" if close else b"\r\n"), self.body
        return b"".join(parts)


class Direct(Protocol[Head]):
    """What answers requests directly: each is a POST to `path`."""

    @property
    def path(self) -> str:
        """The path, without a query."""
        ...

    def head(self, headers: Headers) -> Head:
        """Make of headers what `answer` takes, possibly for several requests. Must not fail."""
        ...

    def answer(self, head: Head, body: bytes, client: Client) -> Awaitable[Response | None]:
        """Answer one. None when the client has gone away."""
        ...


class _Known(NamedTuple, Generic[Head]):
    """A head that has been read."""

    head: Head
    length: int
    """Bytes of the body that follows it."""
    size: int
    """Bytes of memory that it takes, about."""


class DirectProtocol(BoundedProtocol, Generic[Head]):
    """Has `direct` answer what can be answered directly."""

    def __init__(self, *args: Any, direct: Direct[Head], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._direct = direct
        self._url = direct.path.encode()
        self._arriving: list[bytes] | None = None
        """The body of a request that will be answered directly if it comes whole."""
        self._known: dict[bytes, _Known[Head]] = {}
        self._data = b""
        """What is being parsed, while it is and if it may turn out to be one whole request."""
        self._rests_since = 0.0
        """When the last request was answered, in the loop's time."""

    def data_received(self, data: bytes) -> None:
        """Go on; a request that has not come whole goes uvicorn's way."""
        at_rest = self.at_rest() and self._head == 0 and not self._ending
        if at_rest:
            end = data.find(b"\r\n\r\n") + 4
            known = self._known.get(data[:end])
            if known is not None and len(data) == end + known.length:
                self._begin(known.head, data[end:], keep_alive=True)
                return
        self._data = data if at_rest else b""
        super().data_received(data)
        self._data = b""
        if self._arriving is not None:
            body, self._arriving = b"".join(self._arriving), None
            if not self.transport.is_closing():
                super().on_headers_complete()
                if body:
                    super().on_body(body)

    def on_headers_complete(self) -> None:
        """Decide which way."""
        if (
            self.at_rest()
            and self.url == self._url
            and not self.expect_100_continue
            and self.parser.get_method() == b"POST"
            and self.refusal() is None
            and not self.transport.is_closing()
        ):
            self._arriving = []
            self.head_complete()
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body."""
        if self._arriving is None:
            super().on_body(body)
        else:
            self._arriving.append(body)

    def on_message_complete(self) -> None:
        """It has come whole."""
        if self._arriving is None:
            super().on_message_complete()
            return
        body, self._arriving = b"".join(self._arriving), None
        self.message_complete()
        head = self._direct.head(self.headers)
        # A client of HTTP/1.0 keeps a connection only if the answer says so, and reads to the end otherwise.
        keep_alive = self.parser.get_http_version() == "1.1" and self.parser.should_keep_alive()
        if keep_alive:
            self._remember(head, len(body))
        self._begin(head, body, keep_alive=keep_alive)

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection if it has been idle for that long: it may have been used since the timer was set."""
        left: float = self.timeout_keep_alive
        if self.at_rest():
            left -= self.loop.time() - self._rests_since
        if left > 0:
            self.timeout_keep_alive_task = self.loop.call_later(left, self.timeout_keep_alive_handler)
        else:
            super().timeout_keep_alive_handler()

    def _remember(self, head: Head, length: int) -> None:
        """Remember a head if it and its body are all that arrived: a chunked body is longer on the wire."""
        end = self._data.find(b"\r\n\r\n") + 4
        size = 2 * end + _PER_FIELD * len(self.headers)
        if len(self._data) == end + length and size <= _MEMORY:
            while sum(each.size for each in self._known.values()) + size > _MEMORY:
                del self._known[next(iter(self._known))]  # the oldest
            self._known[self._data[:end]] = _Known(head, length, size)

    def _begin(self, head: Head, body: bytes, *, keep_alive: bool) -> None:
        exchange = _Exchange(keep_alive=keep_alive)
        self.cycle = exchange  # type: ignore[assignment]  # it is what uvicorn asks of a cycle, and no more
        task = _begun(self.loop, self._answer(exchange, head, body))
        if not task.done():
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def _answer(self, exchange: _Exchange, head: Head, body: bytes) -> None:
        try:
            await self.taken()
            response = None if exchange.disconnected else await self._direct.answer(head, body, self)
        except BaseException:
            self.close()  # whoever waits for the answer learns that there will be none
            raise
        exchange.response_complete = True
        if response is None or exchange.disconnected:
            self.transport.close()
            return
        headers = self.server_state.default_headers
        discouraged = _CLOSE in headers
        self.write(response.encoded(headers, close=not exchange.keep_alive and not discouraged))
        if discouraged or not exchange.keep_alive:
            self.close()
        self._rest()

    def _rest(self) -> None:
        """Wait for the next request, by the last timer if it still runs: setting a new one each time would cost."""
        self._rests_since = self.loop.time()
        if self.timeout_keep_alive_task is None or self.pipeline:
            self.on_response_complete()
        else:
            self.server_state.total_requests += 1
            self.flow.resume_reading()


class _Exchange:
    """Stands in for uvicorn's request cycle while a request is answered directly."""

    __slots__ = ("disconnected", "keep_alive", "response_complete")

    def __init__(self, *, keep_alive: bool) -> None:
        self.keep_alive = keep_alive
        self.disconnected = False
        self.response_complete = False

    @property
    def message_event(self) -> _Exchange:
        """What uvicorn sets when the connection is lost."""
        return self

    def set(self) -> None:
        """The connection is lost: `when_gone` tells of that."""


def _begun(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, None, None]) -> asyncio.Task[None]:
    """A task, started eagerly where Python can (3.12): what need not wait is done without the loop."""
    if sys.version_info >= (3, 12):
        return asyncio.Task(work, loop=loop, eager_start=True)
    return loop.create_task(work)


_CLOSE: Final = (b"connection", b"close")
"""What the listener adds to its answers while it shuts down."""
_STATUS_LINE: Final = {each.value: f"HTTP/1.1 {each.value} {each.phrase}\r\n".encode() for each in HTTPStatus}
