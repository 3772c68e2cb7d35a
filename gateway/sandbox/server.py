"""Serves the sandbox over HTTP, by uvicorn, with the means to cut a connection."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.sandbox.sandbox import CUT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from gateway.sandbox.sandbox import Sandbox

__all__ = ["SandboxServer", "serve"]


class _Cuttable(HttpToolsProtocol):
    """uvicorn's own protocol, which hands the application the scissors."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope[CUT] = self._cut  # type: ignore[typeddict-unknown-key]  # ASGI lets a server add keys of its own

    def _cut(self) -> None:
        if self.transport is not None:
            self.transport.abort()


@dataclass(frozen=True, slots=True)
class SandboxServer:
    """A running sandbox."""

    sandbox: Sandbox
    url: str


@asynccontextmanager
async def serve(sandbox: Sandbox, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[SandboxServer]:
    """Listen while the block runs; port 0 takes a free one. Raises OSError when the port cannot be had."""
    listener = socket.create_server((host, port), backlog=2048)
    server = _Server(
        uvicorn.Config(
            sandbox,
            http=_Cuttable,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=1,
            timeout_keep_alive=60,
        )
    )
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(server.serve(sockets=[listener]))
        try:
            yield SandboxServer(sandbox, f"http://{host}:{listener.getsockname()[1]}")
        finally:
            server.should_exit = True
            server.force_exit = True
            await running
            listener.close()


class _Server(uvicorn.Server):
    """Leaves signals alone: they are for whoever runs the process."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield
