"""Serves an ASGI application over HTTP while a block runs: uvicorn, without its hold on the process.

Signals, logging and the event loop belong to whoever runs the process, and several listeners share one loop.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import sys
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.addresses import authority
from gateway.handshakes import Handshakes, taken_from
from gateway.protocol import BoundedProtocol
from gateway.shutdown import Shutdown
from gateway.tls import server_context

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from starlette.types import ASGIApp
    from uvicorn.server import Protocols

    from gateway.tls import Certificates

__all__ = ["bind", "claim", "limit_unsent", "listening", "shared_with_others"]

_BACKLOG: Final = 2048
_FIRST_REQUEST: Final = 1.0
"""Seconds that a connection gets for its first request when the listener closes: it has only just been made."""
_LOOK_EVERY: Final = 0.05
_TOLD: Final = 1.0
"""Seconds that requests get to end once their clients are cut off."""
_CANCELLED: Final = 1.0
"""Seconds that they get after that, once they are cancelled."""
_UNSENT: Final = 65_536
"""Bytes of answers that the kernel holds for a client that does not take them, beyond what it has sent."""


@asynccontextmanager
async def listening(
    app: ASGIApp,
    *,
    host: str,
    port: int,
    grace: float,
    protocol: Callable[..., HttpToolsProtocol] = BoundedProtocol,
    max_connections: int | None = None,
    certificates: Certificates | None = None,
    shutdown: Shutdown | None = None,
    shared: bool = False,
    section: str = "",
) -> AsyncIterator[str]:
    """Listen while the block runs; yields the base URL. Port 0 takes a free one; `shared` and `section` as in `claim`.

    Connections beyond `max_connections` are closed at once. Those still in their TLS handshake count too.

    On leaving, or as soon as `shutdown` closes doors, no new connection is taken, and requests under way get `grace`
    seconds, or less when it is hastened. As soon as it begins, answers ask clients to reconnect for their next request.
    `protocol` is uvicorn's HTTP protocol, or makes one derived from it. With certificates it speaks TLS, and each
    connection gets the current one. Raises OSError when the port cannot be bound.
    """
    tls = None if certificates is None else server_context(certificates)
    shutdown = shutdown or Shutdown()
    listener = bind(host, port, shared=shared, section=section)
    bounded = protocol if max_connections is None else partial(protocol, max_connections=max_connections)
    server = _Server(
        shutdown,
        grace,
        max_connections,
        uvicorn.Config(
            app,
            http=bounded,  # type: ignore[arg-type]  # is called, and nothing else
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # what it would make of them, for ASGI alone and by a variable besides, is of no use
            timeout_keep_alive=75,
            ssl_context_factory=None if tls is None else lambda *_: tls,
        ),
    )
    shutdown.when_begun(server.discourage)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(server.serve(sockets=[listener]), name=f"listen on {host}:{port}")
        tasks.create_task(server.close_when_told(), name="close when told")
        try:
            scheme = "http" if tls is None else "https"
            yield f"{scheme}://{authority(host, listener.getsockname()[1])}"
        finally:
            shutdown.close()
            try:
                with shutdown.hastened_by_cancellation():
                    await running
            finally:
                await server.abandon()  # nothing is left of it, even if that was cancelled
                listener.close()


class _Server(uvicorn.Server):
    """Leaves signals alone, bounds TLS handshakes, and loses no request when it stops: uvicorn does none of this."""

    def __init__(self, shutdown: Shutdown, grace: float, max_connections: int | None, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.servers = []  # where it ends before it has begun
        self._shutdown = shutdown
        self._grace = grace
        self._max_connections = max_connections
        self._handshakes: Handshakes | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen on the sockets. uvicorn's own method does much else, none of it of use here."""
        loop, tls = asyncio.get_running_loop(), self.config.ssl
        if tls is None:
            self.servers = [
                await loop.create_server(self._protocol, sock=each, backlog=self.config.backlog)
                for each in sockets or ()
            ]
        else:
            self._handshakes = Handshakes(tls, self._protocol, self._full)
            for each in sockets or ():
                self._handshakes.take_from(each)
        self.started = True

    def discourage(self) -> None:
        """Ask clients to make new connections from now on, which may bring them to another gateway."""
        farewell = (b"connection", b"close")
        self.config.encoded_headers.append(farewell)  # of which uvicorn makes the other list anew each second
        self.server_state.default_headers.append(farewell)

    async def close_when_told(self) -> None:
        """Begin to shut down as soon as doors are to close."""
        await self._shutdown.wait_closing()
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections, and give requests their time."""
        await self._close_listeners(sockets or [])
        state, loop = self.server_state, asyncio.get_running_loop()
        began = loop.time()
        grace = self._grace
        while not self._shutdown.hastened and loop.time() < began + grace:
            fresh = loop.time() < began + _FIRST_REQUEST
            if not (state.connections or state.tasks or (fresh and self._agreeing())):
                break
            for each in list(state.connections):
                if not (fresh and _awaits_its_first(each)):
                    each.shutdown()
            await asyncio.sleep(_LOOK_EVERY)

    async def abandon(self) -> None:
        """Cut off whatever is still open.

        Requests in progress see that their client has gone. Only those that go on after that are cancelled, since
        uvicorn logs a cancelled request as an error.
        """
        for server in self.servers:
            server.close()
        if self._handshakes is not None:
            self._handshakes.close()
            await self._handshakes.abandon()
        for each in list(self.server_state.connections):
            each.transport.abort()
        tasks = list(self.server_state.tasks)
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=_TOLD)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=_CANCELLED)

    async def _close_listeners(self, listeners: list[socket.socket]) -> None:
        """The kernel resets connections that are established but not accepted: so all of them are accepted first."""
        copies = [each.dup() for each in listeners]  # asyncio closes its own, on which nobody could accept any more
        for server in self.servers:
            server.close()
        if self._handshakes is not None:
            self._handshakes.close()
        for each in listeners:
            each.close()
        connections = [connection for each in copies for connection in _left_of(each)]
        for each in copies:
            each.close()
        if self._handshakes is None:
            await asyncio.gather(*map(self._connect, connections))
        else:
            for connection in connections:
                self._handshakes.take(connection)

    async def _connect(self, connection: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection)
        except OSError:  # its client has gone
            connection.close()

    def _protocol(self) -> asyncio.Protocol:
        return self.config.http_protocol_class(config=self.config, server_state=self.server_state, app_state={})  # type: ignore[call-arg]  # each of uvicorn's takes these

    def _agreeing(self) -> set[asyncio.Protocol]:
        return set() if self._handshakes is None else self._handshakes.under_way()

    def _full(self) -> bool:
        if self._max_connections is None:
            return False
        return len(self._agreeing() | self.server_state.connections) >= self._max_connections

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def _awaits_its_first(connection: Protocols) -> bool:
    """Whether no request has come by this connection yet."""
    return isinstance(connection, HttpToolsProtocol) and connection.cycle is None


def _left_of(listener: socket.socket) -> Iterator[socket.socket]:
    """Connections that wait to be accepted. Those that cannot be are left."""
    listener.setblocking(False)
    with suppress(OSError):
        yield from taken_from(listener)


def bind(host: str, port: int, *, shared: bool = False, section: str = "") -> socket.socket:
    """A socket that listens; all else is as in `claim`."""
    listener = claim(host, port, shared=shared, section=section)
    listener.listen(_BACKLOG)
    return listener


def claim(host: str, port: int, *, shared: bool = False, section: str = "") -> socket.socket:
    """A socket that is bound but does not listen yet: it keeps the port, and no client reaches it.

    A `shared` port may also be in use by other processes of the same user that share it: the kernel spreads new
    connections over all of them (SO_REUSEPORT). Raises OSError, whose `strerror` names the address, and the section of
    the settings that it comes from, if given, with what to set if the port is in use.
    """
    claimed = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        claimed.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            claimed.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if claimed.family == socket.AF_INET6:
            claimed.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        claimed.bind((host, port))
    except OSError as error:
        claimed.close()
        problem = f"cannot listen on {authority(host, port)}: {error.strerror}"
        if section:
            problem = f"{section}: {problem}"
        if section and error.errno == errno.EADDRINUSE:
            problem += f": set another {section}.port, or SESSION_GATEWAY_{section.upper()}__PORT in the environment"
        raise OSError(error.errno, problem) from error
    # Connections inherit it. asyncio sets it for sockets that name IPPROTO_TCP alone: an answer's body would wait for
    # the client's delayed acknowledgement of its head.
    claimed.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    limit_unsent(claimed)
    return claimed


def limit_unsent(listener: socket.socket) -> None:
    """Have the kernel leave to us what the clients of its connections do not take.

    Otherwise it holds up to 4 MB for each, where no limit of ours applies, and a container's limit on memory counts it.
    Kernels that stand in for Linux (gVisor) may not know the option.
    """
    if sys.platform == "linux":
        with suppress(OSError):
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT)


def shared_with_others(host: str, port: int) -> bool:
    """Whether another process listens there already, and shares the port."""
    try:
        claim(host, port, shared=True).close()
    except OSError:
        return False  # it cannot be bound at all
    try:
        claim(host, port).close()
    except OSError as error:
        return error.errno == errno.EADDRINUSE
    return False
