"""Rolling restarts: clients as they are, on connections old and new; one kind alone sends anything again."""

from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import grpc
import httpx
from processes import ROOT
from workers_stage import APART, Served, served

from doors import GraphQLDoor, GrpcDoor, Refused
from gateway.sandbox import seed
from waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
    from typing import TypeAlias

    from doors import Door
    from gateway import sandbox

    Kind: TypeAlias = Callable[[str, str, "Seen", asyncio.Event], Coroutine[None, None, None]]

SERVICE_CONFIG = ROOT / "proto/emporix/sessioncontext/v1/session_context_grpc_service_config.json"


@dataclass
class Seen:
    """What clients saw."""

    good: dict[str, int] = field(default_factory=dict)
    bad: list[str] = field(default_factory=list)

    def count(self, client: str, error: Exception | None = None) -> None:
        if error is None:
            self.good[client] = self.good.get(client, 0) + 1
        else:
            self.bad.append(f"{client}: {type(error).__name__}: {error}")

    async def goes_on(self, *clients: str) -> None:
        """Until each of these has had some answers from now on."""
        self.good.clear()
        await eventually(lambda: all(self.good.get(each, 0) > 20 for each in clients), within=30)


async def test_another_gateway_on_the_same_ports_takes_over_without_a_request_lost(
    upstream: sandbox.SandboxServer,
) -> None:
    kinds = KINDS | {"many by grpc": _many_by_grpc}
    assert await _lost_while_another_takes_over(upstream, kinds) == []


async def test_where_connections_outlive_the_grace_clients_repeat_what_reaches_grpc_as_it_says_goaway(
    upstream: sandbox.SandboxServer, record_property: Callable[[str, object], None]
) -> None:
    """They do if they have the service config that comes with the contract; what others lose is told."""
    long = {"SESSION_GATEWAY_GRPC__CONNECTIONS__MAX_AGE": "1800"}
    lost = await _lost_while_another_takes_over(upstream, KINDS, **long)

    in_that_moment = [each for each in lost if each.startswith("grpc") and "CANCELLED" in each]
    record_property("figures", f"{len(in_that_moment)} calls of 6 busy connections cancelled by GOAWAY")
    assert [each for each in lost if each not in in_that_moment] == []
    assert len(in_that_moment) <= 6  # one for each connection at most: it has no more, and is told once


async def _lost_while_another_takes_over(
    upstream: sandbox.SandboxServer, kinds: Mapping[str, Kind], **variables: str
) -> list[str]:
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(_restarted(upstream, **variables))
        async with _under_load(first.graphql, first.grpc, kinds) as seen:
            ports = {
                "SESSION_GATEWAY_GRAPHQL__PORT": str(httpx.URL(first.graphql).port),
                "SESSION_GATEWAY_GRPC__PORT": first.grpc.rpartition(":")[2],
            }
            await stack.enter_async_context(_restarted(upstream, **variables, **ports))
            first.process.process.terminate()
            assert await first.process.end(within=30) == 0
            await seen.goes_on(*kinds)
    return seen.bad


async def test_behind_a_load_balancer_that_has_heard_no_request_at_all_is_lost(
    upstream: sandbox.SandboxServer,
) -> None:
    """One that spreads connections and knows no more of gRPC: connections end of age, before the gateway does."""
    async with AsyncExitStack() as stack:
        aged = {"SESSION_GATEWAY_GRPC__CONNECTIONS__MAX_AGE": "1"}
        first = await stack.enter_async_context(_restarted(upstream, workers="2", **aged))
        web, rpc = Relay(httpx.URL(first.graphql).netloc.decode()), Relay(first.grpc)
        url = f"http://{await stack.enter_async_context(web.listening())}/graphql"
        address = await stack.enter_async_context(rpc.listening())
        async with _under_load(url, address, KINDS) as seen:
            second = await stack.enter_async_context(_restarted(upstream, workers="2", **aged))
            first.process.process.terminate()
            async with asyncio.timeout(10):
                while (await first.ready())["status"] == 200:
                    await asyncio.sleep(0.02)
            web.target, rpc.target = httpx.URL(second.graphql).netloc.decode(), second.grpc
            assert await first.process.end(within=30) == 0
            await seen.goes_on(*KINDS)

    assert seen.bad == []


async def test_clients_that_balance_by_themselves_and_check_health_lose_no_call(
    upstream: sandbox.SandboxServer,
) -> None:
    """By what the documentation has them add to their service config, and without any repetition."""
    (config,) = re.findall(r"`(\{.*healthCheckConfig.*\})`", (ROOT / "docs/deploy.md").read_text("utf-8"))
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(_restarted(upstream))
        second = await stack.enter_async_context(_restarted(upstream))
        channel = await stack.enter_async_context(
            grpc.aio.insecure_channel(f"ipv4:{first.grpc},{second.grpc}", [*APART, ("grpc.service_config", config)])
        )
        seen, enough = Seen(), asyncio.Event()
        async with asyncio.TaskGroup() as clients:
            for _ in range(20):
                clients.create_task(_by_channel(channel, seen, enough))
            await seen.goes_on("grpc")
            first.process.process.terminate()
            assert await first.process.end(within=30) == 0
            await seen.goes_on("grpc")
            enough.set()

    assert seen.bad == []


@asynccontextmanager
async def _restarted(upstream: sandbox.SandboxServer, *, workers: str = "1", **variables: str) -> AsyncIterator[Served]:
    delay = {"SESSION_GATEWAY_SHUTDOWN__DELAY": "3"}
    async with served("--workers", workers, upstream=upstream, **delay, **variables) as gateway:
        await gateway.becomes_ready()
        yield gateway


class Relay:
    """Passes connections on to whichever gateway is the target when they are made."""

    def __init__(self, target: str) -> None:
        self.target = target
        self._tasks = asyncio.TaskGroup()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        async with self._tasks, await asyncio.start_server(self._pass_on, "127.0.0.1", 0) as server:
            yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
            server.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = self.target.rpartition(":")
        try:
            there, back = await asyncio.open_connection(host, int(port))
        except OSError:  # nobody is there
            writer.close()
            return
        self._tasks.create_task(_pumped(reader, back))
        self._tasks.create_task(_pumped(there, writer))


async def _pumped(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    sink.close()


@asynccontextmanager
async def _under_load(graphql: str, address: str, kinds: Mapping[str, Kind]) -> AsyncIterator[Seen]:
    seen, enough = Seen(), asyncio.Event()
    async with asyncio.TaskGroup() as clients:
        for kind in kinds.values():
            for _ in range(3):
                clients.create_task(kind(graphql, address, seen, enough))
        await seen.goes_on(*kinds)
        yield seen
        enough.set()


async def _by_http(graphql: str, _: str, seen: Seen, enough: asyncio.Event) -> None:
    """Keeps its connections."""
    async with httpx.AsyncClient() as client:
        while not enough.is_set():
            await _counted(GraphQLDoor(client, graphql), "http", seen)


async def _by_http_anew(graphql: str, _: str, seen: Seen, enough: asyncio.Event) -> None:
    """Makes a connection for each request."""
    async with httpx.AsyncClient(limits=httpx.Limits(max_keepalive_connections=0)) as client:
        while not enough.is_set():
            await _counted(GraphQLDoor(client, graphql), "http anew", seen)


async def _by_grpc(_: str, address: str, seen: Seen, enough: asyncio.Event) -> None:
    async with grpc.aio.insecure_channel(address, APART) as channel:
        await _by_channel(channel, seen, enough)


async def _many_by_grpc(_: str, address: str, seen: Seen, enough: asyncio.Event) -> None:
    """Many calls at a time on one connection."""
    async with grpc.aio.insecure_channel(address, APART) as channel:
        await _by_channel_at_once(channel, seen, enough, "many by grpc")


async def _by_grpc_with_its_service_config(_: str, address: str, seen: Seen, enough: asyncio.Event) -> None:
    config = ("grpc.service_config", SERVICE_CONFIG.read_text("utf-8"))
    async with grpc.aio.insecure_channel(address, [*APART, config]) as channel:
        await _by_channel_at_once(channel, seen, enough, "repeating grpc")


async def _by_channel_at_once(channel: grpc.aio.Channel, seen: Seen, enough: asyncio.Event, client: str) -> None:
    async with asyncio.TaskGroup() as callers:
        for _ in range(8):
            callers.create_task(_by_channel(channel, seen, enough, client))


async def _by_channel(channel: grpc.aio.Channel, seen: Seen, enough: asyncio.Event, client: str = "grpc") -> None:
    while not enough.is_set():
        await _counted(GrpcDoor(channel), client, seen)


async def _by_grpc_anew(_: str, address: str, seen: Seen, enough: asyncio.Event) -> None:
    while not enough.is_set():
        async with grpc.aio.insecure_channel(address, APART) as channel:
            await _counted(GrpcDoor(channel), "grpc anew", seen)


KINDS = {
    "http": _by_http,
    "http anew": _by_http_anew,
    "grpc": _by_grpc,
    "grpc anew": _by_grpc_anew,
    "repeating grpc": _by_grpc_with_its_service_config,
}


async def _counted(door: Door, client: str, seen: Seen) -> None:
    try:
        found = await door.get("acme", seed.CUSTOMER_SESSION)
        assert found is not None
    except (httpx.HTTPError, Refused, AssertionError) as error:
        seen.count(client, error)
    else:
        seen.count(client)
