"""Sets the stage for the cache: an upstream that does as it is told, and processes with a cache each."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from pydantic import SecretStr

from gateway.cache.contexts import CachedClient, marked_by
from gateway.cache.entry import Entry
from gateway.cache.flights import Flights
from gateway.cache.freshness import Policy
from gateway.cache.invalidation import Invalidations
from gateway.cache.marks import Marks
from gateway.cache.readthrough import Fetched, ReadThrough
from gateway.cache.shared import SharedCache, message_of
from gateway.cache.tiers import TieredCache
from gateway.deadline import Deadline
from gateway.errors import SessionNotFound, Unauthenticated
from gateway.model import JSON, SessionContext, decode_session_context
from gateway.stores import MemoryStore
from gateway.stores.redis import RedisConnections, RedisStore, open_redis
from waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Container

    from cache.redis_server import RedisServer
    from redis.asyncio import Redis

    from gateway.telemetry import CacheFailed, CachePut, CacheRead, WriteFinished

SOON = Deadline.after(3_600)
"""A deadline that no test reaches."""

TTL = 30.0

LONGEST_READ = 15.0


def context_of(session_id: str, version: int, **attributes: JSON) -> SessionContext:
    document = {"sessionId": session_id, "metadata": {"version": version}, "context": attributes}
    return decode_session_context(json.dumps(document).encode())


class Clock:
    """Time that passes when it is told to."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class Recorder:
    """Takes records, and keeps them."""

    reads: list[CacheRead] = field(default_factory=list)
    puts: list[CachePut] = field(default_factory=list)
    failures: list[CacheFailed] = field(default_factory=list)

    def write_finished(self, event: WriteFinished) -> None:
        """Nothing here tells of writes."""

    def cache_read(self, event: CacheRead) -> None:
        self.reads.append(event)

    def cache_put(self, event: CachePut) -> None:
        self.puts.append(event)

    def cache_failed(self, event: CacheFailed) -> None:
        self.failures.append(event)


@dataclass
class Held:
    """A request that waits on its way."""

    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)

    async def pass_by(self) -> None:
        self.arrived.set()
        await self.go.wait()


async def _at_once() -> None:
    """No latency."""


@dataclass
class Upstream:
    """Session contexts with versions; a `Client`. Each write gives the next version."""

    contexts: dict[tuple[str, str], SessionContext] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    """The session that each access token belongs to."""
    reads: list[str] = field(default_factory=list)
    writes: list[str] = field(default_factory=list)
    deadlines: list[Deadline] = field(default_factory=list)
    """Of reads."""
    reads_under_way: int = 0
    read_fails: Callable[[], Exception] | None = None
    write_fails: Callable[[], Exception] | None = None
    """The error of a write that was applied all the same."""
    write_refused: Callable[[], Exception] | None = None
    """The error of a write that was not applied."""
    latency: Callable[[], Awaitable[None]] = _at_once
    _held_reads: list[Held] = field(default_factory=list)
    _held_writes: list[Held] = field(default_factory=list)
    _held_answers: list[Held] = field(default_factory=list)
    versions: dict[bytes, int] = field(default_factory=dict)
    """The version that each document became."""

    def have(self, session_id: str, version: int, tenant: str = "acme", **attributes: JSON) -> None:
        self.contexts[tenant, session_id] = context_of(session_id, version, **attributes)

    def hold_read(self) -> Held:
        """The next read has found what it found, and waits before it answers."""
        self._held_reads.append(Held())
        return self._held_reads[-1]

    def hold_write(self) -> Held:
        """The next write waits before it is applied."""
        self._held_writes.append(Held())
        return self._held_writes[-1]

    def hold_answer_of_write(self) -> Held:
        """The next write has been applied, and waits before it answers."""
        self._held_answers.append(Held())
        return self._held_answers[-1]

    def session(self, tenant: str, session_id: str) -> UpstreamSession:
        return UpstreamSession(self, tenant, lambda: session_id, session_id)

    def own_session(self, tenant: str, access_token: SecretStr) -> UpstreamOwnSession:
        def session_id() -> str:
            try:
                return self.tokens[access_token.get_secret_value()]
            except KeyError:
                raise Unauthenticated("the token is not known") from None

        return UpstreamOwnSession(self, tenant, session_id, None)

    async def answer(self, tenant: str, session_id: str, missing: str | None) -> SessionContext:
        self.reads.append(session_id)
        self.reads_under_way += 1
        try:
            await self.latency()
            found = self.contexts.get((tenant, session_id))
            if self._held_reads:
                await self._held_reads.pop(0).pass_by()
            await self.latency()
        finally:
            self.reads_under_way -= 1
        if self.read_fails is not None:
            raise self.read_fails()
        if found is None:
            raise SessionNotFound(missing)
        return found

    async def apply(self, tenant: str, session_id: str, document: bytes) -> None:
        self.writes.append(session_id)
        await self.latency()
        if self._held_writes:
            await self._held_writes.pop(0).pass_by()
        if self.write_refused is not None:
            raise self.write_refused()
        before = self.contexts.get((tenant, session_id))
        version = 1 if before is None else before.metadata.version + 1
        self.contexts[tenant, session_id] = context_of(session_id, version, written=document.decode())
        self.versions[document] = version
        if self._held_answers:
            await self._held_answers.pop(0).pass_by()
        await self.latency()
        if self.write_fails is not None:
            raise self.write_fails()


class _Resource:
    def __init__(self, upstream: Upstream, tenant: str, session_id: Callable[[], str], missing: str | None) -> None:
        self._upstream = upstream
        self._tenant = tenant
        self._session_id = session_id
        self._missing = missing

    async def read(self, deadline: Deadline) -> SessionContext:
        self._upstream.deadlines.append(deadline)
        return await self._upstream.answer(self._tenant, self._session_id(), self._missing)

    async def add_attribute(self, name: str, value: JSON, deadline: Deadline) -> None:
        await self._upstream.apply(self._tenant, self._session_id(), f"+{name}".encode())

    async def remove_attribute(self, name: str, deadline: Deadline) -> bool:
        await self._upstream.apply(self._tenant, self._session_id(), f"-{name}".encode())
        return True


class UpstreamSession(_Resource):
    async def write(
        self, document: bytes, deadline: Deadline, *, saas_token: SecretStr | None = None, upsert: bool = False
    ) -> None:
        await self._upstream.apply(self._tenant, self._session_id(), document)


class UpstreamOwnSession(_Resource):
    async def write(self, document: bytes, deadline: Deadline) -> None:
        await self._upstream.apply(self._tenant, self._session_id(), document)


@dataclass
class Process:
    """One gateway's cache, put together as the composition root does."""

    client: CachedClient
    marks: Marks
    managed: ReadThrough
    own: ReadThrough
    tiers: TieredCache
    memory: MemoryStore[Entry]
    own_memory: MemoryStore[Entry]
    session_ids: MemoryStore[str]
    observer: Recorder
    shared: SharedCache | None
    store: RedisStore | None
    invalidations: Invalidations | None


@asynccontextmanager
async def process(
    upstream: Upstream,
    *,
    redis: RedisServer | None = None,
    prefix: str = "",
    memory: bool = True,
    policy: Policy | None = None,
    max_entries: int = 10_000,
    open_for: float = 30.0,
    budget: float = 5.0,
    patience: float = 5.0,
    max_silence: float = 2.0,
    silence_clock: Callable[[], float] = time.monotonic,
    uncached: Container[str] = (),
    clock: Callable[[], float] = time.time,
) -> AsyncIterator[Process]:
    """A cache in memory, in Redis, or in two tiers. The budget is ample unless a test is about it."""
    policy = policy or Policy(TTL)
    lifetime = policy.lifetime + open_for
    observer = Recorder()
    marks = Marks(clock, lifetime=lifetime, open_for=open_for)
    entries, own_entries = MemoryStore[Entry](max_entries, clock), MemoryStore[Entry](max_entries, clock)
    session_ids = MemoryStore[str](max_entries, clock)
    async with AsyncExitStack() as stack:
        shared, store, invalidations = None, None, None
        if redis is not None:
            connections = await stack.enter_async_context(opened(redis, patience=patience))
            store = RedisStore(connections.client, prefix)
            shared = await stack.enter_async_context(
                SharedCache(
                    store,
                    observer,
                    budget=budget,
                    mark_lifetime=lifetime,
                    open_for=open_for,
                    lease_lifetime=LONGEST_READ,
                )
            )
            invalidations = await stack.enter_async_context(
                Invalidations(
                    connections.listener,
                    store.channel,
                    marks,
                    shared.origin,
                    max_silence=max_silence,
                    clock=silence_clock,
                )
            )
        make = partial(TieredCache, marks, observer, policy.lifetime, invalidations=invalidations, clock=clock)
        tiers = make(memory=entries if memory else None, shared=shared)
        own_tiers = make(memory=own_entries, marked_by=marked_by)
        flights = await stack.enter_async_context(Flights[Fetched]())
        own_flights = await stack.enter_async_context(Flights[Fetched]())
        managed = ReadThrough(tiers, flights, policy, observer, longest_read=LONGEST_READ, clock=clock)
        own = ReadThrough(own_tiers, own_flights, policy, observer, longest_read=LONGEST_READ, clock=clock)
        client = CachedClient(upstream, managed, own, session_ids, uncached=uncached)
        if invalidations is not None:
            await in_step(invalidations)
        yield Process(
            client,
            marks,
            managed,
            own,
            tiers,
            entries,
            own_entries,
            session_ids,
            observer,
            shared,
            store,
            invalidations,
        )


@asynccontextmanager
async def opened(server: RedisServer, *, patience: float = 5.0) -> AsyncIterator[RedisConnections]:
    async with open_redis(SecretStr(server.url), cluster=False, patience=patience) as connections:
        yield connections


async def in_step(*invalidations: Invalidations | None) -> None:
    await eventually(lambda: all(each is not None and each.in_step for each in invalidations), within=10)


async def heard_all(redis: Redis, *gateways: Process) -> None:
    """Wait until they have heard all that was said so far."""
    for gateway in gateways:
        assert gateway.store is not None
        before = gateway.marks.generation()
        await redis.publish(gateway.store.channel, message_of("somebody", f"fence{before}"))
        await eventually(lambda gateway=gateway, before=before: not gateway.marks.allows(f"fence{before}", before))  # type: ignore[misc]


async def settled() -> None:
    """Let every task run that can, without waiting for anything outside of this process."""
    for _ in range(20):
        await asyncio.sleep(0)
