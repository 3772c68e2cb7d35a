"""Memory for large requests while they arrive: they take turns, so that there is room for all that do.

Anybody can send most of a request and stop there: no caller is authenticated before it has arrived. So a request that
takes long loses its turn if others wait.
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
"""Seconds for one to arrive, if others wait for their turns."""

Request = TypeVar("Request")
"""Whatever identifies one."""


class Arrivals(Generic[Request]):
    """Requests that are arriving at a door. Each takes room for the `largest` one, in bytes.

    One that takes too long loses its turn: `lose` is called, once, and not while it waits. It has to leave soon then.
    """

    def __init__(self, largest: int, lose: Callable[[Request], object]) -> None:
        self._free = max(1, _ROOM // largest)
        """Turns that are free. While there are any, nobody waits for one."""
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
        """Give the turn back: the request has arrived, or will not."""
        self._under_way.pop(request, None)
        self._hand_over()

    def _hand_over(self) -> None:
        for each in self._waiting:
            if not each.done():
                each.set_result(None)
                return
        self._free += 1

    async def _handed_over(self) -> None:
        """Wait; after a while, make the request that takes longest lose its turn, and again after a while.

        One is not enough: its turn goes to whoever has waited longest, which may be a request that does not arrive.
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
