"""Memory for what is large, until it is answered: upstream may take long over requests, clients over answers.

Decoded, a request takes up to thirty times what it took to arrive, and anybody can send it: whether a token is one of a
shopper's, it is for upstream to say.
"""

from __future__ import annotations

import asyncio
from typing import Final

__all__ = ["PER_BYTE", "SMALL", "RequestMemory"]

_ROOM: Final = 134_217_728
"""Bytes that all of them may take."""
_UNCOUNTED: Final = 131_072
"""Bytes of one that is not counted: connections and calls have limits of their own."""
PER_BYTE: Final = 32
"""Bytes that each byte of one takes: at most, by measurement."""
SMALL: Final = _UNCOUNTED // PER_BYTE
"""Bytes of one that is certain not to be counted."""


class RequestMemory:
    """What the requests of a door take, and large answers that clients have still to take."""

    def __init__(self) -> None:
        self._taken = 0

    def reserve(self, size: int) -> bool:
        """Take so many bytes until this task ends. False if there is no room for them.

        There always is for a request that is alone.
        """
        if size <= _UNCOUNTED:
            return True
        task = asyncio.current_task()
        if task is None or (self._taken and self._taken + size > _ROOM):
            return False
        self._taken += size
        task.add_done_callback(lambda _: self._give_back(size))
        return True

    def _give_back(self, size: int) -> None:
        self._taken -= size
