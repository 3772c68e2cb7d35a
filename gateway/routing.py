"""Starlette applications with fixed paths."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.applications import Starlette

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

__all__ = ["routed"]


def routed(*routes: BaseRoute) -> Starlette:
    """An application with these routes, which answers 404 to every other path, also to one with an extra slash.

    Starlette would redirect that, to a URL made of the request's `Host` and its scheme. Behind a proxy that terminates
    TLS that is `http`, and the client would send its credentials again in plain text.
    """
    application = Starlette(routes=routes)
    application.router.redirect_slashes = False
    return application
