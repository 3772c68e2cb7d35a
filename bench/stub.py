"""The stub upstream: Debian's nginx, on the core of the load. It answers at once, and at another port after 25 ms."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.request import urlopen

from bench.processes import LOAD_CORE, Failed, free_port, running

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["LATENCY", "SESSION", "Stub", "document", "filled_in", "stub_upstream"]

SESSION: Final = "62528895-b561-4518-bfdc-2cbf52a07845"
LATENCY: Final = 0.025
"""Seconds, of the slow port."""
_MODULES: Final = Path("/usr/lib/nginx/modules")
_CONFIGURATIONS: Final = Path(__file__).parent / "peers"

_FIELDS: Final[dict[str, object]] = {
    "customerId": "C87362407845",
    "siteCode": "main",
    "currency": "EUR",
    "cartId": "61079711ce0eb90861357045",
    "targetLocation": "DE",
    "language": "de",
    "context": {"customObject": {"property1": "value1"}, "customProperty": "customValue"},
}
_TIMES: Final = {"createdAt": "2026-02-04T16:36:44.047Z", "modifiedAt": "2026-02-04T17:01:56.173Z"}
_TOKEN: Final = {
    "access_token": "tok-0123456789abcdef",
    "token_type": "Bearer",
    "expires_in": 14399,
    "scope": "tenant=acme sessioncontext.context_read sessioncontext.context_manage",
}


def document(session_id: str = SESSION, version: int = 10) -> dict[str, object]:
    """What upstream answers."""
    return {"sessionId": session_id, **_FIELDS, "metadata": {"version": version, **_TIMES}}


@dataclass(slots=True)
class Stub:
    """A stub that is up."""

    port: int
    slow_port: int
    asked: int = 0
    """How often it was asked for its count, which counts too."""

    def requests(self) -> int:
        """Requests so far, at both ports, those for this number left out."""
        with urlopen(f"http://127.0.0.1:{self.port}/stub_status", timeout=5) as answer:
            found = re.search(rb"\d+\s+\d+\s+(\d+)", answer.read())
        if found is None:
            raise Failed("nginx's stub_status has no count of requests")
        self.asked += 1
        return int(found[1]) - self.asked


@contextlib.contextmanager
def stub_upstream(directory: Path) -> Iterator[Stub]:
    """A stub while the block runs."""
    stub = Stub(free_port(), free_port())
    modules = [_MODULES / f"{each}_module.so" for each in ("ndk_http", "ngx_http_lua")]
    configuration = filled_in(
        _CONFIGURATIONS / "stub.conf",
        directory,
        MODULES="\n".join(f"load_module {each};" for each in modules),
        DIRECTORY=str(directory),
        PORT=str(stub.port),
        SLOW=str(stub.slow_port),
        TOKEN=json.dumps(_TOKEN),
        REST=json.dumps(_FIELDS, separators=(",", ":"))[1:-1],
        TIMES=json.dumps(_TIMES, separators=(",", ":"))[1:-1],
    )
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin")
    if nginx is None:
        raise Failed("nginx is missing")
    with running([nginx, "-c", str(configuration)], stub.port, core=LOAD_CORE, directory=directory, name="stub"):
        yield stub


def filled_in(template: Path, directory: Path, **values: str) -> Path:
    """A copy of the template with its @NAMES@ filled in."""
    copy = directory / template.name
    text = template.read_text("utf-8")
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    copy.write_text(text, "utf-8")
    return copy
