"""One attempt to send a request to upstream: through the breaker and the limiter, and observed.

Its time is added to the request that it is made for.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Final

import structlog

from gateway.errors import (
    UpstreamError,
    UpstreamNotTaken,
    UpstreamSpared,
    UpstreamTimeout,
    UpstreamTooLarge,
    UpstreamUnavailable,
    UpstreamUnreachable,
)
from gateway.request import under_way
from gateway.telemetry import BreakerChanged, CallShed, UpstreamCalled
from gateway.upstream.http import cause_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

    from gateway.deadline import Deadline
    from gateway.telemetry import UpstreamObserver
    from gateway.upstream.breaker import Breaker
    from gateway.upstream.http import Answer, Send
    from gateway.upstream.limiter import Limiter

__all__ = ["Attempts"]

_RETRY_AFTER: Final = 1.0
"""Seconds after which a rejected caller may try again."""
_LOG_EVERY: Final = 10.0
"""Seconds between two log lines about failed connections."""


class Attempts:
    """Sends a request if the breaker allows it and the limiter has a place.

    For the breaker, a 5xx, a broken connection and a call of `slow` seconds or more are failures; a 4xx is not. A
    caller's own deadline that passes sooner, or a caller that goes away, counts as neither.

    The request's id is sent along, and its time with upstream is measured. If several requests wait for one answer, the
    time is added to the first of them. Waiting for a place, or before a retry, does not count as time with upstream.
    """

    def __init__(
        self,
        send: Send,
        breaker: Breaker,
        limiter: Limiter,
        observer: UpstreamObserver,
        *,
        slow: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._send = send
        self._breaker = breaker
        self._limiter = limiter
        self._observer = observer
        self._slow = slow
        self._clock = clock
        self._logged_at = -math.inf
        self._log = structlog.stdlib.get_logger(__name__)

    async def __call__(self, request: httpx.Request, deadline: Deadline) -> Answer:
        """See `gateway.upstream.http.Send`. Raises UpstreamSpared if it is not sent at all."""
        began = self._clock()
        before = self._breaker.state
        admitted = self._breaker.admit(began)
        if admitted is None:
            raise UpstreamSpared(
                "upstream keeps failing, and gets no calls for a moment", retry_after=self._breaker.wait(began)
            )
        sent, well, outcome = False, None, "cancelled"
        cause = under_way.get()
        try:
            if not self._limiter.take():
                await self._place(deadline)
                began = self._clock()
            sent = True
            if cause is not None:
                cause.exchange_began(began)
                request.headers["x-request-id"] = cause.id
            answer = await self._send(request, deadline)
            well, outcome = answer.status < 500, f"{answer.status // 100}xx"
        except UpstreamError as error:
            if sent:
                well, outcome = _judged(error)
                self._log_failure(outcome, cause_of(error))
            raise
        finally:
            now = self._clock()
            if sent:
                self._limiter.give_back()
                if cause is not None:
                    cause.exchange_ended(now)
                self._observer.upstream_called(UpstreamCalled(request.method, outcome, now - began))
                if now - began >= self._slow:
                    well = False
            self._breaker.record(admitted, well=well, now=now)
            if self._breaker.state is not before:
                self._observer.breaker_changed(BreakerChanged(self._breaker.state.value))
        return answer

    def _log_failure(self, outcome: str, cause: str | None) -> None:
        now = self._clock()
        if cause is not None and now - self._logged_at >= _LOG_EVERY:
            self._logged_at = now
            self._log.warning("upstream_failed", outcome=outcome, cause=cause)

    async def _place(self, deadline: Deadline) -> None:
        """Wait for a place. Raises UpstreamSpared if there is none in time."""
        if self._limiter.is_full():
            cause = "full"
        elif await self._limiter.wait(deadline):
            return
        else:
            cause = "waited"
        self._observer.call_shed(CallShed(cause))
        raise UpstreamSpared("too many calls to upstream are under way", retry_after=_RETRY_AFTER)


def _judged(error: UpstreamError) -> tuple[bool | None, str]:
    """What a failure means for the breaker, and its name in metrics."""
    match error:
        case UpstreamNotTaken() | UpstreamTooLarge():
            return None, "not_taken"
        case UpstreamUnreachable():
            return False, "unreachable"
        case UpstreamUnavailable():
            return False, "lost"
        case UpstreamTimeout():
            return None, "timeout"  # it counts if it took long
        case _:
            return False, "malformed"
