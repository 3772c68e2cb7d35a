"""What a call costs the gateway and Redis: the figures that docs/capacity.md reckons with.

    .venv/bin/python bench/capacity.py

CPU is what the kernel has charged a process with, so that other work on the machine counts little; commands, bytes and
memory are Redis's own account. The gateway has one worker; calls go by gRPC, 16 at a time, to the sandbox behind it.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import grpc
import httpx
from google.protobuf.struct_pb2 import Value
from redis.asyncio import Redis

from bench.processes import LOAD_CORE, SERVER_CORE, free_port, running
from gateway.gen.emporix.sessioncontext.v1 import session_context_pb2 as pb
from gateway.gen.emporix.sessioncontext.v1 import session_context_pb2_grpc as pb_grpc

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from bench.processes import Running

_AT_ONCE: Final = 16
_LISTENERS: Final = 50
"""Connections that listen to messages, besides the gateway's, to see what one costs Redis."""
_CHANNEL: Final = "session-gateway:sessions:marks"
_SCRIPT: Final = str(Path(sys.executable).parent / "session-gateway")
_TIMES: Final = {"createdAt": "2026-02-04T16:36:44.047Z", "modifiedAt": "2026-02-04T17:01:56.173Z"}
_DOCUMENT: Final[dict[str, object]] = {
    "customerId": "C87362407845",
    "siteCode": "main",
    "currency": "EUR",
    "cartId": "61079711ce0eb90861357045",
    "targetLocation": "DE",
    "language": "de",
    "context": {"customObject": {"property1": "value1"}, "customProperty": "customValue"},
}


class Spent(NamedTuple):
    """What has been spent so far, or for something."""

    gateway: float
    """Seconds of CPU."""
    redis: float
    """Likewise."""
    scripts: int
    """Run by Redis. A read has one command more, HGETALL, where Redis is asked at all."""
    bytes_in: int
    """Of Redis's network."""
    bytes_out: int
    memory: int
    """Of Redis's, in bytes."""


class Measuring:
    """A gateway with Redis behind it, and what they spend."""

    def __init__(self, gateway: Running, redis: Redis, stub: pb_grpc.SessionContextServiceAsyncStub) -> None:
        self._gateway = gateway
        self.redis = redis
        self._stub = stub

    async def spent(self) -> Spent:
        """So far."""
        info = await self.redis.info("everything")
        return Spent(
            self._gateway.cpu(),
            float(info["used_cpu_user"]) + float(info["used_cpu_sys"]),
            sum(int(info[f"cmdstat_{each}"]["calls"]) for each in ("evalsha", "eval") if f"cmdstat_{each}" in info),
            int(info["total_net_input_bytes"]),
            int(info["total_net_output_bytes"]),
            int(info["used_memory"]),
        )

    async def row(self, name: str, work: Iterable[Awaitable[object]], count: int) -> Spent:
        """Do all of it, and print what one took."""
        before = await self.spent()
        await _all(work)
        each = Spent(*((after - was) / count for after, was in zip(await self.spent(), before, strict=True)))  # type: ignore[arg-type]  # averages
        print(
            f"  {name:34}{each.gateway * 1e6:>10.0f}{each.redis * 1e6:>9.1f}{each.scripts:>10.2f}"
            f"{each.bytes_in:>8.0f}{each.bytes_out:>8.0f}{each.memory:>9.0f}",
            flush=True,
        )
        return each

    async def read(self, session_id: str) -> None:
        """Read a session context."""
        await self._stub.GetSessionContext(pb.GetSessionContextRequest(tenant="acme", session_id=session_id))

    async def write(self, session_id: str) -> None:
        """Set an attribute, which is one call of upstream's."""
        await self._stub.AddAttribute(
            pb.AddAttributeRequest(
                tenant="acme",
                session_id=session_id,
                attribute_name="page",
                value=Value(number_value=1),
                omit_session_context=True,
            )
        )

    async def publish(self) -> None:
        """Tell of a write of another gateway's."""
        await self.redis.publish(_CHANNEL, b"another-gateway 7 acme/some-session-or-other-0123456789")


async def _all(work: Iterable[Awaitable[object]]) -> None:
    """So many at a time."""
    todo = iter(work)

    async def some() -> None:
        for each in todo:
            await each

    async with asyncio.TaskGroup() as tasks:
        for _ in range(_AT_ONCE):
            tasks.create_task(some())


async def measure(
    number: int, mode: str, cache: dict[str, str], work: Callable[[Measuring, list[str]], Awaitable[None]]
) -> None:
    """Start all of it, put so many sessions in place, and do the work."""
    print(f"\n{mode}")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ports = {each: free_port() for each in ("sandbox", "redis", "GRPC", "GRAPHQL", "ADMIN")}
        quiet = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(folder)]
        command = ["redis-server", "--port", str(ports["redis"]), *quiet]
        stack.enter_context(running(command, ports["redis"], core=LOAD_CORE, directory=folder, name="redis"))
        command = [_SCRIPT, "sandbox", "--port", str(ports["sandbox"])]
        stack.enter_context(running(command, ports["sandbox"], core=LOAD_CORE, directory=folder, name="sandbox"))
        upstream = f"http://127.0.0.1:{ports['sandbox']}"
        environment = {
            "WORKERS": "1",
            "UPSTREAM__BASE_URL": upstream,
            "TENANTS__ACME__CLIENT_ID": "acme-client",
            "TENANTS__ACME__CLIENT_SECRET": "acme-secret",
            "CACHE__TTL": "600",
            "CACHE__BUDGET": "1",
            "CACHE__MAX_ENTRIES": "100000",
            **{f"{each}__PORT": str(ports[each]) for each in ("GRPC", "GRAPHQL", "ADMIN")},
            **{
                f"CACHE__{name}": value.replace("REDIS", f"redis://127.0.0.1:{ports['redis']}")
                for name, value in cache.items()
            },
        }
        gateway = stack.enter_context(
            running(
                [_SCRIPT, "serve"],
                ports["GRPC"],
                core=SERVER_CORE,
                directory=folder,
                name="gateway",
                environment={f"SESSION_GATEWAY_{name}": value for name, value in environment.items()},
            )
        )
        async with (
            httpx.AsyncClient(base_url=f"{upstream}/_sandbox/sessions/acme") as admin,
            grpc.aio.insecure_channel(f"127.0.0.1:{ports['GRPC']}") as channel,
            Redis(port=ports["redis"]) as redis,
        ):
            ids = [f"62528895-b561-4518-bfdc-{each:012}" for each in range(number)]
            await _all(
                admin.put(f"/{each}", json={**_DOCUMENT, "sessionId": each, "metadata": {"version": 10, **_TIMES}})
                for each in ids
            )
            measuring = Measuring(gateway, redis, pb_grpc.SessionContextServiceStub(channel))
            await measuring.read(ids[0])  # a token, and connections
            await work(measuring, ids[1:])
            connections = len(await redis.client_list()) - 1  # without ours
            print(
                f"  the gateway has {connections} connections to Redis, and {gateway.rss() / 2**20:.0f} MiB of memory"
            )


async def _uncached(it: Measuring, ids: list[str]) -> None:
    await it.row("read", (it.read(each) for each in ids), len(ids))
    await it.row("write", (it.write(each) for each in ids), len(ids))


async def _shared(it: Measuring, ids: list[str]) -> None:
    await it.row("read, found nowhere", (it.read(each) for each in ids), len(ids))
    await it.row("read, found in the nearest cache", (it.read(each) for _ in range(3) for each in ids), 3 * len(ids))
    await it.row("write", (it.write(each) for each in ids), len(ids))
    await it.row("message heard", (it.publish() for _ in ids), len(ids))
    async with Redis(port=it.redis.connection_pool.connection_kwargs["port"]) as more:
        listeners = [more.pubsub() for _ in range(_LISTENERS)]
        for each in listeners:
            await each.subscribe(_CHANNEL)
        await it.row(f"message heard by {_LISTENERS} more", (it.publish() for _ in ids), len(ids))
        for each in listeners:
            await each.aclose()  # type: ignore[no-untyped-call]


async def main(number: int) -> None:
    """Measure each mode."""
    print(f"{number} of each; microseconds of CPU, and bytes, a call")
    print(f"{'':36}{'gateway us':>10}{'Redis us':>9}{'scripts':>10}{'in':>8}{'out':>8}{'memory':>9}")
    await measure(number, "no cache", {"BACKEND": "none"}, _uncached)
    await measure(number, "Redis", {"BACKEND": "REDIS"}, _shared)
    await measure(number, "memory before Redis", {"BACKEND": "REDIS", "MEMORY_TIER": "true"}, _shared)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--number", type=int, default=2000, help="calls of each kind (default: 2000)")
    asyncio.run(main(parser.parse_args().number))
