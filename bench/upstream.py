"""What an upstream read costs: microseconds of CPU in the whole process, all threads, by the number in flight.

    taskset -c 1 .venv/bin/python bench/upstream.py

Debian's nginx answers a constant, pinned to core 0; each figure is the median of so many runs. `ours` is the gateway's
own client with its token, its bounds and its decoding to a SessionContext, `the same` that with TLS; all others are the
bare exchange. Those that are not among the gateway's dependencies are measured if installed (`uv pip install
httpx-aiohttp pyreqwest`).
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import AsyncExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

import aiohttp
import httpx
import uvloop
from pydantic import SecretStr

from gateway.configuration import load_settings
from gateway.deadline import Deadline
from gateway.request import Request, under_way
from gateway.stores import MemoryStore
from gateway.telemetry import Unobserved
from gateway.telemetry.prometheus import Metrics
from gateway.upstream.client import SessionContextClient
from gateway.upstream.http import Http
from gateway.upstream.service_tokens import ServiceTokens
from gateway.upstream.token_endpoint import ClientCredentials, ServiceToken
from gateway.upstream.transport import Transport
from gateway.wiring.upstream import open_upstream

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    Read: TypeAlias = Callable[[], Awaitable[None]]
    Opened: TypeAlias = Callable[[AsyncExitStack], Awaitable[Read]]

PORT: Final = 28_982
BASE: Final = f"http://127.0.0.1:{PORT}"
TLS_PORT: Final = 28_983
SESSION: Final = "62528895-b561-4518-bfdc-2cbf52a07845"
URL: Final = f"{BASE}/session-context/acme/context/{SESSION}"
HEADERS: Final = {
    "emporix-tenant": "acme",
    "accept": "application/json",
    "authorization": "Bearer tok-0123456789abcdef",
}
LIMITS: Final = httpx.Limits(max_connections=256, max_keepalive_connections=256)
IN_FLIGHT: Final = (1, 16, 64)

DOCUMENT: Final = (
    f'{{"sessionId":"{SESSION}","customerId":"C87362407845","siteCode":"main","currency":"EUR",'
    '"cartId":"61079711ce0eb90861357045","targetLocation":"DE","language":"de","context":{"customObject":'
    '{"property1":"value1"},"customProperty":"customValue"},"metadata":{"version":10,'
    '"createdAt":"2026-02-04T16:36:44.047Z","modifiedAt":"2026-02-04T17:01:56.173Z"}}'
)
GRANT: Final = (
    '{"access_token":"tok-0123456789abcdef","token_type":"Bearer","expires_in":14399,'
    '"scope":"tenant=acme sessioncontext.context_manage"}'
)
NGINX: Final = """
worker_processes 1; daemon off; pid FOLDER/pid; error_log FOLDER/error.log crit;
events { worker_connections 4096; multi_accept on; }
http {
  access_log off; tcp_nodelay on; keepalive_timeout 3600s; keepalive_requests 1000000000;
  default_type application/json;
  client_body_temp_path FOLDER/1; proxy_temp_path FOLDER/2; fastcgi_temp_path FOLDER/3;
  uwsgi_temp_path FOLDER/4; scgi_temp_path FOLDER/5;
  ssl_certificate FOLDER/tls.crt; ssl_certificate_key FOLDER/tls.key; http2_max_concurrent_streams 128;
  server {
    listen 127.0.0.1:PORT backlog=4096;
    listen 127.0.0.1:TLS_PORT ssl http2 backlog=4096;
    location = /oauth/token { return 200 'GRANT'; }
    location ~ ^/session-context/acme/context/(.+)$ { return 200 'DOCUMENT'; }
  }
}
"""


CERTIFICATE: Final = (
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=bench -addext"
    " subjectAltName=IP:127.0.0.1 -keyout tls.key -out tls.crt"
)


@contextmanager
def upstream() -> Iterator[Path]:
    """The stub, while the block runs. Yields the file of its certificate."""
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if nginx is None or shutil.which("openssl") is None:
        sys.exit("nginx or openssl is not installed")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(CERTIFICATE.split(), cwd=folder, check=True, capture_output=True)
        text = NGINX.replace("FOLDER", folder).replace("TLS_PORT", str(TLS_PORT)).replace("PORT", str(PORT))
        config = Path(folder, "nginx.conf")
        of_whichever = DOCUMENT.replace(SESSION, "$1")  # as the location's pattern calls what was asked for
        config.write_text(text.replace("GRANT", GRANT).replace("DOCUMENT", of_whichever), "utf-8")
        server = subprocess.Popen(["taskset", "-c", "0", nginx, "-c", str(config)])  # noqa: S607
        try:
            time.sleep(0.5)
            yield Path(folder, "tls.crt")
        finally:
            server.terminate()
            server.wait()


async def microseconds(read: Read, in_flight: int, number: int) -> float:
    """CPU time of one of so many reads."""
    left = number

    async def work() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await read()

    before = time.process_time()
    await asyncio.gather(*(work() for _ in range(in_flight)))
    return (time.process_time() - before) / number * 1e6


def over(transport: httpx.AsyncBaseTransport) -> Read:
    """One exchange over an httpx transport, without httpx's client."""

    async def read() -> None:
        response = await transport.handle_async_request(httpx.Request("GET", URL, headers=HEADERS))
        body = await response.aread()
        assert response.status_code == 200
        assert len(body) == len(DOCUMENT)

    return read


async def httpx_client(stack: AsyncExitStack) -> Read:
    """What one writes first."""
    client = await stack.enter_async_context(httpx.AsyncClient(limits=LIMITS))

    async def read() -> None:
        response = await client.get(URL, headers=HEADERS)
        assert response.status_code == 200
        assert len(response.content) == len(DOCUMENT)

    return read


async def httpx_transport(stack: AsyncExitStack) -> Read:
    """The same, without httpx's client."""
    return over(await stack.enter_async_context(httpx.AsyncHTTPTransport(limits=LIMITS)))


async def httpx_aiohttp(stack: AsyncExitStack) -> Read:
    """The package of that name."""
    module = importlib.import_module("httpx_aiohttp")
    return over(await stack.enter_async_context(module.AiohttpTransport(limits=LIMITS)))


async def pyreqwest(stack: AsyncExitStack) -> Read:
    """reqwest, in a thread of its own."""
    module = importlib.import_module("pyreqwest.compatibility.httpx")
    return over(await stack.enter_async_context(module.HttpxTransport()))


async def aiohttp_session(stack: AsyncExitStack) -> Read:
    """The floor of what is built on aiohttp."""
    session = await stack.enter_async_context(
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=256), cookie_jar=aiohttp.DummyCookieJar())
    )

    async def read() -> None:
        async with session.get(URL, headers=HEADERS) as response:
            body = await response.read()
            assert response.status == 200
            assert len(body) == len(DOCUMENT)

    return read


async def our_transport(stack: AsyncExitStack) -> Read:
    """The gateway's transport alone."""
    return over(await stack.enter_async_context(Transport()))


async def ours(stack: AsyncExitStack) -> Read:
    """All that the gateway does for a read, but for the policies around it."""
    http = Http(await stack.enter_async_context(Transport()), BASE, timeout=5.0)
    credentials = {"acme": ClientCredentials("id", SecretStr("secret"))}
    tokens = await stack.enter_async_context(
        ServiceTokens(http, MemoryStore[ServiceToken](1), credentials, Unobserved())
    )
    return reading(SessionContextClient(http, tokens))


async def ours_as_wired(stack: AsyncExitStack) -> Read:
    """The same as the composition root wires it: retries, breaker, limit, records for metrics, the request's id."""
    return await wired(stack, {"base_url": BASE})


async def wired(stack: AsyncExitStack, upstream: dict[str, object]) -> Read:
    """By these settings."""
    tenants = {"acme": {"client_id": "id", "client_secret": "secret"}}
    settings = load_settings(None, {"tenants": tenants, "upstream": upstream})
    http, tokens = await stack.enter_async_context(open_upstream(settings, Metrics()))
    under_way.set(Request("graphql", "POST", "0123456789abcdef", 0.0))
    return reading(SessionContextClient(http, tokens))


def reading(client: SessionContextClient) -> Read:
    """Reads one session after another."""
    number = count()

    async def read() -> None:
        session = f"{SESSION[:-6]}{next(number) % 1_000_000:06}"
        context = await client.session("acme", session).read(Deadline.after(5))
        assert context.metadata.version == 10

    return read


WAYS: Final[dict[str, Opened]] = {
    "httpx.AsyncClient": httpx_client,
    "httpx.AsyncHTTPTransport": httpx_transport,
    "httpx-aiohttp's transport": httpx_aiohttp,
    "pyreqwest's transport": pyreqwest,
    "aiohttp.ClientSession": aiohttp_session,
    "gateway.upstream.transport": our_transport,
    "ours, from token to SessionContext": ours,
    "ours, as it is wired": ours_as_wired,
}


def with_tls(certificate: Path) -> dict[str, Opened]:
    """As it is wired, by either protocol."""
    secure: dict[str, object] = {"base_url": f"https://127.0.0.1:{TLS_PORT}", "ca_file": str(certificate)}
    return {
        "the same with TLS": lambda stack: wired(stack, secure),
        "the same by HTTP/2": lambda stack: wired(stack, {**secure, "http2": True}),
    }


async def main(ways: dict[str, Opened], runs: int, number: int) -> None:
    """Measure, and print."""
    print(f"{'CPU us a read, in flight:':36}", *(f"{each:6}" for each in IN_FLIGHT))
    for name, opened in ways.items():
        async with AsyncExitStack() as stack:
            try:
                read = await opened(stack)
            except ModuleNotFoundError:
                print(f"{name:36} not installed")
                continue
            await microseconds(read, max(IN_FLIGHT), 1000)
            medians = [
                statistics.median([await microseconds(read, each, number) for _ in range(runs)]) for each in IN_FLIGHT
            ]
            print(f"{name:36}", *(f"{each:6.0f}" for each in medians))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--number", type=int, default=2000, help="reads in a run")
    given = parser.parse_args()
    with upstream() as certificate:
        uvloop.run(main({**WAYS, **with_tls(certificate)}, given.runs, given.number))
