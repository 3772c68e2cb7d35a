"""Reads the requests of calls: within a time, and only so many large ones at a time.

Anybody can open a call and send most of a large request, and no caller is authenticated before it has arrived. gRPC
buffers up to 64 KiB of a request that nobody reads, and all of one that is being read.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import grpc
from google.protobuf.message import DecodeError

from gateway.arrivals import Arrivals
from gateway.errors import InvalidArgument, NoRoomForRequest, RequestNotReceived
from gateway.memory_budget import PER_BYTE, SMALL
from gateway.rpc.errors import abort

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.message import Message

    from gateway.memory_budget import MemoryBudget
    from gateway.rpc.instrumentation import Context

__all__ = ["Reader"]

_LATE: Final = object()
"""Marks the cancellation of a call whose request is late."""


class Reader:
    """Reads requests of up to `max_message` bytes. Each may take `patience` seconds, including its wait for a turn.

    Large ones are decoded if `memory` has room for them. One timer serves all, since one for each costs too much.
    """

    def __init__(self, patience: float, max_message: int, memory: MemoryBudget) -> None:
        self._patience = patience
        self._arrivals = Arrivals(max_message, self._end)
        self._memory = memory
        self._awaited: dict[asyncio.Task[object], float] = {}
        """Calls that wait for their requests, and until when (in the loop's time), the earliest first."""
        self._timer: asyncio.TimerHandle | None = None
        """Set while a call waits. It expires when the earliest call is late, even if that no longer waits."""

    async def read(self, context: Context, decode: Callable[[bytes], Message], *, small: bool = False) -> Message:
        """The request of a call. Aborts the call if it does not arrive in time, or cannot be decoded.

        It counts against `memory` until that is released. One that has to be `small` never does.
        """
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
        if len(received) > SMALL:
            if small:
                await abort(context, InvalidArgument.of("request", f"must not be larger than {SMALL} bytes"))
            if not self._memory.reserve(PER_BYTE * len(received)):
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
        """Not twice: a task that is cancelled twice would not end."""
        if self._awaited.pop(task, None) is not None:
            task.cancel(_LATE)


def _unreadable() -> InvalidArgument:
    return InvalidArgument.of("request", "is not the message that this method takes")
