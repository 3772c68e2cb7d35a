"""Records as Prometheus metrics (https://prometheus.io/docs/practices/naming/). Labels hold no id and no secret."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.telemetry import CacheFailed, CachePut, CacheRead, WriteFinished

__all__ = ["Metrics"]


class Metrics:
    """An `Observer` that counts."""

    content_type: Final = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._writes = Counter(
            "session_gateway_writes",
            "Writes by operation and by what became of them: applied, cancelled, or the reason of the error.",
            ["operation", "outcome"],
            registry=self._registry,
        )
        self._attempts = Histogram(
            "session_gateway_write_attempts",
            "Times that one write was sent upstream.",
            ["operation"],
            buckets=(0, 1, 2, 3, 4, 5, 10),
            registry=self._registry,
        )
        self._ambiguous = Counter(
            "session_gateway_write_answers_lost",
            "Answers of writes that were lost, so that reading back had to settle what became of the write.",
            ["operation"],
            registry=self._registry,
        )

        self._reads = Counter(
            "session_gateway_cache_reads",
            "Reads through the cache by what answered them: hit, stale, stale_if_error, miss, request.",
            ["outcome", "collapsed"],
            registry=self._registry,
        )
        self._reads_of: dict[CacheRead, Counter] = {}
        self._puts = Counter(
            "session_gateway_cache_puts",
            "What reads brought back, kept or refused for a write or a higher version that stood against it.",
            ["kept"],
            registry=self._registry,
        )
        self._failures = Counter(
            "session_gateway_cache_failures",
            "Operations that the shared cache failed to do in its time, so that they were done without.",
            ["operation"],
            registry=self._registry,
        )
        self._entries = Gauge(
            "session_gateway_cache_entries",
            "Entries in the memory of the gateway's processes.",
            registry=self._registry,
            multiprocess_mode="livesum",
        )
        self._watched: list[tuple[Gauge, Callable[[], int]]] = []

    def watch_entries(self, count: Callable[[], int]) -> None:
        """Ask for the number of entries in memory whenever metrics are read."""
        self._watched.append((self._entries, count))

    def sample(self) -> None:
        """Ask for whatever is watched: Gauge's own `set_function` does nothing where metrics go to files."""
        for gauge, count in self._watched:
            gauge.set(count())

    def exposition(self) -> bytes:
        """All metrics in the text format that Prometheus reads."""
        self.sample()
        return generate_latest(self._registry)

    def write_finished(self, event: WriteFinished) -> None:
        """Count a write."""
        self._writes.labels(event.operation, event.outcome).inc()
        self._attempts.labels(event.operation).observe(event.attempts)
        self._ambiguous.labels(event.operation).inc(event.ambiguous)

    def cache_read(self, event: CacheRead) -> None:
        """Count a read."""
        counter = self._reads_of.get(event)
        if counter is None:  # looking up a label costs more than counting
            labels = event.outcome, str(event.collapsed).lower()
            counter = self._reads_of[event] = self._reads.labels(*labels)
        counter.inc()

    def cache_put(self, event: CachePut) -> None:
        """Count an entry that was to be kept."""
        self._puts.labels(str(event.kept).lower()).inc()

    def cache_failed(self, event: CacheFailed) -> None:
        """Count a failure of the shared cache."""
        self._failures.labels(event.operation).inc()
