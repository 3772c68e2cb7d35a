"""What the cache saves: upstream calls per 1,000 page views, and how long reads take, with and without it.

    .venv/bin/python bench/cache.py

A page view is 5 reads of one session, one after another; one page in ten also sets an attribute first. 16 shoppers
view pages at a time, over 500 sessions, and upstream takes 25 ms for every call. The gateway and the sandbox are
processes of their own; reads go by gRPC. Redis is measured where `redis-server` is on the PATH.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import re
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import grpc
import httpx
from google.protobuf.struct_pb2 import Value

from gateway.gen.emporix.sessioncontext.v1 import session_context_pb2 as pb
from gateway.gen.emporix.sessioncontext.v1 import session_context_pb2_grpc as pb_grpc

if TYPE_CHECKING:
    from collections.abc import Iterator

READS_A_PAGE: Final = 5
WRITE_EVERY: Final = 10
SHOPPERS: Final = 16
SESSIONS: Final = 500
LATENCY: Final = "25ms"


@dataclass
class Run:
    """What was seen with one configuration."""

    name: str
    reads: list[float] = field(default_factory=list)
    """Seconds, each."""
    upstream: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0


@contextlib.contextmanager
def started(command: str, said: str, **environment: str) -> Iterator[tuple[str, ...]]:
    """`session-gateway` with a command; yields what the groups of `said` match in what it prints."""
    script = str(Path(sys.executable).parent / "session-gateway")
    with subprocess.Popen(
        [script, *command.split()],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            found = next(found.groups() for line in process.stdout if (found := re.search(said, line)))
            # Its log is read on: a pipe that is full would hold it up.
            threading.Thread(target=process.stdout.read, daemon=True).start()
            yield found
        finally:
            process.terminate()


@contextlib.contextmanager
def gateway(**cache: str) -> Iterator[tuple[str, str]]:
    """A sandbox and a gateway, each in a process of its own; yields gRPC's address and the sandbox's URL."""
    with started("sandbox --port 0", r"(http://\S+)") as (sandbox,):
        environment = {f"SESSION_GATEWAY_{each}__PORT": "0" for each in ("GRAPHQL", "GRPC", "ADMIN")}
        environment |= {f"SESSION_GATEWAY_CACHE__{name.upper()}": value for name, value in cache.items()}
        environment |= {
            "SESSION_GATEWAY_TENANTS__ACME__CLIENT_ID": "acme-client",
            "SESSION_GATEWAY_TENANTS__ACME__CLIENT_SECRET": "acme-secret",
            "SESSION_GATEWAY_UPSTREAM__BASE_URL": sandbox,
            "SESSION_GATEWAY_LOG__FORMAT": "json",
        }
        with started("serve", r'"grpc": "([^"]+)"', **environment) as (address,):
            yield address, sandbox


@contextlib.contextmanager
def redis() -> Iterator[str]:
    """A Redis server of our own, which keeps nothing on disk."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        try:
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.1):
                    break
                time.sleep(0.02)
            yield f"redis://127.0.0.1:{port}"
        finally:
            server.terminate()


async def measure(name: str, pages: int, **settings: str) -> Run:
    """View so many pages."""
    run = Run(name)
    with gateway(**settings) as (address, sandbox):
        async with (
            httpx.AsyncClient(base_url=f"{sandbox}/_sandbox") as admin,
            grpc.aio.insecure_channel(address) as channel,
        ):
            ids = [f"shopper-{number}" for number in range(SESSIONS)]
            for each in ids:
                await admin.put(f"/sessions/acme/{each}", json=_document(each))
            for operation in ("get", "add-attribute"):
                await admin.post("/faults", json={"fault": f"latency={LATENCY}", "operation": operation, "times": None})
            stub = pb_grpc.SessionContextServiceStub(channel)
            await stub.GetSessionContext(pb.GetSessionContextRequest(tenant="acme", session_id=ids[0]))
            await admin.delete("/requests")
            began = time.perf_counter()
            await _view(stub, run, ids, pages)
            run.seconds = time.perf_counter() - began
            for each in (await admin.get("/requests")).json():
                run.upstream[each["operation"]] = run.upstream.get(each["operation"], 0) + 1
    return run


async def _view(stub: pb_grpc.SessionContextServiceAsyncStub, run: Run, ids: list[str], pages: int) -> None:
    chance = random.Random(1)  # noqa: S311 - the same pages for every configuration
    todo = iter([(page, chance.choice(ids)) for page in range(pages)])

    async def shopper() -> None:
        for page, session_id in todo:
            if page % WRITE_EVERY == 0:
                await stub.AddAttribute(_change(session_id, page))
            for _ in range(READS_A_PAGE):
                began = time.perf_counter()
                request = pb.GetSessionContextRequest(tenant="acme", session_id=session_id)
                await stub.GetSessionContext(request)
                run.reads.append(time.perf_counter() - began)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(SHOPPERS):
            tasks.create_task(shopper())


def _change(session_id: str, page: int) -> pb.AddAttributeRequest:
    return pb.AddAttributeRequest(
        tenant="acme",
        session_id=session_id,
        attribute_name="page",
        value=Value(number_value=page),
        omit_session_context=True,
    )


def _document(session_id: str) -> dict[str, object]:
    times = {"createdAt": "2026-03-01T08:00:00.000Z", "modifiedAt": "2026-03-01T08:00:00.000Z"}
    return {"sessionId": session_id, "siteCode": "main", "currency": "EUR", "metadata": {"version": 1, **times}}


def _row(run: Run, pages: int) -> str:
    reads = statistics.quantiles(run.reads, n=100)
    calls = sum(run.upstream.values()) * 1000 / pages
    return (
        f"{run.name:<24}{calls:>10.0f}{run.upstream.get('get', 0) * 1000 / pages:>10.0f}"
        f"{reads[49] * 1000:>10.2f}{reads[98] * 1000:>10.2f}{pages / run.seconds:>10.0f}"
    )


async def main(pages: int) -> None:
    """Measure each configuration, and print a table."""
    with contextlib.ExitStack() as stack:
        configurations: list[tuple[str, dict[str, str]]] = [
            ("none", {"backend": "none"}),
            ("memory", {"backend": "memory"}),
        ]
        if shutil.which("redis-server"):
            url = stack.enter_context(redis())
            configurations.append(("redis", {"backend": url}))
            configurations.append(("memory before redis", {"backend": url, "memory_tier": "true", "prefix": "two:"}))
        print(f"{pages} page views, {READS_A_PAGE} reads each, one write in {WRITE_EVERY}, {LATENCY} upstream\n")
        print(f"{'cache':<24}{'calls':>10}{'reads':>10}{'p50 ms':>10}{'p99 ms':>10}{'pages/s':>10}")
        print(f"{'':<24}{'upstream, per 1,000':>20}{'of the reads':>20}")
        for name, settings in configurations:
            print(_row(await measure(name, pages, **settings), pages), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pages", type=int, default=3000)
    asyncio.run(main(parser.parse_args().pages))
