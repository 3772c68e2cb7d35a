"""Serves the sandbox over HTTP, with the means to cut a connection."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.listener import listening
from gateway.sandbox.sandbox import CUT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.sandbox.sandbox import Sandbox

__all__ = ["SandboxServer", "serve"]

_GRACE: Final = 0.2
"""Seconds: what still hangs then was asked to."""


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
async def serve(
    sandbox: Sandbox, host: str = "127.0.0.1", port: int = 0, *, section: str = ""
) -> AsyncIterator[SandboxServer]:
    """Listen while the block runs; port 0 takes a free one. Raises OSError when the port cannot be had.

    It names the `section` of the settings that the port comes from, if given.
    """
    sandbox.stopping.clear()
    async with listening(sandbox, host=host, port=port, grace=_GRACE, protocol=_Cuttable, section=section) as url:
        try:
            yield SandboxServer(sandbox, url)
        finally:
            sandbox.stopping.set()
