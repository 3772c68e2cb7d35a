"""GraphiQL for browsers: the page and its files, all served from here.

The files are built from `playground/` (npm) into `static/playground` beside this module; without them, the page says
how to build them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
from starlette.responses import HTMLResponse
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from starlette.responses import Response
    from starlette.routing import BaseRoute
    from starlette.types import Scope

__all__ = ["Playground"]

_ASSETS: Final = Path(__file__).parent / "static" / "playground"
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; worker-src 'self'; connect-src 'self'; font-src 'self'; "
    "style-src 'self' 'unsafe-inline'; "  # Monaco writes its theme and its lines' positions into style elements
    "img-src 'self' data:; "  # the squiggles under errors, in Monaco's style sheet
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PAGE_HEADERS: Final = {
    "content-security-policy": _POLICY,
    "cache-control": "no-store",  # the headers that are filled in may be secrets
}
_ASSET_HEADERS: Final = {
    "content-security-policy": _POLICY,  # a worker goes by that of its own script
    "cache-control": "public, max-age=31536000, immutable",
}
_NOT_BUILT: Final = (
    "<!doctype html><title>Session Gateway</title>"
    "<p>The playground is not built: run <code>make playground</code> and reload this page."
)
_ESCAPES: Final = {ord(each): f"\\u{ord(each):04x}" for each in "<>&\u2028\u2029"}
"""Inside a script element HTML entities mean nothing, but `</script` and `<!--` do: JSON must not contain these."""


class Playground:
    """The page. `operations`, GraphQL documents, open as tabs; `headers` are filled in for all of them."""

    def __init__(self, operations: tuple[str, ...], headers: Mapping[str, str], assets: Path = _ASSETS) -> None:
        config = msgspec.json.encode({"operations": operations, "headers": dict(headers)}).decode()
        self._config = config.translate(_ESCAPES)
        self._assets = assets

    def page(self) -> Response:
        """The page. It is read each time, so that it can be built while the gateway runs."""
        try:
            built = (self._assets / "index.html").read_text("utf-8")
        except FileNotFoundError:
            return HTMLResponse(_NOT_BUILT, headers=_PAGE_HEADERS)
        return HTMLResponse(built.replace("{{config}}", self._config), headers=_PAGE_HEADERS)

    def routes(self) -> list[BaseRoute]:
        """Routes to its files."""
        return [Mount("/graphql/assets", _Assets(directory=self._assets / "assets", check_dir=False))]


class _Assets(StaticFiles):
    """Files whose names change with their content, so that browsers can cache them forever."""

    async def check_config(self) -> None:
        """Do not check: the files may not be built yet."""

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        """A file, with headers of ours."""
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers.update(_ASSET_HEADERS)
        return response
