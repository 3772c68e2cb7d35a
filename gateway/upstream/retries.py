"""Sending again what may be sent again, as often as a budget allows.

Reads may be, and what upstream has provably not begun on: a request that found no connection, or that was answered 429.
A write whose answer is lost is none of these: what became of it, `gateway.sessions.delivery` finds out.

Written out rather than taken from stamina: it has neither a budget nor full jitter nor a deadline that is given, so
that whether and how long to wait would be decided here all the same, and its loop costs 25 us where nothing fails.
"""

from __future__ import annotations

import asyncio
import random
import time
from itertools import count
from typing import TYPE_CHECKING, Final

from gateway.errors import UpstreamUnavailable, UpstreamUnreachable
from gateway.telemetry import UpstreamRetried
from gateway.upstream.mapping import retry_after

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

    from gateway.deadline import Deadline
    from gateway.telemetry import UpstreamObserver
    from gateway.upstream.http import Answer, Send

__all__ = ["Budget", "Retrying"]

_RESERVE: Final = 10.0
"""Repetitions that may be saved up."""
_FIRST_WAIT: Final = 0.05
_LONGEST_WAIT: Final = 1.0
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
    """Sends up to `max_attempts` times, and waits in between: with full jitter, or for as long as upstream asks."""

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
        self._max_attempts = max_attempts
        self._clock = clock

    async def __call__(self, request: httpx.Request, deadline: Deadline) -> Answer:
        """See `gateway.upstream.http.Send`. What the last attempt ended with is what this ends with."""
        self._budget.earn()
        for attempt in count(1):
            try:
                answer = await self._send(request, deadline)
            except UpstreamUnavailable as error:
                wait = self._wait(attempt, deadline, None) if _may_follow(error, request.method) else None
                if wait is None:
                    raise
                reason = "unreachable" if isinstance(error, UpstreamUnreachable) else "lost"
            else:
                if not _may_follow_status(answer.status, request.method):
                    return answer
                wait = self._wait(attempt, deadline, retry_after(answer))
                if wait is None:
                    return answer
                reason = str(answer.status)
            self._observer.upstream_retried(UpstreamRetried(reason))
            await asyncio.sleep(wait)
        raise AssertionError("count does not end")

    def _wait(self, attempt: int, deadline: Deadline, asked: float | None) -> float | None:
        """Seconds until the next attempt; None when there is to be none."""
        wait = random.uniform(0, min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** (attempt - 1)))  # noqa: S311 - jitter
        if asked is not None:
            wait += asked
        if attempt >= self._max_attempts or wait >= deadline.remaining or not self._budget.spend(self._clock()):
            return None
        return wait


def _may_follow(error: UpstreamUnavailable, method: str) -> bool:
    """An error that says when to come back is this gateway's own: it must not be put off by waiting here."""
    return error.retry_after is None and (method == "GET" or isinstance(error, UpstreamUnreachable))


def _may_follow_status(status: int, method: str) -> bool:
    return status == 429 or (status in _TRANSIENT and method == "GET")
