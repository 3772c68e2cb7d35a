"""A cache entry: what is kept of a read."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from gateway.model import SessionContext, decode_session_context, decoded_size
from gateway.stores import StoredEntry

if TYPE_CHECKING:
    from gateway.cache.marks import Generation

__all__ = ["Entry"]

_OVERHEAD: Final = 800
"""Bytes of an entry, whatever is in it."""


class Entry(Struct, frozen=True):
    """What a read found, and when.

    `context` is None if there is no such session context. `stored_at` is when the read was sent, in Unix time
    (seconds): later changes may be missing. `generation` is the same in this process's generations. After `until`, in
    Unix time, it is not served, whatever its age.
    """

    context: SessionContext | None
    stored_at: float
    generation: Generation
    until: float = math.inf

    @property
    def size(self) -> int:
        """Bytes of memory that it takes, about."""
        return _OVERHEAD if self.context is None else _OVERHEAD + decoded_size(self.context.source)

    @property
    def version(self) -> int | None:
        """The version that was found."""
        return None if self.context is None else self.context.metadata.version

    def stored(self) -> StoredEntry:
        """The entry as stored in Redis: upstream's own bytes, empty for a session context that does not exist."""
        if self.context is None:
            return StoredEntry(0, self.stored_at, b"")
        return StoredEntry(self.context.metadata.version, self.stored_at, self.context.source)

    @classmethod
    def read(cls, stored: StoredEntry, generation: Generation, stored_by: float) -> Entry | None:
        """An entry from Redis; None if it cannot be decoded.

        `stored_by` is when it was stored at the latest: the clock of the machine that stored it may be ahead.
        """
        stored_at = min(stored.stored_at, stored_by)
        if not stored.data:
            return cls(None, stored_at, generation)
        try:
            return cls(decode_session_context(stored.data), stored_at, generation)
        except (ValueError, RecursionError):
            return None
