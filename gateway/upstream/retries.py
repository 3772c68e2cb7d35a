"""Retries of requests, within a budget.

Reads are retried, and requests that upstream has certainly not started on: those that found no connection, that the
server did not accept (HTTP/2), or that were answered 429. A write whose answer is lost is not: what became of it is for
`gateway.sessions.delivery` to find out.

Tenacity repeats, counts and waits with full jitter. It is only used once the first attempt has failed, since it costs
as much as dozens of successful attempts. Not stamina, which is built on it: its hook before a retry knows neither which
attempt failed nor how long the wait would be, so that jitter and limits would have to be decided here again; and its
switches, its log and its metric belong to the whole process.
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
"""The result of an attempt: a failure that may be retried is raised only when it is not."""

_RESERVE: Final = 10.0
"""Retries that may be saved up."""
_JITTER: Final = wait_random_exponential(multiplier=0.05, max=1.0)
"""Between nothing and 50 ms, 100 ms, and so on, up to a second."""
_TRANSIENT: Final = frozenset({502, 503, 504})


class Budget:
    """How many retries are allowed: a share of all requests, plus a few per second.

    Pure; times are passed in, in seconds. Of any number of requests in any time, at most `ratio * requests + per_second
    * seconds` are retried, plus what was saved up, which is at most 10.
    """

    def __init__(self, ratio: float, per_second: float, now: float) -> None:
        self._ratio = ratio
        self._per_second = per_second
        self._left = _RESERVE if ratio or per_second else 0.0
        self._then = now

    def earn(self) -> None:
        """Count a request."""
        self._left = min(_RESERVE, self._left + self._ratio)

    def spend(self, now: float) -> bool:
        """Take one retry, if there is one."""
        self._left = min(_RESERVE, self._left + self._per_second * max(0.0, now - self._then))
        self._then = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


class Retrying:
    """Sends up to `max_attempts` times, and waits in between, with full jitter, and as long as upstream asks for."""

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
        """See `gateway.upstream.http.Send`. The result is that of the last attempt."""
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
                del end  # whose traceback has this frame: the two would refer to each other
        return end

    async def _go_on(self, first: _End, request: httpx.Request, deadline: Deadline) -> _End:
        """Retry until an attempt need not, or must not, be repeated; the first has ended already."""
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
        """The budget is asked last, since asking takes a retry from it."""
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
    """A call that this gateway itself rejects is not retried: its caller should hear of it at once."""
    if isinstance(end, Answer):
        return end.status == 429 or (end.status in _TRANSIENT and method == "GET")
    return not isinstance(end, UpstreamSpared | UpstreamNotTaken) and (
        method == "GET" or isinstance(end, UpstreamUnreachable)
    )
