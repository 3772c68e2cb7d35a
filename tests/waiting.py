"""Waiting, by a clock that stops while the whole process does, as happens on a busy machine."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self


class LoopClock:
    """Seconds during which the event loop was running, which `turn` tells it; or, if it is entered, a task of its own.

    For timeouts. A machine that stops for a second does not use up time by this clock; a client that really waits for a
    server does.
    """

    _EVERY: Final = 0.01
    _STILL: Final = 0.2
    """Seconds without a turn that cannot be the test's own load."""

    def __init__(self) -> None:
        self._turned = time.monotonic()
        self._lost = 0.0

    async def __aenter__(self) -> Self:
        self._turning = asyncio.create_task(self._turn_often())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._turning.cancel()
        await asyncio.wait([self._turning])

    def now(self) -> float:
        now = time.monotonic()
        return now - self._lost - self._still(now)

    def turn(self) -> float:
        """The event loop runs; returns the time."""
        now = time.monotonic()
        self._lost += self._still(now)
        self._turned = now
        return now - self._lost

    async def _turn_often(self) -> None:
        while True:
            await asyncio.sleep(self._EVERY)
            self.turn()

    def _still(self, now: float) -> float:
        gap = now - self._turned
        return gap if gap > self._STILL else 0.0


async def eventually(holds: Callable[[], bool], *, within: float = 10.0) -> None:
    """Wait until a condition holds, polling while others run. Raises TimeoutError if it does not in time."""
    clock = LoopClock()
    until = clock.now() + within
    while not holds():
        if clock.turn() > until:
            message = f"not within {within} s"
            raise TimeoutError(message)
        await asyncio.sleep(0.005)
