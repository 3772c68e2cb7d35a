"""Requests as Prometheus metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client import Gauge

from gateway.telemetry.buffered import BufferedCounter, BufferedHistogram

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from prometheus_client import CollectorRegistry

    from gateway.request import Request

__all__ = ["RequestMetrics"]

_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds: from the time for a read from memory to the longest time for a request by default."""


class RequestMetrics:
    """A `RequestWatcher` that counts. `flush` must be called before anybody looks."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = BufferedCounter(
            "session_gateway_requests",
            "Requests by door, operation (gRPC method or GraphQL root field, `several` or `none`) and result: OK, or "
            "the error code.",
            ["door", "operation", "code"],
            registry,
        )
        self._durations = BufferedHistogram(
            "session_gateway_request_duration_seconds",
            "Time from a request's arrival to its answer.",
            ["door", "operation"],
            _BUCKETS,
            registry,
        )
        self._overheads = BufferedHistogram(
            "session_gateway_request_overhead_seconds",
            "Time that requests took, minus the time during which upstream worked on them. Only requests that called "
            "upstream themselves.",
            ["door"],
            _BUCKETS,
            registry,
        )
        self._in_flight = Gauge(
            "session_gateway_requests_in_flight",
            "Requests in progress.",
            ["door"],
            registry=registry,
            multiprocess_mode="livesum",
        )

    def requests_finished(self, requests: Sequence[Request]) -> None:
        """Count them."""
        for request in requests:
            door, operation = request.door, request.operation
            self._requests.add(door, operation, request.code)
            self._durations.add(request.duration, door, operation)
            if request.upstream:
                self._overheads.add(max(0.0, request.duration - request.upstream), door)

    def flush(self, in_flight: Mapping[str, int]) -> None:
        """Hand over what was counted since the last time, and how many requests are in progress."""
        for each in (self._requests, self._durations, self._overheads):
            each.flush()
        for door, count in in_flight.items():
            self._in_flight.labels(door).set(count)
