"""The composition root: builds everything, top to bottom, and owns every lifetime."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from gateway import contracts
from gateway.access.audit import Audit
from gateway.access.guard import Access, Guard
from gateway.access.keys import KeyRing
from gateway.access.limits import LeashedBuckets, RateLimits
from gateway.access.principal import Permission, Principal
from gateway.access.rates import Rate
from gateway.admin import admin_app
from gateway.cache.contexts import CachedClient, marked_by
from gateway.cache.entry import Entry
from gateway.cache.freshness import Policy
from gateway.cache.invalidation import Invalidations
from gateway.cache.marks import Marks
from gateway.cache.readthrough import ReadThrough
from gateway.cache.shared import SharedCache
from gateway.cache.shelf import Shelf
from gateway.ending import Ending
from gateway.graphql.compiled import Compiler
from gateway.graphql.documents import Documents
from gateway.graphql.http import GraphQLEndpoint
from gateway.graphql.limits import Limits as DocumentLimits
from gateway.graphql.manifest import BadManifest, parse_manifest
from gateway.graphql.playground import Playground
from gateway.graphql.schema import make_schema
from gateway.graphql.server import serve_graphql
from gateway.listener import listening
from gateway.readiness import Readiness
from gateway.reloading import reloading
from gateway.rpc.limits import Limits
from gateway.rpc.server import serve_rpc
from gateway.sessions.service import OwnSessionContexts, SessionContexts
from gateway.sessions.writer import Writer
from gateway.settings import ConfigurationError
from gateway.stores import MemoryStore, RedisBuckets, RedisConnections, RedisStore, open_redis
from gateway.succession import Succession
from gateway.telemetry import Unobserved
from gateway.telemetry.access_log import AccessLog
from gateway.telemetry.prometheus import Metrics
from gateway.telemetry.request_metrics import RequestMetrics
from gateway.tls import Certificates
from gateway.tracing import BadTracing, Untraced
from gateway.upstream.attributed import Attributed
from gateway.upstream.breaker import Breaker, Breaking, Rules
from gateway.upstream.client import SessionContextClient
from gateway.upstream.first_tokens import obtaining_first_tokens
from gateway.upstream.http import Http
from gateway.upstream.limiter import Limited, Limiter
from gateway.upstream.oauth import ClientCredentials, ServiceToken, ServiceTokens
from gateway.upstream.observed import Observed
from gateway.upstream.retries import Budget, Retrying
from gateway.upstream.transport import Transport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
    from pathlib import Path

    from gateway.access.tokens import TokenIssuers
    from gateway.cache.flights import Flights
    from gateway.cache.readthrough import Fetched
    from gateway.graphql.schema import GatewaySchema
    from gateway.settings import Access as AccessSettings
    from gateway.settings import Grpc, Settings, Tls, Upstream
    from gateway.settings import Limited as LimitedCaller
    from gateway.telemetry import UpstreamObserver
    from gateway.telemetry.requests import Requests, RequestWatcher
    from gateway.tracing import Tracing
    from gateway.upstream.http import Send

__all__ = [
    "Addresses",
    "Doors",
    "open_access",
    "open_cache",
    "open_doors",
    "open_gateway",
    "open_rate_limits",
    "open_upstream",
    "prepare_documents",
]


_CONNECT_SHARE: Final = 0.6
"""How much of an exchange's time it may take to get a connection: less than all, so that what was never sent is told
from what was sent and not answered."""
_AS_GOOD_AS: Final = 0.9
"""Of an exchange's time: a call that took so much of it counts as timed out."""
_FEW: Final = 5
_FETCH_TIME: Final = 5.0
"""Seconds for an issuer's document."""
_REDIS_PATIENCE: Final = 1.0
"""Seconds to connect to Redis, and for it to answer; what waits for it has less (`cache.budget`)."""
_OPEN_FOR: Final = 30.0
"""Seconds for which a write counts as under way if its end is not known: longer than upstream would work on it."""


_UNTRACED: Final = Untraced()
_MANAGING: Final = ("get", "batch_get", "replace", "patch", "add_attribute", "remove_attribute")
_OWN: Final = ("get", "update", "add_attribute", "remove_attribute")
"""Use cases, each of which is a step of a trace."""


@dataclass(frozen=True, slots=True)
class Doors:
    """Where callers come in."""

    graphql: str
    """URL of the GraphQL endpoint."""
    grpc: str
    """Host and port, as gRPC's clients take them."""
    reload: Callable[[Settings], Awaitable[None]]
    """Takes callers and tenants' clients from other settings, which are the same in all else."""


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
async def open_gateway(
    settings: Settings,
    playground_headers: Mapping[str, str],
    *,
    ending: Ending | None = None,
    shared: bool = False,
    read_again: Callable[[], Settings] | None = None,
) -> AsyncIterator[Addresses]:
    """Serve while the block runs, in this process alone.

    `playground_headers` are filled in for whoever opens the playground. Ports are `shared` as `gateway.listener.bind`
    has it. With `read_again` it obeys SIGHUP (see `gateway.reloading`).

    Raises OSError when a port cannot be had, CertificateError, and ConfigurationError for bad trusted documents. On
    leaving, the doors close first and let calls under way finish.
    """
    metrics, readiness = Metrics(), Readiness()
    metrics.watch_process()
    async with (
        listening(
            admin_app(metrics, readiness),
            host=settings.admin.host,
            port=settings.admin.port,
            grace=settings.shutdown.grace,
            shared=shared,
        ) as admin,
        open_doors(settings, playground_headers, metrics, readiness, ending=ending or Ending(), shared=shared) as doors,
        nullcontext() if read_again is None else reloading(settings, read_again, doors.reload, readiness),
    ):
        yield Addresses(doors.graphql, doors.grpc, admin)


@asynccontextmanager
async def open_doors(
    settings: Settings,
    playground_headers: Mapping[str, str],
    metrics: Metrics,
    readiness: Readiness,
    *,
    ending: Ending,
    shared: bool,
) -> AsyncIterator[Doors]:
    """As `open_gateway`, without the operator's listener, which several processes have in common."""
    readiness.set("doors", "opening", met=False)
    schema = make_schema(introspection=settings.graphql.introspection)
    documents = prepare_documents(settings, schema)
    async with AsyncExitStack() as stack:
        tracing = await stack.enter_async_context(open_tracing(settings))
        requests = open_requests(settings, metrics, tracing, stack)
        http, tokens = await stack.enter_async_context(open_upstream(settings, metrics, tracing))
        upstream = SessionContextClient(http, tracing.around("token", tokens, "get"))
        client = await stack.enter_async_context(open_cache(settings, upstream, metrics, readiness, tracing))

        writer = Writer(
            max_attempts=settings.writes.max_attempts, max_document=settings.writes.max_document, observer=metrics
        )
        sessions = SessionContexts(
            client,
            writer,
            max_batch=settings.reads.max_batch,
            batch_concurrency=settings.reads.batch_concurrency,
        )
        own = OwnSessionContexts(client, writer)
        longest_call = max(settings.graphql.budget, settings.grpc.budget)
        accesses = await stack.enter_async_context(Succession[Access](longest_call))
        access = await accesses.next(open_access(settings))
        limits = await stack.enter_async_context(open_rate_limits(settings, metrics))
        guard = Guard(
            access,
            limits,
            tracing.around("session", sessions, *_MANAGING),
            tracing.around("own_session", own, *_OWN),
            Audit(),
        )

        rpc = await stack.enter_async_context(
            serve_rpc(
                guard,
                requests,
                host=settings.grpc.host,
                port=settings.grpc.port,
                budget=settings.grpc.budget,
                grace=settings.shutdown.grace,
                max_message=settings.grpc.max_message,
                limits=_limits(settings.grpc),
                reflected=settings.grpc.reflection,
                certificates=_certificates(settings.grpc.tls, "grpc.tls"),
                readiness=readiness,
                ending=ending,
                shared=shared,
            )
        )
        playground = _playground(settings, playground_headers)
        endpoint = GraphQLEndpoint(
            schema,
            documents,
            guard,
            requests,
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
                certificates=_certificates(settings.graphql.tls, "graphql.tls"),
                origins=settings.graphql.cors_origins,
                ending=ending,
                shared=shared,
            )
        )
        if settings.upstream.lazy_tokens:
            readiness.set("tokens", "asked for when needed", met=True)
        else:
            tell = partial(_tell_of_tokens, readiness)
            await stack.enter_async_context(obtaining_first_tokens(tokens, settings.tenants, tell))
        readiness.set("doors", "open", met=True)
        ending.when_begun(lambda: readiness.set("doors", "closing", met=False))

        async def reload(found: Settings) -> None:
            tokens.renew_with(_credentials(found))
            access.become(await accesses.next(open_access(found)))

        yield Doors(graphql, rpc, reload)
        ending.begin()
        await ending.pause(settings.shutdown.delay)  # a load balancer hears of the end before a door closes


@asynccontextmanager
async def open_tracing(settings: Settings) -> AsyncIterator[Tracing]:
    """Traces, while the block runs, if they are wanted. Raises ConfigurationError when they cannot be made."""
    if not settings.telemetry.traces:
        yield Untraced()
        return
    try:
        from gateway.tracing.export import open_spans  # noqa: PLC0415 - OpenTelemetry is an extra, and takes its time
    except ModuleNotFoundError:
        raise ConfigurationError(
            "telemetry.traces: OpenTelemetry is not installed: install session-gateway[otel]"
        ) from None
    try:
        async with open_spans() as spans:
            yield spans
    except BadTracing as error:
        raise ConfigurationError(str(error)) from None


def open_requests(settings: Settings, metrics: Metrics, tracing: Tracing, stack: AsyncExitStack) -> Requests:
    """Where the doors tell of requests: they are counted, and written into the log if this process has one."""
    counted = RequestMetrics(metrics.registry)
    watchers: list[RequestWatcher] = [counted]
    lines = AccessLog.lines()
    if lines is not None:
        metrics.watch_lines(lambda: lines.dropped)
        if settings.log.access:
            log = AccessLog(lines, asyncio.get_running_loop())
            stack.callback(log.end)
            watchers.append(log)
    requests = tracing.requests(*watchers)
    metrics.when_sampled(lambda: counted.hand_over(requests.in_flight))
    stack.callback(metrics.sample)  # for those who read it after the end of this process
    return requests


@asynccontextmanager
async def open_upstream(
    settings: Settings, observer: UpstreamObserver | None = None, tracing: Tracing = _UNTRACED
) -> AsyncIterator[tuple[Http, ServiceTokens]]:
    """The way to upstream, and the gateway's own tokens for it, while the block runs.

    Tokens go the same way but for the retries: they have a back-off of their own, which all callers share.
    """
    upstream = settings.upstream
    credentials = _credentials(settings)
    guarded, retried = _upstream_policies(upstream, observer or Unobserved())
    async with Transport(
        connect_timeout=_CONNECT_SHARE * upstream.timeout,
        ca_file=upstream.ca_file,
        max_connections=upstream.max_concurrent,
    ) as transport:
        base_url, timeout = str(upstream.base_url), upstream.timeout
        attempts = Attributed(tracing.transport(transport))
        once = Http(attempts, base_url, timeout=timeout, policy=guarded)
        store = MemoryStore[ServiceToken](max_entries=len(credentials))
        async with ServiceTokens(once, store, credentials, observer or Unobserved()) as tokens:
            yield Http(attempts, base_url, timeout=timeout, policy=retried), tokens


def _upstream_policies(
    upstream: Upstream, observer: UpstreamObserver
) -> tuple[Callable[[Send], Send], Callable[[Send], Send]]:
    """What is laid around an exchange, without and with retries. From without: retries, breaker, limit, records."""
    limiter = Limiter(
        max_concurrent=upstream.max_concurrent,
        max_queued=upstream.max_queued,
        max_wait=upstream.max_queue_wait,
    )
    rules = upstream.breaker
    breaker = Breaker(Rules(rules.failure_rate, rules.min_calls, rules.window, rules.open_for, rules.probes))
    slow = min(rules.slow_call, _AS_GOOD_AS * upstream.timeout)
    budget = Budget(upstream.retries.budget, upstream.retries.min_per_second, time.monotonic())

    def guarded(send: Send) -> Send:
        limited = Limited(Observed(send, observer), limiter, observer)
        return Breaking(limited, breaker, observer, slow=slow) if rules.enabled else limited

    def retried(send: Send) -> Send:
        if upstream.retries.max_attempts == 1:
            return guarded(send)
        return Retrying(guarded(send), budget, observer, max_attempts=upstream.retries.max_attempts)

    return guarded, retried


def _credentials(settings: Settings) -> dict[str, ClientCredentials]:
    return {
        name: ClientCredentials(tenant.client_id, tenant.client_secret) for name, tenant in settings.tenants.items()
    }


def _tell_of_tokens(readiness: Readiness, missing: Collection[str]) -> None:
    """There may be very many tenants: a few are named."""
    names = ", ".join(sorted(missing)[:_FEW]) + (f" and {len(missing) - _FEW} more" if len(missing) > _FEW else "")
    readiness.set("tokens", f"none yet for {names}" if missing else "ok", met=not missing)


@asynccontextmanager
async def open_cache(
    settings: Settings, client: SessionContextClient, metrics: Metrics, readiness: Readiness, tracing: Tracing
) -> AsyncIterator[CachedClient]:
    """The client, read through whatever cache the settings name, while the block runs."""
    cache = settings.cache
    backend = cache.backend.get_secret_value()
    policy = Policy(cache.ttl, cache.stale_while_revalidate, cache.stale_if_error, cache.missing_ttl)
    marks = Marks(time.monotonic, lifetime=policy.lifetime + _OPEN_FOR, open_for=_OPEN_FOR)
    own_session_ids = MemoryStore[str](cache.max_entries)
    uncached = {name for name, tenant in settings.tenants.items() if not tenant.cache}

    async with AsyncExitStack() as stack:

        async def read_through(shelf: Shelf) -> ReadThrough:
            flights: Flights[Fetched] = await stack.enter_async_context(tracing.flights())
            return tracing.around("cache", ReadThrough(shelf, flights, policy, metrics), "get", "read")

        if backend == "none":
            yield CachedClient(client, None, None, own_session_ids)
            return
        memory = MemoryStore[Entry](cache.max_entries)
        own_memory = MemoryStore[Entry](cache.max_entries)
        metrics.watch_entries(lambda: len(memory) + len(own_memory))
        if backend == "memory":
            shared, invalidations = None, None
        else:
            store, connections = await stack.enter_async_context(open_redis_store(settings))
            shared = await stack.enter_async_context(
                SharedCache(
                    store,
                    metrics,
                    budget=cache.budget,
                    mark_lifetime=policy.lifetime + _OPEN_FOR,
                    open_for=_OPEN_FOR,
                )
            )
            await shared.connect(_REDIS_PATIENCE)
            readiness.remark("cache", partial(_state_of, shared))
            invalidations = await stack.enter_async_context(
                Invalidations(connections.listener, store.channel, marks, shared.origin, max_silence=cache.max_silence)
            )
            shared = tracing.around("shared_cache", shared, "get", "put", "forget", "open", "close")
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


async def _state_of(shared: SharedCache) -> str:
    return "ok" if await shared.reachable() else "degraded: Redis does not answer, upstream is asked"


@asynccontextmanager
async def open_redis_store(settings: Settings) -> AsyncIterator[tuple[RedisStore, RedisConnections]]:
    """The entries in Redis, and the connections to it, while the block runs."""
    cache = settings.cache
    async with open_redis(cache.backend, cluster=cache.cluster, patience=_REDIS_PATIENCE) as connections:
        yield RedisStore(connections.client, f"{cache.prefix}sessions:"), connections


@asynccontextmanager
async def open_access(settings: Settings) -> AsyncIterator[Access]:
    """Who may call, while the block runs: issuers' keys are fetched behind."""
    access = settings.access
    keys = {
        name: (entry.hash, Principal.of(name, "key", map(Permission, entry.permissions), entry.tenants, _rate(entry)))
        for name, entry in access.keys.items()
    }
    certificates = {
        name: Principal.of(name, "certificate", map(Permission, entry.permissions), entry.tenants, _rate(entry))
        for name, entry in access.certificates.items()
    }
    ring = KeyRing(keys) if keys else None
    if not access.issuers:
        yield Access(ring, None, certificates)
        return
    async with _open_issuers(access) as tokens:
        yield Access(ring, tokens, certificates)


@asynccontextmanager
async def _open_issuers(access: AccessSettings) -> AsyncIterator[TokenIssuers]:
    # Cryptography is 20 MB and a tenth of the start, for those alone who have JWTs to verify.
    from gateway.access.jwks import fetching  # noqa: PLC0415
    from gateway.access.tokens import Issuer, TokenIssuers  # noqa: PLC0415

    issuers = tuple(
        Issuer(
            name,
            entry.issuer,
            entry.audience,
            entry.algorithms,
            jwks_url=None if entry.jwks_url is None else str(entry.jwks_url),
            plain_http=entry.plain_http,
            leeway=entry.leeway,
            permissions_claim=entry.permissions_claim,
            permissions={word: Permission(meaning) for word, meaning in entry.permissions.items()},
            tenants_claim=entry.tenants_claim,
            tenants=entry.tenants,
            rate=_rate(entry),
        )
        for name, entry in access.issuers.items()
    )
    async with (
        Transport() as transport,
        TokenIssuers(issuers, fetching(transport, timeout=_FETCH_TIME)) as tokens,
    ):
        yield tokens


@asynccontextmanager
async def open_rate_limits(settings: Settings, metrics: Metrics) -> AsyncIterator[RateLimits]:
    """How many calls callers may make, while the block runs; counted in Redis where the cache is there."""
    limits, cache = settings.rate_limits, settings.cache
    backend = cache.backend.get_secret_value()
    async with AsyncExitStack() as stack:
        shared = None
        if backend not in {"none", "memory"} and settings.limits_rates:
            connections = await stack.enter_async_context(
                open_redis(cache.backend, cluster=cache.cluster, patience=_REDIS_PATIENCE)
            )
            shared = LeashedBuckets(RedisBuckets(connections.client, cache.prefix), metrics, budget=cache.budget)
        yield RateLimits(
            settings.tenants.keys(),
            default=Rate.of(limits.rate, limits.burst),
            own=Rate.of(limits.own_rate, limits.own_burst),
            shared=shared,
        )


def _rate(entry: LimitedCaller) -> Rate | None:
    """What a caller's own entry says, if it says anything."""
    return None if entry.rate is None else Rate.of(entry.rate, entry.burst)


def _certificates(tls: Tls | None, name: str) -> Certificates | None:
    return None if tls is None else Certificates(tls.files, name)


def _limits(grpc: Grpc) -> Limits:
    connections = grpc.connections
    return Limits(
        max_answer=grpc.max_answer,
        max_metadata=grpc.max_metadata,
        max_calls=grpc.max_calls,
        max_calls_per_connection=grpc.max_calls_per_connection,
        max_connections=connections.max_number,
        max_age=connections.max_age,
        max_age_grace=max(connections.max_age_grace, grpc.budget),
        max_idle=connections.max_idle,
        keepalive_time=connections.keepalive_time,
        keepalive_timeout=connections.keepalive_timeout,
        min_ping_interval=connections.min_ping_interval,
        max_ping_strikes=connections.max_ping_strikes,
        pings_without_calls=connections.pings_without_calls,
    )


def prepare_documents(settings: Settings, schema: GatewaySchema) -> Documents:
    """The documents that GraphQL executes, those of the manifest among them. Raises ConfigurationError."""
    graphql = settings.graphql
    documents = Documents(
        schema.core,
        DocumentLimits(
            length=graphql.max_length,
            tokens=graphql.max_tokens,
            depth=graphql.max_depth,
            root_fields=graphql.max_root_fields,
            aliases=graphql.max_aliases,
            directives=graphql.max_directives,
            selections=graphql.max_selections,
            values=graphql.max_values,
            repeats=graphql.max_repeats,
            cost=graphql.max_cost,
        ),
        compiler=Compiler(schema),
        introspection=graphql.introspection,
        measure_only=graphql.limits == "measure",
        memory=graphql.documents_memory,
        trusted=None if graphql.documents_file is None else _manifest(graphql.documents_file),
        only_trusted=graphql.documents_mode == "trusted",
    )
    if problems := [f"{name}: {problem}" for name, problem in documents.bad()]:
        raise ConfigurationError(*(f"graphql.documents_file: {each}" for each in problems))
    return documents


def _manifest(file: Path) -> Mapping[str, str]:
    try:
        return parse_manifest(file.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"graphql.documents_file: cannot be read: {error.strerror}") from None
    except BadManifest as error:
        raise ConfigurationError(*(f"graphql.documents_file: {each}" for each in error.problems)) from None


def _playground(settings: Settings, headers: Mapping[str, str]) -> Playground | None:
    if not settings.graphql.playground:
        return None
    return Playground(tuple(contracts.example_operations().values()), headers)
