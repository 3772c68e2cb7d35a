"""uvicorn's HTTP protocol, with what neither it nor its parser has.

Limits: on the size of a request's head and the time to send it, and on connections. A client that asks for another
protocol is answered in this one.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol, cast

from gateway.pacing import PacedProtocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from starlette.types import Scope
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

__all__ = ["BoundedProtocol", "Client", "client_of"]


def _refusal(status: HTTPStatus, text: str = "") -> bytes:
    """A whole response, after which the connection is closed."""
    content_type = "content-type: text/plain; charset=utf-8\r\n" if text else ""
    return (
        f"HTTP/1.1 {status.value} {status.phrase}\r\n{content_type}content-length: {len(text)}\r\n"
        f"x-content-type-options: nosniff\r\nconnection: close\r\n\r\n{text}"
    ).encode("ascii")


_TOO_LARGE: Final = _refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
_MALFORMED: Final = _refusal(HTTPStatus.BAD_REQUEST, "Invalid HTTP request received.")
_NO_OTHER_PROTOCOL: Final = _refusal(
    HTTPStatus.BAD_REQUEST, "only HTTP/1.1 is spoken here: leave out Upgrade or CONNECT"
)
_NOT_ONE_HOST: Final = _refusal(HTTPStatus.BAD_REQUEST, "the field Host has to be there once")
_NO_OTHER_CODING: Final = _refusal(HTTPStatus.NOT_IMPLEMENTED, "no transfer coding is understood here but `chunked`.")
_CLIENT: Final = "gateway.client"
"""Key of a request's scope (ASGI 3)."""
_UPGRADE: Final = re.compile(rb"\r\nupgrade:", re.IGNORECASE)


class Client(Protocol):
    """Who waits for an answer."""

    def when_gone(self, act: Callable[[], object] | None) -> None:
        """Call this when the client goes away, or at once if it has gone; None takes that back."""
        ...


def client_of(scope: Scope) -> Client:
    """Who waits for the answer to a request that came by a `BoundedProtocol`."""
    client: Client = scope[_CLIENT]
    return client


class BoundedProtocol(PacedProtocol):
    """Closes connections that exceed the limits. A listener may have `max_connections` of them."""

    max_head: ClassVar[int] = 65_536
    """Bytes of a request's head (its line and headers), or of the trailer after its body, that may arrive before its
    end. A GET has its document in the head."""
    max_fields: ClassVar[int] = 128
    """Fields of a head: small ones take twenty times their length in memory."""
    patience: ClassVar[float] = 10.0
    """Seconds for a head to arrive, counted from its first byte; for the first byte on a new connection; and for the
    rest of a body that has already been answered."""

    def __init__(self, *args: Any, max_connections: int | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._max_connections = max_connections
        self._head: int | None = 0
        """Bytes of the head that is arriving; None while a body is."""
        self._beside = 0
        """Bytes that have come since the last one of the body: of the frames of chunks, or of a trailer."""
        self._leaving = False
        """Whether the connection is to be closed after the body that is arriving."""
        self._waiting: asyncio.TimerHandle | None = None
        self._gone = False
        self._when_gone: Callable[[], object] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Begin to wait for a head, unless there are too many connections."""
        super().connection_made(transport)
        if self._max_connections is not None and len(self.connections) > self._max_connections:
            transport.close()
        else:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting, and tell whoever works for this client."""
        self._wait_no_more()
        super().connection_lost(exc)
        self._gone = True
        if self._when_gone is not None:
            self._when_gone()

    def when_gone(self, act: Callable[[], object] | None) -> None:
        """See `Client`."""
        self._when_gone = act
        if act is not None and self._gone:
            act()

    def data_received(self, data: bytes) -> None:
        """Count what has come of the head, or beside the body."""
        if self._ending:
            return
        if self._head == 0:
            data = _staying_with_http(data)
        if self._head is None:
            self._beside += len(data)
        else:
            self._head += len(data)
        super().data_received(data)
        if self._head:  # is still not at its end
            if self._head > self.max_head:
                self._refuse(_TOO_LARGE)
            elif self._waiting is None and not self._ending:
                self._wait()
        elif self._head is None:
            if self._waiting is None and self.at_rest():  # nobody waits for the rest of a body that is answered
                self._wait()
            if self._beside > self.max_head:
                self.close()

    def on_message_begin(self) -> None:
        """Count from the first byte on, where it came together with the end of the last message."""
        self._head = self._head or 1
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field of a head. Those of a trailer are ignored: nobody needs them, and their number has no limit."""
        if self._head is None:
            return
        if len(self.headers) == self.max_fields:
            self._refuse(_TOO_LARGE)
            raise ValueError("too many fields")  # which ends parsing
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Go on with the request, unless it is refused."""
        if self.transport.is_closing():  # the request before was the last
            return
        refusal = self.refusal()
        if refusal is not None:
            self._refuse(refusal)
            raise ValueError("refused")  # which ends parsing
        self.head_complete()
        super().on_headers_complete()
        self.cycle.transport = cast("asyncio.Transport", _Lingering(self, self.cycle))
        self.cycle.scope[_CLIENT] = self  # type: ignore[typeddict-unknown-key]  # as extensions of ASGI do

    def send_400_response(self, _: str) -> None:
        """Refuse what cannot be parsed, unless it has been refused."""
        self._refuse(_MALFORMED)

    def on_body(self, body: bytes) -> None:
        """Begin to count anew what comes beside it."""
        self._beside = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Begin to count anew."""
        self.message_complete()
        super().on_message_complete()
        if self._leaving:
            self.close()
        elif self.at_rest() and not self.transport.is_closing():
            # It was answered before its body had come. uvicorn has cancelled its keep-alive timer for that.
            self._wait_no_more()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def leave(self) -> None:
        """Close the connection once the rest of the body has come, or after a while.

        If it were closed at once, what still arrives would reset it, and the client might not read the answer (RFC
        9112, 9.6): nginx, which keeps no connection unless it is told to, says 502 then.
        """
        self._leaving = True
        if self.transport.can_write_eof() and not self._unwritten:  # not over TLS
            self.transport.write_eof()
        if self._waiting is None:
            self._wait()

    def refusal(self) -> bytes | None:
        """The answer to a head that is well-formed but refused; None if it is accepted."""
        if self.parser.should_upgrade():  # still; to the parser the request is at its end here
            return _NO_OTHER_PROTOCOL
        names = [name for name, _ in self.headers]
        if b"transfer-encoding" in names and not self._is_merely_chunked():  # RFC 9112, 6.1
            return _NO_OTHER_CODING
        hosts = names.count(b"host")
        if hosts > 1 or (hosts == 0 and self.parser.get_http_version() == "1.1"):  # RFC 9112, 3.2
            return _NOT_ONE_HOST
        return None

    def _is_merely_chunked(self) -> bool:
        """Whether chunked is the only transfer coding, which the parser does not tell."""
        return [value.strip().lower() for name, value in self.headers if name == b"transfer-encoding"] == [b"chunked"]

    def head_complete(self) -> None:
        """A body follows, if anything."""
        self._wait_no_more()
        self._head = None
        self._beside = 0

    def message_complete(self) -> None:
        """The next head may follow."""
        self._head = 0

    def _refuse(self, answer: bytes) -> None:
        """Answer so in the place of what arrives, and end the connection.

        If the request before is still being answered, its answer is the last: the client would take this one for it,
        or, if that is cut off, would not learn what became of a write.
        """
        if self._ending or self.transport.is_closing():
            return
        if self._head is not None and not self.at_rest():
            self._ending = True
            self._wait_no_more()
            self.cycle.keep_alive = False
            return
        if not self._leaving and not self.pipeline:
            self.write(answer)
        self.close()

    def _wait(self) -> None:
        self._waiting = self.loop.call_later(self.patience, self.close)

    def _wait_no_more(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None


class _Lingering:
    """The transport, as uvicorn's cycle uses it: closing waits for the end of a body that was answered early."""

    __slots__ = ("_cycle", "_protocol", "is_closing")

    def __init__(self, protocol: BoundedProtocol, cycle: RequestResponseCycle) -> None:
        self._protocol = protocol
        self._cycle = cycle
        self.is_closing: Final = protocol.transport.is_closing

    def write(self, data: bytes) -> None:
        """Write a part of the answer, unless the client was found to have gone when the part before was written."""
        if not self.is_closing():  # uvloop raises then, where asyncio does nothing
            self._protocol.write(data)

    def close(self) -> None:
        """Close it, or have it closed."""
        if self._cycle.response_complete and self._cycle.more_body:
            self._protocol.leave()
        else:
            self._protocol.close()


def _staying_with_http(data: bytes) -> bytes:
    """The same data, without the request's `Upgrade`, which a server may ignore (RFC 9110, 7.8).

    With it the parser would leave out the body, and take it for the next request. Clients ask for an upgrade before
    they know what a server speaks: Java's asks for HTTP/2, in a POST with a body.
    """
    end = data.find(b"\r\n\r\n")
    head = data if end < 0 else data[:end]
    without = _UPGRADE.sub(b"\r\nx-upgrade:", head)
    return data if without == head else without + data[len(head) :]
