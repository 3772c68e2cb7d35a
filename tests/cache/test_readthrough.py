"""Reads that may be answered from the cache, and writes after which nothing older is."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from cache.cache_stage import SOON, Clock, Process, Recorder, Upstream, eventually, heard_all, process, settled
from pydantic import SecretStr

from gateway.cache.contexts import CachedClient, session_key
from gateway.cache.freshness import FRESH_ENOUGH, CacheStatus, Policy, ReadOptions
from gateway.deadline import Deadline
from gateway.errors import (
    GatewayCredentialsRefused,
    GatewayError,
    InvalidArgument,
    MinVersionNotReached,
    NotFound,
    PermissionDenied,
    RateLimited,
    SessionNotFound,
    Unauthenticated,
    UpstreamFault,
    UpstreamTimeout,
    UpstreamUnavailable,
    UpstreamUnreachable,
)
from gateway.stores import MemoryStore
from gateway.telemetry import CachePut, CacheRead

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from cache.redis_server import RedisServer
    from redis.asyncio import Redis

    from gateway.cache.contexts import CachedOwnSession, CachedSession
    from gateway.cache.readthrough import Found

KEY = session_key("acme", "s")
ASK_UPSTREAM = ReadOptions(max_age=0)
ALL_WINDOWS = Policy(ttl=10, stale_while_revalidate=5, stale_if_error=20)

_documents = itertools.count()


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


async def under_way(*reads: asyncio.Task[Found], upstream: Upstream, count: int) -> None:
    await eventually(lambda: len(upstream.reads) == count)
    await settled()
    assert not any(each.done() for each in reads)


async def all_wait(gateway: Process, count: int) -> None:
    """Until so many wait for the read under way."""
    await eventually(lambda: [each.waiting for each in gateway.managed._flights._flights.values()] == [count])


class TestARead:
    async def test_goes_upstream_once_and_then_comes_from_the_cache(
        self, gateway: Opener, upstream: Upstream, clock: Clock
    ) -> None:
        async with gateway(Policy(10)) as it:
            first = await get(session(it))
            clock.advance(4)
            second = await get(session(it))
            assert first.context == second.context
            assert first.status == CacheStatus(fwd="miss", stored=True, ttl=10, age=0)
            assert second.status == CacheStatus(hit=True, ttl=6, age=4)
            assert it.observer.reads == [CacheRead("miss", collapsed=False), CacheRead("hit", collapsed=False)]
            assert it.observer.puts == [CachePut(kept=True)]
        assert upstream.reads == ["s"]

    async def test_keeps_upstreams_own_bytes(self, gateway: Opener, upstream: Upstream) -> None:
        upstream.have("s", 1, note="ü 🛒", number=1.5, nested={"a": [1, None]})
        async with gateway() as it:
            await get(session(it))
            assert (await get(session(it))).context.source == upstream.contexts["acme", "s"].source

    async def test_goes_upstream_again_when_its_time_is_over(
        self, gateway: Opener, upstream: Upstream, clock: Clock
    ) -> None:
        async with gateway(Policy(10)) as it:
            await get(session(it))
            upstream.have("s", 2)
            clock.advance(9.9)
            assert await version(session(it)) == 1
            clock.advance(0.1)
            assert await version(session(it)) == 2

    async def test_of_another_session_or_tenant_is_another_matter(self, gateway: Opener, upstream: Upstream) -> None:
        upstream.have("s", 70, tenant="globex")
        async with gateway() as it:
            assert await version(session(it)) == 1
            assert await version(session(it, "other")) == 50
            assert await version(session(it, "s", "globex")) == 70
            assert await version(session(it)) == 1

    async def test_counts_its_age_from_when_it_was_sent(
        self, gateway: Opener, upstream: Upstream, clock: Clock
    ) -> None:
        async with gateway(Policy(10)) as it:
            held = upstream.hold_read()
            reading = asyncio.create_task(get(session(it)))
            await held.arrived.wait()
            clock.advance(4)
            held.go.set()
            assert (await reading).status.age == 4
            assert (await get(session(it))).status.age == 4

    async def test_that_asks_for_a_young_answer_gets_one(
        self, gateway: Opener, upstream: Upstream, clock: Clock
    ) -> None:
        async with gateway(Policy(10)) as it:
            await get(session(it))
            upstream.have("s", 2)
            clock.advance(4)
            assert await version(session(it), ReadOptions(max_age=5)) == 1
            found = await get(session(it), ReadOptions(max_age=4))
            assert found.context.metadata.version == 2
            assert found.status.fwd == "request"

    async def test_by_read_is_always_upstreams_and_is_kept(self, gateway: Opener, upstream: Upstream) -> None:
        async with gateway() as it:
            await get(session(it))
            upstream.have("s", 2)
            assert (await session(it).read(SOON)).metadata.version == 2
            assert (await get(session(it))).status.hit
            assert await version(session(it)) == 2
        assert len(upstream.reads) == 2


class TestAStaleEntry:
    async def test_is_served_at_once_and_refreshed_behind_once(
        self, gateway: Opener, upstream: Upstream, clock: Clock
    ) -> None:
        async with gateway(ALL_WINDOWS) as it:
            await get(session(it))
            upstream.have("s", 2)
            clock.advance(12)
            held = upstream.hold_read()
            for _ in range(5):
                found = await get(session(it))
                assert found.context.metadata.version == 1
                assert found.status == CacheStatus(hit=True, ttl=-2, age=12)
            await held.arrived.wait()
            assert len(upstream.reads) == 2
            held.go.set()
            await eventually(lambda: len(it.observer.puts) == 2)
            assert (await get(session(it))).context.metadata.version == 2
            assert [each.outcome for each in it.observer.reads] == ["miss", *["stale"] * 5, "hit"]
        assert len(upstream.reads) == 2

    async def test_is_no_longer_served_after_a_write(self, gateway: Opener, clock: Clock) -> None:
        async with gateway(ALL_WINDOWS) as it:
            await get(session(it))
            clock.advance(12)
            await write(session(it))
            assert await version(session(it)) == 2

    async def test_goes_when_its_refresh_finds_nothing(self, gateway: Opener, upstream: Upstream, clock: Clock) -> None:
        async with gateway(ALL_WINDOWS) as it:
            await get(session(it))
            del upstream.contexts["acme", "s"]
            clock.advance(12)
            assert await version(session(it)) == 1
            await eventually(lambda: len(upstream.reads) == 2 and not upstream.reads_under_way)
            await settle(it)
            with pytest.raises(SessionNotFound):
                await get(session(it))

    async def test_is_served_again_while_its_refresh_fails(
        self, gateway: Opener, upstream: Upstream, clock: Clock
    ) -> None:
        async with gateway(ALL_WINDOWS) as it:
            await get(session(it))
            clock.advance(12)
            upstream.read_fails = lambda: UpstreamFault("broken")
            for reads in (2, 3):
                assert await version(session(it)) == 1
                await eventually(lambda reads=reads: len(upstream.reads) == reads and not upstream.reads_under_way)  # type: ignore[misc]
                await settle(it)

    @pytest.mark.parametrize(
        "error", [UpstreamFault("x"), UpstreamTimeout("x"), UpstreamUnavailable("x"), RateLimited("x")]
    )
    async def test_is_served_if_upstream_fails(
        self, gateway: Opener, upstream: Upstream, clock: Clock, error: GatewayError
    ) -> None:
        async with gateway(ALL_WINDOWS) as it:
            await get(session(it))
            clock.advance(29)

            def fail() -> GatewayError:
                return error

            upstream.read_fails = fail
            found = await get(session(it))
            assert found.status == CacheStatus(hit=True, ttl=-19, age=29, detail=error.reason)
            assert it.observer.reads[-1] == CacheRead("stale_if_error", collapsed=False)
            clock.advance(1)
            with pytest.raises(type(error)):
                await get(session(it))

    async def test_is_not_served_when_upstream_does_not_fail(
        self, gateway: Opener, upstream: Upstream, clock: Clock
    ) -> None:
        async with gateway(ALL_WINDOWS) as it:
            await get(session(it))
            upstream.have("s", 2)
            clock.advance(20)
            found = await get(session(it))
            assert found.context.metadata.version == 2
            assert found.status.fwd == "stale"

    async def test_is_served_if_upstream_takes_longer_than_the_caller_waits(
        self, gateway: Opener, upstream: Upstream, clock: Clock
    ) -> None:
        async with gateway(ALL_WINDOWS) as it:
            await get(session(it))
            clock.advance(20)
            upstream.hold_read()
            found = await session(it).get(FRESH_ENOUGH, Deadline.after(0.05))
            assert found.status.detail == "UPSTREAM_TIMEOUT"

    async def test_is_not_served_if_it_is_older_than_the_caller_has_seen(
        self, gateway: Opener, upstream: Upstream, clock: Clock
    ) -> None:
        async with gateway(ALL_WINDOWS) as it:
            await get(session(it))
            clock.advance(20)
            upstream.read_fails = lambda: UpstreamFault("broken")
            assert await version(session(it), ReadOptions(min_version=1)) == 1
            for options in (ReadOptions(min_version=2), ReadOptions(max_age=60), ASK_UPSTREAM):
                with pytest.raises(UpstreamFault):
                    await get(session(it), options)


async def settle(gateway: Process) -> None:
    """Wait until no read of upstream is under way any more, what it brings kept or refused."""
    await eventually(lambda: not gateway.managed._flights._flights)


class TestManyAtATime:
    async def test_are_one_read_also_when_the_first_gives_up(self, gateway: Opener, upstream: Upstream) -> None:
        async with gateway() as it:
            held = upstream.hold_read()
            reading = [asyncio.create_task(get(session(it)))]
            await under_way(*reading, upstream=upstream, count=1)
            reading += [asyncio.create_task(get(session(it))) for _ in range(999)]
            await all_wait(it, 1_000)
            reading[0].cancel()
            await asyncio.wait([reading[0]])
            held.go.set()
            found = await asyncio.gather(*reading[1:])
            assert {each.context.metadata.version for each in found} == {1}
            assert all(each.status.collapsed for each in found if each.status.fwd)
        assert upstream.reads == ["s"]

    async def test_are_told_of_a_failure_each_by_an_error_of_its_own(self, gateway: Opener, upstream: Upstream) -> None:
        upstream.read_fails = lambda: RateLimited("slow down", retry_after=2)
        async with gateway() as it:
            held = upstream.hold_read()
            reading = [asyncio.create_task(get(session(it))) for _ in range(100)]
            await all_wait(it, 100)
            held.go.set()
            told = await asyncio.gather(*reading, return_exceptions=True)
        assert {type(each) for each in told} == {RateLimited}
        assert len({id(each) for each in told}) == 100
        assert upstream.reads == ["s"]

    async def test_are_told_that_there_is_none_by_one_read(self, gateway: Opener, upstream: Upstream) -> None:
        async with gateway() as it:
            held = upstream.hold_read()
            reading = [asyncio.create_task(get(session(it, "missing"))) for _ in range(100)]
            await all_wait(it, 100)
            held.go.set()
            told = await asyncio.gather(*reading, return_exceptions=True)
        assert {type(each) for each in told} == {SessionNotFound}
        assert upstream.reads == ["missing"]

    async def test_wait_each_as_long_as_they_will(self, gateway: Opener, upstream: Upstream) -> None:
        async with gateway() as it:
            held = upstream.hold_read()
            patient = asyncio.create_task(get(session(it)))
            await under_way(patient, upstream=upstream, count=1)
            with pytest.raises(UpstreamTimeout):
                await session(it).get(FRESH_ENOUGH, Deadline.after(0.05))
            held.go.set()
            assert (await patient).context.metadata.version == 1
        assert upstream.reads == ["s"]

    async def test_give_up_the_read_when_all_have_given_up(self, gateway: Opener, upstream: Upstream) -> None:
        async with gateway() as it:
            upstream.hold_read()
            reading = [asyncio.create_task(get(session(it))) for _ in range(3)]
            await under_way(*reading, upstream=upstream, count=1)
            for each in reading:
                each.cancel()
            await asyncio.wait(reading)
            await eventually(lambda: not upstream.reads_under_way)


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


class TestALowestVersion:
    async def test_is_reached_by_the_cache_where_it_can_be(self, gateway: Opener) -> None:
        async with gateway() as it:
            await get(session(it))
            assert (await get(session(it), ReadOptions(min_version=1))).status.hit

    async def test_refreshes_an_entry_that_is_older(self, gateway: Opener, upstream: Upstream) -> None:
        async with gateway() as it:
            await get(session(it))
            upstream.have("s", 2)
            found = await get(session(it), ReadOptions(min_version=2))
            assert found.context.metadata.version == 2
            assert found.status.fwd == "request"
            assert await version(session(it)) == 2

    async def test_is_not_reached_when_upstream_is_older(self, gateway: Opener) -> None:
        async with gateway() as it:
            with pytest.raises(MinVersionNotReached) as caught:
                await get(session(it), ReadOptions(min_version=9))
            assert (caught.value.min_version, caught.value.current_version) == (9, 1)
            assert (await get(session(it))).status.hit

    async def test_asks_again_when_a_read_under_way_brings_less(self, gateway: Opener, upstream: Upstream) -> None:
        async with gateway() as it:
            held = upstream.hold_read()
            early = asyncio.create_task(get(session(it)))
            await held.arrived.wait()
            upstream.have("s", 2)
            late = [asyncio.create_task(get(session(it), ReadOptions(min_version=2))) for _ in range(50)]
            await all_wait(it, 51)
            held.go.set()
            assert (await early).context.metadata.version == 1
            assert {each.context.metadata.version for each in await asyncio.gather(*late)} == {2}
        assert len(upstream.reads) == 2

    async def test_finds_nothing_where_there_is_nothing(self, gateway: Opener, upstream: Upstream) -> None:
        async with gateway(Policy(10, missing_ttl=10)) as it:
            for _ in range(2):
                with pytest.raises(SessionNotFound):
                    await get(session(it, "missing"), ReadOptions(min_version=1))
        assert len(upstream.reads) == 2


class TestALargestAgeOfZero:
    async def test_asks_upstream_and_what_it_answers_is_kept(self, gateway: Opener, upstream: Upstream) -> None:
        async with gateway() as it:
            await get(session(it))
            upstream.have("s", 2)
            found = await get(session(it), ASK_UPSTREAM)
            assert found.context.metadata.version == 2
            assert found.status.fwd == "request"
            assert found.status.stored
            assert (await get(session(it))).status.hit
            assert await version(session(it)) == 2

    async def test_joins_no_read_under_way(self, gateway: Opener, upstream: Upstream) -> None:
        async with gateway() as it:
            held = upstream.hold_read()
            early = asyncio.create_task(get(session(it)))
            await held.arrived.wait()
            upstream.have("s", 2)
            found = await get(session(it), ASK_UPSTREAM)
            assert found.context.metadata.version == 2
            assert not found.status.collapsed
            held.go.set()
            assert (await early).context.metadata.version == 1
            assert await version(session(it)) == 2


class TestThatThereIsNone:
    async def test_is_not_kept_unless_set(self, gateway: Opener, upstream: Upstream) -> None:
        async with gateway() as it:
            for _ in range(2):
                with pytest.raises(SessionNotFound) as caught:
                    await get(session(it, "new"))
                assert caught.value.session_id == "new"
            upstream.have("new", 3)
            assert await version(session(it, "new")) == 3
        assert upstream.reads == ["new"] * 3

    async def test_is_kept_for_a_time_where_set(self, gateway: Opener, upstream: Upstream, clock: Clock) -> None:
        async with gateway(Policy(10, missing_ttl=3)) as it:
            for _ in range(2):
                with pytest.raises(SessionNotFound) as caught:
                    await get(session(it, "new"))
                assert caught.value.session_id == "new"
            assert upstream.reads == ["new"]
            upstream.have("new", 3)
            clock.advance(3)
            assert await version(session(it, "new")) == 3

    @pytest.mark.parametrize("missing_ttl", [0.0, 10.0])
    async def test_drops_the_entry_that_there_was(
        self, gateway: Opener, upstream: Upstream, missing_ttl: float
    ) -> None:
        async with gateway(Policy(10, missing_ttl=missing_ttl)) as it:
            await get(session(it))
            del upstream.contexts["acme", "s"]
            with pytest.raises(SessionNotFound):
                await get(session(it), ASK_UPSTREAM)
            with pytest.raises(SessionNotFound):
                await get(session(it))

    async def test_does_not_undo_the_mark_of_a_write(self, gateway: Opener, upstream: Upstream) -> None:
        """One who asked early puts back nothing though another was told, late, that there is none."""
        async with gateway() as it:
            early_held = upstream.hold_read()
            early = asyncio.create_task(get(session(it)))
            await early_held.arrived.wait()
            there = upstream.contexts.pop(("acme", "s"))
            late_held = upstream.hold_read()
            late = asyncio.create_task(get(session(it), ASK_UPSTREAM))
            await late_held.arrived.wait()
            upstream.contexts["acme", "s"] = there
            await write(session(it))
            late_held.go.set()
            with pytest.raises(SessionNotFound):
                await late
            early_held.go.set()
            assert (await early).context.metadata.version == 1
            assert await version(session(it)) == 2


def jwt(exp: object) -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part({'alg': 'none'})}.{part({'exp': exp, 'sub': 'x'})}.signature"


class TestAnOwnSession:
    async def test_is_kept_for_its_token(self, gateway: Opener, upstream: Upstream) -> None:
        async with gateway() as it:
            assert await version(own(it)) == 1
            assert (await get(own(it))).status.hit
        assert upstream.reads == ["s"]

    async def test_is_shared_between_no_two_tokens(self, gateway: Opener, upstream: Upstream) -> None:
        async with gateway() as it:
            for token in ("token-1", "token-2", "token-3"):
                assert not (await get(own(it, token))).status.hit
            assert await version(own(it, "token-3")) == 50
        assert upstream.reads == ["s", "s", "other"]

    async def test_joins_no_read_by_another_token_or_by_its_id(self, gateway: Opener, upstream: Upstream) -> None:
        async with gateway() as it:
            held = [upstream.hold_read() for _ in range(3)]
            reading = [asyncio.create_task(get(each)) for each in (own(it, "token-1"), own(it, "token-2"), session(it))]
            await under_way(*reading, upstream=upstream, count=3)
            for each in held:
                each.go.set()
            await asyncio.gather(*reading)

    async def test_is_never_answered_by_what_was_read_by_its_id_or_the_other_way_round(
        self, gateway: Opener, upstream: Upstream
    ) -> None:
        async with gateway() as it:
            await get(session(it))
            assert not (await get(own(it))).status.hit
            assert (await get(own(it))).status.hit
        upstream.reads.clear()
        async with gateway() as it:
            await get(own(it))
            assert (await get(session(it))).status.hit == (it.shared is not None)  # an earlier gateway's, in Redis

    async def test_is_gone_when_its_token_expires(self, gateway: Opener, upstream: Upstream, clock: Clock) -> None:
        token = jwt(clock.now + 5)
        upstream.tokens[token] = "s"
        async with gateway() as it:
            await get(own(it, token))
            clock.advance(4.9)
            assert (await get(own(it, token))).status.hit
            clock.advance(0.1)
            assert not (await get(own(it, token))).status.hit
            assert not (await get(own(it, token))).status.stored

    @pytest.mark.parametrize(
        "token",
        [
            jwt("soon"),
            jwt(None),
            jwt(-1),
            jwt(10**400),
            "a.b.c",
            "..",
            "....",
            "a.!!!.c",
            "a.eyJleHAi.c",
            "a." + base64.urlsafe_b64encode(b'{"x":' + b"[" * 5_000).decode() + ".c",
            "a." + base64.urlsafe_b64encode(b"\xff\xfe").decode() + ".c",
            "\u00fc.\u00fc.\u00fc",
        ],
        ids=range(12),
    )
    async def test_whose_expiry_is_not_known_is_kept_like_any_other(self, upstream: Upstream, token: str) -> None:
        upstream.tokens[token] = "s"
        async with process(upstream) as it:
            await get(own(it, token))
            assert (await get(own(it, token))).status.hit

    async def test_goes_with_a_write_by_its_id(self, gateway: Opener) -> None:
        async with gateway() as it:
            await get(own(it, "token-1"))
            await get(own(it, "token-2"))
            await write(session(it))
            assert await version(own(it, "token-1")) == 2
            assert await version(own(it, "token-2")) == 2

    async def test_goes_with_a_write_of_its_own_and_takes_the_one_by_its_id_along(self, gateway: Opener) -> None:
        async with gateway() as it:
            await get(session(it))
            await get(own(it, "token-1"))
            await get(own(it, "token-2"))
            await write(own(it, "token-1"))
            assert await version(session(it)) == 2
            assert await version(own(it, "token-1")) == 2
            assert await version(own(it, "token-2")) == 2

    @pytest.mark.parametrize("kind", ["write", "add", "remove"])
    async def test_is_written_by_who_has_never_read_it(self, gateway: Opener, kind: str) -> None:
        async with gateway() as it:
            await get(session(it))
            if kind == "write":
                await own(it).write(b"{}", SOON)
            elif kind == "add":
                await own(it).add_attribute("a", 1, SOON)
            else:
                assert await own(it).remove_attribute("a", SOON)
            assert await version(session(it)) == 2
            assert await version(own(it)) == 2

    @pytest.mark.parametrize("by_id", [False, True])
    async def test_is_not_put_back_by_a_read_that_began_before_a_write(
        self, gateway: Opener, upstream: Upstream, by_id: bool
    ) -> None:
        async with gateway() as it:
            await get(own(it))  # so that it is known which session it is
            held = upstream.hold_read()
            early = asyncio.create_task(get(own(it), ASK_UPSTREAM))
            await held.arrived.wait()
            await write(session(it) if by_id else own(it))
            held.go.set()
            assert (await early).context.metadata.version == 1
            assert await version(own(it)) == 2

    @pytest.mark.parametrize("by_id", [False, True])
    async def test_is_not_answered_after_a_write_by_a_read_that_began_before(
        self, gateway: Opener, upstream: Upstream, by_id: bool
    ) -> None:
        async with gateway() as it:
            await write(own(it))  # so that it is known which session it is
            held = upstream.hold_read()
            early = asyncio.create_task(get(own(it)))
            await held.arrived.wait()
            await write(session(it) if by_id else own(it))
            late = asyncio.create_task(get(own(it)))
            await settled()
            held.go.set()
            assert (await early).context.metadata.version == 2
            assert (await late).context.metadata.version == 3

    async def test_that_was_not_there_is_there_after_a_write_by_its_id(
        self, gateway: Opener, upstream: Upstream
    ) -> None:
        """Whose session a token would be is not known before there is one: any write may have made it."""
        upstream.tokens["early-bird"] = "new"
        async with gateway(Policy(10, missing_ttl=10)) as it:
            with pytest.raises(SessionNotFound) as caught:
                await get(own(it, "early-bird"))
            assert caught.value.session_id is None
            with pytest.raises(SessionNotFound):
                await get(own(it, "early-bird"))
            assert upstream.reads == ["new"]
            held = upstream.hold_read()
            early = asyncio.create_task(get(own(it, "early-bird"), ASK_UPSTREAM))
            await held.arrived.wait()
            await write(session(it, "new"))
            assert await version(own(it, "early-bird")) == 1
            held.go.set()
            with pytest.raises(SessionNotFound):
                await early
            assert await version(own(it, "early-bird")) == 1

    async def test_that_was_not_there_answers_nobody_who_asks_after_a_write(
        self, gateway: Opener, upstream: Upstream
    ) -> None:
        upstream.tokens["early-bird"] = "new"
        async with gateway() as it:
            held = upstream.hold_read()
            early = asyncio.create_task(get(own(it, "early-bird")))
            await held.arrived.wait()
            await write(session(it, "new"))
            late = asyncio.create_task(get(own(it, "early-bird")))
            await settled()
            held.go.set()
            with pytest.raises(SessionNotFound):
                await early
            assert (await late).context.metadata.version == 1

    async def test_goes_when_upstream_refuses_its_token(self, gateway: Opener, upstream: Upstream) -> None:
        async with gateway(ALL_WINDOWS) as it:
            await get(own(it))
            del upstream.tokens["token-1"]
            with pytest.raises(Unauthenticated):
                await get(own(it), ASK_UPSTREAM)
            with pytest.raises(Unauthenticated):
                await get(own(it))

    async def test_shows_its_token_in_no_key(self, gateway: Opener, upstream: Upstream) -> None:
        token = jwt(2_000_000_000)
        upstream.tokens[token] = "s"
        async with gateway() as it:
            await get(own(it, token))
            await get(session(it))
            await write(own(it, token))
            await get(own(it, token))
            keys: list[object] = [*it.own_memory._cache.entries, *it.memory._cache.entries]
            keys += [*it.session_ids._cache.entries, *it.marks._marks]
            assert keys
            if it.store is not None:
                found = [key async for key in it.store.keys()]  # noqa: SIM118 - it is no dict
                assert found
                keys += found
        for key in keys:
            assert token not in str(key)
            assert not any(part in str(key) for part in token.split("."))

    async def test_is_kept_in_this_process_alone(self, gateway: Opener, redis: Redis, prefix: str) -> None:
        async with gateway() as it:
            await get(own(it))
            if it.store is not None:
                assert [key async for key in it.store.keys()] == []  # noqa: SIM118 - it is no dict

    async def test_has_another_key_in_every_process(self, upstream: Upstream) -> None:
        async with process(upstream) as one, process(upstream) as two:
            for it in (one, two):
                await get(own(it))
            assert not set(one.own_memory._cache.entries) & set(two.own_memory._cache.entries)


class TestATenantThatIsNotCached:
    async def test_goes_upstream_always_and_leaves_nothing(self, upstream: Upstream) -> None:
        async with process(upstream, uncached={"acme"}) as it:
            for _ in range(2):
                assert (await get(session(it))).status == CacheStatus(fwd="bypass")
                assert (await get(own(it))).status == CacheStatus(fwd="bypass")
                await session(it).read(SOON)
                await own(it).read(SOON)
            await write(session(it))
            await write(own(it))
            await session(it).add_attribute("a", 1, SOON)
            await own(it).remove_attribute("a", SOON)
            assert not len(it.memory) + len(it.own_memory) + len(it.marks)
            assert it.observer == Recorder()
        assert len(upstream.reads) == 8

    async def test_has_its_lowest_version_all_the_same(self, upstream: Upstream) -> None:
        async with process(upstream, uncached={"acme"}) as it:
            for each in (session(it), own(it)):
                assert await version(each, ReadOptions(min_version=1)) == 1
                with pytest.raises(MinVersionNotReached):
                    await get(each, ReadOptions(min_version=2))

    async def test_leaves_the_others_cached(self, upstream: Upstream) -> None:
        upstream.have("s", 1, tenant="globex")
        async with process(upstream, uncached={"acme"}) as it:
            await get(session(it, "s", "globex"))
            assert (await get(session(it, "s", "globex"))).status.hit


async def test_no_cache_at_all_changes_nothing(upstream: Upstream) -> None:
    client = CachedClient(upstream, None, None, MemoryStore[str](1))
    resources: list[CachedSession | CachedOwnSession] = [
        client.session("acme", "s"),
        client.own_session("acme", SecretStr("token-1")),
    ]
    for number, each in enumerate(resources, 2):
        await write(each)
        assert (await get(each)).status == CacheStatus(fwd="bypass")
        assert (await each.read(SOON)).metadata.version == number
        with pytest.raises(NotFound):
            await get(client.session("acme", "missing"))


async def test_entries_are_bounded_and_the_least_used_goes(upstream: Upstream) -> None:
    for number in range(100):
        upstream.have(f"s{number}", 1)
        upstream.tokens[f"t{number}"] = f"s{number}"
    async with process(upstream, max_entries=10) as it:
        for number in range(100):
            await get(session(it, f"s{number}"))
            await get(own(it, f"t{number}"))
            assert (await get(session(it, "s0"))).status.hit
        assert len(it.memory) == len(it.own_memory) == 10
        assert len(it.session_ids) <= 10
        assert not (await get(session(it, "s50"))).status.hit


async def test_an_entry_that_cannot_be_read_is_a_miss(
    server: RedisServer, redis: Redis, prefix: str, upstream: Upstream
) -> None:
    async with process(upstream, redis=server, prefix=prefix, memory=False) as it:
        for data in (b"{", b"[" * 100_000, b'{"sessionId": 7}', b"\xff", b"null"):
            await get(session(it), ASK_UPSTREAM)
            await redis.hset(f"{prefix}{KEY}", "data", data)
            found = await get(session(it))
            assert found.context.metadata.version == 1
            assert not found.status.hit
            await get(session(it))
            assert (await get(session(it))).status.hit


async def test_an_entry_of_a_clock_that_is_ahead_is_fresh_and_not_younger_than_new(
    server: RedisServer, prefix: str, upstream: Upstream
) -> None:
    async with (
        process(upstream, redis=server, prefix=prefix, memory=False, clock=lambda: time.time() + 5) as ahead,
        process(upstream, redis=server, prefix=prefix, memory=False) as it,
    ):
        await get(session(ahead))
        found = await get(session(it))
        assert found.status.hit
        assert found.status.age == 0


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
