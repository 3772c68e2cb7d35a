"""The GraphQL listener."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.routing import Route

from gateway.listener import listening

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.graphql.http import GraphQLEndpoint
    from gateway.graphql.playground import Playground

__all__ = ["PATH", "serve_graphql"]

PATH = "/graphql"


@asynccontextmanager
async def serve_graphql(
    endpoint: GraphQLEndpoint, playground: Playground | None, *, host: str, port: int, grace: float
) -> AsyncIterator[str]:
    """Listen while the block runs; yields the endpoint's URL. As `gateway.listener.listening` otherwise."""
    app = Starlette(routes=[Route(PATH, endpoint), *(playground.routes() if playground else ())])
    async with listening(app, host=host, port=port, grace=grace) as url:
        yield f"{url}{PATH}"
