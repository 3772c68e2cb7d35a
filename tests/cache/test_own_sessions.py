"""A shopper's own session: kept for its token alone, and gone with every write of it."""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING

import pytest
from cache.cache_stage import SOON, Clock, Upstream, process, settled
from cache.reading import ALL_WINDOWS, ASK_UPSTREAM, Opener, fails, get, jwt, own, session, under_way, version, write

from gateway.cache.freshness import Policy
from gateway.errors import SessionNotFound, Unauthenticated
from waiting import eventually

if TYPE_CHECKING:
    from redis.asyncio import Redis


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

    async def test_is_not_served_for_a_token_that_expired_while_upstream_was_asked_in_vain(
        self, gateway: Opener, upstream: Upstream, clock: Clock
    ) -> None:
        token = jwt(clock.now + 20)
        upstream.tokens[token] = "s"
        async with gateway(ALL_WINDOWS) as it:
            await get(own(it, token))
            clock.advance(19)
            held = upstream.hold_read()
            reading = asyncio.create_task(get(own(it, token)))
            await held.arrived.wait()
            clock.advance(1)
            await fails(reading, held, upstream)

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

    async def test_is_asked_for_its_id_before_the_first_write_alone(self, gateway: Opener, upstream: Upstream) -> None:
        async with gateway() as it:
            await write(own(it))
            await write(own(it))
        assert (len(upstream.reads), len(upstream.writes)) == (1, 2)

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

    async def test_goes_when_upstream_refuses_its_token_as_it_is_refreshed_behind(
        self, gateway: Opener, upstream: Upstream, clock: Clock
    ) -> None:
        async with gateway(ALL_WINDOWS) as it:
            await get(own(it))
            del upstream.tokens["token-1"]
            clock.advance(12)
            assert (await get(own(it))).status.hit
            await eventually(lambda: not it.own._flights._flights)
            with pytest.raises(Unauthenticated):
                await get(own(it))

    async def test_goes_when_upstream_refuses_its_token_as_it_is_read_for_a_write(
        self, gateway: Opener, upstream: Upstream
    ) -> None:
        async with gateway() as it:
            await get(own(it))
            del upstream.tokens["token-1"]
            with pytest.raises(Unauthenticated):
                await own(it).read(SOON)
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
