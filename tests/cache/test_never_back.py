"""What one process has seen of a session, by whatever way, no later read of it falls behind."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from cache.cache_stage import TTL, Clock, Process, Upstream, process
from cache.reading import ASK_UPSTREAM, Opener, all_wait, get, own, session, under_way, version
from pydantic import SecretStr

from gateway.cache.contexts import CachedClient
from gateway.cache.freshness import Policy, ReadOptions
from gateway.cache.readthrough import Found
from gateway.errors import SessionNotFound
from gateway.stores import MemoryStore
from waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from cache.redis_server import RedisServer

    from gateway.cache.contexts import CachedOwnSession, CachedSession

    Way = Callable[[Process], CachedSession | CachedOwnSession]

LIFETIME = TTL + 30.0
"""How long the stage's floors count."""

WAYS: dict[str, Way] = {
    "by its id": session,
    "by a token": lambda it: own(it, "token-1"),
    "by another token": lambda it: own(it, "token-2"),
}
PAIRS = [(one, other) for one in WAYS for other in WAYS if one != other]


@pytest.mark.parametrize(("seen", "kept"), PAIRS)
class TestAVersionSeenByOneWay:
    async def test_is_not_followed_by_an_older_one_that_was_kept_by_another(
        self, gateway: Opener, upstream: Upstream, seen: str, kept: str
    ) -> None:
        async with gateway() as it:
            assert await version(WAYS[kept](it)) == 1
            upstream.have("s", 2)
            assert await version(WAYS[seen](it), ASK_UPSTREAM) == 2
            assert await version(WAYS[kept](it), ReadOptions(max_age=5)) == 2
            assert (await get(WAYS[kept](it))).status.hit

    async def test_is_not_followed_by_what_a_read_brings_that_began_before(
        self, gateway: Opener, upstream: Upstream, seen: str, kept: str
    ) -> None:
        async with gateway() as it:
            held = upstream.hold_read()
            early = asyncio.create_task(get(WAYS[kept](it)))
            await under_way(early, upstream=upstream, count=1)
            upstream.have("s", 2)
            assert await version(WAYS[seen](it), ASK_UPSTREAM) == 2
            late = asyncio.create_task(get(WAYS[kept](it)))
            await eventually(lambda: 2 in _waiting(it))
            held.go.set()
            assert (await early).context.metadata.version == 1
            assert (await late).context.metadata.version == 2
            assert await version(WAYS[kept](it)) == 2


def _waiting(it: Process) -> list[int]:
    """How many wait for each read under way, of all sessions."""
    reading = (it.managed, it.own)
    return [each.waiting for reads in reading for each in reads._flights._flights.values()]


class TestAVersionSeen:
    async def test_and_pushed_out_since_is_not_followed_by_an_older_one(self, upstream: Upstream) -> None:
        async with process(upstream, max_entries=1) as it:
            held = upstream.hold_read()
            early = asyncio.create_task(get(session(it)))
            await under_way(early, upstream=upstream, count=1)
            upstream.have("s", 2)
            assert await version(session(it), ASK_UPSTREAM) == 2
            await get(session(it, "other"))
            late = asyncio.create_task(get(session(it)))
            await eventually(lambda: 2 in _waiting(it))
            held.go.set()
            assert (await early).context.metadata.version == 1
            assert (await late).context.metadata.version == 2

    async def test_of_a_session_is_not_followed_by_a_read_that_did_not_find_it_yet(self, upstream: Upstream) -> None:
        async with process(upstream, policy=Policy(10, missing_ttl=10)) as it:
            held = upstream.hold_read()
            early = asyncio.create_task(get(session(it, "new")))
            await held.arrived.wait()
            upstream.have("new", 1)
            assert await version(session(it, "new"), ASK_UPSTREAM) == 1
            held.go.set()
            await asyncio.wait([early])
            assert early.exception() is not None
            assert await version(session(it, "new")) == 1

    @pytest.mark.parametrize("memory", [False, True], ids=["redis", "two tiers"])
    async def test_while_redis_could_not_take_it_is_not_followed_by_the_older_one_there(
        self, fragile: RedisServer, upstream: Upstream, memory: bool
    ) -> None:
        async with process(upstream, redis=fragile, memory=memory, budget=0.05) as it:
            assert it.shared is not None
            assert await version(session(it)) == 1
            upstream.have("s", 2)
            fragile.freeze()
            assert await version(session(it), ASK_UPSTREAM) == 2
            fragile.thaw()
            async with asyncio.timeout(10):
                while not await it.shared.usable():
                    await asyncio.sleep(0.05)
            assert await version(session(it)) == 2
            assert await version(session(it)) == 2

    async def test_by_another_process_and_shared_is_not_followed_by_an_older_one_of_ones_own(
        self, server: RedisServer, prefix: str, upstream: Upstream
    ) -> None:
        async with (
            process(upstream, redis=server, prefix=prefix) as one,
            process(upstream, redis=server, prefix=prefix) as two,
        ):
            assert await version(own(one)) == 1
            upstream.have("s", 2)
            assert await version(session(two)) == 2
            found = await get(session(one))
            assert found.context.metadata.version == 2
            assert found.status.hit
            assert await version(own(one)) == 2

    async def test_by_a_token_for_which_nothing_is_kept_counts_too(self, upstream: Upstream) -> None:
        async with process(upstream) as it:
            client = CachedClient(upstream, it.managed, None, MemoryStore[str](10))
            assert await version(client.session("acme", "s")) == 1
            upstream.have("s", 2)
            assert await version(client.own_session("acme", SecretStr("token-1"))) == 2
            assert await version(client.session("acme", "s")) == 2

    async def test_of_another_session_or_tenant_is_another_matter(self, upstream: Upstream) -> None:
        upstream.have("s", 70, tenant="globex")
        async with process(upstream) as it:
            for _ in range(2):
                assert await version(session(it)) == 1
                assert await version(session(it, "other")) == 50
                assert await version(session(it, "s", "globex")) == 70
        assert len(upstream.reads) == 3


class TestASessionMadeAnewWithALowerVersion:
    async def test_is_passed_on_as_upstream_has_it_and_kept_when_the_old_one_is_long_gone(
        self, upstream: Upstream, clock: Clock
    ) -> None:
        async with process(upstream, clock=clock) as it:
            upstream.have("s", 7)
            assert await version(session(it)) == 7
            upstream.have("s", 1)
            found = await get(own(it))
            assert (found.context.metadata.version, found.status.stored) == (1, False)
            clock.advance(TTL)
            for _ in range(2):
                found = await get(session(it))
                assert (found.context.metadata.version, found.status.stored) == (1, False)
            clock.advance(LIFETIME - TTL)
            assert await version(own(it)) == 1
            assert (await get(own(it))).status.hit

    @pytest.mark.parametrize("made_anew", [False, True], ids=["gone", "made anew"])
    async def test_or_is_gone_is_one_read_for_all_who_ask_at_a_time(
        self, upstream: Upstream, clock: Clock, made_anew: bool
    ) -> None:
        async with process(upstream, clock=clock) as it:
            upstream.have("s", 7)
            assert await version(session(it)) == 7
            clock.advance(TTL)
            del upstream.contexts["acme", "s"]
            if made_anew:
                upstream.have("s", 1)
            held = upstream.hold_read()
            reading = [asyncio.create_task(get(session(it))) for _ in range(20)]
            await all_wait(it, 20)
            held.go.set()
            told = await asyncio.gather(*reading, return_exceptions=True)
            assert len(told) == 20
            for each in told:
                if made_anew:
                    assert isinstance(each, Found)
                    assert each.context.metadata.version == 1
                else:
                    assert isinstance(each, SessionNotFound)
        assert upstream.reads == ["s", "s"]
