"""`session-gateway cache clear` and `stats`, against a Redis that a gateway is using; and what `check` says of one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from access.issuing import issuing
from processes import run

from gateway import sandbox
from gateway.sandbox import Sandbox, seed
from stage import entered, opened
from waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from cache.redis_server import RedisServer
    from processes import Process

SETTINGS = {
    "SESSION_GATEWAY_TENANTS__ACME__CLIENT_ID": "acme-client",
    "SESSION_GATEWAY_TENANTS__ACME__CLIENT_SECRET": "acme-secret",
    "SESSION_GATEWAY_CACHE__PREFIX": "commands:",
}


async def cache(command: str, backend: str, **variables: str) -> tuple[int, Process]:
    return await run("cache", command, **SETTINGS, SESSION_GATEWAY_CACHE__BACKEND=backend, **variables)


async def test_entries_are_counted_and_cleared_also_from_the_memory_of_gateways(server: RedisServer) -> None:
    settings: dict[str, object] = {
        "backend": server.url,
        "prefix": "commands:",
        "memory_tier": True,
        "ttl": 600,
        "budget": 2.0,  # a busy machine must not have it do without Redis
        "max_silence": 30,
    }
    async with opened(cache=settings) as dev, entered("grpc", dev) as door:
        asked = dev.sandbox.count

        async def is_kept(session_id: str = seed.CUSTOMER_SESSION) -> bool:
            before = asked("get")
            await door.get("acme", session_id)
            return asked("get") == before

        for session_id in (seed.ODD_SESSION, seed.CUSTOMER_SESSION):
            assert not await is_kept(session_id)
            async with asyncio.timeout(10):
                while not await is_kept(session_id):  # where the machine stands still, Redis is left alone for a moment
                    await asyncio.sleep(0.1)

        status, process = await cache("stats", server.url)
        assert (status, process.out[:1]) == (0, ["entries 2"])

        status, process = await cache("clear", server.url)
        assert status == 0
        assert process.out == ["2 keys removed"]

        kept = []

        def is_forgotten() -> bool:
            return False in kept

        for _ in range(20):  # the message may still be on its way
            kept.append(await is_kept())
            if is_forgotten():
                break
        await eventually(is_forgotten)

        _, process = await cache("stats", server.url)
        assert process.out[:1] == ["entries 1"]


async def test_there_is_nothing_to_clear_without_a_redis() -> None:
    status, process = await cache("clear", "memory")

    assert status == 1
    assert process.err == ["session-gateway: cache.backend: is no Redis or Valkey, and no other cache can be seen"]


@pytest.mark.parametrize("cluster", ["false", "true"])
async def test_a_redis_that_is_not_there_is_told_in_one_line(cluster: str) -> None:
    status, process = await cache("stats", "redis://:canary@127.0.0.1:1/0", SESSION_GATEWAY_CACHE__CLUSTER=cluster)

    assert status == 1
    assert len(process.err) == 1
    assert process.err[0].startswith("session-gateway: cache.backend: Redis cannot be asked: ")
    assert "canary" not in process.said


async def test_a_redis_that_is_of_no_cluster_is_told_in_one_line(server: RedisServer) -> None:
    status, process = await cache("clear", server.url, SESSION_GATEWAY_CACHE__CLUSTER="true")

    assert status == 1
    (line,) = process.err
    assert line.startswith("session-gateway: cache.backend: Redis cannot be asked: ")
    assert "Cluster mode is not enabled" in line


async def test_check_fetches_the_keys_of_issuers_and_tries_redis(tmp_path: Path, server: RedisServer) -> None:
    file = tmp_path / "gateway.toml"
    async with sandbox.serve(Sandbox()) as upstream, issuing() as corp:
        file.write_text(
            f"""
            [upstream]
            base_url = "{upstream.url}"
            [tenants.acme]
            client_id = "acme-client"
            client_secret = "acme-secret"
            [access.issuers.corp]
            issuer = "{corp.url}"
            audience = "gateway"
            tenants = ["acme"]
            """
        )
        fine = await run("check", "--config", str(file), SESSION_GATEWAY_CACHE__BACKEND=server.url)
        corp.status = 503
        down = await run("check", "--config", str(file), SESSION_GATEWAY_CACHE__BACKEND="redis://:secret@127.0.0.1:1")

    assert (fine[0], fine[1].out) == (0, ["tenant acme: ok", "issuer corp: ok", "cache: ok"])
    assert down[0] == 1
    assert down[1].out[0] == "tenant acme: ok"
    assert down[1].out[1].startswith(f"issuer corp: {corp.url}/.well-known/openid-configuration: the answer is 503, ")
    assert down[1].out[2].startswith("cache: cache.backend: Redis cannot be asked: Error 111 connecting to 127.0.0.1:1")
    assert down[1].err[-1] == "Error: tokens of 1 of the issuers cannot be verified, and the cache cannot be used"
    assert "secret" not in down[1].said
