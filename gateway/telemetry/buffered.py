"""Counters and histograms that count in plain Python, and are flushed to Prometheus' client when somebody asks.

The client takes a lock for every number, looks its labels up, and writes it to a file where processes share metrics.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from prometheus_client import Counter, Histogram

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prometheus_client import CollectorRegistry

__all__ = ["BufferedCounter", "BufferedHistogram"]


class BufferedCounter:
    """A Prometheus counter with labels. `flush` must be called before anybody looks."""

    def __init__(self, name: str, documentation: str, labels: Sequence[str], registry: CollectorRegistry) -> None:
        self._counter = Counter(name, documentation, labels, registry=registry)
        self._counts: dict[tuple[str, ...], int] = {}

    def add(self, *labels: str) -> None:
        """Count one."""
        self._counts[labels] = self._counts.get(labels, 0) + 1

    def flush(self) -> None:
        """Hand over what was counted since the last time."""
        for labels, count in self._counts.items():
            if count:
                self._counter.labels(*labels).inc(count)
                self._counts[labels] = 0


class BufferedHistogram:
    """A Prometheus histogram of seconds, with labels. `flush` must be called before anybody looks."""

    def __init__(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str],
        buckets: tuple[float, ...],
        registry: CollectorRegistry,
    ) -> None:
        self._histogram = _Histogram(name, documentation, labels, buckets=buckets, registry=registry)
        self._buckets = buckets
        self._counted: dict[tuple[str, ...], _Counted] = {}

    def add(self, seconds: float, *labels: str) -> None:
        """Count one."""
        counted = self._counted.get(labels)
        if counted is None:
            counted = self._counted[labels] = _Counted(len(self._buckets) + 1)
        counted.counts[bisect_left(self._buckets, seconds)] += 1
        counted.total += seconds

    def flush(self) -> None:
        """Hand over what was counted since the last time."""
        for labels, counted in self._counted.items():
            self._histogram.labels(*labels).take(counted)


class _Counted:
    """Durations by bucket. The last one is of what is longer than all bounds."""

    __slots__ = ("counts", "total")

    def __init__(self, buckets: int) -> None:
        self.counts = [0] * buckets
        self.total = 0.0


class _Histogram(Histogram):
    """Takes what others have counted by its buckets."""

    def take(self, counted: _Counted) -> None:
        """Add durations, and empty what they were in."""
        for place, count in enumerate(counted.counts):
            if count:
                self._buckets[place].inc(count)
                counted.counts[place] = 0
        self._sum.inc(counted.total)
        counted.total = 0.0
