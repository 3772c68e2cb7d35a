"""File descriptors: connections are most of them, and a process often may have fewer than it has a right to."""

from __future__ import annotations

import resource
import sys
from contextlib import suppress

__all__ = ["allow_many"]


def allow_many() -> int:
    """Raise the soft limit to the hard one (getrlimit(2)). It is low for the sake of select(2), which nothing uses.

    Returns how many there may be then.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # "infinity" is more than some kernels allow
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if allowed == resource.RLIM_INFINITY else allowed
