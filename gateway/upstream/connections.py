"""Connections to upstream, over HTTP/1.1: made, kept and closed, and the answers that come on them.

The event loop has the sockets and TLS, llhttp (by httptools) tells where answers begin and end, and whether another may
follow. What is here is one request at a time on each connection, and that none is given an answer of another's.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from typing import TYPE_CHECKING, Final, cast

import httpx
from aiohappyeyeballs import start_connection
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

    from aiohappyeyeballs import AddrInfoType

    from gateway.proxy import Proxy

__all__ = ["Connection", "Incoming", "Origin"]

_UNUSED: Final = 30.0
"""Seconds for which an unused connection is kept: less than what servers and load balancers have (60 and more), so
that it is we who close it, and not they while a request is on its way."""
_KNOWN: Final = 10.0
"""Seconds for which a name's addresses are taken to be the same: many connections may be made at once."""
_NEXT_ADDRESS: Final = 0.25
"""Seconds after which another address of the same name is tried as well (RFC 8305, section 5)."""
_FRUITLESS: Final = 64 * 1024
"""Bytes in a row that may bring neither an answer's head nor anything of its body."""
_CLOSING: Final = 1.0
"""Seconds that closing all connections may take."""
_AHEAD: Final = 256 * 1024
"""Bytes of a body that may lie here unread before no more are taken from the connection."""


class Origin:
    """A server, and all connections to it (RFC 9110, section 4.3.1). Belongs to one event loop.

    Where there is a `proxy`, they go through tunnels that it makes. How many there are at a time is left to whoever
    asks: a new one is made when none is unused.
    """

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None, proxy: Proxy | None = None) -> None:
        self.host = host
        self.port = port
        self._tls = tls
        self._proxy = proxy
        self._loop = asyncio.get_running_loop()
        self._addresses: Sequence[AddrInfoType] = ()
        self._addresses_until = 0.0
        self._looking_up = asyncio.Lock()
        self._open: set[Connection] = set()
        self._unused: deque[Connection] = deque()
        """The one that was used last is the last, and the next to be used."""
        self._timer: asyncio.TimerHandle | None = None
        """Set while there are unused ones, until the time of the first of them is over."""
        self._closed: asyncio.Future[None] | None = None
        """Once they are to be closed: done when the last one is."""

    def unused(self) -> Connection | None:
        """One that was kept, if there is any."""
        while self._unused:
            connection = self._unused.pop()
            if not connection.transport.is_closing():
                return connection
        return None

    async def connect(self) -> Connection:
        """A new one. Raises OSError, or UnicodeError for what can be no name."""
        try:
            return await self._connect()
        except BaseException:
            self._addresses_until = 0.0  # the server may have moved
            raise

    def keep(self, connection: Connection) -> None:
        """It can be used for another request."""
        connection.unused_since = self._loop.time()
        self._unused.append(connection)
        if self._timer is None:
            self._timer = self._loop.call_at(connection.unused_since + _UNUSED, self._close_unused)

    def opened(self, connection: Connection) -> None:
        """It is there."""
        self._open.add(connection)

    def ended(self, connection: Connection) -> None:
        """It is no more."""
        self._open.discard(connection)
        if connection in self._unused:
            self._unused.remove(connection)
        if self._closed is not None and not self._open and not self._closed.done():
            self._closed.set_result(None)

    async def aclose(self) -> None:
        """Close all connections, those in use too."""
        if self._timer is not None:
            self._timer.cancel()
        self._closed = self._loop.create_future()
        for connection in tuple(self._open):
            connection.close()
        if self._open:
            await asyncio.wait([self._closed], timeout=_CLOSING)  # the event loop tells of it in its next turns

    async def _connect(self) -> Connection:
        found = await start_connection(
            await self._look_up(), happy_eyeballs_delay=_NEXT_ADDRESS, interleave=1, loop=self._loop
        )
        if self._proxy is not None:
            try:
                await self._proxy.tunnel(found, self.host, self.port)
            except BaseException:
                found.close()
                raise
        _, connection = await self._loop.create_connection(
            lambda: Connection(self),
            sock=found,
            ssl=self._tls,
            server_hostname=None if self._tls is None else self.host,
        )
        if self._closed is not None:
            connection.close()
            raise ConnectionAbortedError("all connections have been closed meanwhile")
        return connection

    async def _look_up(self) -> Sequence[AddrInfoType]:
        async with self._looking_up:
            if self._loop.time() >= self._addresses_until:
                there = self._proxy or self
                self._addresses = await self._loop.getaddrinfo(there.host, there.port, type=socket.SOCK_STREAM)
                self._addresses_until = self._loop.time() + _KNOWN
        return self._addresses

    def _close_unused(self) -> None:
        before = self._loop.time() - _UNUSED
        while self._unused and self._unused[0].unused_since <= before:
            self._unused.popleft().close()
        first = self._unused[0].unused_since if self._unused else None
        self._timer = None if first is None else self._loop.call_at(first + _UNUSED, self._close_unused)


class Connection(asyncio.Protocol):
    """One of them. What comes without a request, or beyond its answer, ends it."""

    transport: asyncio.Transport
    unused_since: float
    """Time of the event loop."""

    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self._loop = asyncio.get_running_loop()
        self._parser = HttpResponseParser(self)
        self._answer: Incoming | None = None
        self._fruitless = 0
        self._paused = False
        self._reusable = False
        """Once an answer has ended: whether another may follow."""

    def ask(self, request: bytes) -> Incoming:
        """Send a request. The connection is given back when the answer has ended, or else to be closed."""
        answer = self._answer = Incoming(self, self._loop)
        self.transport.write(request)
        return answer

    def close(self) -> None:
        """At once: nothing that still waits here is sent."""
        self.transport.abort()

    def resume(self) -> None:
        """What came has been read."""
        if self._paused:
            self._paused = False
            self.transport.resume_reading()

    # What the event loop says.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # noqa: D102
        self.transport = cast("asyncio.Transport", transport)  # that of a stream
        self._origin.opened(self)

    def data_received(self, data: bytes) -> None:  # noqa: D102
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
            # With part of the request still here, the next would follow upon half of it.
            if self._reusable and not self.transport.get_write_buffer_size():
                self._origin.keep(self)
            else:
                self.close()
        elif self._fruitless > _FRUITLESS:
            self._fail(httpx.RemoteProtocolError, "upstream's answer has a head that is too large")
            return
        elif answer.unread > _AHEAD and not self._paused:
            self._paused = True
            self.transport.pause_reading()
        answer.wake()

    def connection_lost(self, error: Exception | None) -> None:  # noqa: D102
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

    def on_message_begin(self) -> None:  # noqa: D102
        if self._answer is None or self._answer.ended:
            raise HttpParserError("nobody has asked for this")

    def on_header(self, name: bytes, value: bytes) -> None:  # noqa: D102
        if self._answer is not None and not self._answer.status:  # else it is of the trailer
            self._answer.fields.append((name, value))

    def on_headers_complete(self) -> None:  # noqa: D102
        self._fruitless = 0
        status = self._parser.get_status_code()
        if self._answer is not None and status >= 200 and not self._answer.status:
            self._answer.status = status

    def on_body(self, body: bytes) -> None:  # noqa: D102
        self._fruitless = 0
        if self._answer is not None:
            self._answer.add(body)

    def on_message_complete(self) -> None:  # noqa: D102
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


class Incoming:
    """An answer as it comes in. One task reads it."""

    __slots__ = ("_connection", "_failure", "_loop", "_parts", "_waiter", "ended", "fields", "status", "unread")

    def __init__(self, connection: Connection, loop: asyncio.AbstractEventLoop) -> None:
        self._connection = connection
        self._loop = loop
        self._parts: list[bytes] = []
        self._failure: tuple[type[httpx.TransportError], str] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.status = 0
        """0 until its head has come."""
        self.fields: list[tuple[bytes, bytes]] = []
        """Those of the head, as they came."""
        self.unread = 0
        """Bytes of its body that have come and have not been read."""
        self.ended = False
        """Whether all of it has come."""

    async def head(self) -> None:
        """Wait for it. Raises httpx.RemoteProtocolError for what is no answer, ReadError when none comes."""
        while not self.status:
            await self._more()

    async def part(self) -> bytes:
        """What has come of its body since the last, or will come next; empty at its end. Raises what `head` does."""
        while not self._parts and not self.ended:
            await self._more()
        return self.rest()

    def rest(self) -> bytes:
        """What has come of its body since the last."""
        rest = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        self.unread = 0
        if not self.ended:
            self._connection.resume()
        return rest

    def close(self) -> None:
        """Unless all of it has come, nothing else can come on this connection."""
        if not self.ended:
            self._connection.close()

    # What the connection says.

    def add(self, part: bytes) -> None:
        """Part of its body."""
        self._parts.append(part)
        self.unread += len(part)

    def fail(self, kind: type[httpx.TransportError], message: str) -> None:
        """There will be no more."""
        self._failure = (kind, message)
        self.wake()

    def ends_with_the_connection(self) -> bool:
        """Whether it tells no length of its own (RFC 9112, section 6.3)."""
        delimiting = {b"content-length", b"transfer-encoding"}
        return self.status != 0 and all(name.lower() not in delimiting for name, _ in self.fields)

    def wake(self) -> None:
        """Something has come."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _more(self) -> None:
        if self._failure is not None:
            kind, message = self._failure
            raise kind(message)
        self._waiter = self._loop.create_future()
        await self._waiter
