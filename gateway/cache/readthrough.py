"""Reading through the cache: what may answer a read, and what happens when nothing in it may."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from msgspec import Struct

from gateway.cache.entry import Entry
from gateway.cache.freshness import CacheStatus, Use, use_of
from gateway.deadline import Deadline
from gateway.errors import GatewayError, MinVersionNotReached, SessionNotFound, UpstreamError
from gateway.request import current
from gateway.telemetry import CacheRead

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from gateway.cache.flights import Flights
    from gateway.cache.freshness import Policy, ReadOptions
    from gateway.cache.tiers import Ticket, TieredCache
    from gateway.model import SessionContext
    from gateway.telemetry import Observer

__all__ = ["Fetched", "Found", "NotThere", "ReadThrough", "Subject", "found", "new_enough"]

_HIT: Final = CacheRead("hit", collapsed=False)
_STALE_WHILE_REVALIDATE: Final = CacheRead("stale_while_revalidate", collapsed=False)
_STALE_IF_ERROR: Final = CacheRead("stale_if_error", collapsed=False)


class Subject(Protocol):
    """What is read through the cache."""

    key: str
    until: float
    """Until when it may be kept (Unix time)."""

    @property
    def session_id(self) -> str | None:
        """Its id, if that is known."""
        ...

    async def fetch(self, deadline: Deadline) -> SessionContext:
        """Ask upstream for it."""


class Found(Struct, frozen=True):
    """A session context, and where it came from."""

    context: SessionContext
    status: CacheStatus


class NotThere(SessionNotFound):
    """There is no such session context; `status` tells where that is known from."""

    def __init__(self, session_id: str | None, status: CacheStatus) -> None:
        super().__init__(session_id)
        self.status = status


class Fetched(Struct, frozen=True):
    """The result of a read of upstream, and whether it was kept."""

    entry: Entry
    stored: bool


class ReadThrough:
    """Answers reads from the cache, and keeps what upstream answers.

    A read of upstream that several callers share may take `longest_read` seconds. Each caller has its own deadline.
    """

    def __init__(
        self,
        tiers: TieredCache,
        flights: Flights[Fetched],
        policy: Policy,
        observer: Observer,
        *,
        longest_read: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._tiers = tiers
        self._flights = flights
        self._policy = policy
        self._observer = observer
        self._longest_read = longest_read
        self._clock = clock

    async def get(self, subject: Subject, options: ReadOptions, deadline: Deadline) -> Found:
        """Answer from the cache if the options allow, otherwise from upstream.

        Raises NotThere, MinVersionNotReached, and what the subject's `fetch` raises.
        """
        entry = self._tiers.remembered(subject.key)
        if entry is not None:
            age = self._age(entry)
            if use_of(age, entry.version, self._policy, options) is Use.FRESH:
                return self._served(subject, entry, age, _HIT)
        entry, ticket = await self._tiers.look(subject.key, entry)
        if entry is not None:
            age = self._age(entry)
            use = use_of(age, entry.version, self._policy, options)
            if use is Use.FRESH:
                return self._served(subject, entry, age, _HIT)
            if use is Use.STALE:
                self._flights.run_behind(subject.key, partial(self._fetch, subject, ticket))
                return self._served(subject, entry, age, _STALE_WHILE_REVALIDATE)
        try:
            return await self._forwarded(subject, entry, ticket, options, deadline)
        except UpstreamError as error:
            if entry is None or not self._serves_if_error(subject.key, entry, options):
                raise
            return self._served(subject, entry, self._age(entry), _STALE_IF_ERROR, error)

    async def read(self, subject: Subject, deadline: Deadline) -> SessionContext:
        """Ask upstream in any case, and keep the answer. Raises SessionNotFound, and what `fetch` raises."""
        _, ticket = await self._tiers.look(subject.key)
        entry = (await self._fetch(subject, ticket, deadline)).entry
        if entry.context is None:
            raise SessionNotFound(subject.session_id)
        return entry.context

    async def forget(self, key: str) -> None:
        """Drop what is kept."""
        await self._tiers.forget(key)

    def saw(self, key: str, version: int) -> None:
        """A caller got this version in another way: nothing lower is served from now on."""
        self._tiers.saw(key, version)

    @asynccontextmanager
    async def writing(self, key: str) -> AsyncIterator[None]:
        """Around a write: nothing that was read before it, or is being read, is served after it."""
        write = await self._tiers.open(key)
        self._flights.forget(key)
        try:
            yield
        except GatewayError as error:
            if not error.leaves_doubt:
                await self._tiers.close(key, write)
            raise
        else:
            await self._tiers.close(key, write)
        finally:
            self._flights.forget(key)

    async def _forwarded(
        self, subject: Subject, entry: Entry | None, ticket: Ticket, options: ReadOptions, deadline: Deadline
    ) -> Found:
        """Ask upstream, alone or together with others that ask for the same."""
        why = self._why(entry)
        with deadline.bound("the read"):
            if options.max_age == 0:
                fetched, collapsed = await self._fetch(subject, ticket, deadline), False
            else:
                fetched, collapsed = await self._together(subject, ticket, options, deadline)
        self._observer.cache_read(CacheRead(why, collapsed))
        age = self._age(fetched.entry)
        ttl = self._ttl(fetched.entry, age) if fetched.stored else None
        status = CacheStatus(fwd=why, stored=fetched.stored, collapsed=collapsed, ttl=ttl, age=age)
        read = found(subject, fetched.entry.context, status)
        new_enough(read.context, options)
        return read

    async def _together(
        self, subject: Subject, ticket: Ticket, options: ReadOptions, deadline: Deadline
    ) -> tuple[Fetched, bool]:
        """The result of a read in progress, if it is good enough, or else of a new one; tells whether it was shared.

        A read that began before a write, or before a higher version was seen by any caller, is not good enough.
        """
        for _ in range(2):
            fetched, collapsed = await self._flights.join(subject.key, partial(self._fetch, subject, ticket))
            if not collapsed or self._will_do(subject, fetched.entry, options):
                return fetched, collapsed
            _, ticket = await self._tiers.look(subject.key)
        return await self._fetch(subject, ticket, deadline), False

    async def _fetch(self, subject: Subject, ticket: Ticket, deadline: Deadline | None = None) -> Fetched:
        sent_at = self._clock()
        try:
            context = await subject.fetch(deadline or Deadline.after(self._longest_read))
        except SessionNotFound:
            await self._tiers.forget(subject.key)
            entry = Entry(None, sent_at, ticket.local, subject.until)
            stored = bool(self._policy.missing_ttl) and await self._tiers.keep(subject.key, entry, ticket)
            return Fetched(entry, stored)
        entry = Entry(context, sent_at, ticket.local, subject.until)
        return Fetched(entry, await self._tiers.keep(subject.key, entry, ticket))

    def _serves_if_error(self, key: str, entry: Entry, options: ReadOptions) -> bool:
        """Whether the entry may be served now that upstream has failed: there may have been a write since."""
        use = use_of(self._age(entry), entry.version, self._policy, options)
        return use is Use.IF_ERROR and self._tiers.still_good(key, entry)

    def _why(self, entry: Entry | None) -> str:
        """Why upstream is asked, in the terms of RFC 9211; `request` if this caller did not accept a fresh entry."""
        if entry is None:
            return "miss"
        return "request" if self._ttl(entry, self._age(entry)) > 0 else "stale"

    def _will_do(self, subject: Subject, entry: Entry, options: ReadOptions) -> bool:
        """Whether the result of another caller's read meets this caller's options."""
        young = options.max_age is None or self._age(entry) < options.max_age
        high_enough = (entry.version or 0) >= (options.min_version or 0)
        return young and high_enough and self._tiers.good_now(subject.key, entry)

    def _served(
        self, subject: Subject, entry: Entry, age: float, event: CacheRead, error: UpstreamError | None = None
    ) -> Found:
        """Answer with an entry. It is no hit if upstream was asked first, and failed with `error` (RFC 9211, 2.1)."""
        self._observer.cache_read(event)
        ttl = self._ttl(entry, age)
        if error is None:
            status = CacheStatus(hit=True, ttl=ttl, age=age)
        else:
            status = CacheStatus(fwd="stale", ttl=ttl, age=age, detail=error.reason)
        return found(subject, entry.context, status)

    def _ttl(self, entry: Entry, age: float) -> float:
        """Seconds for which it is still fresh; negative if it is stale."""
        return (self._policy.missing_ttl if entry.context is None else self._policy.ttl) - age

    def _age(self, entry: Entry) -> float:
        """Its age in seconds; not negative, even if this machine's clock was set back."""
        return max(0.0, self._clock() - entry.stored_at)


def new_enough(context: SessionContext, options: ReadOptions) -> SessionContext:
    """Upstream's answer, if its version is high enough. Raises MinVersionNotReached."""
    if options.min_version is not None and context.metadata.version < options.min_version:
        raise MinVersionNotReached(options.min_version, context.metadata.version)
    return context


def found(subject: Subject, context: SessionContext | None, status: CacheStatus) -> Found:
    """The result of a read, whose source is recorded with the request. Raises NotThere if there is none."""
    current().answered_from("hit" if status.hit else status.fwd)
    if context is None:
        raise NotThere(subject.session_id, status)
    return Found(context, status)
