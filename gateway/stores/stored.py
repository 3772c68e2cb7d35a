"""What is kept outside this process."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["StoredEntry"]


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """An entry as it is kept. `stored_at` is in Unix time, seconds."""

    version: int
    stored_at: float
    data: bytes
