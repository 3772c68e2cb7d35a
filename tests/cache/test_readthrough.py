"""Reads that may be answered from the cache, and what happens when they may not."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from cache.cache_stage import SOON, Clock, Recorder, Upstream, process
from cache.reading import (
    ALL_WINDOWS,
    ASK_UPSTREAM,
    KEY,
    Opener,
    all_wait,
    fails,
    get,
    own,
    session,
    settle,
    under_way,
    version,
    write,
)
from cache.redis_server import free_port
from observability.metrics import parsed
from pydantic import SecretStr
from redis.asyncio import Redis

from gateway.cache.contexts import CachedClient
from gateway.cache.freshness import FRESH_ENOUGH, CacheStatus, Policy, ReadOptions
from gateway.cache.readthrough import NotThere
from gateway.cache.tiers import LARGEST
from gateway.configuration import load_settings
from gateway.deadline import Deadline
from gateway.development import DEV_DEFAULTS
from gateway.errors import (
    GatewayError,
    MinVersionNotReached,
    NotFound,
    RateLimited,
    SessionNotFound,
    UpstreamFault,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from gateway.readiness import Readiness
from gateway.stores import MemoryStore
from gateway.telemetry import CachePut, CacheRead
from gateway.telemetry.prometheus import Metrics
from gateway.tracing import Untraced
from gateway.wiring.cache import open_cache
from waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from cache.cache_stage import Process
    from cache.redis_server import RedisServer

    from gateway.cache.contexts import CachedOwnSession, CachedSession


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

    @pytest.mark.parametrize(("length", "kept"), [(LARGEST - 1000, True), (LARGEST, False)])
    async def test_is_kept_unless_it_is_large(
        self, gateway: Opener, upstream: Upstream, length: int, kept: bool
    ) -> None:
        upstream.have("s", 1, note="x" * length)
        async with gateway(Policy(10)) as it:
            first, second = await get(session(it)), await get(session(it))
            assert first.context == second.context
            assert first.status.stored is second.status.hit is kept
            assert it.observer.puts[0] == CachePut(kept)

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

    async def test_for_several_callers_may_take_as_long_as_any_of_them(self, upstream: Upstream) -> None:
        upstream.have("s", 1)
        settings = load_settings(None, {**DEV_DEFAULTS, "grpc": {"budget": 600}})
        async with open_cache(settings, upstream, Metrics(), Readiness(), Untraced()) as client:
            await get(client.session("acme", "s"))
        (deadline,) = upstream.deadlines
        assert 600 <= deadline.remaining <= 900

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
            clock.advance(3)
            assert (await get(session(it))).status.age == 7

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

    @pytest.mark.parametrize("way", [session, own])
    async def test_by_read_is_always_upstreams_and_is_kept(
        self, gateway: Opener, upstream: Upstream, way: Callable[[Process], CachedSession | CachedOwnSession]
    ) -> None:
        async with gateway() as it:
            await get(way(it))
            upstream.have("s", 2)
            assert (await way(it).read(SOON)).metadata.version == 2
            assert (await get(way(it))).status.hit
            assert await version(way(it)) == 2
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
            assert [each.outcome for each in it.observer.reads] == ["miss", *["stale_while_revalidate"] * 5, "hit"]
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
            assert found.status == CacheStatus(fwd="stale", ttl=-19, age=29, detail=error.reason)
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
            assert it.observer.reads[-1] == CacheRead("stale", collapsed=False)

    async def test_is_served_if_upstream_takes_longer_than_the_caller_waits(
        self, gateway: Opener, upstream: Upstream, clock: Clock
    ) -> None:
        async with gateway(ALL_WINDOWS) as it:
            await get(session(it))
            clock.advance(20)
            upstream.hold_read()
            found = await session(it).get(FRESH_ENOUGH, Deadline.after(0.05))
            assert found.status.detail == "UPSTREAM_TIMEOUT"

    @pytest.mark.parametrize("by_own_token", [False, True])
    async def test_is_not_served_if_a_write_came_while_upstream_was_asked_in_vain(
        self, gateway: Opener, upstream: Upstream, clock: Clock, *, by_own_token: bool
    ) -> None:
        async with gateway(ALL_WINDOWS) as it:
            resource = own(it) if by_own_token else session(it)
            await get(resource)
            clock.advance(20)
            held = upstream.hold_read()
            early = asyncio.create_task(get(resource))
            await held.arrived.wait()
            await write(session(it))
            assert await version(session(it)) == 2
            await fails(early, held, upstream)

    async def test_is_not_served_if_a_higher_version_was_shown_while_upstream_was_asked_in_vain(
        self, gateway: Opener, upstream: Upstream, clock: Clock
    ) -> None:
        async with gateway(ALL_WINDOWS) as it:
            await get(session(it))
            clock.advance(20)
            held = upstream.hold_read()
            early = asyncio.create_task(get(session(it)))
            await held.arrived.wait()
            upstream.have("s", 2)
            assert await version(session(it), ASK_UPSTREAM) == 2
            await fails(early, held, upstream)

    async def test_is_not_served_if_it_became_too_old_while_upstream_was_asked_in_vain(
        self, gateway: Opener, upstream: Upstream, clock: Clock
    ) -> None:
        async with gateway(ALL_WINDOWS) as it:
            await get(session(it))
            clock.advance(29)
            held = upstream.hold_read()
            reading = asyncio.create_task(get(session(it)))
            await held.arrived.wait()
            clock.advance(1)
            await fails(reading, held, upstream)

    async def test_is_not_served_if_other_processes_writes_are_no_longer_heard_of(
        self, fragile: RedisServer, upstream: Upstream, clock: Clock
    ) -> None:
        async with process(upstream, redis=fragile, policy=ALL_WINDOWS, max_silence=60.0, clock=clock) as it:
            invalidations = it.invalidations
            assert invalidations is not None
            await get(session(it))
            clock.advance(20)
            held = upstream.hold_read()
            reading = asyncio.create_task(get(session(it)))
            await held.arrived.wait()
            fragile.kill()  # which breaks the connection
            await eventually(lambda: not invalidations.in_step)
            await fails(reading, held, upstream)

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

    async def test_are_not_one_read_with_who_wants_a_younger_answer(
        self, gateway: Opener, upstream: Upstream, clock: Clock
    ) -> None:
        async with gateway() as it:
            held = upstream.hold_read()
            early = asyncio.create_task(get(session(it)))
            await held.arrived.wait()
            clock.advance(5)
            late = [asyncio.create_task(get(session(it), ReadOptions(max_age=age))) for age in (5, 6)]
            await all_wait(it, 3)
            upstream.have("s", 2)
            held.go.set()
            assert [each.context.metadata.version for each in await asyncio.gather(early, *late)] == [1, 2, 1]

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
        assert {type(each) for each in told} == {NotThere}
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
    async def test_asks_upstream_and_what_it_answers_is_kept(
        self, gateway: Opener, upstream: Upstream, clock: Clock
    ) -> None:
        async with gateway(Policy(10, stale_if_error=10)) as it:
            assert (await get(session(it), ASK_UPSTREAM)).status.fwd == "miss"
            clock.advance(10)
            assert (await get(session(it), ASK_UPSTREAM)).status.fwd == "stale"
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

    async def test_keeps_the_youngest_answer_whichever_comes_last(
        self, gateway: Opener, upstream: Upstream, clock: Clock
    ) -> None:
        async with gateway() as it:
            await get(session(it))
            held = upstream.hold_read()
            early = asyncio.create_task(get(session(it), ASK_UPSTREAM))
            await under_way(early, upstream=upstream, count=2)
            clock.advance(20)
            assert (await get(session(it), ASK_UPSTREAM)).status.stored
            held.go.set()
            late = (await early).status
            assert (late.stored, late.ttl) == (False, None)
            clock.advance(20)
            assert (await get(session(it))).status.hit


class TestThatThereIsNone:
    async def test_is_told_by_read_too(self, gateway: Opener) -> None:
        async with gateway() as it:
            with pytest.raises(SessionNotFound):
                await session(it, "missing").read(SOON)

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

    async def test_is_stale_when_its_own_time_is_over(self, gateway: Opener, upstream: Upstream, clock: Clock) -> None:
        async with gateway(Policy(10, missing_ttl=3)) as it:
            with pytest.raises(SessionNotFound):
                await get(session(it, "new"))
            upstream.have("new", 3)
            with pytest.raises(SessionNotFound):
                await get(session(it, "new"))
            clock.advance(3)
            assert (await get(session(it, "new"))).status.fwd == "stale"
            assert it.observer.reads[-1] == CacheRead("stale", collapsed=False)

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
            assert not len(it.memory) + len(it.own_memory)
            assert it.marks.generation() == 0
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


async def test_entries_are_bounded_by_the_memory_that_they_take_too(upstream: Upstream) -> None:
    settings = load_settings(None, {**DEV_DEFAULTS, "cache": {"backend": "memory", "max_memory": 8_388_608}})
    for number in range(100):
        upstream.have(f"s{number}", 1, cart=[{"sku": f"A-{each}", "quantity": each} for each in range(1000)])
    metrics = Metrics()
    async with open_cache(settings, upstream, metrics, Readiness(), Untraced()) as client:
        for number in range(100):
            await get(client.session("acme", f"s{number}"))
        found = parsed(metrics.exposition().decode())
        entries = found["session_gateway_cache_entries", frozenset()]
        taken = found["session_gateway_cache_entries_bytes", frozenset()]
        assert 5 < entries < 50
        assert 8_388_608 - taken / entries < taken <= 8_388_608
        assert (await get(client.session("acme", "s99"))).status.hit
        assert not (await get(client.session("acme", "s0"))).status.hit


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


@pytest.mark.parametrize("memory", [False, True], ids=["redis", "two tiers"])
@pytest.mark.parametrize("lost", [False, True], ids=["a replica", "lost"])
async def test_what_redis_cannot_keep_is_stored_only_if_memory_keeps_it(
    fragile: RedisServer, upstream: Upstream, *, memory: bool, lost: bool
) -> None:
    async with (
        Redis.from_url(fragile.url) as other,
        process(upstream, redis=fragile, memory=memory, max_silence=60.0) as it,
    ):
        if lost:
            fragile.kill()
        else:
            await other.replicaof("127.0.0.1", free_port())
        assert (await get(session(it))).status.stored == memory
        assert it.observer.puts == [CachePut(kept=memory)]


@pytest.mark.parametrize("after", [1, 2])
@pytest.mark.parametrize("way", [session, own])
async def test_an_entry_of_before_the_clock_was_set_back_is_of_no_use(
    upstream: Upstream, clock: Clock, way: Callable[[Process], CachedSession | CachedOwnSession], after: int
) -> None:
    async with process(upstream, policy=ALL_WINDOWS, clock=clock) as it:
        await get(way(it))
        upstream.have("s", after)
        clock.advance(-3_600)
        found = await get(way(it))
        assert (found.status.hit, found.context.metadata.version) == (False, after)
        assert (await get(way(it))).status.hit


@pytest.mark.parametrize("memory", [False, True], ids=["redis", "two tiers"])
async def test_an_entry_of_a_clock_that_is_ahead_is_as_old_as_redis_has_counted(
    server: RedisServer, redis: Redis, prefix: str, upstream: Upstream, clock: Clock, *, memory: bool
) -> None:
    def opened(clock: Clock) -> AbstractAsyncContextManager[Process]:
        policy = Policy(10, stale_if_error=50)
        return process(upstream, redis=server, prefix=prefix, memory=memory, policy=policy, clock=clock)

    async with opened(Clock(clock.now + 1_000)) as ahead, opened(clock) as one, opened(clock) as another:
        await get(session(ahead))
        await redis.pexpire(f"{prefix}{KEY}", 55_000)  # as if 5 of its 60 seconds had passed
        found = await get(session(one))
        assert found.status.hit
        assert 5 <= found.status.age < 10
        await redis.pexpire(f"{prefix}{KEY}", 50_000)
        clock.advance(5)
        upstream.read_fails = lambda: UpstreamUnavailable("x")
        for each in (one, another):
            assert (await get(session(each))).status.fwd == "stale"


@pytest.mark.parametrize("memory", [False, True], ids=["redis", "two tiers"])
async def test_an_entry_of_a_clock_that_is_behind_looks_older_and_never_younger(
    server: RedisServer, prefix: str, upstream: Upstream, clock: Clock, *, memory: bool
) -> None:
    async with (
        process(upstream, redis=server, prefix=prefix, memory=memory, clock=Clock(clock.now - 7)) as behind,
        process(upstream, redis=server, prefix=prefix, memory=memory, clock=clock) as it,
    ):
        await get(session(behind))
        found = await get(session(it))
        assert found.status.hit
        assert found.status.age == 7
