"""The tiers of the cache: memory, Redis, or memory in front of Redis. Keeps writes and reads apart.

remembered  the entry there is in memory
look        the entry there is, and a ticket that says as of when
keep        what a read brought back, if no write has come between (the ticket tells) and nothing newer has been seen
open        before a write: the entry goes, and reads in flight will not be kept
close       after it
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
"""Bytes of a session context that is kept. Most have a few thousand: one that is larger would push out hundreds of
them, and Redis serves nobody else while it sends one."""


class Ticket(Struct, frozen=True):
    """As of when something was looked for. `shared` is None when nothing is to be put into the shared cache."""

    local: Generation
    shared: str | None = None


class OpenWrite(Struct, frozen=True):
    """A write under way."""

    local: WriterId
    shared: str | None = None


class TieredCache:
    """Entries by key, in whatever tiers there are. Never fails.

    `lifetime` is how long an entry is kept, in seconds; `marked_by` tells under which key writes mark what an entry
    holds, where that is another than its own; None when that is not known, so that any write may count.
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
        """What is in memory and may still be served as far as writes go. Nothing waits."""
        if self._memory is None or not (self._invalidations is None or self._invalidations.in_step):
            return None
        entry = self._memory.peek(key)
        return entry if entry is not None and self.good(key, entry) else None

    async def look(self, key: str, entry: Entry | None = None) -> tuple[Entry | None, Ticket]:
        """The newest entry that may still be served as far as writes go, and a ticket for what takes its place.

        `entry` is what is remembered, and not good enough for whoever asks.
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
        """Keep what a read brought back that began with this ticket.

        False when a write stands against it, or a newer version that has been seen, or it is too large, or nothing can
        keep it: Redis is in trouble, and there is no memory in front of it.
        """
        self._saw(key, entry)
        fits = entry.context is None or len(entry.context.source) <= LARGEST
        kept = fits and self.good(key, entry) and await self._share(key, entry, ticket)
        kept = kept and await self._remember(key, entry)
        self._observer.cache_put(CachePut(kept))
        return kept

    async def forget(self, key: str) -> None:
        """Drop an entry that upstream's own answer contradicts."""
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
        """After a write whose outcome is known; all others stay open for a time."""
        if self._shared is not None and write.shared is not None:
            await self._shared.close(key, write.shared)
        self._marks.close(key, write.local)

    def good(self, key: str, entry: Entry) -> bool:
        """Whether neither a write stands against what was read, nor a higher version that has been seen.

        Nor the clock: what it says was read later than now was read before it was set back, nobody knows how long ago.
        """
        return entry.stored_at <= self._clock() < entry.until and self._marks.allows(
            key if self._marked_by is None else self._marked_by(key, entry), entry.generation, entry.version
        )

    def still_good(self, key: str, entry: Entry) -> bool:
        """As `good`, of what was looked up some time ago: writes of other processes must have been heard of since."""
        return (self._invalidations is None or self._invalidations.in_step) and self.good(key, entry)

    def good_now(self, key: str, entry: Entry) -> bool:
        """As `good`, of what upstream has just answered: no higher version counts that was seen before it was asked."""
        return entry.stored_at <= self._clock() < entry.until and self._marks.lets_pass(
            key if self._marked_by is None else self._marked_by(key, entry), entry.generation, entry.version
        )

    def saw(self, key: str, version: int) -> None:
        """Somebody was told of this version by a way that leads past this cache. `key` is the one that writes mark."""
        self._marks.saw(key, version)

    def _saw(self, key: str, entry: Entry) -> None:
        marked = key if self._marked_by is None else self._marked_by(key, entry)
        if marked is not None and entry.version is not None:
            self._marks.saw(marked, entry.version)

    async def _share(self, key: str, entry: Entry, ticket: Ticket) -> bool:
        """Keep in Redis, if that is there and is to be asked; false when memory is not to keep it either, or cannot."""
        if self._shared is None:
            return True
        if ticket.shared is None:
            return self._memory is not None
        return await self._shared.put(key, entry.stored(), ticket.shared, ttl=self._remaining(entry))

    async def _remember(self, key: str, entry: Entry) -> bool:
        """Keep in memory; false when a write or a newer read stands against it. Nothing comes in between."""
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
        """An entry from Redis, no younger than Redis has counted; None when it cannot be read.

        By its `stored_at` alone it would look younger than it is by as much as the clock of the machine that stored it
        is ahead. What is left of that error is the time that a put and a look are on their way; the budget of Redis
        bounds each of them. All gateways are taken to keep entries for equally long.
        """
        counted = max(0.0, self._lifetime - stored.expires_in)
        return Entry.read(stored, as_of, stored_by=self._clock() - counted)

    def _remaining(self, entry: Entry) -> float:
        return max(0.001, min(entry.stored_at + self._lifetime, entry.until) - self._clock())


def _newer(one: Entry, other: Entry) -> bool:
    """By version; of the same version, by when it was read."""
    return ((one.version or 0), one.stored_at) > ((other.version or 0), other.stored_at)
