"""Metrics of several processes as one: each writes its own to files, which are summed when metrics are read.

That is prometheus_client's way. What a process has counted stays after its end, even by SIGKILL: its counters and
histograms are added to those of all ended processes, and its gauges are dropped. (Otherwise there would be more files
with every process that ends.) An unreadable file is left out.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from gateway.telemetry.files import NumbersFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from prometheus_client import Metric

__all__ = ["SummedMetrics"]

_ENDED: Final = "ended"
"""In a file's name, instead of a process id: all ended processes."""
_UNREADABLE: Final = (OSError, ValueError, RuntimeError, struct.error)
"""Raised for a file that is gone, truncated, or something else."""


class SummedMetrics:
    """Metrics of the processes that write to `folder`, and of this one, which does not. `pids` are all that run now."""

    content_type: Final = CONTENT_TYPE_LATEST

    def __init__(self, folder: Path, pids: Callable[[], Iterable[int]]) -> None:
        self._folder = folder
        self._registry = CollectorRegistry()
        self._registry.register(_Written(folder))
        self._processes = _Processes(pids)
        self._registry.register(self._processes)
        self._ended: dict[str, NumbersFile] = {}
        self._log = structlog.stdlib.get_logger(__name__)

    def exposition(self) -> bytes:
        """All metrics in the text format that Prometheus reads."""
        for each in self._ended.values():
            each.write()
        return generate_latest(self._registry)

    def restarted(self) -> None:
        """Count a worker that replaces another."""
        self._processes.replaced += 1

    def ended(self, pid: int, cpu: float) -> None:
        """Keep the counts of a process that has ended, and used so many seconds of CPU."""
        self._processes.spent_before += cpu
        for file in self._folder.glob(f"*_{pid}.db"):
            try:
                counted = _taken(file)
            except _UNREADABLE as error:  # it may have ended while it created the file
                self._log.warning("metrics_lost", pid=pid, file=file.name, error=type(error).__name__)
            else:
                if not file.name.startswith("gauge_"):
                    self._add(file.name.rpartition("_")[0], counted)

    def _add(self, kind: str, counted: dict[str, float]) -> None:
        total = self._ended.setdefault(kind, NumbersFile(self._folder / f"{kind}_{_ENDED}.db"))
        for key, number in counted.items():
            total.set(key, total.get(key) + number)


class _Written(Collector):
    """The metrics in the files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._logged: set[str] = set()
        self._log = structlog.stdlib.get_logger(__name__)

    def collect(self) -> Iterable[Metric]:
        files = [*self._folder.glob("*.db")]
        try:
            return _merged(files)
        except _UNREADABLE:
            return _merged([each for each in files if self._is_readable(each)])

    def _is_readable(self, file: Path) -> bool:
        try:
            _merged([file])
        except _UNREADABLE as error:
            if file.name not in self._logged:
                self._logged.add(file.name)
                self._log.warning("metrics_unreadable", file=file.name, error=type(error).__name__)
            return False
        return True


def _merged(files: Iterable[Path]) -> Iterable[Metric]:
    """Their sum. Raises any of _UNREADABLE."""
    merged: Iterable[Metric] = MultiProcessCollector.merge([str(each) for each in files])
    return merged


def _taken(file: Path) -> dict[str, float]:
    """The numbers in a file, which is removed, readable or not. Raises any of _UNREADABLE."""
    try:
        numbers = {key: number for key, number, _, _ in MmapedDict.read_all_values_from_file(str(file))}
    except _UNREADABLE:
        file.unlink()
        raise
    file.unlink()
    return numbers


class _Processes(Collector):
    """The number of replaced workers, and the standard process metrics.

    These are sums over all processes, except for open files, of which each process has its own limit.
    """

    def __init__(self, pids: Callable[[], Iterable[int]]) -> None:
        self.replaced = 0
        self.spent_before = 0.0
        """CPU seconds of ended processes."""
        self._spent = 0.0
        self._pids = pids
        self._began = _one(os.getpid()).get("process_start_time_seconds", 0.0)

    def collect(self) -> Iterator[Metric]:
        found = [_one(pid) for pid in self._pids()]

        def total(name: str) -> float:
            return sum(each.get(name, 0.0) for each in found)

        spent = total("process_cpu_seconds_total") + self.spent_before
        self._spent = max(self._spent, spent)  # a process that has just ended may be in neither
        yield CounterMetricFamily(
            "session_gateway_worker_restarts", "Workers that replaced one that had ended.", self.replaced
        )
        yield CounterMetricFamily(
            "process_cpu_seconds", "CPU time of all processes, including those that have ended.", self._spent
        )
        yield GaugeMetricFamily(
            "process_resident_memory_bytes",
            "Resident memory of all processes. Memory that they share counts once.",
            total("process_resident_memory_bytes"),
        )
        yield GaugeMetricFamily(
            "process_virtual_memory_bytes", "Virtual memory of all processes.", total("process_virtual_memory_bytes")
        )
        nearest = max(found, key=_files)
        for name, meaning in {"open": "Open files", "max": "Limit on open files"}.items():
            yield GaugeMetricFamily(
                f"process_{name}_fds",
                f"{meaning} of the process that is nearest to its limit.",
                nearest.get(f"process_{name}_fds", 0.0),
            )
        yield GaugeMetricFamily("process_start_time_seconds", "When the supervisor started.", self._began)


def _files(process: dict[str, float]) -> float:
    """The share of its limit of open files that a process uses."""
    return process.get("process_open_fds", 0.0) / process.get("process_max_fds", 1.0)


def _one(pid: int) -> dict[str, float]:
    """The metrics of one process; empty if it has just ended."""
    collector = ProcessCollector(pid=lambda: pid, registry=None)
    found = {sample.name: sample.value for metric in collector.collect() for sample in metric.samples}
    share = _share(pid)
    return found if share is None else {**found, "process_resident_memory_bytes": share}


def _share(pid: int) -> float | None:
    """The process's proportional share of resident memory (Pss), in bytes; None if the kernel does not tell."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii")
    except OSError:
        return None
    return next((1024.0 * int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")), None)
