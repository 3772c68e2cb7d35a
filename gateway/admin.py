"""The operator's door: `/livez` and `/readyz` (as Kubernetes asks), and `/metrics` (for Prometheus)."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.requests import Request
    from starlette.types import ASGIApp

    from gateway.telemetry.prometheus import Metrics

__all__ = ["Readiness", "admin_app"]


class Readiness:
    """Whether callers are to be sent here: once all doors are open, and until the gateway is told to stop."""

    def __init__(self) -> None:
        self.ready = False

    @contextmanager
    def declared(self) -> Iterator[None]:
        """Be ready while the block runs."""
        self.ready = True
        try:
            yield
        finally:
            self.ready = False


def admin_app(metrics: Metrics, readiness: Readiness) -> ASGIApp:
    """The application behind the admin listener."""

    async def livez(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        return PlainTextResponse("ok\n") if readiness.ready else PlainTextResponse("not ready\n", 503)

    async def exposition(_: Request) -> Response:
        return Response(metrics.exposition(), headers={"content-type": metrics.content_type})

    return Starlette(
        routes=[Route("/livez", livez), Route("/readyz", readyz), Route("/metrics", exposition)],
    )
