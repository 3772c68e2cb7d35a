"""A limit on the memory that large requests and answers of a door take together.

Upstream may take long over a request, and a client over an answer: each counts until it is done with. A decoded request
takes up to thirty times its length, and anybody can send one: whether a token is a shopper's, only upstream can say.
"""

from __future__ import annotations

import asyncio
from typing import Final

__all__ = ["PER_BYTE", "SMALL", "UNCOUNTED", "MemoryBudget"]

_ROOM: Final = 134_217_728
"""Bytes that all of them together may take."""
UNCOUNTED: Final = 131_072
"""Bytes of memory that are not counted: the number of connections and calls is limited."""
PER_BYTE: Final = 32
"""Bytes of memory, by measurement, that each byte of a decoded request takes at most."""
SMALL: Final = UNCOUNTED // PER_BYTE
"""Length of a request that is certain not to be counted."""


class MemoryBudget:
    """The memory for the large requests, and large answers, of one door. Each is dealt with by a task of its own."""

    def __init__(self) -> None:
        self._reserved: dict[asyncio.Task[object] | None, int] = {}

    def reserve(self, size: int) -> bool:
        """Reserve so many bytes until `release`, or until this task ends. False if there is no room for them.

        There always is if nothing else is reserved. A task reserves at most once at a time.
        """
        if size <= UNCOUNTED:
            return True
        task = asyncio.current_task()
        if task is None or (self._reserved and sum(self._reserved.values()) + size > _ROOM):
            return False
        self._reserved[task] = size
        task.add_done_callback(self._forget)
        return True

    def release(self) -> None:
        """Give back what this task has reserved, if anything: it has done with its request, and answers."""
        if self._reserved:
            self._forget(asyncio.current_task())

    def _forget(self, task: asyncio.Task[object] | None) -> None:
        self._reserved.pop(task, None)
