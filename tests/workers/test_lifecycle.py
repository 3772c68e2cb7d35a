"""From the first token to the last answer: readiness, reloading, and an end that loses no request."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from processes import running
from workers_stage import ANYWHERE, APART, Served, served

from doors import GraphQLDoor, GrpcDoor, Refused
from gateway import sandbox
from gateway.access.keys import new_key
from gateway.sandbox import Sandbox, seed
from waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from doors import Door

WORKERS = pytest.mark.parametrize("workers", ["1", "2"])
SEVERAL = pytest.mark.parametrize("workers", ["2"])
NO_TOKEN = "acme: no token could be obtained: the token endpoint failed (503)"
SERVING, NOT_SERVING = (health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING)


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
                while checks_of(found := await gateway.ready()).get("tokens") != NO_TOKEN:
                    await asyncio.sleep(0.05)
            assert found["status"] == 503
            assert not found["ready"]
            watch = health.Watch(health_pb2.HealthCheckRequest())
            assert (await watch.read()).status == NOT_SERVING

            upstream.sandbox.faults.clear()

            await gateway.becomes_ready()
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
        await gateway.becomes_ready()
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
        await gateway.becomes_ready()
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
    await eventually(lambda: len(gateway.events("worker_replaced")) > before, within=40)


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
        await gateway.becomes_ready()
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
        await gateway.becomes_ready()
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
