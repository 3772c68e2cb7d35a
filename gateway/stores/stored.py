"""Cache entries as they are stored outside this process."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

__all__ = ["MAX_WRITERS", "StoredEntry"]

MAX_WRITERS: Final = 100
"""Writes in progress that a mark distinguishes, in Redis and in memory. Above that they count as one, which ends with
the last of them. Each read that is to be kept checks all of them, and every abandoned write leaves one."""


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """A stored entry. `stored_at` is in Unix time (seconds), by the clock of the machine that stored it."""

    version: int
    stored_at: float
    data: bytes
    expires_in: float = field(default=math.inf, compare=False)
    """Seconds until it expires, by the clock of Redis."""
