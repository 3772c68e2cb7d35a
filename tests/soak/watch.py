"""Memory, open files and threads of a process and its children over time, and whether they grow."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import suppress
from pathlib import Path
from statistics import fmean, linear_regression
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["SHORTEST", "Growth", "Sample", "growth", "sample", "watch"]

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_TICK: Final = os.sysconf("SC_CLK_TCK")
SHORTEST: Final = 60.0
"""Seconds: less says nothing of growth."""


class Sample(NamedTuple):
    """How it was at one moment. Of all processes together."""

    at: float
    """Seconds since the beginning."""
    rss: float
    """Megabytes."""
    files: int
    threads: int
    cpu: float
    """Seconds of CPU so far."""


class Growth(NamedTuple):
    """A straight line through what was seen after the warm-up."""

    per_hour: float
    verdict: str


def sample(pid: int, at: float) -> Sample:
    """Look at a process and its children. Raises OSError when it is gone."""
    rss, files, threads, cpu = 0, 0, 0, 0
    for each in _family(pid):
        folder = Path(f"/proc/{each}")
        fields = (folder / "stat").read_text().rpartition(") ")[2].split()  # proc_pid_stat(5), from the third on
        rss += int(fields[21])
        threads += int(fields[17])
        cpu += int(fields[11]) + int(fields[12])
        files += sum(1 for _ in (folder / "fd").iterdir())
    return Sample(at, rss * _PAGE / 1e6, files, threads, cpu / _TICK)


async def watch(pid: int, samples: list[Sample], interval: float = 1.0) -> None:
    """Take samples until cancelled, or until the process is gone."""
    began = time.monotonic()
    with suppress(OSError):
        while True:
            samples.append(sample(pid, time.monotonic() - began))
            await asyncio.sleep(interval)


def growth(points: Sequence[tuple[float, float]], *, tolerated: float) -> Growth:
    """Whether values grow after the first third, over seconds; `tolerated` is a share of their mean, over that time."""
    if not points or points[-1][0] - points[0][0] < SHORTEST:
        return Growth(0.0, f"too short to say: needs {SHORTEST:.0f} s")
    warm = points[0][0] + (points[-1][0] - points[0][0]) / 3
    after = [each for each in points if each[0] >= warm]
    slope = linear_regression(*zip(*after, strict=True)).slope
    risen = slope * (after[-1][0] - after[0][0])
    grows = risen > tolerated * fmean(value for _, value in after)
    return Growth(slope * 3600, "GROWS" if grows else "steady")


def _family(pid: int) -> list[int]:
    found = [pid]
    for each in found:
        for task in Path(f"/proc/{each}/task").iterdir():
            with suppress(OSError):
                found += map(int, (task / "children").read_text().split())
    return found
