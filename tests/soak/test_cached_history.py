"""The histories once more, with the cache on: by gateways in processes of their own, which share a Redis or nothing."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from cache.conftest import redis_program, server
from processes import running

from doors import Door, GraphQLDoor, GrpcDoor
from gateway import sandbox
from gateway.app import Addresses
from gateway.sandbox import Sandbox, seed
from soak.storm import TIMEOUT, TTL, weather_a_storm
from soak.system import KEY_SETTINGS
from stage import Dev, entered

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    import httpx
    from cache.redis_server import RedisServer

__all__ = ["redis_program", "server"]

CACHES = {
    "memory": (1, {"BACKEND": "memory"}),
    "redis": (2, {}),
    "memory before redis": (2, {"MEMORY_TIER": "true"}),
}
"""How many gateways, and their settings."""


@asynccontextmanager
async def gateway(name: str, upstream_url: str, **cache: str) -> AsyncIterator[tuple[Dev, list[Door]]]:
    """One in a process of its own, by both doors."""
    client_id, secret = seed.CLIENTS["acme"]
    variables = {f"SESSION_GATEWAY_{each}__PORT": "0" for each in ("GRAPHQL", "GRPC", "ADMIN")}
    variables |= {f"SESSION_GATEWAY_CACHE__{each}": value for each, value in cache.items()}
    variables |= {f"SESSION_GATEWAY_{each}": value for each, value in KEY_SETTINGS.items()}
    variables |= {
        "SESSION_GATEWAY_TENANTS__ACME__CLIENT_ID": client_id,
        "SESSION_GATEWAY_TENANTS__ACME__CLIENT_SECRET": secret,
        "SESSION_GATEWAY_UPSTREAM__BASE_URL": upstream_url,
        "SESSION_GATEWAY_UPSTREAM__TIMEOUT": str(TIMEOUT),
        "SESSION_GATEWAY_LOG__LEVEL": "info",
    }
    async with running("serve", **variables) as process:
        listening = json.loads(await process.says(r'(\{.*"event": "listening".*\})'))
        dev = Dev(Addresses(listening["graphql"], listening["grpc"], listening["admin"]), Sandbox(), upstream_url)
        async with AsyncExitStack() as stack:
            doors: list[Door] = []
            for each in ("grpc", "graphql"):
                door = await stack.enter_async_context(entered(each, dev))
                assert isinstance(door, GrpcDoor | GraphQLDoor)
                door.gateway = name
                doors.append(door)
            yield dev, doors


@pytest.mark.parametrize("cached_in", CACHES)
async def test_a_history_with_the_cache_on(
    cached_in: str,
    request: pytest.FixtureRequest,
    client: httpx.AsyncClient,
    record_property: Callable[[str, object], None],
) -> None:
    """No read is older than what its client has seen, nor than a write that its gateway had acknowledged before."""
    count, cache = CACHES[cached_in]
    if count > 1:
        redis: RedisServer = request.getfixturevalue("server")
        cache = {**cache, "BACKEND": redis.url, "PREFIX": f"{cached_in}:"}
    async with sandbox.serve(Sandbox()) as upstream, AsyncExitStack() as stack:
        opening = [
            gateway(f"gateway {number}", upstream.url, **cache, OWN_SESSIONS="true", TTL=str(TTL))
            for number in range(count)
        ]
        gateways = [await stack.enter_async_context(each) for each in opening]
        doors = [door for _, of_one in gateways for door in of_one]
        storm = await weather_a_storm([dev for dev, _ in gateways], doors, client, seed=11)

    asked = upstream.sandbox.count("get") + upstream.sandbox.count("get-own")
    record_property("figures", f"{storm}; {asked} reads of upstream")
    assert storm.played.wrong == []
    assert dict(storm.tally.unexplained) == {}
    assert storm.applied > 300
    assert storm.reads > 200
