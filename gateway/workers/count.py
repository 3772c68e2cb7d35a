"""How many workers to start."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.settings import Settings

__all__ = ["available_cores", "count_workers"]

_CGROUPS: Final = Path("/sys/fs/cgroup")
_OURS: Final = Path("/proc/self/cgroup")


def count_workers(settings: Settings) -> tuple[int, str | None]:
    """How many, and why it is not one for each core, unless it is."""
    if settings.workers is not None:
        return settings.workers, None
    cores = available_cores()
    if cores > 1 and settings.cache.in_memory:
        return 1, "cache.backend is memory, which workers cannot share"
    return cores, None


def available_cores(groups: Path = _CGROUPS, ours: Path = _OURS) -> int:
    """Cores that this process may use: by its affinity, or by the CPU quota of its control group if that is less."""
    cores = len(os.sched_getaffinity(0))
    return max(1, min([cores, *(math.ceil(quota) for quota in _quotas(groups, ours))]))


def _quotas(groups: Path, ours: Path) -> Iterator[float]:
    """CPU quotas of this process's control group and its parents, in cores. A container sees only its own."""
    for line in _text(ours).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # version 2
            for folder in (path, *map(str, Path(path).parents)):
                allowed, _, period = _text(groups / folder.strip("/") / "cpu.max").partition(" ")
                if allowed.isdigit():
                    yield int(allowed) / int(period)
        elif "cpu" in controllers.split(","):
            for folder in (path, "/"):
                controller = groups / "cpu" / folder.strip("/")
                allowed, period = _text(controller / "cpu.cfs_quota_us"), _text(controller / "cpu.cfs_period_us")
                if allowed.strip().isdigit():  # -1 means no bound
                    yield int(allowed) / int(period)


def _text(file: Path) -> str:
    try:
        return file.read_text("ascii")
    except OSError:
        return ""
