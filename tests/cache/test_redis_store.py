"""Entries and marks in a real Redis: who may put what, whatever happens in between."""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
import traceback
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import structlog
from aiocache.base import BaseCache
from cache.redis_server import TYPES_OF_GARBAGE, RedisServer, free_port, put_garbage, running
from pydantic import SecretStr
from redis.asyncio import Redis
from redis.crc import key_slot
from redis.exceptions import OutOfMemoryError, ReadOnlyError, RedisError

from gateway.stores import StoredEntry
from gateway.stores.redis import RedisStore, open_redis

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

TTL, LONG = 60.0, 3_600.0

_numbers = itertools.count()


def entry(version: int, stored_at: float = 1_000.0, data: bytes = b"data") -> StoredEntry:
    return StoredEntry(version, stored_at, data)


async def look(store: RedisStore, key: str = "k") -> tuple[StoredEntry | None, str]:
    return await store.get(key, lease=f"lease-{next(_numbers)}", ttl=TTL)


async def put(store: RedisStore, new: StoredEntry, lease: str, key: str = "k") -> bool:
    return await store.put(key, new, lease, ttl=TTL)


async def mark(store: RedisStore, key: str = "k", opened: str = "", closed: str = "", open_for: float = TTL) -> None:
    await store.mark(
        key,
        generation=f"g-{next(_numbers)}",
        ttl=LONG,
        opened=opened,
        closed=closed,
        open_for=open_for,
    )


async def have(store: RedisStore, there: StoredEntry, key: str = "k") -> None:
    _, lease = await look(store, key)
    assert await put(store, there, lease, key)


class TestAnEntry:
    async def test_is_put_by_who_found_nothing_and_found_by_all(self, store: RedisStore) -> None:
        found, lease = await look(store)
        assert found is None
        assert await put(store, entry(7, 1_234.567_891, b'{"\x00\xff'), lease)
        assert (await look(store))[0] == entry(7, 1_234.567_891, b'{"\x00\xff')

    async def test_is_put_by_each_of_two_who_found_nothing_at_a_time(self, store: RedisStore) -> None:
        _, first = await look(store)
        _, second = await look(store)
        assert await put(store, entry(7), first)
        assert await put(store, entry(7, 1_001.0), second)

    async def test_takes_the_place_of_a_lower_version_or_of_the_same_read_earlier(self, store: RedisStore) -> None:
        await have(store, entry(7))
        for new in (entry(7, 1_000.5), entry(8, 900.0)):
            _, lease = await look(store)
            assert await put(store, new, lease)
            assert (await look(store))[0] == new

    async def test_never_takes_the_place_of_a_higher_version_or_of_the_same_read_later(self, store: RedisStore) -> None:
        await have(store, entry(7))
        _, lease = await look(store)
        assert not await put(store, entry(6, 2_000.0), lease)
        assert not await put(store, entry(7, 999.0), lease)
        assert (await look(store))[0] == entry(7)

    @pytest.mark.parametrize(
        ("lower", "higher"),
        [(9, 10), (99, 100), (2**53, 2**53 + 1), (2**53 + 1, 2**53 + 2), (2**63 - 2, 2**63 - 1), (0, 1)],
    )
    async def test_is_compared_by_its_version_to_the_last_digit(
        self, store: RedisStore, lower: int, higher: int
    ) -> None:
        await have(store, entry(higher))
        assert not await put(store, entry(lower, 2_000.0), (await look(store))[1])
        await have(store, entry(lower), "other")
        assert await put(store, entry(higher, 500.0), (await look(store, "other"))[1], "other")
        assert (await look(store, "other"))[0] == entry(higher, 500.0)

    async def test_expires(self, store: RedisStore, redis: Redis, prefix: str) -> None:
        _, lease = await look(store)
        assert await store.put("k", entry(7), lease, ttl=0.05)

        while await redis.exists(f"{prefix}k"):
            pass
        assert (await look(store))[0] is None

    async def test_is_not_put_where_what_its_reader_saw_is_lost(self, store: RedisStore, redis: Redis) -> None:
        """A restart, an eviction: what is gone may have been the mark of a write."""
        _, saw_nothing = await look(store)
        await have(store, entry(7), "other")
        _, saw_an_entry = await look(store, "other")
        await redis.flushall()
        assert not await put(store, entry(7), saw_nothing)
        assert not await put(store, entry(7), saw_an_entry, "other")


class TestAWrite:
    async def test_takes_the_entry_away(self, store: RedisStore) -> None:
        await have(store, entry(7))
        await mark(store, opened="w")
        assert (await look(store))[0] is None

    async def test_refuses_what_was_read_before_it(self, store: RedisStore) -> None:
        _, saw_nothing = await look(store)
        await mark(store, opened="w")
        assert not await put(store, entry(7), saw_nothing)
        await mark(store, closed="w")
        assert not await put(store, entry(7), saw_nothing)

    async def test_refuses_what_was_read_over_an_entry_before_it(self, store: RedisStore) -> None:
        await have(store, entry(7))
        _, saw_an_entry = await look(store)
        await mark(store, opened="w")
        await mark(store, closed="w")
        assert not await put(store, entry(8), saw_an_entry)

    async def test_refuses_what_is_read_during_it(self, store: RedisStore) -> None:
        await mark(store, opened="w")
        _, lease = await look(store)
        assert not await put(store, entry(7), lease)
        await mark(store, closed="w")
        assert not await put(store, entry(7), lease)

    async def test_takes_what_is_read_after_it(self, store: RedisStore) -> None:
        await mark(store, opened="w")
        await mark(store, closed="w")
        assert await put(store, entry(7), (await look(store))[1])

    async def test_is_one_of_several(self, store: RedisStore) -> None:
        await mark(store, opened="v")
        await mark(store, opened="w")
        await mark(store, closed="w")
        assert not await put(store, entry(7), (await look(store))[1])
        await mark(store, closed="v")
        assert await put(store, entry(7), (await look(store))[1])

    async def test_that_never_ended_counts_for_a_time(self, store: RedisStore) -> None:
        await mark(store, opened="w", open_for=0.1)
        _, lease = await look(store)
        assert not await put(store, entry(7), lease)
        while not await put(store, entry(7), lease):
            pass

    async def test_that_never_ended_is_one_of_a_bounded_number(
        self, store: RedisStore, redis: Redis, prefix: str
    ) -> None:
        for number in range(500):
            await mark(store, opened=f"w{number}")
        assert await redis.hlen(f"{prefix}k") < 200
        for number in range(400, 500):
            await mark(store, closed=f"w{number}")
        _, lease = await look(store)
        assert not await put(store, entry(7), lease)

    async def test_of_very_many_is_over_for_a_put_when_the_last_no_longer_counts(
        self, store: RedisStore, redis: Redis, prefix: str
    ) -> None:
        for number in range(150):
            await mark(store, opened=f"w{number}", open_for=0.1)
        _, lease = await look(store)
        while not await put(store, entry(7), lease):
            pass
        assert {*await redis.hkeys(f"{prefix}k")} == {b"kind", b"version", b"stored_at", b"data"}

    async def test_that_never_began_may_end(self, store: RedisStore) -> None:
        await mark(store, closed="w")
        assert await put(store, entry(7), (await look(store))[1])

    async def test_leaves_the_version_of_the_entry_as_a_floor_to_the_last_digit(self, store: RedisStore) -> None:
        await have(store, entry(2**53 + 1))
        await mark(store, opened="w")
        await mark(store, closed="w")
        await mark(store, opened="x")
        await mark(store, closed="x")
        _, lease = await look(store)
        assert not await put(store, entry(2**53), lease)
        assert await put(store, entry(2**53 + 1), lease)

    async def test_is_marked_in_a_redis_that_is_full(self, fragile: RedisServer) -> None:
        async with (
            Redis.from_url(fragile.url) as redis,
            open_redis(SecretStr(fragile.url), cluster=False, patience=5.0) as connections,
        ):
            store = RedisStore(connections.client, "")
            _, saw_nothing = await look(store)
            await redis.config_set("maxmemory", 1)
            with pytest.raises(OutOfMemoryError):
                await redis.set("other", "value")
            await mark(store, opened="w")
            assert not await put(store, entry(7), saw_nothing)
            await mark(store, closed="w")
            assert not await put(store, entry(7), saw_nothing)
            assert await put(store, entry(8), (await look(store))[1])
            await mark(store, opened="x")
            assert (await look(store))[0] is None

    async def test_is_told_to_who_listens(self, store: RedisStore, redis: Redis) -> None:
        async with redis.pubsub() as messages:
            await messages.subscribe(store.channel)
            assert (await messages.get_message(timeout=5))["type"] == "subscribe"
            await store.mark("k", generation="g", ttl=TTL, message=b"hear")
            assert (await messages.get_message(timeout=5))["data"] == b"hear"


class TestWhatUpstreamContradicts:
    async def test_goes_and_what_was_read_before_is_refused(self, store: RedisStore) -> None:
        await have(store, entry(7))
        _, lease = await look(store)
        await store.mark("k", generation="g", ttl=TTL, if_entry=True)
        assert await look(store) == (None, "g")
        assert not await put(store, entry(7), lease)

    async def test_leaves_the_mark_of_a_write_alone(self, store: RedisStore) -> None:
        await mark(store, opened="w")
        before = await look(store)
        await store.mark("k", generation="g", ttl=TTL, if_entry=True)
        assert await look(store) == before
        assert not await put(store, entry(7), before[1])

    async def test_leaves_alone_that_there_is_none(self, store: RedisStore) -> None:
        await have(store, entry(0, data=b""))
        await store.mark("k", generation="g", ttl=TTL, if_entry=True)
        assert (await look(store))[0] == entry(0, data=b"")

    async def test_needs_not_be_there(self, store: RedisStore, redis: Redis, prefix: str) -> None:
        await store.mark("k", generation="g", ttl=TTL, if_entry=True)
        assert not await redis.exists(f"{prefix}k")


async def put_hash(redis: Redis, key: str, fields: dict[str, str]) -> None:
    for name, value in fields.items():
        await redis.hset(key, name, value)


UNREADABLE: list[dict[str, str]] = [
    {"kind": "e"},
    {"kind": "e", "version": "7", "stored_at": "1.0"},
    {"kind": "e", "version": "seven", "stored_at": "1.0", "data": "d"},
    {"kind": "e", "version": "-7", "stored_at": "1.0", "data": "d"},
    {"kind": "e", "version": "9" * 5_000, "stored_at": "1.0", "data": "d"},
    {"kind": "e", "version": "7", "stored_at": "soon", "data": "d"},
    {"kind": "e", "version": "7", "stored_at": "nan", "data": "d"},
    {"kind": "e", "version": "7", "stored_at": "inf", "data": "d"},
    {"kind": "e", "stored_at": "1.0", "data": "d"},
    {"kind": "e", "version": "", "stored_at": "", "data": ""},
    {"kind": "m"},
    {"kind": "m", "generation": "g\u00fc", "floor": "high"},
    {"kind": "m", "generation": "g", "floor": "99999999999999999999", "writer:w": "99999999999999999999"},
    {"kind": "m", "generation": "g", "writer:w": "for ever"},
    {"kind": "?"},
    {"generation": "g"},
]


class TestGarbage:
    @pytest.mark.parametrize("kind", TYPES_OF_GARBAGE)
    async def test_of_any_type_is_nothing_and_gives_way(
        self, store: RedisStore, redis: Redis, prefix: str, kind: str
    ) -> None:
        await put_garbage(redis, f"{prefix}k", kind)
        found, lease = await look(store)
        assert found is None
        assert await put(store, entry(7), lease)
        assert (await look(store))[0] == entry(7)

    @pytest.mark.parametrize("kind", TYPES_OF_GARBAGE)
    async def test_of_any_type_gives_way_to_a_put_and_to_a_mark(
        self, store: RedisStore, redis: Redis, prefix: str, kind: str
    ) -> None:
        _, lease = await look(store)
        await put_garbage(redis, f"{prefix}k", kind)
        assert not await put(store, entry(7), lease)
        await put_garbage(redis, f"{prefix}k", kind)
        await mark(store, opened="w")
        _, lease = await look(store)
        assert not await put(store, entry(7), lease)
        await mark(store, closed="w")
        await put_garbage(redis, f"{prefix}other", kind)
        await store.mark("other", generation="g", ttl=TTL, if_entry=True)
        await have(store, entry(7))
        await have(store, entry(7), "other")

    @pytest.mark.parametrize("fields", UNREADABLE, ids=str)
    async def test_in_the_shape_of_ours_is_nothing_and_gives_way(
        self, store: RedisStore, redis: Redis, prefix: str, fields: dict[str, str]
    ) -> None:
        await put_hash(redis, f"{prefix}k", fields)  # for ever: nothing of ours is
        for _ in range(2):
            found, lease = await look(store)
            assert found is None
            if await put(store, entry(7), lease):
                break
        _, lease = await look(store)
        assert await put(store, entry(8), lease)

    @pytest.mark.parametrize("stored_at", ["1.0", "soon", "nan", "inf"])
    async def test_in_the_shape_of_an_entry_gives_way_to_what_its_reader_puts(
        self, store: RedisStore, redis: Redis, prefix: str, stored_at: str
    ) -> None:
        await put_hash(redis, f"{prefix}k", {"kind": "e", "version": "7", "stored_at": stored_at})
        await redis.expire(f"{prefix}k", 60)
        found, lease = await look(store)
        assert found is None
        assert await put(store, entry(7), lease)

    @pytest.mark.parametrize("fields", UNREADABLE, ids=str)
    async def test_in_the_shape_of_ours_that_expires_fails_nothing(
        self, store: RedisStore, redis: Redis, prefix: str, fields: dict[str, str]
    ) -> None:
        await put_hash(redis, f"{prefix}k", fields)
        await redis.expire(f"{prefix}k", 60)
        found, lease = await look(store)
        assert found is None
        await put(store, entry(7), lease)
        await mark(store, opened="w")
        await mark(store, closed="w")
        await look(store)


async def test_scripts_that_redis_has_forgotten_are_sent_again(store: RedisStore, redis: Redis) -> None:
    for _ in range(2):
        await redis.script_flush()
        _, lease = await look(store)
        await redis.script_flush()
        assert await put(store, entry(7), lease)
        await redis.script_flush()
        await mark(store)
        await redis.flushdb()


async def test_no_key_is_ever_without_an_expiry(store: RedisStore, redis: Redis, prefix: str) -> None:
    async def check() -> None:
        keys = [key async for key in store.keys()]  # noqa: SIM118 - it is no dict
        assert keys
        for key in keys:
            assert 0 < await redis.pttl(key) <= LONG * 1_000

    _, lease = await look(store)
    await check()
    await put(store, entry(7), lease)
    await check()
    await put(store, entry(8), "")
    await check()
    await store.mark("k", generation="g", ttl=TTL, if_entry=True)
    await check()
    await mark(store, opened="w")
    await check()
    await mark(store, closed="w")
    await check()
    await put(store, entry(9), (await look(store))[1])
    await check()
    await redis.persist(f"{prefix}k")
    await put(store, entry(9), (await look(store))[1])
    await look(store)
    await check()


class TestAnOperator:
    async def test_counts_what_there_is(self, store: RedisStore, redis: Redis, prefix: str) -> None:
        await have(store, entry(7), "a")
        await have(store, entry(7), "b")
        await mark(store, "c")
        await look(store, "d")
        await put_garbage(redis, f"{prefix}e", "list")
        stats = await store.stats()
        assert stats.pop("bytes") > 0
        assert stats == {"entries": 2, "marks": 2}

    async def test_clears_what_is_below_the_prefix_and_nothing_else(
        self, store: RedisStore, redis: Redis, prefix: str
    ) -> None:
        """The prefix of each test holds characters that mean something in a pattern."""
        assert set("[]*?\\") <= set(prefix)
        others = {"other", prefix.replace("*", "x"), prefix.replace("?", "x"), "test0x?\\:k", f"x{prefix}k"}
        for key in others:
            await redis.set(key, "kept")
        for number in range(1_200):
            await redis.set(f"{prefix}{number}", "gone")
        await have(store, entry(7))
        await mark(store, "marked")
        assert await store.clear(b"all of them") == 1_202
        assert [key async for key in store.keys()] == []  # noqa: SIM118 - it is no dict
        assert await store.stats() == {"entries": 0, "marks": 0, "bytes": 0}
        for key in others:
            assert await redis.get(key) == b"kept"
            await redis.delete(key)


PASSWORD = "hush-hush@:/%"
QUOTED = "hush-hush%40%3A%2F%25"


@pytest.fixture(scope="module")
def guarded(redis_program: str) -> Iterator[RedisServer]:
    with running(redis_program, "--requirepass", PASSWORD) as server:
        yield server


@asynccontextmanager
async def opened_at(url: str) -> AsyncIterator[RedisStore]:
    async with open_redis(SecretStr(url), cluster=False, patience=5.0) as connections:
        yield RedisStore(connections.client, "p:")


class TestAnAddress:
    @pytest.mark.parametrize("scheme", ["redis", "valkey"])
    @pytest.mark.parametrize("user", ["", "default"])
    async def test_may_hold_a_user_and_a_password(self, guarded: RedisServer, scheme: str, user: str) -> None:
        async with opened_at(f"{scheme}://{user}:{QUOTED}@127.0.0.1:{guarded.port}/0") as store:
            await have(store, entry(7))
            assert (await look(store))[0] == entry(7)
            await store.clear(b"all of them")

    @pytest.mark.parametrize("scheme", ["rediss", "valkeys"])
    async def test_may_ask_for_tls(self, server: RedisServer, scheme: str) -> None:
        async with open_redis(SecretStr(f"{scheme}://127.0.0.1:{server.port}"), cluster=False, patience=0.2) as opened:
            assert "SSLConnection" in repr(opened.client)
            with pytest.raises((RedisError, OSError)):
                await opened.client.ping()

    @pytest.mark.parametrize(
        "url",
        [
            "redis://:hush-hush@127.0.0.1:{port}",
            "valkey://default:hush-hush@127.0.0.1:{port}/0",
            "redis://hush-user:hush-hush@127.0.0.1:{port}",
            "redis://:hush-hush@127.0.0.1:{nobody}",
        ],
    )
    async def test_shows_its_password_to_nobody(
        self, guarded: RedisServer, url: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        address = SecretStr(url.format(port=guarded.port, nobody=free_port()))
        with structlog.testing.capture_logs() as logs:
            async with open_redis(address, cluster=False, patience=1.0) as connections:
                store = RedisStore(connections.client, "p:")
                with pytest.raises((RedisError, OSError)) as caught:
                    await look(store)
                told = [*traceback.format_exception(caught.value), repr(caught.value), repr(caught.value.args)]
                told += [repr(connections), repr(store), repr(store._cache), repr(connections.client), repr(address)]
        assert "hush-hush" not in "".join(told)
        assert "hush-hush" not in caplog.text
        assert "hush-hush" not in repr(logs)

    async def test_is_dialled_again_when_what_answers_there_has_become_a_replica(self, fragile: RedisServer) -> None:
        async with open_redis(SecretStr(fragile.url), cluster=False, patience=5.0) as connections:
            before = await connections.client.client_id()
            store = RedisStore(connections.client, "")
            await store.probe()
            assert await connections.client.client_id() == before
            await connections.client.replicaof("127.0.0.1", free_port())
            with pytest.raises(ReadOnlyError):
                await store.probe()
            assert await connections.client.client_id() != before

    async def test_is_used_only_when_something_is_asked(self) -> None:
        async with opened_at(f"redis://127.0.0.1:{free_port()}"):
            pass


async def test_it_is_an_aiocache_cache(store: RedisStore) -> None:
    assert isinstance(store._cache, BaseCache)


class TestACluster:
    @pytest.fixture
    def nodes(self, redis_program: str) -> Iterator[tuple[RedisServer, ...]]:
        options = ["--cluster-enabled", "yes", "--requirepass", PASSWORD, "--masterauth", PASSWORD]
        with (
            running(redis_program, *options) as one,
            running(redis_program, *options) as two,
            running(redis_program, *options) as three,
        ):
            yield (one, two, three)

    async def test_with_a_password_does_all_the_same(self, nodes: tuple[RedisServer, ...]) -> None:
        await joined(nodes)
        address = SecretStr(f"valkey://:{QUOTED}@127.0.0.1:{nodes[0].port}")
        async with open_redis(address, cluster=True, patience=5.0) as connections:
            assert PASSWORD not in repr(connections)
            store = RedisStore(connections.client, "p:")
            keys = [f"k{number}" for number in range(20)]
            async with connections.listener.pubsub() as messages:
                await messages.subscribe(store.channel)
                await messages.get_message(timeout=5)
                for key in keys:  # on all of the nodes
                    await have(store, entry(7), key)
                    await store.mark(key, generation="g", ttl=TTL, message=key.encode())
                    assert not await put(store, entry(6), "g", key)
                    await have(store, entry(8), key)
                told = [await messages.get_message(timeout=5) for _ in keys]
            assert sorted(each["data"].decode() for each in told) == sorted(keys)
            assert {(await look(store, key))[0] for key in keys} == {entry(8)}
            assert (await store.stats())["entries"] == 20
            assert await store.clear(b"all of them") == 20

    async def test_that_hands_a_slot_over_does_all_the_same(self, nodes: tuple[RedisServer, ...]) -> None:
        await joined(nodes)
        slot = key_slot(b"p:k")
        async with AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(Redis(port=node.port, password=PASSWORD, decode_responses=True))
                for node in nodes
            ]
            source, target = clients[slot // 5_461], clients[slot // 5_461 - 1]
            names = [await client.execute_command("CLUSTER", "MYID") for client in (source, target)]  # type: ignore[no-untyped-call]
            address = SecretStr(f"redis://:{QUOTED}@127.0.0.1:{nodes[0].port}")
            store = RedisStore((await stack.enter_async_context(open_redis(address, cluster=True))).client, "p:")
            await have(store, entry(7))
            await target.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", names[0])  # type: ignore[no-untyped-call]
            await source.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", names[1])  # type: ignore[no-untyped-call]

            await mark(store, opened="w")
            assert not await put(store, entry(7), (await look(store))[1])
            await mark(store, closed="w")
            assert await put(store, entry(8), (await look(store))[1])
            assert await put(store, entry(9), "")
            assert (await look(store))[0] == entry(9)
            for number in range(150):
                await mark(store, opened=f"w{number}")
            assert not await put(store, entry(9), (await look(store))[1])
            assert await source.exists("p:k")


READY = re.compile(r"cluster_state\W+ok\b")


async def joined(nodes: tuple[RedisServer, ...]) -> None:
    """Make one cluster of the nodes, each with a third of the slots."""
    clients = [Redis(port=node.port, password=PASSWORD) for node in nodes]
    try:
        bounds = [0, 5_461, 10_922, 16_384]
        for number, client in enumerate(clients):
            await client.execute_command("CLUSTER", "ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)  # type: ignore[no-untyped-call]
            await client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)  # type: ignore[no-untyped-call]
        for node in nodes[1:]:
            await clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", node.port)  # type: ignore[no-untyped-call]
        async with asyncio.timeout(20):
            while not all([READY.search(str(await client.cluster("INFO"))) for client in clients]):
                pass
    finally:
        for client in clients:
            await client.aclose()
