"""The composition root: builds everything, top to bottom, and owns every lifetime."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import httpx

from gateway import contracts
from gateway.admin import Readiness, admin_app
from gateway.graphql.http import GraphQLEndpoint
from gateway.graphql.playground import Playground
from gateway.graphql.schema import make_schema
from gateway.graphql.server import serve_graphql
from gateway.listener import listening
from gateway.rpc.server import serve_rpc
from gateway.sessions.service import OwnSessionContexts, SessionContexts
from gateway.sessions.writer import Writer
from gateway.store import MemoryStore
from gateway.telemetry.prometheus import Metrics
from gateway.upstream.client import SessionContextClient
from gateway.upstream.http import Http
from gateway.upstream.oauth import ClientCredentials, ServiceToken, ServiceTokens

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from gateway.settings import Settings

__all__ = ["Addresses", "open_gateway", "open_upstream"]


_MAX_CONNECTIONS: Final = 256
"""To upstream, at a time, in one process."""


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
        http, tokens = await stack.enter_async_context(open_upstream(settings))
        client = SessionContextClient(http, tokens)

        metrics = Metrics()
        writer = Writer(
            max_attempts=settings.writes.max_attempts, max_document=settings.writes.max_document, observer=metrics
        )
        sessions = SessionContexts(client, writer)
        own = OwnSessionContexts(client, writer)

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
                sessions,
                own,
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
            sessions,
            own,
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
    async with httpx.AsyncHTTPTransport(limits=limits) as transport, MemoryStore[ServiceToken]() as store:
        http = Http(transport, str(settings.upstream.base_url), timeout=settings.upstream.timeout)
        async with ServiceTokens(http, store, credentials) as tokens:
            yield http, tokens


def _playground(settings: Settings, headers: Mapping[str, str]) -> Playground | None:
    if not settings.graphql.playground:
        return None
    return Playground(tuple(contracts.example_operations().values()), headers)
