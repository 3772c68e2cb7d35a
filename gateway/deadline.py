"""Deadlines: how long a caller will wait, as one point in time that is passed down with every call."""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING, ClassVar, Final

from msgspec import Struct

from gateway.errors import UpstreamNotAsked, UpstreamTimeout

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from types import TracebackType

__all__ = ["Deadline"]

_EARLY: Final = 0.002
"""Seconds."""
_LONG: Final = 1.0
"""Seconds from which on bounds may share a timer."""
_GRAIN: Final = 1 / 64
"""Seconds by which they may be late then: far less than what is kept back of a caller's time for the answer."""
_STILL: Final = 0.1
"""A timer that is this many seconds late shows that this process stood still, not that the other side is slow."""
_TO_LISTEN: Final = 0.02
"""Seconds to receive what arrived meanwhile."""


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
        """Whether it has passed, or nearly: timers of the event loop are early by up to a millisecond."""
        return self.remaining <= _EARLY

    def share(self, fraction: float) -> Deadline:
        """The point at which this share of the remaining time is used up."""
        return self if math.isinf(self.at) else Deadline.after(self.remaining * fraction)

    def bound(self, what: str, *, within: float = math.inf) -> AbstractContextManager[None]:
        """Cancel the block when the deadline passes, or after so many seconds if that is sooner.

        Raises UpstreamTimeout then, naming what was being done. If the deadline has passed already, the block does not
        begin, and UpstreamNotAsked is raised. A bound of a second or more may be late by up to a 64th of a second. If
        the process itself stood still at that time (it was stopped, or got no CPU), it gets a moment more, to receive
        what arrived meanwhile.
        """
        now = time.monotonic()
        return _Bound(what, now, min(self.at, now + within))


class _Bound:
    """`asyncio.timeout`, reimplemented, with its way of telling whose cancellation it was.

    It is used for every exchange with upstream, and costs half as much. Like trio's `fail_at` it needs no `async`: it
    does not wait on entering or leaving.
    """

    __slots__ = ("_at", "_cancelling", "_listened", "_now", "_passed", "_task", "_timer", "_together", "_what")

    def __init__(self, what: str, now: float, at: float) -> None:
        self._what = what
        self._now = now
        self._at = at
        self._passed = self._listened = False
        self._timer: asyncio.TimerHandle | None = None
        self._together: set[_Bound] | None = None
        self._task: asyncio.Task[object] | None = None
        self._cancelling: int

    def __enter__(self) -> None:
        seconds = self._at - self._now
        if seconds <= 0:
            raise UpstreamNotAsked(f"{self._what}: there was no time left")
        if seconds == math.inf:
            return
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("only a task can be bounded")
        self._task = task
        self._cancelling = task.cancelling()
        if seconds < _LONG:
            self._timer = task.get_loop().call_later(seconds, self.passes)
        else:
            self._together = _Together.on(task.get_loop()).set(self, self._now, self._at)

    def passes(self) -> None:
        """The time is up."""
        if self._task is None:
            return
        if not self._listened and time.monotonic() - self._at > _STILL:
            self._listened = True
            self._timer = self._task.get_loop().call_later(_TO_LISTEN, self.passes)
            return
        self._passed = True
        self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        elif self._together is not None:
            self._together.discard(self)
        # If there are no more cancellations than before, nobody else has cancelled the task.
        if (
            self._passed
            and self._task is not None
            and self._task.uncancel() <= self._cancelling
            and isinstance(error, asyncio.CancelledError)
        ):
            raise UpstreamTimeout(f"{self._what} took longer than the time allowed") from error


class _Together:
    """Bounds of one event loop that expire so close together that they share a timer.

    Hardly any of them expires, and a timer of its own would cost a twentieth of what asking upstream does.
    """

    _latest: ClassVar[_Together | None] = None

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._bounds: dict[int, set[_Bound]] = {}
        """By the number of the `_GRAIN` at whose end they expire."""

    @classmethod
    def on(cls, loop: asyncio.AbstractEventLoop) -> _Together:
        """The bounds of this loop. If several loops run, in their own threads, fewer bounds share a timer."""
        latest = cls._latest
        if latest is None or latest.loop is not loop:
            latest = cls._latest = cls(loop)
        return latest

    def set(self, bound: _Bound, now: float, at: float) -> set[_Bound]:
        """Have it expire together with others, whose set is returned: never sooner, and `_GRAIN` later at most."""
        grain = math.ceil(at / _GRAIN)
        bounds = self._bounds.get(grain)
        if bounds is None:
            bounds = self._bounds[grain] = set()
            self.loop.call_later(grain * _GRAIN - now, self._pass, grain)
        bounds.add(bound)
        return bounds

    def _pass(self, grain: int) -> None:
        for bound in self._bounds.pop(grain):
            bound.passes()
