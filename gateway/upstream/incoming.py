"""An answer while it is received, from any kind of connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    import asyncio

    import httpx

__all__ = ["AHEAD", "Incoming", "Source"]

AHEAD: Final = 256 * 1024
"""Unread bytes of a body that are buffered before reading from the connection is paused."""


class Source(Protocol):
    """The source of an answer: a connection or stream."""

    def resume(self) -> None:
        """The data received so far has been read."""
        ...

    def close(self) -> None:
        """The rest is not needed."""
        ...


class Incoming:
    """An answer while it is received. One task reads it."""

    __slots__ = (
        "_failure",
        "_loop",
        "_parts",
        "_source",
        "_waiter",
        "ended",
        "fields",
        "status",
        "unread",
        "version",
    )

    def __init__(self, source: Source, loop: asyncio.AbstractEventLoop, version: bytes) -> None:
        self._source = source
        self._loop = loop
        self._parts: list[bytes] = []
        self._failure: tuple[type[httpx.TransportError], str] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.version = version
        """HTTP version, as httpx names it."""
        self.status = 0
        """0 until the head has arrived."""
        self.fields: list[tuple[bytes, bytes]] = []
        """Header fields, as received."""
        self.unread = 0
        """Bytes of the body that have been received but not read."""
        self.ended = False
        """Whether it has been received completely."""

    async def head(self) -> None:
        """Wait for the head. Raises httpx.RemoteProtocolError if it is invalid, ReadError if none arrives."""
        while not self.status:
            await self._more()

    async def part(self) -> bytes:
        """The next part of the body, for which it may wait; empty at the end. Raises what `head` raises."""
        while not self._parts and not self.ended:
            await self._more()
        return self.rest()

    def rest(self) -> bytes:
        """All that has been received of the body since the last part."""
        rest = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        self.unread = 0
        if not self.ended:
            self._source.resume()
        return rest

    def close(self) -> None:
        """The rest is not needed, if it is not complete."""
        if not self.ended:
            self._source.close()

    # What its source says.

    def add(self, part: bytes) -> None:
        """Add a part of the body. Empty ones are ignored: to a reader an empty part is the end."""
        if part:
            self._parts.append(part)
            self.unread += len(part)

    def fail(self, kind: type[httpx.TransportError], message: str) -> None:
        """No more will be received."""
        self._failure = (kind, message)
        self.wake()

    def ends_with_the_connection(self) -> bool:
        """Whether it has no length of its own, but ends when the connection does (RFC 9112, section 6.3)."""
        delimiting = {b"content-length", b"transfer-encoding"}
        return self.status != 0 and all(name.lower() not in delimiting for name, _ in self.fields)

    def wake(self) -> None:
        """Something was received."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _more(self) -> None:
        if self._failure is not None:
            kind, message = self._failure
            raise kind(message)
        self._waiter = self._loop.create_future()
        await self._waiter
