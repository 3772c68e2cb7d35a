"""Reads the requests of calls: in their time, and so many at a time.

Anybody can open a call and send the most of a large request, and nobody is known before it has come whole. gRPC takes
up to 64 KiB of one that nobody reads, and of one that is being read all there is.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import grpc
from google.protobuf.message import DecodeError

from gateway.arrivals import Arrivals
from gateway.errors import InvalidArgument, NoRoomForRequest, RequestNotReceived
from gateway.request_memory import PER_BYTE, SMALL
from gateway.rpc.errors import abort

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.message import Message

    from gateway.request_memory import RequestMemory
    from gateway.rpc.instrumentation import Context

__all__ = ["Reader"]

_LATE: Final = object()
"""Why a call is cancelled that waits for its request."""


class Reader:
    """Reads requests of up to `max_message` bytes. Each may take `patience` seconds, its wait for a turn included.

    What they take once they are decoded is part of the `load`.

    One timer serves all, since one for each costs too much.
    """

    def __init__(self, patience: float, max_message: int, memory: RequestMemory) -> None:
        self._patience = patience
        self._arrivals = Arrivals(max_message, self._end)
        self._memory = memory
        self._awaited: dict[asyncio.Task[object], float] = {}
        """Calls that wait for their requests, and until when (time of the loop), the earliest first."""
        self._timer: asyncio.TimerHandle | None = None
        """Set while a call waits, and then until the time of the earliest is over, whether or not it still waits."""

    async def read(self, context: Context, decode: Callable[[bytes], Message]) -> Message:
        """The request of a call. Ends the call when it does not come in time, or cannot be read."""
        loop = asyncio.get_running_loop()
        task: asyncio.Task[object] = asyncio.current_task(loop)  # type: ignore[assignment]  # grpc.aio runs each call in one
        until = self._awaited[task] = loop.time() + self._patience
        if self._timer is None:
            self._timer = loop.call_at(until, self._end_late)
        try:
            await self._arrivals.enter(task)
            try:
                received: Any = await context.read()
            finally:
                self._arrivals.leave(task)
        except asyncio.CancelledError as cancelled:
            if cancelled.args != (_LATE,):
                raise
            task.uncancel()
            await abort(context, RequestNotReceived())
        finally:
            self._awaited.pop(task, None)
        if received is grpc.aio.EOF:
            await abort(context, _unreadable())
        if len(received) > SMALL and not self._memory.reserve(PER_BYTE * len(received)):
            await abort(context, NoRoomForRequest())
        try:
            return decode(received)
        except DecodeError:
            await abort(context, _unreadable())

    def _end_late(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._timer = None
        for task, until in list(self._awaited.items()):
            if until > now:
                self._timer = loop.call_at(until, self._end_late)
                break
            self._end(task)

    def _end(self, task: asyncio.Task[object]) -> None:
        """Not twice: a task that was cancelled twice would not come to its end."""
        if self._awaited.pop(task, None) is not None:
            task.cancel(_LATE)


def _unreadable() -> InvalidArgument:
    return InvalidArgument.of("request", "is not the message that this method takes")
