"""uvicorn's protocol, with what neither it nor the parser below has.

Bounds, on the size of a request's head and the time for it, on the time that a client has for taking an answer, and on
connections; and whoever asks for another protocol is answered in this one.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

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
        """Call this once the client has gone away, or at once if it has; None takes that back."""
        ...


def client_of(scope: Scope) -> Client:
    """Who waits for the answer to a request that came by a `BoundedProtocol`."""
    client: Client = scope[_CLIENT]
    return client


class BoundedProtocol(HttpToolsProtocol):
    """Ends connections that ask for more than they may have. There may be `max_connections` of them to a listener."""

    max_head: ClassVar[int] = 65_536
    """Bytes of a request's head, its line and its headers, that may have come without its end; and of what follows a
    body, its trailer, as well. A GET carries its document there."""
    max_fields: ClassVar[int] = 128
    """Fields of a head: small ones take twenty times as much memory as they are long."""
    patience: ClassVar[float] = 10.0
    """Seconds for a head to arrive, from its first byte on, for the first byte on a new connection, and for the rest of
    a body that has been answered already."""
    reading: ClassVar[float] = 60.0
    """Seconds for a client to take what does not go into the transport's buffer at once, which is some 64 KiB."""

    def __init__(self, *args: Any, max_connections: int | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._max_connections = max_connections
        self._head: int | None = 0
        """Bytes of the head that is arriving; None while a body is."""
        self._beside = 0
        """Bytes that have come since the last one of the body: of the frames of chunks, or of a trailer."""
        self._leaving = False
        """Whether the connection is to be closed after the body that is arriving."""
        self._ending = False
        """Whether it is to be closed after the answer under way: nothing that arrives is looked at any more."""
        self._waiting: asyncio.TimerHandle | None = None
        self._taking: asyncio.TimerHandle | None = None
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
        """Wait no more, and tell who waits for something on the client's behalf."""
        self._wait_no_more()
        self._taken()
        super().connection_lost(exc)
        self._gone = True
        if self._when_gone is not None:
            self._when_gone()

    def when_gone(self, act: Callable[[], object] | None) -> None:
        """See `Client`."""
        self._when_gone = act
        if act is not None and self._gone:
            act()

    def pause_writing(self) -> None:
        """The client has still to take what was written."""
        super().pause_writing()
        self._taking = self.loop.call_later(self.reading, self.transport.abort)

    def resume_writing(self) -> None:
        """It has taken it, but for a little."""
        super().resume_writing()
        self._taken()

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
                self.transport.close()

    def on_message_begin(self) -> None:
        """Count from the first byte on, where it came together with the end of the last message."""
        self._head = self._head or 1
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field of a head. Those of a trailer are of use to nobody here, and there is no end to them."""
        if self._head is None:
            return
        if len(self.headers) == self.max_fields:
            self._refuse(_TOO_LARGE)
            raise ValueError("too many fields")  # which ends parsing
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Go on with the request, unless there is something against it."""
        if self.transport.is_closing():  # what was asked for before was the last
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
            self.transport.close()
        elif self.at_rest() and not self.transport.is_closing():
            # It was answered before its body had come, for which uvicorn has given its timer up.
            self._wait_no_more()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def leave(self) -> None:
        """Close the connection once the rest of the body has come, or after a while.

        Closed at once it would be reset by what comes yet, and the client might not get to read the answer (RFC 9112,
        9.6): nginx, which keeps no connection unless it is told to, says 502 then.
        """
        self._leaving = True
        if self.transport.can_write_eof():  # not over TLS
            self.transport.write_eof()
        if self._waiting is None:
            self._wait()

    def refusal(self) -> bytes | None:
        """The answer to a head that is well-formed, but is not taken; None if it is."""
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
        """Whether the body is in chunks, and nothing else was done to it, which the parser would not say."""
        return [value.strip().lower() for name, value in self.headers if name == b"transfer-encoding"] == [b"chunked"]

    def at_rest(self) -> bool:
        """Whether nothing is being answered."""
        return self.cycle is None or self.cycle.response_complete  # type: ignore[redundant-expr]  # it begins with None

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

        Behind a request that is being answered yet, the answer to that is the last: the client would take this one for
        it, or, if it was cut off, not get to know what came of a write.
        """
        if self._ending or self.transport.is_closing():
            return
        if self._head is not None and not self.at_rest():
            self._ending = True
            self._wait_no_more()
            self.cycle.keep_alive = False
            return
        if not self._leaving and not self.pipeline:
            self.transport.write(answer)
        self.transport.close()

    def _wait(self) -> None:
        self._waiting = self.loop.call_later(self.patience, self.transport.close)

    def _wait_no_more(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _taken(self) -> None:
        if self._taking is not None:
            self._taking.cancel()
            self._taking = None


class _Lingering:
    """The transport, as uvicorn's cycle uses it: a body that was answered before it had come is let come to its end."""

    __slots__ = ("_cycle", "_protocol", "is_closing", "write")

    def __init__(self, protocol: BoundedProtocol, cycle: RequestResponseCycle) -> None:
        self._protocol = protocol
        self._cycle = cycle
        self.write: Final = protocol.transport.write
        self.is_closing: Final = protocol.transport.is_closing

    def close(self) -> None:
        """Close it, or have it closed."""
        if self._cycle.response_complete and self._cycle.more_body:
            self._protocol.leave()
        else:
            self._protocol.transport.close()


def _staying_with_http(data: bytes) -> bytes:
    """What begins with a request's head, as if that asked for no upgrade, which a server may ignore (RFC 9110, 7.8).

    The parser would leave out the body of one that asks, and take what comes of it later for the next request. Clients
    ask before they know what a server speaks: Java's for HTTP/2, with the body of a POST behind it.
    """
    end = data.find(b"\r\n\r\n")
    head = data if end < 0 else data[:end]
    without = _UPGRADE.sub(b"\r\nx-upgrade:", head)
    return data if without == head else without + data[len(head) :]
