"""What tests of reads and writes through the cache say, in few words."""

from __future__ import annotations

import base64
import itertools
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from cache.cache_stage import SOON, Clock, Held, Process, Upstream, process, settled
from pydantic import SecretStr

from gateway.cache.contexts import session_key
from gateway.cache.freshness import FRESH_ENOUGH, Policy, ReadOptions
from gateway.errors import UpstreamUnavailable
from waiting import eventually

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator

    from cache.redis_server import RedisServer

    from gateway.cache.contexts import CachedOwnSession, CachedSession
    from gateway.cache.readthrough import Found

KEY = session_key("acme", "s")
ASK_UPSTREAM = ReadOptions(max_age=0)
ALL_WINDOWS = Policy(ttl=10, stale_while_revalidate=5, stale_if_error=20)

_documents = itertools.count()


class Opener:
    """Opens a gateway's cache on the backend of this test."""

    def __init__(
        self, request: pytest.FixtureRequest, backend: str, prefix: str, clock: Clock, upstream: Upstream
    ) -> None:
        self._server: RedisServer | None = None if backend == "memory" else request.getfixturevalue("server")
        self._memory = backend != "redis"
        self._prefix = prefix
        self._clock = clock
        self._upstream = upstream

    @asynccontextmanager
    async def __call__(self, policy: Policy | None = None, *, max_entries: int = 10_000) -> AsyncIterator[Process]:
        async with process(
            self._upstream,
            redis=self._server,
            prefix=self._prefix,
            memory=self._memory,
            policy=policy,
            max_entries=max_entries,
            clock=self._clock,
        ) as gateway:
            yield gateway


def session(gateway: Process, session_id: str = "s", tenant: str = "acme") -> CachedSession:
    return gateway.client.session(tenant, session_id)


def own(gateway: Process, token: str = "token-1") -> CachedOwnSession:
    return gateway.client.own_session("acme", SecretStr(token))


async def get(resource: CachedSession | CachedOwnSession, options: ReadOptions = FRESH_ENOUGH) -> Found:
    return await resource.get(options, SOON)


async def version(resource: CachedSession | CachedOwnSession, options: ReadOptions = FRESH_ENOUGH) -> int:
    return (await get(resource, options)).context.metadata.version


async def write(resource: CachedSession | CachedOwnSession) -> None:
    await resource.write(b"%d" % next(_documents), SOON)


async def fails(read: asyncio.Task[Found], held: Held, upstream: Upstream) -> None:
    """A read that is held goes on, and upstream fails from now on; there is nothing to serve it instead."""
    upstream.read_fails = lambda: UpstreamUnavailable("x")
    held.go.set()
    with pytest.raises(UpstreamUnavailable):
        await read


async def under_way(*reads: asyncio.Task[Found], upstream: Upstream, count: int) -> None:
    await eventually(lambda: len(upstream.reads) == count)
    await settled()
    assert not any(each.done() for each in reads)


async def all_wait(gateway: Process, count: int) -> None:
    """Until so many wait for the read under way."""
    await eventually(lambda: [each.waiting for each in gateway.managed._flights._flights.values()] == [count])


async def settle(gateway: Process) -> None:
    """Wait until no read of upstream is under way any more, what it brings kept or refused."""
    await eventually(lambda: not gateway.managed._flights._flights)


def jwt(exp: object) -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part({'alg': 'none'})}.{part({'exp': exp, 'sub': 'x'})}.signature"
