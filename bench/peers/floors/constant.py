"""Floor of HTTP in Python: bare ASGI that answers what a GraphQL read would, from memory."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from bench.stub import document

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

__all__ = ["app"]

_BODY = json.dumps({"data": {"sessionContext": document()}}, separators=(",", ":")).encode()
_HEADERS = [(b"content-type", b"application/json"), (b"content-length", str(len(_BODY)).encode())]


async def app(scope: Scope, _receive: Receive, send: Send) -> None:
    """ASGI 3."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        await send({"type": "http.response.body", "body": _BODY})
