"""A limit on the memory that large requests and answers of a door take together, until they are done with.

Upstream may take long over a request, and a client over an answer. A decoded request takes up to thirty times its
length, and anybody can send one: whether a token is a shopper's, only upstream can say.
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
    """The memory for the large requests, and large answers, of one door."""

    def __init__(self) -> None:
        self._taken = 0

    def reserve(self, size: int) -> bool:
        """Reserve so many bytes until this task ends. False if there is no room for them.

        There always is if nothing else is reserved.
        """
        if size <= UNCOUNTED:
            return True
        task = asyncio.current_task()
        if task is None or (self._taken and self._taken + size > _ROOM):
            return False
        self._taken += size
        task.add_done_callback(lambda _: self._give_back(size))
        return True

    def _give_back(self, size: int) -> None:
        self._taken -= size
