"""Headers for browsers that every answer of this listener has, and CORS."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from starlette.middleware.cors import CORSMiddleware

from gateway.graphql.requests import PREFLIGHT_HEADERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.datastructures import Headers as RequestHeaders
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from gateway.direct import Headers

__all__ = ["BrowserHeaders", "always", "shared_with"]

_ALWAYS: Final = (
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)
_BY_TLS: Final = ((b"strict-transport-security", b"max-age=31536000"),)

_ALLOWED: Final = (
    "accept",
    "apollographql-client-name",  # Apollo Client's, of an application that has told it its name
    "apollographql-client-version",
    "authorization",
    "baggage",  # beside traceparent, by OpenTelemetry in browsers
    "cache-control",
    "content-type",
    "saas-token",
    "traceparent",
    "tracestate",
    "x-api-key",
    "x-request-id",
)
_EXPOSED: Final = ("age", "cache-status", "retry-after", "x-request-id")
_REMEMBERED: Final = 7200
"""Seconds that a browser may remember a preflight's answer; Chromium's own bound."""


def always(*, secure: bool) -> Headers:
    """Headers that every answer has; with HSTS if the connection uses TLS."""
    return [*_ALWAYS, *_BY_TLS] if secure else [*_ALWAYS]


class BrowserHeaders:
    """Adds headers to an application's answers, where it has not set them itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI 3)."""
        added = always(secure=scope.get("scheme") == "https")

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message["headers"]
                there = {name for name, _ in headers}
                message = {**message, "headers": [*headers, *(each for each in added if each[0] not in there)]}
            await send(message)

        await self._app(scope, receive, with_headers)


class _Cors(CORSMiddleware):
    """Tells browsers what scripts may send, also when it refuses, so that they can name the header that is not allowed.

    Starlette refuses with 400, of which browsers report only the status.
    """

    def preflight_response(self, request_headers: RequestHeaders) -> Response:
        response = super().preflight_response(request_headers)
        response.status_code = 200
        return response


def shared_with(origins: Sequence[str], app: ASGIApp) -> ASGIApp:
    """Let scripts of these origins read the answers (CORS); with none, those of this origin alone.

    Credentials travel in headers that a script sets, never in cookies: browsers' credentials mode stays off.
    """
    if not origins:
        return app
    return _Cors(
        app,
        allow_origins=origins,
        allow_methods=("GET", "POST"),
        allow_headers=(*_ALLOWED, *PREFLIGHT_HEADERS),
        expose_headers=_EXPOSED,
        max_age=_REMEMBERED,
    )
