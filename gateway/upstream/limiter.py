"""A bound on the calls that are under way, with a short queue: beyond it, callers hear at once that it is too much.

The bound is fixed: none that adapts measured better than one near what upstream works on (docs/operations.md).
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

from gateway.errors import UpstreamSpared
from gateway.telemetry import CallShed

if TYPE_CHECKING:
    import httpx

    from gateway.deadline import Deadline
    from gateway.telemetry import UpstreamObserver
    from gateway.upstream.http import Answer, Send

__all__ = ["Limited", "Limiter"]

_RETRY_AFTER: Final = 1.0
"""Seconds after which who was turned away may come again."""


class Limiter:
    """So many calls at a time, and so many more that wait for so many seconds at most, first come, first served."""

    def __init__(self, *, max_concurrent: int, max_queued: int, max_wait: float) -> None:
        self._free = max_concurrent
        self._max_queued = max_queued
        self._max_wait = max_wait
        self._queue: deque[asyncio.Future[None]] = deque()
        self._max_concurrent = max_concurrent

    @property
    def in_flight(self) -> int:
        """Calls that are under way."""
        return self._max_concurrent - self._free

    @property
    def queued(self) -> int:
        """Calls that wait."""
        return len(self._queue)

    def take(self) -> bool:
        """Take a place if one is free and nobody waits for it. Whoever has one must `give_back`."""
        if self._free and not self._queue:
            self._free -= 1
            return True
        return False

    def is_full(self) -> bool:
        """Whether there is no room to wait either."""
        return len(self._queue) >= self._max_queued

    async def wait(self, deadline: Deadline) -> bool:
        """Wait for a place; false when none came in time."""
        mine = asyncio.get_running_loop().create_future()
        self._queue.append(mine)
        try:
            await asyncio.wait([mine], timeout=min(self._max_wait, max(0.0, deadline.remaining)))
        except asyncio.CancelledError:
            if not self._withdraw(mine):
                self.give_back()
            raise
        return not self._withdraw(mine)

    def give_back(self) -> None:
        """Give a place to whoever has waited longest, or have it free."""
        if self._queue:
            self._queue.popleft().set_result(None)
        else:
            self._free += 1

    def _withdraw(self, mine: asyncio.Future[None]) -> bool:
        """Leave the queue; false when the place has been given already."""
        if mine.done():
            return False
        self._queue.remove(mine)
        return True


class Limited:
    """Sends when there is a place."""

    def __init__(self, send: Send, limiter: Limiter, observer: UpstreamObserver) -> None:
        self._send = send
        self._limiter = limiter
        self._observer = observer

    async def __call__(self, request: httpx.Request, deadline: Deadline) -> Answer:
        """See `gateway.upstream.http.Send`. Raises UpstreamSpared when there is no place in time."""
        if not self._limiter.take():
            if self._limiter.is_full():
                raise self._shed("full")
            if not await self._limiter.wait(deadline):
                raise self._shed("waited")
        self._observer.upstream_in_flight(self._limiter.in_flight)
        try:
            return await self._send(request, deadline)
        finally:
            self._limiter.give_back()
            self._observer.upstream_in_flight(self._limiter.in_flight)

    def _shed(self, cause: str) -> UpstreamSpared:
        self._observer.call_shed(CallShed(cause))
        return UpstreamSpared("too many calls to upstream are under way", retry_after=_RETRY_AFTER)
