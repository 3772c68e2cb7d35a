"""The GraphQL listener."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.routing import Route

from gateway.graphql.headers import BrowserHeaders, shared_with
from gateway.listener import listening

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from gateway.ending import Ending
    from gateway.graphql.http import GraphQLEndpoint
    from gateway.graphql.playground import Playground
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
    certificates: Certificates | None = None,
    origins: Sequence[str] = (),
    ending: Ending | None = None,
    shared: bool = False,
) -> AsyncIterator[str]:
    """Listen while the block runs; yields the endpoint's URL. Scripts of other `origins` may call it (CORS).

    As `gateway.listener.listening` otherwise.
    """
    routes = Starlette(routes=[Route(PATH, endpoint), *(playground.routes() if playground else ())])
    app = BrowserHeaders(shared_with(origins, routes))
    async with listening(
        app, host=host, port=port, grace=grace, certificates=certificates, ending=ending, shared=shared
    ) as url:
        yield f"{url}{PATH}"
