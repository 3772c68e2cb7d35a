"""The limit on open files, most of which are connections."""

from __future__ import annotations

import resource
import sys
from contextlib import suppress

__all__ = ["allow_many"]


def allow_many() -> int:
    """Raise the soft limit to the hard one (getrlimit(2)). It is low because of select(2), which nothing here uses.

    Returns the new limit.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # some kernels do not allow "infinity"
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if allowed == resource.RLIM_INFINITY else allowed
