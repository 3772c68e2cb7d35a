"""Records as Prometheus metrics (https://prometheus.io/docs/practices/naming/). Labels hold no id and no secret."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest

if TYPE_CHECKING:
    from gateway.telemetry import WriteFinished

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

    def exposition(self) -> bytes:
        """All metrics in the text format that Prometheus reads."""
        return generate_latest(self._registry)

    def write_finished(self, event: WriteFinished) -> None:
        """Count a write."""
        self._writes.labels(event.operation, event.outcome).inc()
        self._attempts.labels(event.operation).observe(event.attempts)
        self._ambiguous.labels(event.operation).inc(event.ambiguous)
