"""Applications that answer under fixed paths."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.applications import Starlette

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

__all__ = ["routed"]


def routed(*routes: BaseRoute) -> Starlette:
    """An application of these routes, which answers 404 to every other path, one with a slash too many among them.

    Starlette would redirect that one, to a URL made of the `Host` that the caller names and of the scheme by which the
    request came. Behind a proxy that ends TLS this is `http`, and the client would send its credentials again in plain
    text.
    """
    application = Starlette(routes=routes)
    application.router.redirect_slashes = False
    return application
