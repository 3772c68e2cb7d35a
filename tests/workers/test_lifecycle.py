"""From the first token to the last answer: readiness, reloading, and an end that loses no request."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from processes import ROOT, running
from workers_stage import ANYWHERE, Served, served

from doors import GraphQLDoor, GrpcDoor, Refused
from gateway import sandbox
from gateway.access.keys import new_key
from gateway.sandbox import Sandbox, seed
from stage import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from doors import Door

APART = [("grpc.use_local_subchannel_pool", 1)]
"""Channels of one process share connections otherwise."""
SERVICE_CONFIG = ROOT / "proto/emporix/sessioncontext/v1/session_context_grpc_service_config.json"
WORKERS = pytest.mark.parametrize("workers", ["1", "2"])
ALONE, SEVERAL = (pytest.mark.parametrize("workers", [each]) for each in ("1", "2"))
SERVING, NOT_SERVING = (health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def upstream() -> AsyncIterator[sandbox.SandboxServer]:
    async with sandbox.serve(Sandbox()) as upstream:
        yield upstream


async def becomes_ready(gateway: Served, *, within: float = 15) -> None:
    async with asyncio.timeout(within):
        while (await gateway.ready())["status"] != 200:
            await asyncio.sleep(0.05)


def checks_of(found: dict[str, Any]) -> dict[str, str]:
    """Those of the only process, or of the first worker."""
    checks: dict[str, str] = (found.get("workers") or [found])[0]["checks"]
    return checks


# Readiness


@WORKERS
async def test_it_is_ready_once_each_tenant_has_had_a_token(workers: str) -> None:
    async with sandbox.serve(Sandbox()) as upstream:
        upstream.sandbox.faults.arm("status=503", "token", times=None)
        async with (
            served("--workers", workers, upstream=upstream) as gateway,
            grpc.aio.insecure_channel(gateway.grpc, APART) as channel,
        ):
            health: Any = health_pb2_grpc.HealthStub(channel)
            await eventually(lambda: bool(gateway.events("token_not_obtained")), within=10)
            async with asyncio.timeout(10):
                while checks_of(found := await gateway.ready()).get("tokens") != "none yet for acme":
                    await asyncio.sleep(0.05)
            assert found["status"] == 503
            assert not found["ready"]
            watch = health.Watch(health_pb2.HealthCheckRequest())
            assert (await watch.read()).status == NOT_SERVING

            upstream.sandbox.faults.clear()

            await becomes_ready(gateway)
            async with asyncio.timeout(10):  # it is ready with one worker that is; the first is told of here
                while checks_of(await gateway.ready())["tokens"] != "ok":
                    await asyncio.sleep(0.05)
            assert (await watch.read()).status == SERVING
            for service in ("", "emporix.sessioncontext.v1.SessionContextService"):
                assert (await health.Check(health_pb2.HealthCheckRequest(service=service))).status == SERVING

            upstream.sandbox.faults.arm("status=503", "token", times=None)  # one that was had once is enough
            upstream.sandbox.faults.arm("status=401", "get", times=None)
            with pytest.raises(Refused):
                await GrpcDoor(channel).get("acme", seed.CUSTOMER_SESSION)
            assert (await gateway.ready())["status"] == 200
            watch.cancel()


async def test_with_lazy_tokens_none_is_asked_for(upstream: sandbox.SandboxServer) -> None:
    before = len(upstream.sandbox.requests)
    async with served(upstream=upstream, SESSION_GATEWAY_UPSTREAM__LAZY_TOKENS="true") as gateway:
        assert (await gateway.ready())["checks"]["tokens"] == "asked for when needed"
        assert (await gateway.ready())["status"] == 200
    assert len(upstream.sandbox.requests) == before


@WORKERS
async def test_a_cache_that_is_down_is_told_and_does_not_make_it_unready(
    workers: str, upstream: sandbox.SandboxServer
) -> None:
    redis = {"SESSION_GATEWAY_CACHE__BACKEND": "redis://:hidden-word@127.0.0.1:1"}
    async with served("--workers", workers, upstream=upstream, **redis) as gateway:
        await becomes_ready(gateway)
        found = await gateway.ready()
        assert found["status"] == 200
        assert checks_of(found)["cache"].startswith("degraded: ")
        assert "hidden-word" not in str(found)


# Reloading


@dataclass
class Configured:
    """A gateway whose settings are in a file."""

    gateway: Served
    file: Path
    text: str

    async def reload(self, text: str, told: str) -> None:
        """Change the file, send SIGHUP, and wait until the log tells."""
        before = len(self.gateway.events(told))
        self.file.write_text(text)
        self.gateway.process.process.send_signal(signal.SIGHUP)
        await eventually(lambda: len(self.gateway.events(told)) > before, within=10)


@asynccontextmanager
async def configured(folder: Path, upstream: sandbox.SandboxServer, workers: str) -> AsyncIterator[Configured]:
    """One caller, whose key is `old`."""
    text = f"""
        [upstream]
        base_url = "{upstream.url}"
        [tenants.acme]
        client_id = "acme-client"
        client_secret = "acme-secret"
        """
    file = folder / "gateway.toml"
    file.write_text(text)
    async with running("serve", "--workers", workers, "--config", str(file), **ANYWHERE) as process:
        line = json.loads(await process.says(r'(.*"listening".*)'))
        gateway = Served(process, line["graphql"], line["grpc"], line["admin"], upstream.sandbox)
        await becomes_ready(gateway)
        yield Configured(gateway, file, text)


def key_of(name: str) -> tuple[str, str]:
    """An API key, and the section that makes it known."""
    key, hashed = new_key(name)
    section = f'[access.keys.{name}]\nhash = "{hashed}"\npermissions = ["sessions:read"]\ntenants = ["*"]\n'
    return key.get_secret_value(), section


async def answers(gateway: Served, key: str) -> set[str]:
    """What connections to all workers come back with: `ok`, or a reason."""
    request = {"query": f'{{ sessionContext(tenant: "acme", sessionId: "{seed.CUSTOMER_SESSION}") {{ currency }} }}'}
    found = set()
    for _ in range(8):
        async with httpx.AsyncClient(headers={"x-api-key": key}) as client:
            answer = (await client.post(gateway.graphql, json=request)).json()
        found.add(answer["errors"][0]["extensions"]["code"] if "errors" in answer else "ok")
    return found


async def become(expected: set[str], gateway: Served, key: str) -> None:
    async with asyncio.timeout(10):
        while await answers(gateway, key) != expected:
            await asyncio.sleep(0.05)


@WORKERS
async def test_sighup_reloads_callers_keys(workers: str, upstream: sandbox.SandboxServer, tmp_path: Path) -> None:
    old, old_section = key_of("old")
    new, new_section = key_of("new")
    async with configured(tmp_path, upstream, workers) as it:
        await it.reload(it.text + old_section, "reloaded")
        await become({"ok"}, it.gateway, old)
        await become({"CALLER_UNAUTHENTICATED"}, it.gateway, new)

        await it.reload(it.text + new_section, "reloaded")

        await become({"ok"}, it.gateway, new)
        await become({"CALLER_UNAUTHENTICATED"}, it.gateway, old)
        if workers == "2":  # one that comes later knows of it too
            for pid in it.gateway.workers():
                await replaced(it.gateway, pid)
            assert await answers(it.gateway, new) == {"ok"}
            assert await answers(it.gateway, old) == {"CALLER_UNAUTHENTICATED"}
        assert old not in it.gateway.process.said
        assert new not in it.gateway.process.said


async def replaced(gateway: Served, pid: int) -> None:
    before = len(gateway.events("worker_replaced"))
    os.kill(pid, signal.SIGKILL)
    await eventually(lambda: len(gateway.events("worker_replaced")) > before, within=15)


@SEVERAL
async def test_a_configuration_that_cannot_be_used_changes_nothing(
    workers: str, upstream: sandbox.SandboxServer, tmp_path: Path
) -> None:
    key, section = key_of("shop")
    async with configured(tmp_path, upstream, workers) as it:
        await it.reload(it.text + section, "reloaded")
        await become({"ok"}, it.gateway, key)

        await it.reload(it.text + "\n[nonsense]\nsecret-word = 1\n", "not_reloaded")

        (line,) = it.gateway.events("not_reloaded")
        assert line["problems"] == ["nonsense: is not a setting"]
        assert await answers(it.gateway, key) == {"ok"}
        assert await answers(it.gateway, "shop-another") == {"CALLER_UNAUTHENTICATED"}
        found = await it.gateway.ready()
        assert found["status"] == 200
        assert found["checks"]["configuration"] == "the newest cannot be used"


async def test_what_needs_a_restart_is_told(upstream: sandbox.SandboxServer, tmp_path: Path) -> None:
    async with configured(tmp_path, upstream, "1") as it:
        more = '\n[tenants.globex]\nclient_id = "g"\nclient_secret = "s"\n[cache]\nttl = 7\n'

        await it.reload(it.text + more, "reloaded")

        (line,) = it.gateway.events("reloaded")
        assert line["needs_restart"] == ["tenants.globex", "cache.ttl"]


@SEVERAL
async def test_sighup_reloads_tenants_clients_and_the_old_token_serves_meanwhile(workers: str, tmp_path: Path) -> None:
    async with sandbox.serve(Sandbox()) as upstream, configured(tmp_path, upstream, workers) as it:
        await it.reload(it.text.replace("acme-secret", "not-the-secret"), "reloaded")
        await eventually(lambda: len(it.gateway.events("token_not_obtained")) >= int(workers), within=10)
        assert await answers(it.gateway, "") == {"ok"}

        upstream.sandbox.requests.clear()
        await it.reload(it.text, "reloaded")

        def tokens() -> int:
            return sum(each.operation == "token" for each in upstream.sandbox.requests)

        await eventually(lambda: tokens() == int(workers), within=10)
        assert "acme-secret" not in it.gateway.process.said


# The end


@WORKERS
async def test_told_to_stop_it_serves_on_until_load_balancers_have_heard_of_it(
    workers: str, upstream: sandbox.SandboxServer
) -> None:
    delay = {"SESSION_GATEWAY_SHUTDOWN__DELAY": "60"}
    async with served("--workers", workers, upstream=upstream, **delay) as gateway:
        await becomes_ready(gateway)
        async with (
            httpx.AsyncClient() as client,
            httpx.AsyncClient() as late,
            grpc.aio.insecure_channel(gateway.grpc, APART) as channel,
            grpc.aio.insecure_channel(gateway.grpc, APART) as late_channel,
        ):
            health: Any = health_pb2_grpc.HealthStub(channel)
            watch = health.Watch(health_pb2.HealthCheckRequest())
            assert (await watch.read()).status == SERVING
            before: list[Door] = [GraphQLDoor(client, gateway.graphql), GrpcDoor(channel)]
            for door in before:
                await door.get("acme", seed.CUSTOMER_SESSION)
            request = {"query": "{ __typename }"}
            assert (await client.post(gateway.graphql, json=request)).headers.get("connection") != "close"

            gateway.process.process.terminate()

            assert (await watch.read()).status == NOT_SERVING
            assert (await gateway.ready())["status"] == 503
            for door in (*before, GraphQLDoor(late, gateway.graphql), GrpcDoor(late_channel)):
                assert await door.get("acme", seed.CUSTOMER_SESSION) is not None
            assert (await client.post(gateway.graphql, json=request)).headers["connection"] == "close"
            gateway.process.process.terminate()  # told again, it does not wait
            watch.cancel()
        assert await gateway.process.end(within=10) == 0


async def test_connections_that_nobody_has_taken_yet_are_served_to_the_end(upstream: sandbox.SandboxServer) -> None:
    """Those that the kernel has made while the gateway was busy ending."""
    async with served(upstream=upstream) as gateway:
        await becomes_ready(gateway)
        url = httpx.URL(gateway.graphql)
        assert url.port is not None
        pid = gateway.pid
        os.kill(pid, signal.SIGSTOP)  # as busy as can be
        clients = [socket.create_connection((url.host, url.port)) for _ in range(20)]
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGCONT)

        body = b'{"query": "{ __typename }"}'
        head = f"POST {url.path} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
        statuses = []
        for each in clients:
            with each:
                each.settimeout(5)
                each.sendall(head.encode() + b"\r\n\r\n" + body)
                statuses.append((await asyncio.to_thread(each.recv, 65536)).split(b" ")[1])
        assert statuses == [b"200"] * 20
        assert await gateway.process.end(within=10) == 0


# Rolling restarts: clients as they are, without retries of their own, on connections old and new


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


@ALONE
async def test_another_gateway_on_the_same_ports_takes_over_without_a_request_lost(
    workers: str, upstream: sandbox.SandboxServer, record_property: Callable[[str, object], None]
) -> None:
    """gRPC's server cancels calls that reach it in the very moment in which it says GOAWAY: clients repeat those.

    They do if they have the service config that comes with the contract; what others lose is told.
    """
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(_restarted(upstream, workers))
        async with _under_load(first.graphql, first.grpc) as seen:
            ports = {
                "SESSION_GATEWAY_GRAPHQL__PORT": str(httpx.URL(first.graphql).port),
                "SESSION_GATEWAY_GRPC__PORT": first.grpc.rpartition(":")[2],
            }
            await stack.enter_async_context(_restarted(upstream, workers, **ports))
            first.process.process.terminate()
            assert await first.process.end(within=30) == 0
            await seen.goes_on(*KINDS)

    in_that_moment = [each for each in seen.bad if each.startswith("grpc") and "CANCELLED" in each]
    record_property("figures", f"{len(in_that_moment)} calls of 6 busy connections cancelled by GOAWAY")
    assert [each for each in seen.bad if each not in in_that_moment] == []
    assert len(in_that_moment) <= 6  # one for each connection at most: it has no more, and is told once


@SEVERAL
async def test_behind_a_load_balancer_that_has_heard_no_request_at_all_is_lost(
    workers: str, upstream: sandbox.SandboxServer
) -> None:
    """One that spreads connections and knows no more of gRPC: connections end of age, before the gateway does."""
    async with AsyncExitStack() as stack:
        aged = {"SESSION_GATEWAY_GRPC__CONNECTIONS__MAX_AGE": "1"}
        first = await stack.enter_async_context(_restarted(upstream, workers, **aged))
        web, rpc = Relay(httpx.URL(first.graphql).netloc.decode()), Relay(first.grpc)
        url = f"http://{await stack.enter_async_context(web.listening())}/graphql"
        address = await stack.enter_async_context(rpc.listening())
        async with _under_load(url, address) as seen:
            second = await stack.enter_async_context(_restarted(upstream, workers, **aged))
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
        first = await stack.enter_async_context(_restarted(upstream, "1"))
        second = await stack.enter_async_context(_restarted(upstream, "1"))
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
async def _restarted(upstream: sandbox.SandboxServer, workers: str, **variables: str) -> AsyncIterator[Served]:
    delay = {"SESSION_GATEWAY_SHUTDOWN__DELAY": "3"}
    async with served("--workers", workers, upstream=upstream, **delay, **variables) as gateway:
        await becomes_ready(gateway)
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
        there, back = await asyncio.open_connection(host, int(port))
        self._tasks.create_task(_pumped(reader, back))
        self._tasks.create_task(_pumped(there, writer))


async def _pumped(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    sink.close()


@asynccontextmanager
async def _under_load(graphql: str, address: str) -> AsyncIterator[Seen]:
    seen, enough = Seen(), asyncio.Event()
    async with asyncio.TaskGroup() as clients:
        for kind in KINDS.values():
            for _ in range(3):
                clients.create_task(kind(graphql, address, seen, enough))
        await seen.goes_on(*KINDS)
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


async def _by_grpc_with_its_service_config(_: str, address: str, seen: Seen, enough: asyncio.Event) -> None:
    """Many calls at a time on one connection."""
    config = ("grpc.service_config", SERVICE_CONFIG.read_text("utf-8"))
    async with grpc.aio.insecure_channel(address, [*APART, config]) as channel, asyncio.TaskGroup() as callers:
        for __ in range(8):
            callers.create_task(_by_channel(channel, seen, enough, "repeating grpc"))


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
