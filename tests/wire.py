"""A connection without a socket: tests pass it bytes as the event loop would, and read what it writes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.upstream.incoming import Incoming


class Wire(asyncio.Transport):
    """The transport below the connection. `waiting` is the size of its write buffer, as it reports it."""

    def __init__(self, connection: asyncio.Protocol) -> None:
        super().__init__()
        self._connection = connection
        self.closed = False
        self.waiting = 0
        self.written = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def take(self) -> bytes:
        """What was written since the last time."""
        taken, self.written = self.written, b""
        return taken

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        if not self.closed:
            self.closed = True
            asyncio.get_running_loop().call_soon(self._connection.connection_lost, None)


async def read(incoming: Incoming) -> tuple[int, bytes]:
    """Status and body of an answer. Raises what `Incoming` raises."""
    async with asyncio.timeout(5):
        await incoming.head()
        parts = []
        while part := await incoming.part():
            parts.append(part)
        return incoming.status, b"".join(parts)


async def turns() -> None:
    """Let readers process what has been received."""
    for _ in range(5):
        await asyncio.sleep(0)
