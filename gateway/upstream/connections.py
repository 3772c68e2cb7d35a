"""Connections to upstream: made, kept and closed. What they speak is agreed on with TLS, or else HTTP/1.1."""

from __future__ import annotations

import asyncio
import random
import socket
from abc import ABC, abstractmethod
from collections import deque
from typing import TYPE_CHECKING, Final, cast

from aiohappyeyeballs import start_connection

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping, Sequence

    from aiohappyeyeballs import AddrInfoType

    from gateway.proxy import Proxy
    from gateway.upstream.incoming import Incoming

__all__ = ["HTTP_1", "HTTP_2", "Connection", "Origin"]

HTTP_1: Final = "http/1.1"
HTTP_2: Final = "h2"
"""As they are called where they are agreed on (ALPN, RFC 7301)."""

_UNUSED: Final = 30.0
"""Seconds for which an unused connection is kept: less than what servers and load balancers have (60 and more), so
that it is we who close it, and not they while a request is on its way."""
_OLD: Final = 60.0
"""Seconds after which a connection is used for no more requests: a name may lead to another server by now, as when
upstream is moved, and a busy connection would never notice. As long as many names are good for (the TTL in DNS)."""
_SPREAD: Final = 0.1
"""The part of that by which it differs between connections, so that those made together do not all end together."""
_KNOWN: Final = 10.0
"""Seconds for which a name's addresses are taken to be the same: many connections may be made at once."""
_NEXT_ADDRESS: Final = 0.25
"""Seconds after which another address of the same name is tried as well (RFC 8305, section 5)."""
_CLOSING: Final = 1.0
"""Seconds that closing all connections may take."""


class Connection(asyncio.Protocol, ABC):
    """One of them, whatever it speaks. It tells its origin what becomes of it."""

    transport: asyncio.Transport
    unused_since: float
    old_at: float
    """When it is too old to be used for another request. Both are times of the event loop."""

    async def ready(self) -> None:
        """Wait until it can be asked, or is closed."""

    @abstractmethod
    def ask(self, request: bytes) -> Incoming:
        """Send a request, which is as HTTP/1.1 has it."""

    @abstractmethod
    def close(self) -> None:
        """At once: nothing that still waits here is sent."""


class Origin:
    """A server, and all connections to it (RFC 9110, section 4.3.1). Belongs to one event loop.

    `kinds` is what they may speak, by ALPN's names, and what `tls` offers. Where there is a `proxy`, they go through
    tunnels that it makes. How many there are at a time is left to whoever asks: a new one is made when none has room.
    """

    def __init__(
        self,
        host: str,
        port: int,
        tls: ssl.SSLContext | None,
        kinds: Mapping[str, Callable[[Origin], Connection]],
        proxy: Proxy | None = None,
    ) -> None:
        self.host = host
        self.port = port
        self._tls = tls
        self._kinds = kinds
        self._proxy = proxy
        self._connecting = asyncio.Lock()
        self._is_shared = tls is not None and HTTP_2 in kinds
        """Whether one connection is likely to do for many requests."""
        self._loop = asyncio.get_running_loop()
        self._addresses: Sequence[AddrInfoType] = ()
        self._addresses_until = 0.0
        self._looking_up = asyncio.Lock()
        self._open: set[Connection] = set()
        self._unused: deque[Connection] = deque()
        """The one that was used last is the last, and the next to be used."""
        self._roomy: dict[Connection, None] = {}
        """Those that are in use and can be used for more, the oldest first."""
        self._timer: asyncio.TimerHandle | None = None
        """Set while there are unused ones, until the time of the first of them is over."""
        self._closed: asyncio.Future[None] | None = None
        """Once they are to be closed: done when the last one is."""

    def available(self) -> Connection | None:
        """One that is there and has room for a request, if there is any."""
        while self._unused:
            connection = self._unused.pop()
            if not connection.transport.is_closing():
                return connection
        for connection in self._roomy:
            if not connection.transport.is_closing():
                return connection
        return None

    async def connect(self) -> Connection:
        """A new one, or one that another request has made meanwhile and that has room for more.

        Raises OSError, or UnicodeError for what can be no name.
        """
        if self._is_shared:
            async with self._connecting:
                if there := self.available():
                    return there
                if self._is_shared:
                    return await self._connect()
        return await self._connect()

    def fill(self, connection: Connection) -> None:
        """It is in use, and has no room for more."""
        self._roomy.pop(connection, None)

    def share(self, connection: Connection) -> None:
        """It is in use, and has room for more, unless it is too old for that."""
        if self._loop.time() < connection.old_at:
            self._roomy[connection] = None
        else:
            self.fill(connection)

    def keep(self, connection: Connection) -> None:
        """It is not in use. It is closed if it is too old."""
        self._roomy.pop(connection, None)
        connection.unused_since = self._loop.time()
        if connection.unused_since >= connection.old_at:
            connection.close()
            return
        self._unused.append(connection)
        if self._timer is None:
            self._timer = self._loop.call_at(connection.unused_since + _UNUSED, self._close_unused)

    def opened(self, connection: Connection) -> None:
        """It is there."""
        age = _OLD * random.uniform(1 - _SPREAD, 1 + _SPREAD)  # noqa: S311 - no secret
        connection.old_at = self._loop.time() + age
        self._open.add(connection)

    def ended(self, connection: Connection) -> None:
        """It is no more."""
        self._open.discard(connection)
        self._roomy.pop(connection, None)
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
        try:
            return await self._connected()
        except BaseException:
            self._addresses_until = 0.0  # the server may have moved
            raise

    async def _connected(self) -> Connection:
        found = await start_connection(
            await self._look_up(), happy_eyeballs_delay=_NEXT_ADDRESS, interleave=1, loop=self._loop
        )
        if self._proxy is not None:
            try:
                await self._proxy.tunnel(found, self.host, self.port)
            except BaseException:
                found.close()
                raise
        agreement = _Agreement(self, self._kinds)
        try:
            await self._loop.create_connection(
                lambda: agreement,
                sock=found,
                ssl=self._tls,
                server_hostname=None if self._tls is None else self.host,
            )
        except BaseException:
            agreement.come_to_nothing()
            raise
        connection = agreement.connection
        self._is_shared = agreement.on == HTTP_2
        if self._closed is not None:
            connection.close()
            raise ConnectionAbortedError("all connections have been closed meanwhile")
        try:
            await connection.ready()
        except BaseException:
            connection.close()
            raise
        if connection.transport.is_closing():
            raise ConnectionResetError("the connection was ended as soon as it was made")
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


class _Agreement(asyncio.Protocol):
    """On what a new connection speaks: over in the moment in which it is there."""

    connection: Connection
    """Once it is there."""

    def __init__(self, origin: Origin, kinds: Mapping[str, Callable[[Origin], Connection]]) -> None:
        self._origin = origin
        self._kinds = kinds
        self.on = ""
        """Empty until then."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
        self.on = (tls and tls.selected_alpn_protocol()) or HTTP_1
        self.connection = self._kinds[self.on](self._origin)
        cast("asyncio.Transport", transport).set_protocol(self.connection)
        self.connection.connection_made(transport)

    def come_to_nothing(self) -> None:
        """Whoever made the connection has gone. uvloop closes it then, and does not tell the connection so."""
        if self.on:
            self._origin.ended(self.connection)
