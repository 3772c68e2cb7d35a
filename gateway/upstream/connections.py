"""Connections to upstream: opened, kept and closed. Their protocol is negotiated with TLS, or else HTTP/1.1."""

from __future__ import annotations

import asyncio
import random
import socket
from abc import ABC, abstractmethod
from collections import deque
from typing import TYPE_CHECKING, Final, cast

import structlog
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
"""Names of protocols in ALPN (RFC 7301)."""

_UNUSED: Final = 30.0
"""Seconds for which an idle connection is kept: less than servers and load balancers do (60 and more), so that we close
it first, and they do not while a request is on its way."""
_OLD: Final = 60.0
"""Seconds after which a connection is not used for more requests: its name may resolve to another server by now, if
upstream has moved, and a busy connection would never notice. Many names have this TTL in DNS."""
_SPREAD: Final = 0.1
"""Jitter, as a share of that, so that connections that were opened together do not end together."""
_KNOWN: Final = 10.0
"""Seconds for which a name's addresses are cached: many connections may be opened at once."""
_NEWER: Final = 1.0
"""Seconds that are spent on looking for newer addresses than those that are known."""
_NEXT_ADDRESS: Final = 0.25
"""Seconds after which the name's next address is tried in parallel (RFC 8305, section 5)."""
_CLOSING: Final = 1.0
"""Seconds that closing all connections may take."""


class Connection(asyncio.Protocol, ABC):
    """A connection, whatever its protocol. It reports its state to its origin."""

    transport: asyncio.Transport
    unused_since: float
    old_at: float
    """When it is too old for another request. Both are in the event loop's time."""

    async def ready(self) -> None:
        """Wait until it can take requests, or is closed."""

    @abstractmethod
    def ask(self, request: bytes) -> Incoming:
        """Send a request, in the format of HTTP/1.1."""

    @abstractmethod
    def close(self) -> None:
        """Close it at once, without sending what is still buffered."""


class Origin:
    """A server, and all connections to it (RFC 9110, section 4.3.1). Belongs to one event loop.

    `kinds` are the protocols that `tls` offers, by their names in ALPN. With a `proxy`, connections go through its
    tunnels. Their number is not limited here: a new one is opened when none is available.
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
        """Whether one connection probably serves many requests."""
        self._loop = asyncio.get_running_loop()
        self._addresses: Sequence[AddrInfoType] = ()
        self._addresses_until = 0.0
        self._log = structlog.stdlib.get_logger(__name__)
        self._looking_up = asyncio.Lock()
        self._open: set[Connection] = set()
        self._unused: deque[Connection] = deque()
        """The most recently used last, which is used next."""
        self._roomy: dict[Connection, None] = {}
        """Those in use that can take more requests, the oldest first."""
        self._timer: asyncio.TimerHandle | None = None
        """Set while there are unused ones, for when the first of them is closed."""
        self._closed: asyncio.Future[None] | None = None
        """Set when closing begins; done when the last connection is closed."""

    def available(self) -> Connection | None:
        """An open connection that can take a request, if there is one."""
        while self._unused:
            connection = self._unused.pop()
            if not connection.transport.is_closing():
                return connection
        for connection in self._roomy:
            if not connection.transport.is_closing():
                return connection
        return None

    async def connect(self) -> Connection:
        """A new connection, or one that was opened for another request meanwhile and can take more.

        Raises OSError, or UnicodeError for an invalid name.
        """
        if self._is_shared:
            async with self._connecting:
                if there := self.available():
                    return there
                if self._is_shared:
                    return await self._connect()
        return await self._connect()

    def fill(self, connection: Connection) -> None:
        """It is in use, and cannot take more requests."""
        self._roomy.pop(connection, None)

    def share(self, connection: Connection) -> None:
        """It is in use, and can take more requests, unless it is too old."""
        if self._loop.time() < connection.old_at:
            self._roomy[connection] = None
        else:
            self.fill(connection)

    def keep(self, connection: Connection) -> None:
        """It is idle. It is closed if it is too old."""
        self._roomy.pop(connection, None)
        connection.unused_since = self._loop.time()
        if connection.unused_since >= connection.old_at:
            connection.close()
            return
        self._unused.append(connection)
        if self._timer is None:
            self._timer = self._loop.call_at(connection.unused_since + _UNUSED, self._close_unused)

    def opened(self, connection: Connection) -> None:
        """It is open."""
        age = _OLD * random.uniform(1 - _SPREAD, 1 + _SPREAD)  # noqa: S311 - no secret
        connection.old_at = self._loop.time() + age
        self._open.add(connection)

    def ended(self, connection: Connection) -> None:
        """It is closed."""
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
            await asyncio.wait([self._closed], timeout=_CLOSING)  # the event loop reports it in its next iterations

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
        """The name's addresses. While DNS is out of order, the last ones that it gave remain in use (RFC 8767)."""
        async with self._looking_up:
            if self._loop.time() >= self._addresses_until:
                try:
                    async with asyncio.timeout(_NEWER if self._addresses else None):
                        self._addresses = await self._resolved()
                except (TimeoutError, socket.gaierror) as error:
                    says_nothing = isinstance(error, TimeoutError) or error.errno == socket.EAI_AGAIN
                    if not self._addresses or not says_nothing:
                        raise
                    self._log.warning("name_not_resolved", host=(self._proxy or self).host)
                self._addresses_until = self._loop.time() + _KNOWN
        return self._addresses

    async def _resolved(self) -> Sequence[AddrInfoType]:
        there = self._proxy or self
        return await self._loop.getaddrinfo(there.host, there.port, type=socket.SOCK_STREAM)

    def _close_unused(self) -> None:
        before = self._loop.time() - _UNUSED
        while self._unused and self._unused[0].unused_since <= before:
            self._unused.popleft().close()
        first = self._unused[0].unused_since if self._unused else None
        self._timer = None if first is None else self._loop.call_at(first + _UNUSED, self._close_unused)


class _Agreement(asyncio.Protocol):
    """The protocol of a new connection until ALPN's result is known, which decides on the real one."""

    connection: Connection
    """Set when the connection is open."""

    def __init__(self, origin: Origin, kinds: Mapping[str, Callable[[Origin], Connection]]) -> None:
        self._origin = origin
        self._kinds = kinds
        self.on = ""
        """The negotiated protocol; empty until then."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
        self.on = (tls and tls.selected_alpn_protocol()) or HTTP_1
        self.connection = self._kinds[self.on](self._origin)
        cast("asyncio.Transport", transport).set_protocol(self.connection)
        self.connection.connection_made(transport)

    def come_to_nothing(self) -> None:
        """Connecting was cancelled. uvloop closes the connection then, without telling its protocol."""
        if self.on:
            self._origin.ended(self.connection)
