"""Waiting, by a clock that stands still while the whole process does, as on a machine that others use too."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self


class LoopClock:
    """Seconds in which the event loop had its turns, told by `turn`; or, when it is entered, by a task that it owns.

    For a bound on how long something is waited for. A machine that stops for a second makes nobody's wait longer by
    this clock; a client that waits for a server of its own accord does.
    """

    _EVERY: Final = 0.01
    _STILL: Final = 0.2
    """Seconds without a turn that are no load of the test's own any more."""

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
        """The loop has a turn; returns the time."""
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
    """Wait until something holds, looking again as others have run. Fails when it does not in time."""
    clock = LoopClock()
    until = clock.now() + within
    while not holds():
        if clock.turn() > until:
            message = f"not within {within} s"
            raise TimeoutError(message)
        await asyncio.sleep(0.005)
