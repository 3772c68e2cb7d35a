"""The tiers of the cache: memory, Redis, or memory in front of Redis. Keeps writes and reads apart.

remembered  the entry in memory
look        the entry in any tier, and a ticket that says as of when
keep        store the result of a read, if there was no write since its ticket, and no higher version was seen
open        before a write: drop the entry, and do not keep what is being read
close       after a write
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from gateway.cache.entry import Entry
from gateway.telemetry import CachePut

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.cache.invalidation import Invalidations
    from gateway.cache.marks import Generation, Marks, WriterId
    from gateway.cache.shared import SharedCache
    from gateway.stores import MemoryStore, StoredEntry
    from gateway.telemetry import Observer

__all__ = ["LARGEST", "OpenWrite", "Ticket", "TieredCache"]

LARGEST: Final = 262_144
"""Bytes of the largest session context that is kept. Most have a few thousand: a larger one would push out hundreds of
them, and Redis serves nobody else while it sends it."""


class Ticket(Struct, frozen=True):
    """As of when an entry was looked for. `shared` is None if nothing may be put into the shared cache."""

    local: Generation
    shared: str | None = None


class OpenWrite(Struct, frozen=True):
    """A write in progress."""

    local: WriterId
    shared: str | None = None


class TieredCache:
    """Entries by key, in whatever tiers there are. Never fails.

    `lifetime` is how long an entry is kept, in seconds. `marked_by` tells under which key writes mark an entry, if that
    is not its own key; it returns None if that is not known, so that any write may count.
    """

    def __init__(
        self,
        marks: Marks,
        observer: Observer,
        lifetime: float,
        *,
        memory: MemoryStore[Entry] | None = None,
        shared: SharedCache | None = None,
        invalidations: Invalidations | None = None,
        marked_by: Callable[[str, Entry], str | None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._marks = marks
        self._observer = observer
        self._lifetime = lifetime
        self._memory = memory
        self._shared = shared
        self._invalidations = invalidations
        self._marked_by = marked_by
        self._clock = clock

    def remembered(self, key: str) -> Entry | None:
        """The entry in memory, unless a write forbids serving it. Nothing waits."""
        if self._memory is None or not (self._invalidations is None or self._invalidations.in_step):
            return None
        entry = self._memory.peek(key)
        return entry if entry is not None and self.good(key, entry) else None

    async def look(self, key: str, entry: Entry | None = None) -> tuple[Entry | None, Ticket]:
        """The newest entry, unless a write forbids serving it, and a ticket for what replaces it.

        `entry` is the one in memory, which is not good enough for this caller.
        """
        generation = self._marks.generation()
        if self._shared is None:
            return entry, Ticket(generation)
        looked = await self._shared.get(key, generation)
        fetched = None if looked.entry is None else self._read(looked.entry, looked.as_of)
        if looked.entry is not None and fetched is None:
            await self._shared.forget(key)
        if fetched is not None:
            self._saw(key, fetched)
            entry = fetched if await self._remember(key, fetched) else entry
        return entry if entry is not None and self.good(key, entry) else None, Ticket(generation, looked.lease)

    async def keep(self, key: str, entry: Entry, ticket: Ticket) -> bool:
        """Keep the result of a read that began with this ticket.

        False if a write or a higher version forbids it, if it is too large, or if nothing can keep it: Redis fails, and
        there is no memory in front of it.
        """
        self._saw(key, entry)
        fits = entry.context is None or len(entry.context.source) <= LARGEST
        kept = fits and self.good(key, entry) and await self._share(key, entry, ticket)
        kept = kept and await self._remember(key, entry)
        self._observer.cache_put(CachePut(kept))
        return kept

    async def forget(self, key: str) -> None:
        """Drop an entry that upstream's answer contradicts."""
        if self._memory is not None:
            await self._memory.delete(key)
        if self._shared is not None:
            await self._shared.forget(key)

    async def open(self, key: str) -> OpenWrite:
        """Before a write is sent."""
        writer = self._marks.open(key)
        if self._memory is not None:
            await self._memory.delete(key)
        return OpenWrite(writer, None if self._shared is None else await self._shared.open(key))

    async def close(self, key: str, write: OpenWrite) -> None:
        """After a write whose outcome is known. All others stay open for a time."""
        if self._shared is not None and write.shared is not None:
            await self._shared.close(key, write.shared)
        self._marks.close(key, write.local)

    def good(self, key: str, entry: Entry) -> bool:
        """Whether an entry may be served: no write and no higher version forbids it, and its times are plausible.

        An entry from the future was read before this machine's clock was set back, nobody knows how long ago.
        """
        return entry.stored_at <= self._clock() < entry.until and self._marks.allows(
            key if self._marked_by is None else self._marked_by(key, entry), entry.generation, entry.version
        )

    def still_good(self, key: str, entry: Entry) -> bool:
        """As `good`, for an entry that was looked up some time ago: writes of other processes must be known since."""
        return (self._invalidations is None or self._invalidations.in_step) and self.good(key, entry)

    def good_now(self, key: str, entry: Entry) -> bool:
        """As `good`, for upstream's latest answer: higher versions that were seen before it was asked do not count."""
        return entry.stored_at <= self._clock() < entry.until and self._marks.lets_pass(
            key if self._marked_by is None else self._marked_by(key, entry), entry.generation, entry.version
        )

    def saw(self, key: str, version: int) -> None:
        """A caller got this version without this cache. `key` is the one that writes mark."""
        self._marks.saw(key, version)

    def _saw(self, key: str, entry: Entry) -> None:
        marked = key if self._marked_by is None else self._marked_by(key, entry)
        if marked is not None and entry.version is not None:
            self._marks.saw(marked, entry.version)

    async def _share(self, key: str, entry: Entry, ticket: Ticket) -> bool:
        """Keep in Redis, if there is one and the ticket allows; false if memory must not keep it either."""
        if self._shared is None:
            return True
        if ticket.shared is None:
            return self._memory is not None
        return await self._shared.put(key, entry.stored(), ticket.shared, ttl=self._remaining(entry))

    async def _remember(self, key: str, entry: Entry) -> bool:
        """Keep in memory; false if a write or a newer read forbids it. No other task runs in between."""
        if not self.good(key, entry):
            return False
        if self._memory is None:
            return True
        there = self._memory.peek(key)
        if there is not None and self.good(key, there) and _newer(there, entry):
            return False
        await self._memory.set(key, entry, ttl=self._remaining(entry))
        return True

    def _read(self, stored: StoredEntry, as_of: Generation) -> Entry | None:
        """An entry from Redis, no younger than its time to live there says; None if it cannot be decoded.

        By its `stored_at` alone it would look too young if the clock of the machine that stored it is ahead. What
        remains of that error is the time that a put and a look take, each of which is limited by the budget. All
        gateways are assumed to keep entries for equally long.
        """
        counted = max(0.0, self._lifetime - stored.expires_in)
        return Entry.read(stored, as_of, stored_by=self._clock() - counted)

    def _remaining(self, entry: Entry) -> float:
        return max(0.001, min(entry.stored_at + self._lifetime, entry.until) - self._clock())


def _newer(one: Entry, other: Entry) -> bool:
    """By version; with the same version, by when it was read."""
    return ((one.version or 0), one.stored_at) > ((other.version or 0), other.stored_at)
