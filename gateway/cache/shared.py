"""The shared cache in Redis, with a time limit for each operation (`gateway.stores.leash`).

Nothing here ever fails: if Redis is down, slow or wrong, there is no entry, and nothing is kept. A mark that could not
be set is remembered, and set as soon as Redis is back; until then this process does not use the shared entry of that
session. (Other processes may serve theirs until its time to live is over.)
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from gateway.cache.flights import Flights
from gateway.stores.leash import Leash
from gateway.tasks import TaskGroup
from gateway.telemetry import CacheFailed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Self

    from gateway.cache.marks import Generation
    from gateway.stores import StoredEntry
    from gateway.stores.redis import RedisStore
    from gateway.telemetry import Observer

__all__ = ["EVERYTHING", "SharedCache", "message_of", "parse_message"]

Result = TypeVar("Result")

_MAX_OWED: Final = 10_000


@dataclass(frozen=True, slots=True)
class Looked:
    """The entry that was found, if it can be trusted, and as of when in this process's generations.

    `lease` is needed to put an entry; None if nothing may be put.
    """

    entry: StoredEntry | None
    lease: str | None
    as_of: Generation


class SharedCache:
    """Redis, for one process. `budget` bounds one operation, in seconds. Enter it before use: it owns a task.

    `mark_lifetime` and `open_for` are those of `gateway.cache.marks.Marks`. A read that found nothing may put what it
    brings back for `lease_lifetime` seconds: as long as one may take.
    """

    def __init__(
        self,
        store: RedisStore,
        observer: Observer,
        *,
        budget: float,
        mark_lifetime: float,
        open_for: float,
        lease_lifetime: float,
        max_owed: int = _MAX_OWED,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._leash = Leash(
            budget, "cache_unavailable", lambda operation: observer.cache_failed(CacheFailed(operation)), clock
        )
        self._clock = clock
        self._mark_lifetime = mark_lifetime
        self._open_for = open_for
        self._lease_lifetime = lease_lifetime
        self.origin = secrets.token_hex(8)
        """Identifies this process in the names of marks and in messages."""
        self._max_owed = max_owed
        self._count = itertools.count()
        self._owed: dict[str, int] = {}
        """Marks that could not be set, each with a number: setting one does not settle a later one for the same key."""
        self._distrusted_until = float("-inf")
        """Entries that may have been read before then are not trusted."""
        self._looks = Flights[Looked]()
        self._settling: asyncio.Task[None] | None = None
        self._tasks = TaskGroup()

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        await self._looks.__aenter__()
        return self

    async def __aexit__(self, *ended: object) -> None:
        await self._looks.__aexit__(*ended)
        await self._tasks.__aexit__(*ended)

    async def connect(self, patience: float) -> None:
        """Try to connect, within so many seconds.

        Otherwise the first operation would exceed its budget while it connects, and Redis be left alone for a while.
        """
        with contextlib.suppress(Exception):
            async with asyncio.timeout(patience):
                await self._store.probe()

    async def usable(self) -> bool:
        """Whether Redis can be read and written in time, which PING would not tell."""
        return bool(await self._tried("probe", self._store.probe))

    async def get(self, key: str, as_of: Generation) -> Looked:
        """Look for an entry, now, which is `as_of`; or share the result of a look in progress.

        That result is as of when it began.
        """
        if key in self._owed:
            self._settle_soon()
            return Looked(None, None, as_of)
        looked, _ = await self._looks.join(key, partial(self._look, key, as_of))
        return looked

    async def _look(self, key: str, as_of: Generation) -> Looked:
        found = await self._tried("get", lambda: self._store.get(key, lease=self._name(), ttl=self._lease_lifetime))
        if found is None:
            return Looked(None, None, as_of)
        entry, lease = found
        trusted = entry is not None and self._kept_at(entry) >= self._distrusted_until
        return Looked(entry if trusted else None, lease, as_of)

    def _kept_at(self, entry: StoredEntry) -> float:
        """When it was stored at the latest, going by its time to live in Redis.

        The clock of the machine that stored it may be ahead. Marks live longer than entries, by more than a read takes:
        so an entry that was read before, and stored since, does not look younger than it is.
        """
        return self._clock() - (self._mark_lifetime - entry.expires_in)

    async def put(self, key: str, entry: StoredEntry, lease: str, *, ttl: float) -> bool:
        """Keep an entry; false if it was refused, or could not be kept."""
        return bool(await self._tried("put", lambda: self._store.put(key, entry, lease, ttl=ttl)))

    async def forget(self, key: str) -> None:
        """Remove an entry; a mark stays."""
        await self._mark("forget", key, if_entry=True)

    async def open(self, key: str) -> str:
        """Mark that a write is about to be sent; returns its name."""
        writer = self._name()
        if not await self._mark("mark", key, opened=writer):
            self._owe(key)
        return writer

    async def close(self, key: str, writer: str) -> None:
        """Mark that a write has ended."""
        if not await self._mark("mark", key, closed=writer):
            self._owe(key)

    async def _mark(
        self, operation: str, key: str, *, opened: str = "", closed: str = "", if_entry: bool = False
    ) -> bool:
        async def mark() -> bool:
            await self._store.mark(
                key,
                generation=self._name(),
                ttl=self._mark_lifetime,
                opened=opened,
                closed=closed,
                open_for=self._open_for,
                message=message_of(self.origin, key),
                if_entry=if_entry,
            )
            return True

        return bool(await self._tried(operation, mark))

    def _name(self) -> str:
        """A name that is unique among all processes and calls."""
        return f"{self.origin}-{next(self._count)}"

    async def _tried(self, operation: str, call: Callable[[], Awaitable[Result]]) -> Result | None:
        result = await self._leash.tried(operation, call)
        if result is not None:
            self._settle_soon()
        return result

    def _owe(self, key: str) -> None:
        self._owed[key] = next(self._count)
        if len(self._owed) > self._max_owed:  # rather than remember them all, trust nothing that was stored until now
            self._owed.clear()
            self._distrusted_until = self._clock()

    def _settle_soon(self) -> None:
        if self._owed and not self._leash.resting and (self._settling is None or self._settling.done()):
            self._settling = self._tasks.create_task(self._settle(), name="set marks that are owed")

    async def _settle(self) -> None:
        """Set the marks that are owed, if Redis answers again. A mark is owed until it is set."""
        while self._owed:
            key, debt = next(iter(self._owed.items()))
            if not await self._mark("mark", key):
                return
            if self._owed.get(key) == debt:
                del self._owed[key]


EVERYTHING: Final = "*"
"""In a message, instead of a key."""


def message_of(origin: str, key: str) -> bytes:
    """The message to all processes about a write: from which process, and of which session."""
    return f"{origin} {key}".encode()


def parse_message(message: bytes) -> tuple[str, str] | None:
    """Origin and key; None if the message is not one of ours."""
    origin, _, key = message.decode("utf-8", "replace").partition(" ")
    return (origin, key) if key else None
