"""uvicorn's HTTP protocol, with limits on what clients have still to take of their answers.

By itself it hands an answer to the transport as a whole, which keeps what a client does not take, for as long as the
client likes.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, ClassVar, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    import asyncio

    from uvicorn._types import ASGI3Application, ASGIReceiveCallable, ASGISendCallable, Scope
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

__all__ = ["PacedProtocol"]

_PIECE: Final = 65_536
"""Bytes that are written at a time; what exceeds them in the transport's buffer has not been taken by the client."""


class PacedProtocol(HttpToolsProtocol):
    """Writes answers no faster than clients take them. A client that is too slow is cut off.

    A request is not begun before the client has taken the last answer: its own would wait where nothing counts it.
    """

    reading: ClassVar[float] = 60.0
    """Seconds for a client to take what exceeds the transport's buffer, which is some 64 KiB."""
    room: ClassVar[int] = 67_108_864
    """Bytes of answers that all clients of a listener together may still have to take."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.taking: asyncio.TimerHandle | None = None
        """Set while the client has not taken all of an answer; it expires when the time for that is over."""
        self._unwritten: deque[bytes] = deque()
        """Pieces of the answer that the transport has not taken yet."""
        self._ending = False
        """Whether the connection is to be closed after the answer under way: nothing that arrives is looked at any
        more."""

    def at_rest(self) -> bool:
        """Whether nothing is being answered."""
        return self.cycle is None or self.cycle.response_complete  # type: ignore[redundant-expr]  # it begins with None

    @property
    def untaken(self) -> int:
        """Bytes of answers that the client has still to take."""
        return self.transport.get_write_buffer_size() + sum(map(len, self._unwritten))

    async def taken(self) -> None:
        """Wait until the client has taken nearly all of the last answer, or has gone."""
        while self.flow.write_paused:  # again, where the next piece has been written
            await self.flow.drain()

    def write(self, data: bytes) -> None:
        """Write a part of an answer: as much as the transport takes, and the rest when the client has taken that.

        uvloop's TLS takes everything at once, and never says that the client does not take it.
        """
        if not self._unwritten and len(data) <= _PIECE:
            self.transport.write(data)
            return
        self._unwritten.extend(data[start : start + _PIECE] for start in range(0, len(data), _PIECE))
        self._write_on()

    def close(self) -> None:
        """Close the connection once everything is written. Until then, whatever arrives is ignored."""
        if not self._unwritten:
            self.transport.close()
            return
        self._ending = True
        self.pipeline.clear()

    def cut_off(self) -> None:
        """Close the connection, and drop what the client has not taken."""
        self._stop_timer()
        self.transport.abort()

    # What the event loop and uvicorn say.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Have the transport say when it holds more than a piece."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(_PIECE)  # TLS has others by default

    def connection_lost(self, exc: Exception | None) -> None:
        """Drop what has not been taken."""
        self._stop_timer()
        self._unwritten.clear()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client does not take what is written fast enough. The time is for the whole answer."""
        super().pause_writing()
        if self.taking is None:
            self.taking = self.loop.call_later(self.reading, self.cut_off)
            self._make_room()  # once for an answer, all of which is to be taken now: it looks at every connection

    def resume_writing(self) -> None:
        """It has taken nearly all of it."""
        super().resume_writing()
        self._write_on()
        if not self.flow.write_paused:
            self._stop_timer()

    def shutdown(self) -> None:
        """Close the connection after the answer in progress."""
        if self._unwritten and self.at_rest():
            self.close()
        else:
            super().shutdown()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        async def once_taken(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
            await self.taken()
            await app(scope, receive, send)

        super()._start_asgi_task(cycle, once_taken if self.flow.write_paused else app)

    def _write_on(self) -> None:
        while self._unwritten and not self.flow.write_paused and not self.transport.is_closing():
            self.transport.write(self._unwritten.popleft())
        if self._ending and not self._unwritten and self.at_rest():
            self.transport.close()

    def _make_room(self) -> None:
        """While clients have too much still to take, cut off the one that has been slow for longest."""
        slow = {
            each: each.taking.when()
            for each in self.connections
            if isinstance(each, PacedProtocol) and each.taking is not None
        }
        while len(slow) > 1 and sum(each.untaken for each in slow) > self.room:
            longest = min(slow, key=slow.__getitem__)
            del slow[longest]
            longest.cut_off()

    def _stop_timer(self) -> None:
        if self.taking is not None:
            self.taking.cancel()
            self.taking = None
