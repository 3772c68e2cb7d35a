"""A lock for each session: unversioned writes of one process wait for each other instead of colliding."""

from __future__ import annotations

import asyncio
import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.deadline import Deadline

__all__ = ["SessionLocks"]

_PATIENCE: Final = 0.5
"""Share of the remaining time that is spent on waiting for a lock."""


class SessionLocks:
    """Locks by session, for writes without an expected version.

    They make nothing safe: upstream checks versions. They save conflicts, each of which costs an attempt. So a write
    that has waited for half of its time goes ahead without the lock: one slow write must not hold up all others.
    """

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def held(self, tenant: str, session_id: str, deadline: Deadline) -> AsyncIterator[None]:
        """Hold the lock while the block runs, if it is free in time."""
        lock = self._locks.setdefault((tenant, session_id), asyncio.Lock())
        locked = await _acquired(lock, deadline.remaining * _PATIENCE)
        try:
            yield
        finally:
            if locked:
                lock.release()


async def _acquired(lock: asyncio.Lock, seconds: float) -> bool:
    try:
        async with asyncio.timeout(None if math.isinf(seconds) else seconds):
            return await lock.acquire()
    except TimeoutError:
        return False
