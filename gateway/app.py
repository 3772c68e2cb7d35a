"""The composition root: builds everything, top to bottom, and owns every lifetime."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import httpx

from gateway import contracts
from gateway.access.audit import Audit
from gateway.access.guard import Access, Guard
from gateway.access.keys import KeyRing
from gateway.access.principal import Permission, Principal
from gateway.access.tokens import Issuer, TokenIssuers
from gateway.admin import Readiness, admin_app
from gateway.cache.contexts import CachedClient, marked_by
from gateway.cache.entry import Entry
from gateway.cache.flights import Flights
from gateway.cache.freshness import Policy
from gateway.cache.invalidation import Invalidations
from gateway.cache.marks import Marks
from gateway.cache.readthrough import Fetched, ReadThrough
from gateway.cache.shared import SharedCache
from gateway.cache.shelf import Shelf
from gateway.deadline import Deadline
from gateway.errors import UpstreamUnavailable
from gateway.graphql.http import GraphQLEndpoint
from gateway.graphql.playground import Playground
from gateway.graphql.schema import make_schema
from gateway.graphql.server import serve_graphql
from gateway.listener import listening
from gateway.rpc.server import serve_rpc
from gateway.sessions.service import OwnSessionContexts, SessionContexts
from gateway.sessions.writer import Writer
from gateway.stores import MemoryStore, RedisStore, open_redis
from gateway.telemetry.prometheus import Metrics
from gateway.upstream.client import SessionContextClient
from gateway.upstream.http import Http
from gateway.upstream.oauth import ClientCredentials, ServiceToken, ServiceTokens

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from gateway.access.tokens import Fetch
    from gateway.settings import Settings

__all__ = ["Addresses", "open_access", "open_cache", "open_gateway", "open_upstream"]


_MAX_CONNECTIONS: Final = 256
"""To upstream, at a time, in one process."""


_FETCH_TIME: Final = 5.0
"""Seconds for an issuer's document."""
_REDIS_PATIENCE: Final = 1.0
"""Seconds to connect to Redis, and for it to answer; what waits for it has less (`cache.budget`)."""
_OPEN_FOR: Final = 30.0
"""Seconds for which a write counts as under way if its end is not known: longer than upstream would work on it."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the doors are."""

    graphql: str
    """URL of the GraphQL endpoint."""
    grpc: str
    """Host and port, as gRPC's clients take them."""
    admin: str
    """Base URL of the admin listener."""


@asynccontextmanager
async def open_gateway(settings: Settings, playground_headers: Mapping[str, str]) -> AsyncIterator[Addresses]:
    """Serve while the block runs. `playground_headers` are filled in for whoever opens the playground.

    Raises OSError when a port cannot be had. On leaving, the doors close first and let calls under way finish.
    """
    async with AsyncExitStack() as stack:
        metrics = Metrics()
        http, tokens = await stack.enter_async_context(open_upstream(settings))
        client = await stack.enter_async_context(open_cache(settings, SessionContextClient(http, tokens), metrics))

        writer = Writer(
            max_attempts=settings.writes.max_attempts, max_document=settings.writes.max_document, observer=metrics
        )
        sessions = SessionContexts(client, writer)
        own = OwnSessionContexts(client, writer)
        access = await stack.enter_async_context(open_access(settings))
        guard = Guard(access, sessions, own, Audit())

        readiness = Readiness()
        admin = await stack.enter_async_context(
            listening(
                admin_app(metrics, readiness),
                host=settings.admin.host,
                port=settings.admin.port,
                grace=settings.shutdown.grace,
            )
        )
        rpc = await stack.enter_async_context(
            serve_rpc(
                guard,
                host=settings.grpc.host,
                port=settings.grpc.port,
                budget=settings.grpc.budget,
                grace=settings.shutdown.grace,
                max_message=settings.grpc.max_message,
            )
        )
        playground = _playground(settings, playground_headers)
        endpoint = GraphQLEndpoint(
            make_schema(),
            guard,
            budget=settings.graphql.budget,
            max_body=settings.graphql.max_body,
            playground=playground,
        )
        graphql = await stack.enter_async_context(
            serve_graphql(
                endpoint,
                playground,
                host=settings.graphql.host,
                port=settings.graphql.port,
                grace=settings.shutdown.grace,
            )
        )
        with readiness.declared():  # last in, first out: a load balancer hears of the end before a door closes
            yield Addresses(graphql, rpc, admin)


@asynccontextmanager
async def open_upstream(settings: Settings) -> AsyncIterator[tuple[Http, ServiceTokens]]:
    """The way to upstream, and the gateway's own tokens for it, while the block runs."""
    limits = httpx.Limits(max_connections=_MAX_CONNECTIONS, max_keepalive_connections=_MAX_CONNECTIONS)
    credentials = {
        name: ClientCredentials(tenant.client_id, tenant.client_secret) for name, tenant in settings.tenants.items()
    }
    async with httpx.AsyncHTTPTransport(limits=limits) as transport:
        http = Http(transport, str(settings.upstream.base_url), timeout=settings.upstream.timeout)
        store = MemoryStore[ServiceToken](max_entries=len(credentials))
        async with ServiceTokens(http, store, credentials) as tokens:
            yield http, tokens


@asynccontextmanager
async def open_cache(settings: Settings, client: SessionContextClient, metrics: Metrics) -> AsyncIterator[CachedClient]:
    """The client, read through whatever cache the settings name, while the block runs."""
    cache = settings.cache
    backend = cache.backend.get_secret_value()
    policy = Policy(cache.ttl, cache.stale_while_revalidate, cache.stale_if_error, cache.missing_ttl)
    marks = Marks(time.monotonic, lifetime=policy.lifetime + _OPEN_FOR, open_for=_OPEN_FOR)
    own_session_ids = MemoryStore[str](cache.max_entries)
    uncached = {name for name, tenant in settings.tenants.items() if not tenant.cache}

    async with AsyncExitStack() as stack:

        async def read_through(shelf: Shelf) -> ReadThrough:
            flights = await stack.enter_async_context(Flights[Fetched]())
            return ReadThrough(shelf, flights, policy, metrics)

        if backend == "none":
            yield CachedClient(client, None, None, own_session_ids)
            return
        memory = MemoryStore[Entry](cache.max_entries)
        own_memory = MemoryStore[Entry](cache.max_entries)
        metrics.watch_entries(lambda: len(memory) + len(own_memory))
        if backend == "memory":
            shared, invalidations = None, None
        else:
            connections = await stack.enter_async_context(
                open_redis(cache.backend, cluster=cache.cluster, patience=_REDIS_PATIENCE)
            )
            store = RedisStore(connections.client, cache.prefix)
            shared = await stack.enter_async_context(
                SharedCache(
                    store,
                    metrics,
                    budget=cache.budget,
                    mark_lifetime=policy.lifetime + _OPEN_FOR,
                    open_for=_OPEN_FOR,
                )
            )
            invalidations = await stack.enter_async_context(
                Invalidations(connections.listener, store.channel, marks, shared.origin, max_silence=cache.max_silence)
            )
        in_front = memory if shared is None or cache.memory_tier else None
        managed = Shelf(marks, metrics, policy.lifetime, in_front, shared, invalidations)
        own = Shelf(marks, metrics, policy.lifetime, own_memory, None, invalidations, marked_by=marked_by)
        yield CachedClient(
            client,
            await read_through(managed),
            await read_through(own) if cache.own_sessions else None,
            own_session_ids,
            uncached=uncached,
        )


@asynccontextmanager
async def open_access(settings: Settings) -> AsyncIterator[Access]:
    """Who may call, while the block runs: issuers' keys are fetched behind."""
    access = settings.access
    keys = {
        name: (entry.hash, Principal.of(name, "key", map(Permission, entry.permissions), entry.tenants))
        for name, entry in access.keys.items()
    }
    certificates = {
        name: Principal.of(name, "certificate", map(Permission, entry.permissions), entry.tenants)
        for name, entry in access.certificates.items()
    }
    issuers = tuple(
        Issuer(
            name,
            entry.issuer,
            entry.audience,
            entry.algorithms,
            jwks_url=None if entry.jwks_url is None else str(entry.jwks_url),
            leeway=entry.leeway,
            permissions_claim=entry.permissions_claim,
            permissions={word: Permission(meaning) for word, meaning in entry.permissions.items()},
            tenants_claim=entry.tenants_claim,
            tenants=entry.tenants,
        )
        for name, entry in access.issuers.items()
    )
    ring = KeyRing(keys) if keys else None
    if not issuers:
        yield Access(ring, None, certificates)
        return
    async with httpx.AsyncHTTPTransport() as transport, TokenIssuers(issuers, _fetching(transport)) as tokens:
        yield Access(ring, tokens, certificates)


def _fetching(transport: httpx.AsyncBaseTransport) -> Fetch:
    http = Http(transport, "")

    async def fetch(url: str) -> bytes:
        answer = await http.send(
            "GET", url, deadline=Deadline.after(_FETCH_TIME), headers={"accept": "application/json"}
        )
        if answer.status != 200:
            raise UpstreamUnavailable(f"an issuer answers {answer.status}")
        return answer.body

    return fetch


def _playground(settings: Settings, headers: Mapping[str, str]) -> Playground | None:
    if not settings.graphql.playground:
        return None
    return Playground(tuple(contracts.example_operations().values()), headers)
