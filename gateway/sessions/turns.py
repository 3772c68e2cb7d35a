"""Turns for those who would only get into one another's way."""

from __future__ import annotations

import asyncio
import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.deadline import Deadline

__all__ = ["Turns"]

_PATIENCE: Final = 0.5
"""Share of the remaining time that is spent on waiting for one's turn."""


class Turns:
    """Has those in this process who write to the same session without a version go one after another.

    Nothing is made safe by it; it spares them conflicts, which cost each of them attempts. So whoever has waited half
    of its time goes ahead, turn or not: one slow write must not hold up all others.
    """

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def taken(self, tenant: str, session_id: str, deadline: Deadline) -> AsyncIterator[None]:
        """A turn, while the block runs."""
        lock = self._locks.setdefault((tenant, session_id), asyncio.Lock())
        has_turn = await _acquired(lock, deadline.remaining * _PATIENCE)
        try:
            yield
        finally:
            if has_turn:
                lock.release()


async def _acquired(lock: asyncio.Lock, seconds: float) -> bool:
    try:
        async with asyncio.timeout(None if math.isinf(seconds) else seconds):
            return await lock.acquire()
    except TimeoutError:
        return False
