"""Starlette applications with fixed paths."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

__all__ = ["routed"]


def routed(*routes: BaseRoute) -> Starlette:
    """An application with these routes. It answers 404 to every other path, and names the paths that there are.

    A path with an extra slash is such a one. Starlette would redirect it, to a URL made of the request's `Host` and its
    scheme: behind a proxy that terminates TLS that is `http`, and the client would send its credentials again in plain
    text.
    """
    paths = ", ".join(each.path for each in routes if isinstance(each, Route))

    async def not_found(_request: Request, _error: Exception) -> Response:
        return PlainTextResponse(f"there is nothing at this path, only at {paths}\n", 404)

    application = Starlette(routes=routes, exception_handlers={404: not_found})
    application.router.redirect_slashes = False
    return application
