"""Writes, after which nothing older is kept or served."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from cache.cache_stage import SOON, Clock, Upstream, heard_all, process
from cache.reading import Opener, get, own, session, version, write

from gateway.cache.freshness import Policy, ReadOptions
from gateway.errors import (
    GatewayCredentialsRefused,
    GatewayError,
    InvalidArgument,
    PermissionDenied,
    RateLimited,
    SessionNotFound,
    UpstreamFault,
    UpstreamTimeout,
    UpstreamUnavailable,
    UpstreamUnreachable,
)
from gateway.telemetry import CachePut

if TYPE_CHECKING:
    from cache.redis_server import RedisServer
    from redis.asyncio import Redis


class TestAWrite:
    async def test_takes_the_entry_away_before_it_is_sent(self, gateway: Opener, upstream: Upstream) -> None:
        async with gateway() as it:
            await get(session(it))
            held = upstream.hold_write()
            writing = asyncio.create_task(write(session(it)))
            await held.arrived.wait()
            assert not (await get(session(it))).status.hit
            assert not (await get(session(it))).status.hit
            held.go.set()
            await writing
            assert await version(session(it)) == 2
            assert (await get(session(it))).status.hit

    @pytest.mark.parametrize("kind", ["write", "add", "remove"])
    async def test_of_any_kind_is_seen_by_the_next_read(self, gateway: Opener, kind: str) -> None:
        async with gateway() as it:
            await get(session(it))
            if kind == "write":
                await session(it).write(b"{}", SOON, upsert=True)
            elif kind == "add":
                await session(it).add_attribute("a", 1, SOON)
            else:
                assert await session(it).remove_attribute("a", SOON)
            assert await version(session(it)) == 2

    async def test_keeps_a_read_that_began_before_it_from_putting_its_answer_back(
        self, gateway: Opener, upstream: Upstream
    ) -> None:
        async with gateway() as it:
            held = upstream.hold_read()
            reading = asyncio.create_task(get(session(it)))
            await held.arrived.wait()
            await write(session(it))
            held.go.set()
            found = await reading
            assert found.context.metadata.version == 1
            assert not found.status.stored
            assert it.observer.puts == [CachePut(kept=False)]
            assert await version(session(it)) == 2

    async def test_keeps_a_read_from_putting_its_answer_back_that_ends_while_it_is_under_way(
        self, gateway: Opener, upstream: Upstream
    ) -> None:
        async with gateway() as it:
            read_held, write_held = upstream.hold_read(), upstream.hold_write()
            reading = asyncio.create_task(get(session(it)))
            await read_held.arrived.wait()
            writing = asyncio.create_task(write(session(it)))
            await write_held.arrived.wait()
            read_held.go.set()
            await reading
            write_held.go.set()
            await writing
            assert await version(session(it)) == 2

    @pytest.mark.parametrize("applied", [False, True])
    async def test_keeps_a_read_from_putting_its_answer_back_that_begins_while_it_is_under_way(
        self, gateway: Opener, upstream: Upstream, applied: bool
    ) -> None:
        async with gateway() as it:
            write_held = upstream.hold_answer_of_write() if applied else upstream.hold_write()
            writing = asyncio.create_task(write(session(it)))
            await write_held.arrived.wait()
            read_held = upstream.hold_read()
            reading = asyncio.create_task(get(session(it)))
            await read_held.arrived.wait()
            write_held.go.set()
            await writing
            read_held.go.set()
            assert (await reading).context.metadata.version == (2 if applied else 1)
            assert await version(session(it)) == 2
        assert len(upstream.reads) == 2

    async def test_keeps_who_asks_after_it_from_joining_a_read_that_began_before(
        self, gateway: Opener, upstream: Upstream
    ) -> None:
        async with gateway() as it:
            held = upstream.hold_read()
            early = asyncio.create_task(get(session(it)))
            await held.arrived.wait()
            await write(session(it))
            assert await version(session(it)) == 2
            held.go.set()
            assert (await early).context.metadata.version == 1
            assert await version(session(it)) == 2

    async def test_keeps_who_asks_after_it_from_joining_a_read_that_began_during_it(
        self, gateway: Opener, upstream: Upstream
    ) -> None:
        async with gateway() as it:
            write_held, read_held = upstream.hold_write(), upstream.hold_read()
            writing = asyncio.create_task(write(session(it)))
            await write_held.arrived.wait()
            early = asyncio.create_task(get(session(it)))
            await read_held.arrived.wait()
            write_held.go.set()
            await writing
            assert await version(session(it)) == 2
            read_held.go.set()
            assert (await early).context.metadata.version == 1

    async def test_that_creates_a_session_is_seen_by_who_asked_in_vain(
        self, gateway: Opener, upstream: Upstream
    ) -> None:
        async with gateway(Policy(10, missing_ttl=10)) as it:
            held = upstream.hold_read()
            early = asyncio.create_task(get(session(it, "new")))
            await held.arrived.wait()
            await write(session(it, "new"))
            assert await version(session(it, "new")) == 1
            held.go.set()
            with pytest.raises(SessionNotFound):
                await early
            assert await version(session(it, "new")) == 1

    async def test_leaves_a_floor_that_lower_versions_do_not_get_above(
        self, gateway: Opener, upstream: Upstream
    ) -> None:
        """Upstream's own replicas may be behind."""
        upstream.have("s", 7)
        async with gateway() as it:
            await get(session(it))
            await write(session(it))
            upstream.have("s", 6)
            found = await get(session(it))
            assert found.context.metadata.version == 6
            assert not found.status.stored
            upstream.have("s", 8)
            assert (await get(session(it))).status.stored

    @pytest.mark.parametrize("error", [UpstreamFault("x"), UpstreamTimeout("x"), UpstreamUnavailable("x")])
    async def test_whose_outcome_is_in_doubt_counts_as_under_way_for_a_time(
        self, gateway: Opener, upstream: Upstream, clock: Clock, error: GatewayError
    ) -> None:
        async with gateway(Policy(10)) as it:
            upstream.write_refused = lambda: error
            with pytest.raises(type(error)):
                await write(session(it))
            for _ in range(2):
                assert not (await get(session(it))).status.hit
            upstream.have("s", 2)  # it comes through at last
            assert await version(session(it)) == 2

    async def test_that_is_cancelled_counts_as_under_way_for_a_time(self, gateway: Opener, upstream: Upstream) -> None:
        async with gateway() as it:
            held = upstream.hold_write()
            writing = asyncio.create_task(write(session(it)))
            await held.arrived.wait()
            writing.cancel()
            await asyncio.wait([writing])
            for _ in range(2):
                assert not (await get(session(it))).status.hit

    @pytest.mark.parametrize(
        "error",
        [
            PermissionDenied("x"),
            InvalidArgument.of("x", "x"),
            RateLimited("x"),
            UpstreamUnreachable("x"),
            GatewayCredentialsRefused("x"),
            SessionNotFound("s"),
        ],
    )
    async def test_that_was_surely_not_applied_is_over(
        self, gateway: Opener, upstream: Upstream, error: GatewayError
    ) -> None:
        async with gateway() as it:
            upstream.write_refused = lambda: error
            with pytest.raises(type(error)):
                await write(session(it))
            assert (await get(session(it))).status.stored
            assert (await get(session(it))).status.hit


async def test_a_write_in_doubt_counts_no_longer_when_upstream_would_have_given_up(
    upstream: Upstream, clock: Clock
) -> None:
    async with process(upstream, open_for=30, clock=clock) as it:
        upstream.write_fails = lambda: UpstreamTimeout("x")
        with pytest.raises(UpstreamTimeout):
            await write(session(it))
        clock.advance(29.9)
        assert not (await get(session(it))).status.stored
        clock.advance(0.1)
        assert (await get(session(it))).status.stored


async def test_two_processes_share_what_is_in_redis(
    server: RedisServer, redis: Redis, prefix: str, upstream: Upstream
) -> None:
    async with (
        process(upstream, redis=server, prefix=prefix, memory=False) as one,
        process(upstream, redis=server, prefix=prefix, memory=False) as two,
    ):
        await get(session(one))
        assert (await get(session(two))).status.hit
        await write(session(one))
        await heard_all(redis, two)
        assert await version(session(two)) == 2
        assert (await get(session(one))).status.hit
    assert len(upstream.reads) == 2


@pytest.mark.parametrize("memory", [False, True], ids=["redis", "two tiers"])
async def test_a_restart_of_redis_forgets_no_write(fragile: RedisServer, upstream: Upstream, memory: bool) -> None:
    """Another process's read that began before it must not bring its answer into the new, empty Redis."""
    async with (
        process(upstream, redis=fragile, memory=memory) as one,
        process(upstream, redis=fragile, memory=memory) as two,
    ):
        held = upstream.hold_read()
        early = asyncio.create_task(get(session(two)))
        await held.arrived.wait()
        await write(session(one))
        fragile.restart_empty()
        held.go.set()
        assert (await early).context.metadata.version == 1
        assert await version(session(one)) == 2


@pytest.mark.parametrize("memory", [False, True], ids=["redis", "two tiers"])
async def test_redis_goes_and_comes_and_no_read_or_write_fails(
    fragile: RedisServer, upstream: Upstream, memory: bool
) -> None:
    written = 1
    async with process(upstream, redis=fragile, memory=memory, budget=0.05, patience=1, max_silence=1.0) as it:
        for ill_treat in (
            fragile.freeze,
            fragile.thaw,
            fragile.restart_empty,
            fragile.kill,
            fragile.start,
        ):
            ill_treat()
            for _ in range(5):
                assert await version(session(it)) == written
                await write(session(it))
                written += 1
                assert await version(session(it), ReadOptions(min_version=written)) == written
                assert await version(own(it)) == written
