"""Requests that are answered straight from the protocol, past ASGI.

Of what an answer from memory costs, uvicorn's way of running an ASGI application is the larger part. So a POST to one
path that has come whole, as nearly all do, is handed over as it is, and its answer is written in one piece. All else
goes uvicorn's way: other methods and paths, bodies that arrive in parts, pipelined requests. Either way the same
connection, the same parser and the same limits serve.
"""

from __future__ import annotations

import asyncio
import sys
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from msgspec import Struct

from gateway.protocol import BoundedHead

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from starlette.types import Message, Receive, Send

__all__ = ["Direct", "DirectProtocol", "Headers", "Response"]

Headers: TypeAlias = list[tuple[bytes, bytes]]
"""As ASGI has them; names are in lower case."""


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
        """As it goes over the wire (RFC 9112), with `headers` besides its own, and word that this was the last."""
        parts = [_STATUS_LINE[self.status]]
        for name, value in headers:
            parts += name, b": ", value, b"\r\n"
        for name, value in self.headers:
            parts += name, b": ", value, b"\r\n"
        parts += (b"connection: close\r\n\r\n" if close else b"\r\n"), self.body
        return b"".join(parts)


class Direct(Protocol):
    """What answers requests directly: each is a POST to `path`."""

    @property
    def path(self) -> str:
        """The path, without a query."""
        ...

    async def answer(self, headers: Headers, body: bytes, receive: Receive) -> Response | None:
        """Answer one; `receive` is ASGI's, after the body. None when the client has gone away."""
        ...


class DirectProtocol(BoundedHead):
    """Answers by `direct` what may be answered so."""

    def __init__(self, *args: Any, direct: Direct, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._direct = direct
        self._url = direct.path.encode()
        self._arriving: list[bytes] | None = None
        """The body of a request that will be answered directly if it comes whole."""

    def data_received(self, data: bytes) -> None:
        """Go on; a request that has not come whole goes uvicorn's way."""
        super().data_received(data)
        if self._arriving is not None:
            body, self._arriving = b"".join(self._arriving), None
            if not self.transport.is_closing():
                super().on_headers_complete()
                if body:
                    super().on_body(body)

    def on_headers_complete(self) -> None:
        """Decide which way."""
        idle = self.cycle is None or self.cycle.response_complete  # type: ignore[redundant-expr]  # it begins with None
        if (
            idle
            and self.url == self._url
            and not self.expect_100_continue
            and self.parser.get_method() == b"POST"
            and not self.parser.should_upgrade()
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
        exchange = _Exchange(keep_alive=self.parser.should_keep_alive())
        self.cycle = exchange  # type: ignore[assignment]  # it is what uvicorn asks of a cycle, and no more
        task = _begun(self.loop, self._answer(exchange, self.headers, body))
        if not task.done():
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def _answer(self, exchange: _Exchange, headers: Headers, body: bytes) -> None:
        try:
            response = await self._direct.answer(headers, body, exchange.receive)
            if self.flow.write_paused:
                await self.flow.drain()
        except BaseException:
            self.transport.close()  # whoever waits for the answer learns that there will be none
            raise
        exchange.response_complete = True
        if response is None or exchange.disconnected:
            self.transport.close()
            return
        headers = self.server_state.default_headers
        discouraged = _CLOSE in headers
        self.transport.write(response.encoded(headers, close=not exchange.keep_alive and not discouraged))
        if discouraged or not exchange.keep_alive:
            self.transport.close()
        self.on_response_complete()


class _Exchange:
    """Stands where uvicorn has its cycle while a request is answered directly."""

    __slots__ = ("_gone", "disconnected", "keep_alive", "response_complete")

    def __init__(self, *, keep_alive: bool) -> None:
        self._gone: asyncio.Future[None] | None = None
        self.keep_alive = keep_alive
        self.disconnected = False
        self.response_complete = False

    @property
    def message_event(self) -> _Exchange:
        """What uvicorn sets when the connection is lost."""
        return self

    def set(self) -> None:
        """The connection is lost."""
        if self._gone is not None and not self._gone.done():
            self._gone.set_result(None)

    async def receive(self) -> Message:
        """Word that the client has gone away (ASGI 3)."""
        if not self.disconnected:
            self._gone = asyncio.get_running_loop().create_future()
            await self._gone
        return {"type": "http.disconnect"}


def _begun(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, None, None]) -> asyncio.Task[None]:
    """A task, at once at work where Python knows how (3.12): what need not wait is done without the loop."""
    if sys.version_info >= (3, 12):
        return asyncio.Task(work, loop=loop, eager_start=True)
    return loop.create_task(work)


_CLOSE: Final = (b"connection", b"close")
"""What the listener has its answers say when it is about to end."""
_STATUS_LINE: Final = {each.value: f"HTTP/1.1 {each.value} {each.phrase}\r\n".encode() for each in HTTPStatus}
