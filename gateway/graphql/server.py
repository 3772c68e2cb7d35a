"""The GraphQL listener."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from starlette.routing import Route

from gateway.direct import DirectProtocol
from gateway.graphql.head import Head
from gateway.graphql.headers import BrowserHeaders, always, shared_with
from gateway.graphql.requests import HttpRequest
from gateway.listener import listening
from gateway.protocol import BoundedProtocol
from gateway.routing import routed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from gateway.direct import Headers, Response
    from gateway.graphql.http import GraphQLEndpoint
    from gateway.graphql.playground import Playground
    from gateway.protocol import Client
    from gateway.shutdown import Shutdown
    from gateway.tls import Certificates

__all__ = ["PATH", "serve_graphql"]

PATH = "/graphql"


@asynccontextmanager
async def serve_graphql(
    endpoint: GraphQLEndpoint,
    playground: Playground | None,
    *,
    host: str,
    port: int,
    grace: float,
    max_connections: int,
    certificates: Certificates | None,
    origins: Sequence[str],
    shutdown: Shutdown,
    shared: bool,
) -> AsyncIterator[str]:
    """Listen while the block runs; yields the endpoint's URL. Scripts of other `origins` may call it (CORS).

    Connections beyond `max_connections` are closed at once. As `gateway.listener.listening` otherwise.
    """
    routes = routed(Route(PATH, endpoint), *(playground.routes() if playground else ()))
    app = BrowserHeaders(shared_with(origins, routes))
    direct = _DirectEndpoint(endpoint, always(secure=certificates is not None))
    make = BoundedProtocol if origins else partial(DirectProtocol, direct=direct)  # CORS is ASGI's
    async with listening(
        app,
        host=host,
        port=port,
        grace=grace,
        protocol=make,
        max_connections=max_connections,
        certificates=certificates,
        shutdown=shutdown,
        shared=shared,
        section="graphql",
    ) as url:
        yield f"{url}{PATH}"


class _DirectEndpoint:
    """The endpoint for requests that come directly (`gateway.direct`). `headers` are added to each answer."""

    path = PATH

    def __init__(self, endpoint: GraphQLEndpoint, headers: Headers) -> None:
        self._endpoint = endpoint
        self._headers = headers

    def head(self, headers: Headers) -> Head:
        """What the headers say."""
        return Head(headers)

    async def answer(self, head: Head, body: bytes, client: Client) -> Response | None:
        """Answer one POST."""
        response = await self._endpoint.answer(HttpRequest("POST", b"", head, body, client))
        if response is not None:
            response.headers.extend(self._headers)
        return response
