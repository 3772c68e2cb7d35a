"""The composition root: builds everything, from top to bottom, and owns all lifetimes."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from gateway import contracts
from gateway.access.audit import Audit
from gateway.access.guard import Authenticator, Guard
from gateway.admin import admin_app
from gateway.graphql.http import GraphQLEndpoint
from gateway.graphql.playground import Playground
from gateway.graphql.schema import make_schema
from gateway.graphql.server import serve_graphql
from gateway.listener import listening
from gateway.readiness import Readiness
from gateway.reloading import reloading
from gateway.rpc.server import serve_rpc
from gateway.sessions.service import OwnSessionContexts, SessionContexts
from gateway.sessions.writer import Writer
from gateway.succession import Succession
from gateway.telemetry.prometheus import Metrics
from gateway.tls import Certificates
from gateway.upstream.client import SessionContextClient
from gateway.upstream.first_tokens import obtaining_first_tokens
from gateway.wiring.access import open_authenticator, open_rate_limits, state_of_issuers
from gateway.wiring.cache import open_cache
from gateway.wiring.documents import prepare_documents
from gateway.wiring.rpc import limits_of
from gateway.wiring.telemetry import open_requests, open_tracing
from gateway.wiring.upstream import clients_of, open_upstream, state_of_tokens, tell_of_tokens

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from gateway.settings import Settings, Tls
    from gateway.shutdown import Shutdown

__all__ = ["Addresses", "Doors", "open_doors", "open_gateway"]

_MANAGING: Final = ("get", "batch_get", "replace", "patch", "add_attribute", "remove_attribute")
_OWN: Final = ("get", "update", "add_attribute", "remove_attribute")
"""Methods of the use cases, each of which is a span in traces."""


@dataclass(frozen=True, slots=True)
class Doors:
    """Open doors."""

    graphql: str
    """URL of the GraphQL endpoint."""
    grpc: str
    """Host and port, as gRPC clients take them."""
    reload: Callable[[Settings], Awaitable[None]]
    """Applies callers and tenants' clients from other settings, which are otherwise the same."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Addresses of all listeners."""

    graphql: str
    """URL of the GraphQL endpoint."""
    grpc: str
    """Host and port, as gRPC clients take them."""
    admin: str
    """Base URL of the admin listener."""


@asynccontextmanager
async def open_gateway(
    settings: Settings,
    playground_headers: Mapping[str, str],
    *,
    shutdown: Shutdown,
    shared: bool = False,
    read_again: Callable[[], Settings] | None = None,
) -> AsyncIterator[Addresses]:
    """Serve while the block runs, in this process alone.

    `playground_headers` are filled in when the playground is opened. `shared` is as in `gateway.listener.bind`. With
    `read_again` it obeys SIGHUP (see `gateway.reloading`).

    Raises OSError if a port cannot be bound, CertificateError, and ConfigurationError for invalid trusted documents. On
    leaving, the doors close first, and let calls in progress finish.
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
            section="admin",
        ) as admin,
        open_doors(settings, playground_headers, metrics, readiness, shutdown=shutdown, shared=shared) as doors,
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
    shutdown: Shutdown,
    shared: bool,
) -> AsyncIterator[Doors]:
    """As `open_gateway`, without the operators' listener, which several processes share."""
    readiness.set("doors", "opening", met=False)
    schema = make_schema(introspection=settings.graphql.introspection)
    documents = prepare_documents(settings, schema)
    async with AsyncExitStack() as stack:
        tracing = await stack.enter_async_context(open_tracing(settings))
        requests = stack.enter_context(open_requests(settings, metrics, tracing))
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
        authenticators = await stack.enter_async_context(Succession[Authenticator](settings.longest_call))
        authenticator = await authenticators.next(open_authenticator(settings))
        readiness.remark("issuers", partial(state_of_issuers, authenticator))
        limits = await stack.enter_async_context(open_rate_limits(settings, metrics))
        guard = Guard(
            authenticator,
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
                limits=limits_of(settings.grpc),
                reflected=settings.grpc.reflection,
                certificates=_certificates(settings.grpc.tls, "grpc", metrics),
                readiness=readiness,
                shutdown=shutdown,
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
            max_answer=settings.graphql.max_answer,
            playground=playground,
        )
        graphql = await stack.enter_async_context(
            serve_graphql(
                endpoint,
                playground,
                host=settings.graphql.host,
                port=settings.graphql.port,
                grace=settings.shutdown.grace,
                max_connections=settings.graphql.max_connections,
                certificates=_certificates(settings.graphql.tls, "graphql", metrics),
                origins=settings.graphql.cors_origins,
                shutdown=shutdown,
                shared=shared,
            )
        )
        if settings.upstream.lazy_tokens:
            readiness.set("tokens", "asked for when needed", met=True)
        else:
            tell = partial(tell_of_tokens, readiness)
            await stack.enter_async_context(obtaining_first_tokens(tokens, settings.tenants, tell))
        readiness.remark("tokens", partial(state_of_tokens, tokens))
        readiness.set("doors", "open", met=True)
        shutdown.when_begun(lambda: readiness.set("doors", "closing", met=False))

        async def reload(found: Settings) -> None:
            tokens.renew_with(clients_of(found))
            authenticator.become(await authenticators.next(open_authenticator(found)))

        yield Doors(graphql, rpc, reload)
        shutdown.begin()
        await shutdown.pause(settings.shutdown.delay)  # so that a load balancer notices before a door closes
        shutdown.close()


def _certificates(tls: Tls | None, door: str, metrics: Metrics) -> Certificates | None:
    if tls is None:
        return None
    certificates = Certificates(tls.files, f"{door}.tls")
    metrics.watch_certificate(door, lambda: certificates.current().expires_at)
    return certificates


def _playground(settings: Settings, headers: Mapping[str, str]) -> Playground | None:
    if not settings.graphql.playground:
        return None
    return Playground(tuple(contracts.example_operations().values()), headers)
