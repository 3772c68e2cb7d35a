"""The Prometheus metrics (https://prometheus.io/docs/practices/naming/). Labels contain no ids and no secrets."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import TYPE_CHECKING, Final

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily

from gateway.errors import WriteDiscarded, WriteOutcomeUnknown
from gateway.telemetry import SHED_BECAUSE, WRITES
from gateway.telemetry.buffered import BufferedCounter, BufferedHistogram

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prometheus_client import Metric

    from gateway.telemetry import (
        BreakerChanged,
        CacheFailed,
        CachePut,
        CacheRead,
        CallShed,
        TokenRequested,
        UpstreamCalled,
        UpstreamRetried,
        WriteFinished,
    )

__all__ = ["Metrics"]

# They would be a third of all series, and Prometheus ignores them in this format.
disable_created_metrics()  # type: ignore[no-untyped-call]  # not annotated

_BREAKER: Final = {"closed": 0, "half_open": 1, "open": 2}
_LABEL: Final = {False: "false", True: "true"}


class Metrics:
    """An `Observer` that counts."""

    content_type: Final = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        """For metrics that are kept elsewhere too."""
        self._writes = Counter(
            "session_gateway_writes",
            "Writes by operation and outcome: applied, cancelled, or the error code.",
            ["operation", "outcome"],
            registry=self.registry,
        )
        for operation in WRITES:
            for error in (WriteOutcomeUnknown, WriteDiscarded):
                self._writes.labels(operation, error.reason)  # an alert sees no increase in a series that begins with 1
        self._attempts = Histogram(
            "session_gateway_write_attempts",
            "Number of times that one write was sent upstream.",
            ["operation"],
            buckets=(0, 1, 2, 3, 4, 5, 10),
            registry=self.registry,
        )
        self._answers_lost = Counter(
            "session_gateway_write_answers_lost",
            "Writes whose answer was lost, so that the session had to be read back.",
            ["operation"],
            registry=self.registry,
        )

        self._reads = BufferedCounter(
            "session_gateway_cache_reads",
            "Reads through the cache: answered from it (hit, stale_while_revalidate, stale_if_error), or why upstream "
            "was asked (miss, stale, request). Collapsed reads shared the result of another caller's.",
            ["outcome", "collapsed"],
            self.registry,
        )
        self._puts = BufferedCounter(
            "session_gateway_cache_puts",
            "Results of reads, by whether they were stored in the cache.",
            ["kept"],
            self.registry,
        )
        self._failures = Counter(
            "session_gateway_cache_failures",
            "Operations that Redis did not do in time. The gateway went on without it.",
            ["operation"],
            registry=self.registry,
        )
        self._entries = Gauge(
            "session_gateway_cache_entries",
            "Cache entries in memory.",
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self._entries_size = Gauge(
            "session_gateway_cache_entries_bytes",
            "Memory that these entries take, about.",
            registry=self.registry,
            multiprocess_mode="livesum",
        )

        self._upstream = BufferedHistogram(
            "session_gateway_upstream_request_duration_seconds",
            "Requests to upstream, each attempt, by method and outcome: 2xx to 5xx, timeout, unreachable, lost, "
            "malformed, cancelled.",
            ["method", "outcome"],
            (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
            self.registry,
        )
        self._retries = Counter(
            "session_gateway_upstream_retries",
            "Retries of requests to upstream, by reason.",
            ["reason"],
            registry=self.registry,
        )
        self._tokens = Counter(
            "session_gateway_token_requests",
            "Requests for the gateway's own tokens, by outcome: ok, or the error code.",
            ["outcome"],
            registry=self.registry,
        )
        self._breaker = Gauge(
            "session_gateway_upstream_breaker_state",
            "State of the circuit breaker to upstream: 0 closed, 1 half open, 2 open.",
            registry=self.registry,
            multiprocess_mode="livemax",
        )
        self._shed = Counter(
            "session_gateway_upstream_shed",
            "Calls rejected because of upstream.max_concurrent: the queue was full, or they had waited too long.",
            ["cause"],
            registry=self.registry,
        )
        for cause in SHED_BECAUSE:
            self._shed.labels(cause)
        self._in_flight = Gauge(
            "session_gateway_upstream_in_flight",
            "Calls to upstream in progress.",
            registry=self.registry,
            multiprocess_mode="livesum",
        )

        self._certificate_expiry = Gauge(
            "session_gateway_certificate_expiry_timestamp_seconds",
            "When the certificate ends that clients are shown.",
            ["door"],
            registry=self.registry,
            multiprocess_mode="livemin",
        )
        self._lines_dropped = Counter(
            "session_gateway_log_lines_dropped",
            "Log lines dropped because nobody read them in time, or the disk was full.",
            registry=self.registry,
        )
        self._to_sample: list[Callable[[], None]] = [each.flush for each in (self._reads, self._puts, self._upstream)]

    def watch_process(self) -> None:
        """Add the standard metrics of this process (CPU, memory, files) and of Python."""
        self.registry.register(_Process(registry=None))
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def watch_entries(self, count: Callable[[], int], size: Callable[[], int]) -> None:
        """Call these for the number of entries in memory, and for their size in bytes, whenever metrics are read."""
        self.when_sampled(lambda: self._entries.set(count()))
        self.when_sampled(lambda: self._entries_size.set(size()))

    def watch_upstream(self, in_flight: Callable[[], int]) -> None:
        """Call this for the number of calls to upstream in progress, whenever metrics are read."""
        self.when_sampled(lambda: self._in_flight.set(in_flight()))

    def watch_certificate(self, door: str, expires_at: Callable[[], float]) -> None:
        """Call this for the expiry of the certificate that clients are shown, whenever metrics are read."""
        self.when_sampled(lambda: self._certificate_expiry.labels(door).set(expires_at()))

    def watch_lines(self, dropped: Callable[[], int]) -> None:
        """Call this for the number of lines dropped so far, whenever metrics are read."""
        told = 0

        def count() -> None:
            nonlocal told
            now = dropped()
            self._lines_dropped.inc(now - told)
            told = now

        self.when_sampled(count)

    def when_sampled(self, call: Callable[[], None]) -> None:
        """Call this before metrics are read, for values that are kept elsewhere."""
        self._to_sample.append(call)

    def sample(self) -> None:
        """Get values that are kept elsewhere: Gauge's `set_function` does not work if metrics go to files."""
        for each in self._to_sample:
            each()

    def exposition(self) -> bytes:
        """All metrics in the text format that Prometheus reads."""
        self.sample()
        return generate_latest(self.registry)

    def write_finished(self, event: WriteFinished) -> None:
        """Count a write."""
        self._writes.labels(event.operation, event.outcome).inc()
        self._attempts.labels(event.operation).observe(event.attempts)
        self._answers_lost.labels(event.operation).inc(event.answers_lost)

    def cache_read(self, event: CacheRead) -> None:
        """Count a read."""
        self._reads.add(event.outcome, _LABEL[event.collapsed])

    def cache_put(self, event: CachePut) -> None:
        """Count an entry that was to be kept."""
        self._puts.add(_LABEL[event.kept])

    def cache_failed(self, event: CacheFailed) -> None:
        """Count a failure of the shared cache."""
        self._failures.labels(event.operation).inc()

    def upstream_called(self, event: UpstreamCalled) -> None:
        """Count and time a request to upstream."""
        self._upstream.add(event.seconds, event.method, event.outcome)

    def upstream_retried(self, event: UpstreamRetried) -> None:
        """Count a retry."""
        self._retries.labels(event.reason).inc()

    def token_requested(self, event: TokenRequested) -> None:
        """Count a request for a token."""
        self._tokens.labels(event.outcome).inc()

    def breaker_changed(self, event: BreakerChanged) -> None:
        """Show the state."""
        self._breaker.set(_BREAKER[event.state])

    def call_shed(self, event: CallShed) -> None:
        """Count a rejected call."""
        self._shed.labels(event.cause).inc()


class _Process(ProcessCollector):
    """The standard metrics of this process, also when it has no file left to read them from: then it is at its limit.

    Otherwise an alert on open files would end just then.
    """

    def collect(self) -> Iterable[Metric]:
        """All that can be read."""
        found = [*super().collect()]
        if not any(each.name == "process_open_fds" for each in found) and Path("/proc/self/fd").exists():
            limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
            found.append(GaugeMetricFamily("process_open_fds", "Number of open file descriptors.", limit))
            found.append(GaugeMetricFamily("process_max_fds", "Maximum number of open file descriptors.", limit))
        return found
