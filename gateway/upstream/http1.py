"""A connection with HTTP/1.1 (RFC 9112): one request at a time, and none gets the answer of another.

The event loop does the socket and TLS; llhttp (in httptools) tells where answers begin and end, and whether the
connection can be used again.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, cast

import httpx
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from gateway.upstream.connections import Connection
from gateway.upstream.incoming import AHEAD, Incoming

if TYPE_CHECKING:
    from gateway.upstream.connections import Origin

__all__ = ["Http1Connection"]

_FRUITLESS: Final = 64 * 1024
"""Bytes in a row that may contain neither the end of an answer's head nor any of its body."""
_LARGE: Final = 64 * 1024
"""Bytes that may wait for the socket before TLS stops encrypting: the default of asyncio and uvloop."""


class Http1Connection(Connection):
    """HTTP/1.1. Data without a request, or after its answer, closes the connection."""

    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self._loop = asyncio.get_running_loop()
        self._parser = HttpResponseParser(self)
        self._answer: Incoming | None = None
        self._fruitless = 0
        self._paused = False
        self._reusable = False
        """Whether the connection can be used again, once an answer has ended."""

    def ask(self, request: bytes) -> Incoming:
        """Send a request. When the answer has ended, the connection can be used again, or is closed."""
        answer = self._answer = Incoming(self, self._loop, b"HTTP/1.1")
        if len(request) <= _LARGE:
            self.transport.write(request)
        else:
            # With TLS, the size of the write buffer does not include data that is encrypted but not sent. But nothing
            # more is encrypted while too much of that waits. So the last byte, written separately, counts until nearly
            # everything before it has been sent.
            whole = memoryview(request)
            self.transport.write(whole[:-1])
            self.transport.write(whole[-1:])
        return answer

    def close(self) -> None:
        """Close it at once, without sending what is still buffered."""
        self.transport.abort()

    def resume(self) -> None:
        """The data received so far has been read."""
        if self._paused:
            self._paused = False
            self.transport.resume_reading()

    # What the event loop says.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # that of a stream
        self._origin.opened(self)

    def data_received(self, data: bytes) -> None:
        answer = self._answer
        if answer is None:
            self.close()
            return
        self._fruitless += len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            if not answer.ended:
                self._fail(httpx.RemoteProtocolError, f"upstream's answer is no HTTP, or goes over to another: {error}")
                return
            self._reusable = False
        if answer.ended:
            self._answer = None
            self.resume()
            # If part of the request is still unsent, the next would follow half of it.
            if self._reusable and not self.transport.get_write_buffer_size():
                self._origin.keep(self)
            else:
                self.close()
        elif self._fruitless > _FRUITLESS:
            self._fail(httpx.RemoteProtocolError, "upstream's answer has a head that is too large")
            return
        elif answer.unread > AHEAD and not self._paused:
            self._paused = True
            self.transport.pause_reading()
        answer.wake()

    def connection_lost(self, error: Exception | None) -> None:
        self._origin.ended(self)
        answer = self._answer
        if answer is None:
            return
        if error is None and answer.ends_with_the_connection():
            answer.ended = True
            answer.wake()
        else:
            self._fail(httpx.ReadError, str(error or "the connection ended before the answer did"))

    # What the parser says.

    def on_message_begin(self) -> None:
        if self._answer is None or self._answer.ended:
            raise HttpParserError("nobody has asked for this")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._answer is not None and not self._answer.status:  # else it is of the trailer
            self._answer.fields.append((name, value))

    def on_headers_complete(self) -> None:
        self._fruitless = 0
        status = self._parser.get_status_code()
        if self._answer is not None and status >= 200 and not self._answer.status:
            self._answer.status = status

    def on_body(self, body: bytes) -> None:
        self._fruitless = 0
        if self._answer is not None:
            self._answer.add(body)

    def on_message_complete(self) -> None:
        answer = self._answer
        if answer is None:
            return
        if answer.status:
            answer.ended = True
            self._reusable = self._parser.should_keep_alive()
        else:
            answer.fields.clear()  # it only announced another (RFC 9110, section 15.2)

    def _fail(self, kind: type[httpx.TransportError], message: str) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.fail(kind, message)
        self.close()
