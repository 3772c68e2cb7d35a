"""What is kept outside this process."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

__all__ = ["MAX_WRITERS", "StoredEntry"]

MAX_WRITERS: Final = 100
"""Writes under way that a mark tells apart, here and in memory; past that, they count as one, which ends when the last
of them does. Each read that is to be kept looks at all of them, and whoever gives up what he writes leaves one."""


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """An entry as it is kept. `stored_at` is in Unix time (seconds), by the clock of the machine that made it."""

    version: int
    stored_at: float
    data: bytes
    expires_in: float = field(default=math.inf, compare=False)
    """Seconds until it is dropped where it was found, by the clock of what keeps it."""
