"""Requests as Prometheus metrics. They are counted in plain Python, and handed over when metrics are asked for.

`prometheus_client` takes a lock for every number, and writes it to a file where several processes share the metrics.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Final

from prometheus_client import Counter, Gauge, Histogram

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prometheus_client import CollectorRegistry

    from gateway.request import Request

__all__ = ["RequestMetrics"]

_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds: from what a read from memory takes to the longest that a request may take by default."""


class RequestMetrics:
    """A `RequestWatcher` that counts. `hand_over` must be called before anybody looks."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "session_gateway_requests",
            "Requests by door, by operation (GraphQL's root field, `several` or `none`), and by what became of them: "
            "OK, or the reason of the error.",
            ["door", "operation", "code"],
            registry=registry,
        )
        self._durations = _Histogram(
            "session_gateway_request_duration_seconds",
            "Time from a request's arrival to its answer.",
            ["door", "operation"],
            buckets=_BUCKETS,
            registry=registry,
        )
        self._overheads = _Histogram(
            "session_gateway_request_overhead_seconds",
            "Time that requests took beside what upstream took; of requests that asked upstream themselves.",
            ["door"],
            buckets=_BUCKETS,
            registry=registry,
        )
        self._in_flight = Gauge(
            "session_gateway_requests_in_flight",
            "Requests that are under way.",
            ["door"],
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._counts: dict[tuple[str, str, str], int] = {}
        self._times: dict[tuple[str, str], _Times] = {}
        self._beside_upstream: dict[str, _Times] = {}

    def request_finished(self, request: Request, duration: float) -> None:
        """Count one."""
        door, operation = request.door, request.operation
        key = (door, operation, request.code)
        self._counts[key] = self._counts.get(key, 0) + 1
        times = self._times.get((door, operation))
        if times is None:
            times = self._times[door, operation] = _Times()
        times.add(duration)
        if request.upstream:
            self._beside_upstream.setdefault(door, _Times()).add(max(0.0, duration - request.upstream))

    def hand_over(self, in_flight: Mapping[str, int]) -> None:
        """Let Prometheus have what has been counted since the last time."""
        for key, count in self._counts.items():
            if count:
                self._requests.labels(*key).inc(count)
                self._counts[key] = 0
        for labels, times in self._times.items():
            self._durations.labels(*labels).add(times)
        for door, times in self._beside_upstream.items():
            self._overheads.labels(door).add(times)
        for door, count in in_flight.items():
            self._in_flight.labels(door).set(count)


class _Times:
    """Durations, counted by bucket. The last one is of what is longer than all bounds."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(_BUCKETS) + 1)
        self.total = 0.0

    def add(self, duration: float) -> None:
        self.counts[bisect_left(_BUCKETS, duration)] += 1
        self.total += duration


class _Histogram(Histogram):
    """Takes what others have counted by its buckets."""

    def add(self, times: _Times) -> None:
        """Add durations, and empty what they were in."""
        for place, count in enumerate(times.counts):
            if count:
                self._buckets[place].inc(count)
                times.counts[place] = 0
        self._sum.inc(times.total)
        times.total = 0.0
