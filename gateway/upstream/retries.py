"""Sending again what may be sent again, as often as a budget allows.

Reads may be, and what upstream has provably not begun on: a request that found no connection, that the server at its
other end has not taken on (HTTP/2), or that was answered 429.
A write whose answer is lost is none of these: what became of it, `gateway.sessions.delivery` finds out.

Tenacity repeats, counts and waits with full jitter. It is asked once the first attempt has failed, as it costs what
dozens of attempts do here that succeed. Not stamina, which stands on it: what that asks before a repetition knows
neither which attempt failed nor how long the wait would be, so that jitter and bounds would be decided here again; and
its switches and its log and metric of each repetition belong to the whole process.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, TypeAlias

from tenacity import AsyncRetrying, retry_if_result, stop_after_attempt, wait_random_exponential

from gateway.errors import UpstreamNotTaken, UpstreamSpared, UpstreamUnavailable, UpstreamUnreachable
from gateway.telemetry import UpstreamRetried
from gateway.upstream.http import Answer
from gateway.upstream.mapping import retry_after

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx
    from tenacity import RetryCallState

    from gateway.deadline import Deadline
    from gateway.telemetry import UpstreamObserver
    from gateway.upstream.http import Send

__all__ = ["Budget", "Retrying"]

_End: TypeAlias = Answer | UpstreamUnavailable
"""What an attempt ended with: a failure that may be repeated is not raised until it is known not to be."""

_RESERVE: Final = 10.0
"""Repetitions that may be saved up."""
_JITTER: Final = wait_random_exponential(multiplier=0.05, max=1.0)
"""Between nothing and 50 ms, 100 ms, and so on, up to a second."""
_TRANSIENT: Final = frozenset({502, 503, 504})


class Budget:
    """How many repetitions there may be: a share of all requests, and a few a second besides.

    Pure but for the clock that is passed in, in seconds. Of any number of requests in any time, no more are repeated
    than `ratio * requests + per_second * seconds`, and what was saved up: at most 10.
    """

    def __init__(self, ratio: float, per_second: float, now: float) -> None:
        self._ratio = ratio
        self._per_second = per_second
        self._left = _RESERVE if ratio or per_second else 0.0
        self._then = now

    def earn(self) -> None:
        """A request has come."""
        self._left = min(_RESERVE, self._left + self._ratio)

    def spend(self, now: float) -> bool:
        """Take one repetition, if there is one."""
        self._left = min(_RESERVE, self._left + self._per_second * max(0.0, now - self._then))
        self._then = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


class Retrying:
    """Sends up to `max_attempts` times, and waits in between: with full jitter, and for as long as upstream asks."""

    def __init__(
        self,
        send: Send,
        budget: Budget,
        observer: UpstreamObserver,
        *,
        max_attempts: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._send = send
        self._budget = budget
        self._observer = observer
        self._used_up = stop_after_attempt(max_attempts)
        self._clock = clock

    async def __call__(self, request: httpx.Request, deadline: Deadline) -> Answer:
        """See `gateway.upstream.http.Send`. What the last attempt ended with is what this ends with."""
        self._budget.earn()
        try:
            end: _End = await self._send(request, deadline)
        except UpstreamUnavailable as error:
            end = error
        if _may_follow(end, request.method):
            end = await self._go_on(end, request, deadline)
        if isinstance(end, UpstreamUnavailable):
            try:
                raise end
            finally:
                del end  # whose traceback has this frame: the two would hold each other
        return end

    async def _go_on(self, first: _End, request: httpx.Request, deadline: Deadline) -> _End:
        """Repeat until an attempt ends otherwise or there is to be none; the first has ended already."""
        ended = [first]

        async def attempt() -> _End:
            if ended:
                return ended.pop()
            try:
                return await self._send(request, deadline)
            except UpstreamUnavailable as error:
                return error

        again = AsyncRetrying(
            retry=retry_if_result(lambda end: _may_follow(end, request.method)),
            wait=_wait,
            stop=lambda state: self._is_enough(state, deadline),
            before_sleep=self._tell,
            sleep=asyncio.sleep,
            retry_error_callback=_end_of,
        )
        return await again(attempt)

    def _is_enough(self, state: RetryCallState, deadline: Deadline) -> bool:
        """The budget is asked last: who asks and gets a repetition has it."""
        return (
            self._used_up(state) or state.upcoming_sleep >= deadline.remaining or not self._budget.spend(self._clock())
        )

    def _tell(self, state: RetryCallState) -> None:
        end = _end_of(state)
        if isinstance(end, Answer):
            reason = str(end.status)
        else:
            reason = "unreachable" if isinstance(end, UpstreamUnreachable) else "lost"
        self._observer.upstream_retried(UpstreamRetried(reason))


def _end_of(state: RetryCallState) -> _End:
    assert state.outcome is not None  # noqa: S101 - it is asked about attempts that have ended
    end: _End = state.outcome.result()
    return end


def _wait(state: RetryCallState) -> float:
    """Seconds until the next attempt."""
    end = _end_of(state)
    asked = retry_after(end) if isinstance(end, Answer) else None
    return _JITTER(state) + (asked or 0.0)


def _may_follow(end: _End, method: str) -> bool:
    """Whoever this gateway itself turns away must not be put off by waiting here."""
    if isinstance(end, Answer):
        return end.status == 429 or (end.status in _TRANSIENT and method == "GET")
    return not isinstance(end, UpstreamSpared | UpstreamNotTaken) and (
        method == "GET" or isinstance(end, UpstreamUnreachable)
    )
