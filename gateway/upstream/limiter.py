"""Limits the calls in progress, with a short queue; calls beyond that are rejected at once.

The limit is fixed: in measurements no adaptive one was better than one near what upstream works on (docs/capacity.md).
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.deadline import Deadline

__all__ = ["Limiter"]


class Limiter:
    """At most so many calls at a time; so many more wait, each so many seconds at most, first come, first served."""

    def __init__(self, *, max_concurrent: int, max_queued: int, max_wait: float) -> None:
        self._free = max_concurrent
        self._max_queued = max_queued
        self._max_wait = max_wait
        self._queue: deque[asyncio.Future[None]] = deque()
        self._max_concurrent = max_concurrent

    @property
    def in_flight(self) -> int:
        """Calls in progress."""
        return self._max_concurrent - self._free

    def take(self) -> bool:
        """Take a place if one is free: then nobody waits for one. Whoever has one must `give_back`."""
        if self._free:
            self._free -= 1
            return True
        return False

    def is_full(self) -> bool:
        """Whether the queue is full."""
        return len(self._queue) >= self._max_queued

    async def wait(self, deadline: Deadline) -> bool:
        """Wait for a place; false if there was none in time."""
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
        """Give the place to whoever has waited longest, or free it."""
        if self._queue:
            self._queue.popleft().set_result(None)
        else:
            self._free += 1

    def _withdraw(self, mine: asyncio.Future[None]) -> bool:
        """Leave the queue; false if the place has been given already."""
        if mine.done():
            return False
        self._queue.remove(mine)
        return True
