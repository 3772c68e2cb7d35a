"""The operators' listener: `/livez` and `/readyz` (for Kubernetes), and `/metrics` (for Prometheus)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from gateway.routing import routed

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp

    from gateway.readiness import Report

__all__ = ["admin_app"]


class Reporter(Protocol):
    """Makes reports."""

    async def report(self) -> Report:
        """The state of everything."""
        ...


class Exposed(Protocol):
    """Metrics, of one process or of several."""

    @property
    def content_type(self) -> str:
        """Its media type."""
        ...

    def exposition(self) -> bytes:
        """All metrics in the text format that Prometheus reads."""
        ...


def admin_app(metrics: Exposed, reporter: Reporter) -> ASGIApp:
    """The application behind the admin listener. `/readyz` is JSON: `{"ready": true, "checks": {"doors": "open"}}`."""

    async def livez(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        report = await reporter.report()
        body = msgspec.json.encode(report) + b"\n"
        return Response(body, 200 if report.ready else 503, media_type="application/json")

    async def exposition(_: Request) -> Response:
        return Response(metrics.exposition(), headers={"content-type": metrics.content_type})

    return routed(Route("/livez", livez), Route("/readyz", readyz), Route("/metrics", exposition))
