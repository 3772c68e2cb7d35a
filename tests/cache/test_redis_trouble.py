"""A Redis that is killed, frozen, filled with garbage or emptied under load: no read fails through either door."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from cache.redis_server import TYPES_OF_GARBAGE, put_garbage
from redis.asyncio import Redis

from gateway.sandbox import seed
from stage import entered, opened
from waiting import LoopClock, eventually

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cache.redis_server import RedisServer

    from doors import Door

BUDGET = 0.05
IDS = (seed.CUSTOMER_SESSION, seed.ANONYMOUS_SESSION, seed.ODD_SESSION)


async def kill(server: RedisServer) -> None:
    server.kill()


async def freeze(server: RedisServer) -> None:
    server.freeze()


async def restart_empty(server: RedisServer) -> None:
    await asyncio.to_thread(server.restart_empty)


async def garbage(server: RedisServer) -> None:
    async with Redis.from_url(server.url) as redis:
        for each, kind in zip(IDS, TYPES_OF_GARBAGE, strict=False):
            async with redis.pipeline(transaction=True) as at_once:
                await at_once.delete(f"trouble:sessions:ctx:acme:{each}")
                await put_garbage(at_once, f"trouble:sessions:ctx:acme:{each}", kind)
                await at_once.execute()


class Readers:
    """Read all the time, and note how long it takes."""

    def __init__(self, doors: list[Door], clock: LoopClock) -> None:
        self._doors = doors
        self._stopped = False
        self._clock = clock
        self.seconds: list[float] = []

    async def read(self, door: Door) -> None:
        while not self._stopped:
            for each in IDS:
                began = self._clock.now()
                found = await door.get("acme", each)
                self.seconds.append(self._clock.now() - began)
                assert found is not None

    async def during(self, trouble: Callable[[], Awaitable[None]]) -> None:
        async with asyncio.TaskGroup() as tasks:
            for door in self._doors * 4:
                tasks.create_task(self.read(door))
            await self._so_many_more(50)
            await trouble()
            await self._so_many_more(200)
            self._stopped = True

    async def _so_many_more(self, count: int) -> None:
        until = len(self.seconds) + count
        await eventually(lambda: len(self.seconds) >= until, within=20)


@pytest.mark.parametrize("trouble", [kill, freeze, restart_empty, garbage])
@pytest.mark.parametrize("memory_tier", [False, True])
async def test_no_read_fails_and_none_waits_long(
    fragile: RedisServer, trouble: Callable[[RedisServer], Awaitable[None]], *, memory_tier: bool
) -> None:
    cache: dict[str, object] = {
        "backend": fragile.url,
        "prefix": "trouble:",
        "budget": BUDGET,
        "memory_tier": memory_tier,
        "ttl": 0.2,
    }
    patient: dict[str, object] = {"timeout": 5.0}  # it is not upstream that is tried here
    async with (
        opened(cache=cache, upstream=patient) as dev,
        entered("grpc", dev) as by_grpc,
        entered("graphql", dev) as by_graphql,
        LoopClock() as clock,
    ):
        readers = Readers([by_grpc, by_graphql], clock)

        await readers.during(lambda: trouble(fragile))

        # Generous: a read may wait for the budget a few times over (look, keep), and this machine may be very busy. A
        # leash that does not hold costs the patience of the client for Redis, or no end of time.
        assert max(readers.seconds) < 60 * BUDGET
        assert await by_grpc.get("acme", seed.CUSTOMER_SESSION) is not None
