"""What is kept outside this process."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

__all__ = ["StoredEntry"]


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """An entry as it is kept. `stored_at` is in Unix time (seconds), by the clock of the machine that made it."""

    version: int
    stored_at: float
    data: bytes
    expires_in: float = field(default=math.inf, compare=False)
    """Seconds until it is dropped where it was found, by the clock of what keeps it."""
