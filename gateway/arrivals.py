"""Room for large requests while they arrive, and turns, so that all of them have room.

Anybody can begin one, send the most of it and stop there: nobody is known before it has come whole. So whoever has a
turn for long loses it where others wait.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Arrivals"]

_ROOM: Final = 67_108_864
"""Bytes that all of them may take."""
_TURN: Final = 2.0
"""Seconds for one to arrive, where others wait for their turns."""

Request = TypeVar("Request")
"""Whatever stands for one."""


class Arrivals(Generic[Request]):
    """Those that arrive at a door. Each takes room for one that is as `largest`, in bytes.

    One that takes too long loses its turn: `lose` is called, once, and not while it waits. It has to leave soon then.
    """

    def __init__(self, largest: int, lose: Callable[[Request], object]) -> None:
        self._free = max(1, _ROOM // largest)
        """Turns that nobody has. While there are any, nobody waits for one."""
        self._lose = lose
        self._under_way: dict[Request, float] = {}
        """Since when each has its turn, the earliest first."""
        self._waiting: dict[asyncio.Future[None], None] = {}
        """Who waits for a turn, the longest first."""

    @property
    def full(self) -> bool:
        """Whether the next has to wait."""
        return not self._free

    async def enter(self, request: Request) -> None:
        """Wait for a turn."""
        if self._free:
            self._free -= 1
        else:
            await self._handed_over()
        self._under_way[request] = time.monotonic()

    def leave(self, request: Request) -> None:
        """Give it back: the request has come whole, or does not come."""
        self._under_way.pop(request, None)
        self._hand_over()

    def _hand_over(self) -> None:
        for each in self._waiting:
            if not each.done():
                each.set_result(None)
                return
        self._free += 1

    async def _handed_over(self) -> None:
        """Whoever has waited long enough has the one that takes longest lose its turn.

        He goes on like that: the turn goes to who has waited longest, and may be for one that does not come.
        """
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        impatient: asyncio.TimerHandle

        def end_longest() -> None:
            nonlocal impatient
            impatient = loop.call_later(self._end_longest(), end_longest)

        impatient = loop.call_later(_TURN, end_longest)
        self._waiting[turn] = None
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it was handed over in the same moment
                self._hand_over()
            raise
        finally:
            impatient.cancel()
            self._waiting.pop(turn, None)

    def _end_longest(self) -> float:
        """End the turn that has taken longest, if that is too long; return the seconds after which to look again."""
        longest = next(iter(self._under_way.items()), None)
        if longest is None:
            return _TURN
        request, since = longest
        left = since + _TURN - time.monotonic()
        if left > 0:
            return left
        del self._under_way[request]
        self._lose(request)
        return _TURN
