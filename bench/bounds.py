"""A gateway whose bound on calls to upstream is another than the product's: `python -m bench.bounds aimd serve`.

The bound learns from each call: how long upstream took, and whether its answer was still waited for. It stays between
`_FEWEST` and `upstream.max_concurrent`.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Final
from unittest.mock import patch

from gateway.cli import main
from gateway.upstream.attempts import Attempts
from gateway.upstream.limiter import Limiter

if TYPE_CHECKING:
    import httpx

    from gateway.deadline import Deadline
    from gateway.telemetry import UpstreamObserver
    from gateway.upstream.breaker import Breaker
    from gateway.upstream.http import Answer, Send

__all__ = ["KINDS"]

_FEWEST: Final = 4.0


class Adaptive(Limiter):
    """Places may be fewer than calls that are under way; then none is given away until enough have ended."""

    def __init__(self, *, max_concurrent: int, max_queued: int, max_wait: float) -> None:
        super().__init__(max_concurrent=max_concurrent, max_queued=max_queued, max_wait=max_wait)
        self._bound = float(max_concurrent)

    @property
    def in_flight(self) -> int:
        """Calls that are under way."""
        return int(self._bound) - self._free

    def take(self) -> bool:
        """See `Limiter.take`."""
        return self._free > 0 and super().take()

    def give_back(self) -> None:
        """See `Limiter.give_back`."""
        if self._free < 0:
            self._free += 1
        else:
            super().give_back()

    def learn(self, seconds: float, *, well: bool) -> None:
        """A call has ended."""
        bound = min(max(self._next(seconds, well=well), _FEWEST), float(self._max_concurrent))
        self._free += int(bound) - int(self._bound)
        self._bound = bound
        while self._free > 0 and self._queue:
            self._free -= 1
            self._queue.popleft().set_result(None)

    @property
    def _is_wanted(self) -> bool:
        return self.in_flight * 2 >= self._bound

    def _next(self, seconds: float, *, well: bool) -> float:
        raise NotImplementedError


class Aimd(Adaptive):
    """Up by one a round trip while calls are quick and there is demand, down by a share after one that is not."""

    _quick: Final = 0.5
    """Seconds: half of what callers wait for."""
    _left = 0.9
    """Of the bound, when it goes down."""
    _since = 0

    def _next(self, seconds: float, *, well: bool) -> float:
        self._since += 1
        if well and seconds < self._quick:
            return self._bound + 1 / self._bound if self._is_wanted else self._bound
        if self._since < self._bound:  # once a round trip
            return self._bound
        self._since = 0
        return self._bound * self._left


class Halving(Aimd):
    """Down by half."""

    _left = 0.5


class Gradient(Adaptive):
    """Netflix's Gradient2 (github.com/Netflix/concurrency-limits) with its own numbers: the usual time by the last."""

    _usual = 0.0

    def _next(self, seconds: float, *, well: bool) -> float:  # noqa: ARG002 - it looks at times alone
        self._usual = self._usual + (seconds - self._usual) * 2 / 601 if self._usual else seconds
        if self._usual > 2 * seconds:
            self._usual *= 0.95
        if not self._is_wanted:
            return self._bound
        gradient = max(0.5, min(1.0, 1.5 * self._usual / seconds))
        return self._bound * 0.8 + (self._bound * gradient + 4) * 0.2


class Learning(Attempts):
    """Tells an adaptive bound how each call went."""

    def __init__(
        self, send: Send, breaker: Breaker, limiter: Limiter, observer: UpstreamObserver, *, slow: float
    ) -> None:
        assert isinstance(limiter, Adaptive)

        async def timed(request: httpx.Request, deadline: Deadline) -> Answer:
            began, well = time.monotonic(), False
            try:
                answer = await send(request, deadline)
                well = answer.status < 500
                return answer
            finally:
                limiter.learn(time.monotonic() - began, well=well)

        super().__init__(timed, breaker, limiter, observer, slow=slow)


KINDS: Final[dict[str, type[Adaptive]]] = {"aimd": Aimd, "halving": Halving, "gradient": Gradient}

if __name__ == "__main__":
    with patch.multiple("gateway.wiring.upstream", Limiter=KINDS[sys.argv[1]], Attempts=Learning):
        main(sys.argv[2:])
