"""GraphiQL for the browser: its page and its files, all of them from this server.

The files are built from `playground/` (npm) into `static/playground` beside this module; without them the page says how to
get them.
"""

from __future__ import annotations

import html
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
from starlette.responses import HTMLResponse
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.responses import Response
    from starlette.routing import BaseRoute

__all__ = ["Operation", "Playground", "example_operations"]

ASSETS_PATH: Final = "/graphql/assets"

_ASSETS: Final = Path(__file__).parent / "static" / "playground"
_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self' 'unsafe-inline'",  # Monaco writes its theme and its lines' positions into style elements
        "img-src 'self' data:",
        "font-src 'self' data:",
        "worker-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS: Final = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


@dataclass(frozen=True, slots=True)
class Operation:
    """An example that opens as a tab."""

    query: str
    variables: str
    headers: str


class Playground:
    """The page. `operations` open as tabs; `headers` are filled in for all of them."""

    def __init__(self, operations: tuple[Operation, ...], assets: Path = _ASSETS) -> None:
        self._operations = operations
        self._assets = assets

    def page(self) -> Response:
        """The page for a browser."""
        built = self._assets / "index.html"
        if not built.is_file():
            return HTMLResponse(_NOT_BUILT, headers=_HEADERS)
        config = msgspec.json.encode({"tabs": [self._tab(each) for each in self._operations]}).decode()
        page = built.read_text("utf-8").replace("{{config}}", html.escape(config, quote=False))
        return HTMLResponse(page, headers=_HEADERS)

    def routes(self) -> list[BaseRoute]:
        """Where its files are."""
        if not self._assets.is_dir():
            return []
        return [Mount(ASSETS_PATH, _Assets(directory=self._assets))]

    @staticmethod
    def _tab(operation: Operation) -> Mapping[str, str]:
        return {"query": operation.query, "variables": operation.variables, "headers": operation.headers}


class _Assets(StaticFiles):
    """Files whose names change with what is in them."""

    def file_response(self, *args: object, **kwargs: object) -> Response: ...
