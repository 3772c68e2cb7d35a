"""An answer as it comes in, over whatever connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    import asyncio

    import httpx

__all__ = ["AHEAD", "Incoming", "Source"]

AHEAD: Final = 256 * 1024
"""Bytes of a body that may lie here unread before no more are taken from where it comes from."""


class Source(Protocol):
    """Where an answer comes from."""

    def resume(self) -> None:
        """What came has been read."""
        ...

    def close(self) -> None:
        """Nobody wants the rest of it."""
        ...


class Incoming:
    """An answer as it comes in. One task reads it."""

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
        """Of HTTP, as httpx calls it."""
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
            self._source.resume()
        return rest

    def close(self) -> None:
        """Nobody wants what has not come yet, if anything has not."""
        if not self.ended:
            self._source.close()

    # What its source says.

    def add(self, part: bytes) -> None:
        """Part of its body. An empty one is none: to a reader it would be the end, which `ended` tells."""
        if part:
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
