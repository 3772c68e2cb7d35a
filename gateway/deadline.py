"""How long a caller will wait: one point in time, handed down with every call."""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from gateway.errors import UpstreamTimeout

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from types import TracebackType

__all__ = ["Deadline"]

_EARLY: Final = 0.002
"""Seconds."""


class Deadline(Struct, frozen=True):
    """A point on the monotonic clock, in seconds."""

    at: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """The point so many seconds from now."""
        return cls(time.monotonic() + seconds)

    @classmethod
    def never(cls) -> Deadline:
        """No bound."""
        return cls(math.inf)

    @property
    def remaining(self) -> float:
        """Seconds left; negative when it has passed."""
        return self.at - time.monotonic()

    @property
    def passed(self) -> bool:
        """Whether it has passed, or as good as that: timers of the event loop are early by up to a millisecond."""
        return self.remaining <= _EARLY

    def share(self, fraction: float) -> Deadline:
        """The point at which so much of the remaining time is used up."""
        return self if math.isinf(self.at) else Deadline.after(self.remaining * fraction)

    def bound(self, what: str, *, within: float = math.inf) -> AbstractContextManager[None]:
        """Cancel the block when the deadline passes, or after so many seconds if that is sooner.

        Raises UpstreamTimeout then, naming what was being done. The block does not begin when the deadline has passed
        already.
        """
        return _Bound(min(self.at - time.monotonic(), within), what)


class _Bound:
    """`asyncio.timeout` written out, with its ways of telling whose cancellation it was.

    A bound is laid around every exchange, and so it costs half. Like trio's `fail_at` it needs no `async`: neither to
    enter nor to leave it waits for anything.
    """

    __slots__ = ("_cancelling", "_passed", "_seconds", "_task", "_timer", "_what")

    def __init__(self, seconds: float, what: str) -> None:
        self._seconds = seconds
        self._what = what
        self._passed = False
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[object]
        self._cancelling: int

    def __enter__(self) -> None:
        if self._seconds <= 0:
            raise UpstreamTimeout(f"{self._what}: there was no time left")
        if self._seconds == math.inf:
            return
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("only a task can be bounded")
        self._task = task
        self._cancelling = task.cancelling()
        self._timer = task.get_loop().call_later(self._seconds, self._pass)

    def _pass(self) -> None:
        self._passed = True
        self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
            # Nobody else wanted the task cancelled if there are no more that do than there were.
            if self._passed and self._task.uncancel() <= self._cancelling and isinstance(error, asyncio.CancelledError):
                raise UpstreamTimeout(f"{self._what} took longer than the time there was") from error
