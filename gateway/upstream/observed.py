"""Telling what becomes of each request to upstream, and how long it takes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from gateway.errors import UpstreamMalformed, UpstreamTimeout, UpstreamUnavailable, UpstreamUnreachable
from gateway.telemetry import UpstreamCalled

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

    from gateway.deadline import Deadline
    from gateway.telemetry import UpstreamObserver
    from gateway.upstream.http import Answer, Send

__all__ = ["Observed"]


class Observed:
    """Sends, and tells."""

    def __init__(self, send: Send, observer: UpstreamObserver, clock: Callable[[], float] = time.monotonic) -> None:
        self._send = send
        self._observer = observer
        self._clock = clock

    async def __call__(self, request: httpx.Request, deadline: Deadline) -> Answer:
        """See `gateway.upstream.http.Send`."""
        began = self._clock()
        outcome = "cancelled"
        try:
            answer = await self._send(request, deadline)
            outcome = f"{answer.status // 100}xx"
        except UpstreamUnreachable:
            outcome = "unreachable"
            raise
        except UpstreamUnavailable:
            outcome = "lost"
            raise
        except UpstreamTimeout:
            outcome = "timeout"
            raise
        except UpstreamMalformed:
            outcome = "malformed"
            raise
        finally:
            self._observer.upstream_called(UpstreamCalled(request.method, outcome, self._clock() - began))
        return answer
