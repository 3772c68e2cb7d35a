"""The shared cache, on a leash (`gateway.stores.leash`).

Nothing here ever fails: when Redis is down, slow or wrong, there is no entry, and nothing is kept. A mark that could
not be set is remembered and set as soon as Redis is back; until then this process does without the shared entry of
that session. (Other processes may go on to serve theirs until its time to live is over.)
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
    """What was found, if anything that can be trusted, and as of when in this process's generations.

    `lease` is for putting something in its place; None when nothing is to be put.
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
        """This process, in marks' names and messages."""
        self._max_owed = max_owed
        self._count = itertools.count()
        self._owed: dict[str, int] = {}
        """Marks that could not be set, each by a number of its own: to set one does not settle what came after it."""
        self._distrusted_until = float("-inf")
        """Entries are not trusted that may have been read before then."""
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
        """Have a connection made, within so many seconds, if it can be.

        The first operation would take longer than its budget over that, and Redis would be left alone for a while.
        """
        with contextlib.suppress(Exception):
            async with asyncio.timeout(patience):
                await self._store.probe()

    async def usable(self) -> bool:
        """Whether Redis does what it is for, in its time: it is read and written, which PING would not tell."""
        return bool(await self._tried("probe", self._store.probe))

    async def get(self, key: str, as_of: Generation) -> Looked:
        """Look for an entry, now, which is `as_of`; or see what somebody finds who is looking for it already.

        What that finds is as of when it began.
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
        """When it was kept at the latest, as Redis has counted.

        The clock of the machine that stored it may be ahead. Marks live longer than entries, by as much as a read takes
        and more: so what was kept since, but read before, is not taken for younger than it is.
        """
        return self._clock() - (self._mark_lifetime - entry.expires_in)

    async def put(self, key: str, entry: StoredEntry, lease: str, *, ttl: float) -> bool:
        """Keep an entry; false when it was refused, or could not be kept."""
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
        """A name that no other process and no other call gives."""
        return f"{self.origin}-{next(self._count)}"

    async def _tried(self, operation: str, call: Callable[[], Awaitable[Result]]) -> Result | None:
        result = await self._leash.tried(operation, call)
        if result is not None:
            self._settle_soon()
        return result

    def _owe(self, key: str) -> None:
        self._owed[key] = next(self._count)
        if len(self._owed) > self._max_owed:  # rather than remember them all, trust nothing that was kept until now
            self._owed.clear()
            self._distrusted_until = self._clock()

    def _settle_soon(self) -> None:
        if self._owed and not self._leash.resting and (self._settling is None or self._settling.done()):
            self._settling = self._tasks.create_task(self._settle(), name="set marks that are owed")

    async def _settle(self) -> None:
        """Set the marks that are owed, if Redis answers again. Until one is set, it is owed."""
        while self._owed:
            key, debt = next(iter(self._owed.items()))
            if not await self._mark("mark", key):
                return
            if self._owed.get(key) == debt:
                del self._owed[key]


EVERYTHING: Final = "*"
"""In a message, in the place of a key."""


def message_of(origin: str, key: str) -> bytes:
    """What is told to all processes about a write: whose, and of which session."""
    return f"{origin} {key}".encode()


def parse_message(message: bytes) -> tuple[str, str] | None:
    """Origin and key; None for a message that is not one of ours."""
    origin, _, key = message.decode("utf-8", "replace").partition(" ")
    return (origin, key) if key else None
