"""Serves an ASGI application over HTTP while a block runs: uvicorn, without a claim on the process.

Signals, logging and the event loop belong to whoever runs the process, and several listeners share one loop.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Final

import uvicorn

from gateway.protocol import BoundedHead
from gateway.tls import server_context

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from starlette.types import ASGIApp
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    from gateway.tls import Certificates

__all__ = ["authority", "bind", "listening"]

_BACKLOG: Final = 2048
_HANDSHAKE: Final = 10.0
"""Seconds for TLS to be agreed on; asyncio's own is a minute."""
_FAREWELL: Final = 0.5
"""Seconds for a client to answer TLS's farewell. One that keeps an idle connection does not read, so does not answer;
asyncio would wait for half a minute, and each such connection would hold up the shutdown for as long as it may."""


@asynccontextmanager
async def listening(
    app: ASGIApp,
    *,
    host: str,
    port: int,
    grace: float,
    protocol: Callable[..., HttpToolsProtocol] = BoundedHead,
    certificates: Certificates | None = None,
) -> AsyncIterator[str]:
    """Listen while the block runs; yields the base URL. Port 0 takes a free one.

    On leaving, no new connection is taken, and requests under way get `grace` seconds. `protocol` is uvicorn's HTTP
    protocol, or makes one derived from it. With certificates it speaks TLS, and takes those there are whenever a client
    connects. Raises OSError when the port cannot be had.
    """
    tls = None if certificates is None else server_context(certificates)
    listener = bind(host, port)
    server = _Server(
        uvicorn.Config(
            app,
            http=protocol,  # type: ignore[arg-type]  # is called, and nothing else
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=grace,  # type: ignore[arg-type]  # goes to asyncio.wait_for, which takes floats
            timeout_keep_alive=75,
            ssl_context_factory=None if tls is None else lambda *_: tls,
        )
    )
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(server.serve(sockets=[listener]), name=f"listen on {host}:{port}")
        try:
            scheme = "http" if tls is None else "https"
            yield f"{scheme}://{authority(host, listener.getsockname()[1])}"
        finally:
            server.should_exit = True
            await running
            listener.close()


def authority(host: str, port: int) -> str:
    """Host and port as RFC 3986, 3.2 writes them: an IPv6 address stands in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class _Server(uvicorn.Server):
    """Leaves signals alone, and bounds how long TLS may take, for which uvicorn has no setting."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen on the sockets. uvicorn's own does this too, after much else that is of no use here."""
        config, tls = self.config, self.config.ssl

        def protocol() -> asyncio.Protocol:
            return config.http_protocol_class(config=config, server_state=self.server_state, app_state={})  # type: ignore[call-arg]  # each of uvicorn's takes these

        loop = asyncio.get_running_loop()
        self.servers = [
            await loop.create_server(
                protocol,
                sock=each,
                backlog=config.backlog,
                ssl=tls,
                ssl_handshake_timeout=_HANDSHAKE if tls else None,
                ssl_shutdown_timeout=_FAREWELL if tls else None,
            )
            for each in sockets or ()
        ]
        self.started = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises OSError, with a `strerror` that names the address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        why = str(error.strerror).partition(" (while")[0]  # what create_server adds is the address once more
        raise OSError(error.errno, f"cannot listen on {authority(host, port)}: {why}") from error
    # Connections inherit it. asyncio sets it for sockets of IPPROTO_TCP alone, and create_server's name no protocol:
    # an answer's body would wait for the client's delayed acknowledgement of its head.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener
