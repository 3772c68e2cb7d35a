"""The cache: in memory, in Redis, or both."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from gateway.cache.contexts import CachedClient, marked_by
from gateway.cache.entry import Entry
from gateway.cache.freshness import Policy
from gateway.cache.invalidation import Invalidations
from gateway.cache.marks import Marks
from gateway.cache.readthrough import ReadThrough
from gateway.cache.shared import SharedCache
from gateway.cache.tiers import TieredCache
from gateway.stores import MemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from gateway.cache.contexts import Client
    from gateway.cache.flights import Flights
    from gateway.cache.readthrough import Fetched
    from gateway.readiness import Readiness
    from gateway.settings import Settings
    from gateway.stores.redis import RedisConnections, RedisStore
    from gateway.telemetry.prometheus import Metrics
    from gateway.tracing import Tracing

__all__ = ["ask_redis", "open_cache"]

Result = TypeVar("Result")

_SHARED_READ: Final = 1.5
"""A read for several callers may take so many times the longest call, since some of them join late."""
_UNKNOWN_WRITE: Final = 15.0
"""Seconds, beyond the longest read, for which a write with unknown outcome counts as in progress."""


@asynccontextmanager
async def open_cache(
    settings: Settings, client: Client, metrics: Metrics, readiness: Readiness, tracing: Tracing
) -> AsyncIterator[CachedClient]:
    """The client for upstream behind the configured cache, while the block runs."""
    cache = settings.cache
    own_session_ids = MemoryStore[str](cache.max_entries)
    if not (cache.in_memory or cache.in_redis):
        yield CachedClient(client, None, None, own_session_ids)
        return
    policy = Policy(cache.ttl, cache.stale_while_revalidate, cache.stale_if_error, cache.missing_ttl)
    longest_read = _SHARED_READ * settings.longest_call
    open_for = longest_read + _UNKNOWN_WRITE
    mark_lifetime = policy.lifetime + open_for
    marks = Marks(time.monotonic, lifetime=mark_lifetime, open_for=open_for)
    memory, own_memory = (
        MemoryStore[Entry](cache.max_entries, max_size=cache.max_memory, size_of=lambda entry: entry.size)
        for _ in range(2)
    )
    metrics.watch_entries(lambda: len(memory) + len(own_memory), lambda: memory.size + own_memory.size)
    shared, invalidations = None, None

    async with AsyncExitStack() as stack:

        async def read_through(tiers: TieredCache) -> ReadThrough:
            flights: Flights[Fetched] = await stack.enter_async_context(tracing.flights())
            through = ReadThrough(tiers, flights, policy, metrics, longest_read=longest_read)
            return tracing.around("cache", through, "get", "read")

        if cache.in_redis:
            from gateway.stores.redis import CONNECT_TIMEOUT  # noqa: PLC0415 - see _open_redis_store

            store, connections = await stack.enter_async_context(_open_redis_store(settings))
            shared = await stack.enter_async_context(
                SharedCache(
                    store,
                    metrics,
                    budget=cache.budget,
                    mark_lifetime=mark_lifetime,
                    open_for=open_for,
                    lease_lifetime=longest_read,
                )
            )
            await shared.connect(CONNECT_TIMEOUT)
            readiness.remark("cache", partial(_state_of, shared))
            invalidations = await stack.enter_async_context(
                Invalidations(connections.listener, store.channel, marks, shared.origin, max_silence=cache.max_silence)
            )
            shared = tracing.around("shared_cache", shared, "get", "put", "forget", "open", "close")
        in_front = memory if shared is None or cache.memory_tier else None
        managed = TieredCache(
            marks, metrics, policy.lifetime, memory=in_front, shared=shared, invalidations=invalidations
        )
        own = TieredCache(
            marks, metrics, policy.lifetime, memory=own_memory, invalidations=invalidations, marked_by=marked_by
        )
        yield CachedClient(
            client,
            await read_through(managed),
            await read_through(own) if cache.own_sessions else None,
            own_session_ids,
            uncached={name for name, tenant in settings.tenants.items() if not tenant.cache},
        )


async def _state_of(shared: SharedCache) -> str:
    return "ok" if await shared.usable() else "degraded: Redis does not answer or takes no writes, upstream is asked"


@asynccontextmanager
async def _open_redis_store(settings: Settings) -> AsyncIterator[tuple[RedisStore, RedisConnections]]:
    """The entries in Redis, and the connections to it, while the block runs."""
    # It takes 20 MiB.
    from gateway.stores.redis import RedisStore, open_redis  # noqa: PLC0415

    cache = settings.cache
    async with open_redis(cache.backend, cluster=cache.cluster) as connections:
        yield RedisStore(connections.client, f"{cache.prefix}sessions:"), connections


async def ask_redis(settings: Settings, work: Callable[[RedisStore], Awaitable[Result]], *, within: float) -> Result:
    """Do something in Redis once, within so many seconds. Raises OSError if that fails."""
    if not settings.cache.in_redis:
        raise OSError("cache.backend: is no Redis or Valkey, and no other cache can be seen")

    from gateway.stores.redis import RedisClusterException, RedisError  # noqa: PLC0415 - see _open_redis_store

    try:
        async with _open_redis_store(settings) as (store, _), asyncio.timeout(within):
            return await work(store)
    except (RedisError, RedisClusterException, TimeoutError) as error:
        raise OSError(f"cache.backend: Redis cannot be asked: {str(error) or 'no answer in time'}") from error
