"""The shared cache when Redis is down, slow or wrong: no operation fails, none takes long, and no write is forgotten.

Wall clock is bounded generously, at four times the budget: the machine may be busy, and what is to be caught is a
client's own time-out of seconds, not a millisecond too many.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from cache.cache_stage import Clock, Recorder, context_of, settled
from cache.redis_server import TYPES_OF_GARBAGE, RedisServer, free_port, put_garbage
from pydantic import SecretStr
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from gateway.cache.entry import Entry
from gateway.cache.marks import Generation, Marks
from gateway.cache.shared import Looked, SharedCache
from gateway.cache.tiers import TieredCache
from gateway.stores import StoredEntry
from gateway.stores.redis import RedisStore, open_redis
from waiting import LoopClock, eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable


BUDGET = 0.1
TTL = 60.0
ENTRY = StoredEntry(7, 1_000.0, b"data")


class Flaky(RedisStore):
    """A store that cannot do it when told so, and can be held up on its way to Redis."""

    down = False
    gets = 0
    held_get: asyncio.Event | None = None
    held: asyncio.Event | None = None
    arrived = asyncio.Event()
    marks = 0

    async def get(self, key: str, **arguments: Any) -> tuple[StoredEntry | None, str]:
        self.gets += 1
        found = await super().get(key, **arguments)
        if self.held_get is not None:
            self.arrived.set()
            await self.held_get.wait()
        return found

    async def mark(self, key: str, **arguments: Any) -> None:
        self.marks += 1
        if self.down:
            raise RedisConnectionError("down")
        if self.held is not None:
            self.arrived.set()
            await self.held.wait()
        await super().mark(key, **arguments)


@asynccontextmanager
async def sharing(  # noqa: PLR0917
    url: str,
    prefix: str = "p:",
    observer: Recorder | None = None,
    budget: float = BUDGET,
    max_owed: int = 10_000,
    clock: Callable[[], float] = time.monotonic,
    cluster: bool = False,
) -> AsyncIterator[tuple[SharedCache, Flaky]]:
    async with open_redis(SecretStr(url), cluster=cluster, patience=1.0) as connections:
        store = Flaky(connections.client, prefix)
        store.arrived = asyncio.Event()
        async with SharedCache(
            store,
            observer or Recorder(),
            budget=budget,
            mark_lifetime=TTL,
            open_for=30.0,
            lease_lifetime=20.0,
            max_owed=max_owed,
            clock=clock,
        ) as shared:
            yield shared, store


AT_FIRST = Generation(0)


async def look(shared: SharedCache, key: str = "k") -> tuple[StoredEntry | None, str | None]:
    looked = await shared.get(key, AT_FIRST)
    return looked.entry, looked.lease


async def each_operation(shared: SharedCache, key: str = "k") -> list[float]:
    """Do everything once; returns how long each took."""

    async def timed(operation: Awaitable[object]) -> float:
        began = clock.now()
        await operation
        return clock.now() - began

    async with LoopClock() as clock:
        return [
            await timed(look(shared, key)),
            await timed(shared.put(key, ENTRY, "", ttl=TTL)),
            await timed(shared.forget(key)),
            await timed(shared.open(key)),
            await timed(shared.close(key, "w")),
        ]


async def keep(shared: SharedCache, entry: StoredEntry, key: str = "k") -> None:
    _, lease = await look(shared, key)
    assert lease is not None
    assert await shared.put(key, entry, lease, ttl=TTL)


async def test_all_is_well_while_redis_is(server: RedisServer, prefix: str) -> None:
    observer = Recorder()
    async with sharing(server.url, prefix, observer, budget=5) as (shared, _):
        await keep(shared, ENTRY)
        assert (await look(shared))[0] == ENTRY
        writer = await shared.open("k")
        found, lease = await look(shared)
        assert found is None
        assert lease is not None
        assert not await shared.put("k", ENTRY, lease, ttl=TTL)
        await shared.close("k", writer)
        found, lease = await look(shared)
        assert lease is not None
        assert not await shared.put("k", StoredEntry(6, 1_000.0, b"data"), lease, ttl=TTL)
        assert await shared.put("k", StoredEntry(8, 1_000.0, b"data"), lease, ttl=TTL)
        await shared.forget("k")
        assert (await look(shared))[0] is None
    assert observer.failures == []


class TestWhileInUse:
    """Every operation again and again, each after the rest that a failure brings, while Redis is ill-treated."""

    @pytest.mark.parametrize("frozen", [False, True], ids=["killed", "frozen"])
    async def test_redis_is_gone_and_no_operation_fails_or_takes_long(self, fragile: RedisServer, frozen: bool) -> None:
        clock, observer = Clock(0.0), Recorder()
        async with sharing(fragile.url, observer=observer, clock=clock) as (shared, _):
            await each_operation(shared)
            assert observer.failures == []
            (fragile.freeze if frozen else fragile.kill)()
            for number in range(3):
                clock.advance(1)
                times = await each_operation(shared, f"k{number}")
                assert max(times) < 4 * BUDGET
            assert len(observer.failures) == 3
            (fragile.thaw if frozen else fragile.start)()
            await keep_until_kept(shared, clock)
            await eventually(lambda: not shared._owed)

    async def test_redis_restarts_empty_and_no_operation_fails(self, fragile: RedisServer) -> None:
        clock = Clock(0.0)
        async with sharing(fragile.url, clock=clock) as (shared, _):
            await keep(shared, ENTRY)
            fragile.restart_empty()
            assert max(await each_operation(shared)) < 4 * BUDGET
            await keep_until_kept(shared, clock)

    @pytest.mark.parametrize("kind", TYPES_OF_GARBAGE)
    async def test_garbage_is_at_the_key_and_no_operation_fails(
        self, server: RedisServer, redis: Redis, prefix: str, kind: str
    ) -> None:
        observer = Recorder()
        async with sharing(server.url, prefix, observer, budget=5) as (shared, _):
            operations: list[Callable[[], Awaitable[object]]] = [
                lambda: look(shared),
                lambda: shared.put("k", ENTRY, "", ttl=TTL),
                lambda: shared.forget("k"),
                lambda: shared.open("k"),
                lambda: shared.close("k", "w"),
            ]
            for operation in operations:
                await put_garbage(redis, f"{prefix}k", kind)
                await operation()
        assert observer.failures == []

    async def test_answers_that_came_too_late_are_nobodys(self, fragile: RedisServer) -> None:
        """What was given up leaves its answer on the way; the next to use that connection must not get it."""
        clock = Clock(0.0)
        async with sharing(fragile.url, clock=clock) as (shared, _):
            entries = {f"k{number}": StoredEntry(number, 1_000.0, b"%d" % number) for number in range(50)}
            for key, entry in entries.items():
                await keep(shared, entry, key)
            fragile.freeze()
            found = await asyncio.gather(*(look(shared, key) for key in entries))
            assert {entry for entry, _ in found} == {None}
            fragile.thaw()
            clock.advance(1)
            async with asyncio.timeout(30):
                while [entry for entry, _ in found] != list(entries.values()):
                    found = await asyncio.gather(*(look(shared, key) for key in entries))
                    for (got, _), expected in zip(found, entries.values(), strict=True):
                        assert got in {None, expected}
                    clock.advance(1)


async def keep_until_kept(shared: SharedCache, clock: Clock) -> None:
    async with asyncio.timeout(10):
        while True:
            _, lease = await look(shared, "new")
            if lease is not None and await shared.put("new", ENTRY, lease, ttl=TTL):
                break
            clock.advance(1)
    assert (await look(shared, "new"))[0] == ENTRY


class Impostor:
    """Something else at Redis's address: says the same whatever it hears."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self.connections = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while await reader.read(65_536):
                if not self._answer:
                    continue
                writer.write(self._answer)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def impostor(answer: bytes) -> AsyncIterator[tuple[Impostor, str]]:
    handler = Impostor(answer)
    listener = await asyncio.start_server(handler, "127.0.0.1", 0)
    async with listener:
        yield handler, f"redis://127.0.0.1:{listener.sockets[0].getsockname()[1]}"


ODD_ANSWERS = [
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
    b"+OK\r\n",
    b":1\r\n",
    b":1\r\n" * 20,
    b"$-1\r\n",
    b"_\r\n",
    b"$5\r\nhello\r\n",
    b"*0\r\n",
    b"*1\r\n$5\r\nhello\r\n",
    b"%1\r\n$5\r\nproto\r\n:3\r\n",
    b"-ERR no\r\n",
    b"-NOAUTH no\r\n",
    b"-LOADING soon\r\n",
    b"-READONLY no\r\n",
    b"-MOVED 1 127.0.0.1:1\r\n",
    b"\x00\xff" * 100,
    b"",
]


class TestSomethingThatIsNotRedis:
    @pytest.mark.parametrize("cluster", [False, True], ids=["one", "cluster"])
    async def test_fails_no_operation(self, cluster: bool) -> None:
        async def use(answer: bytes) -> None:
            clock, observer = Clock(0.0), Recorder()
            async with (
                impostor(answer) as (_, url),
                sharing(url, observer=observer, clock=clock, cluster=cluster) as (shared, _),
            ):
                times = await each_operation(shared)
                clock.advance(1)
                times += await each_operation(shared)
                assert max(times) < 4 * BUDGET
                assert await look(shared) == (None, None)
            assert observer.failures, answer

        for answer in ODD_ANSWERS:
            await use(answer)

    async def test_is_nothing_at_all_in_a_cluster(self) -> None:
        clock = Clock(0.0)
        async with sharing(f"redis://127.0.0.1:{free_port()}", clock=clock, cluster=True) as (shared, _):
            assert max(await each_operation(shared)) < 4 * BUDGET


class TestAfterAFailure:
    async def test_redis_is_left_alone_for_a_second(self) -> None:
        clock, observer = Clock(0.0), Recorder()
        async with impostor(b"") as (silent, url), sharing(url, observer=observer, clock=clock) as (shared, _):
            await look(shared)
            for number in range(10):
                await each_operation(shared, f"k{number}")
            clock.advance(0.999)
            await each_operation(shared, "last")
            assert silent.connections == len(observer.failures) == 1
            clock.advance(0.001)
            await each_operation(shared, "new")
            assert silent.connections == len(observer.failures) == 2

    async def test_it_is_logged_once_a_minute_and_counted_always(self) -> None:
        clock, observer, port = Clock(0.0), Recorder(), free_port()
        with structlog.testing.capture_logs() as logs:
            async with sharing(f"redis://:hush@127.0.0.1:{port}", observer=observer, clock=clock) as (shared, _):
                for number in range(61):
                    await each_operation(shared, f"k{number}")
                    clock.advance(1)
        assert len(observer.failures) == 61
        assert [each.operation for each in observer.failures] == ["get"] * 61
        assert [(each["event"], each["log_level"], each["operation"], each["error"]) for each in logs] == [
            ("cache_unavailable", "warning", "get", "ConnectionError")
        ] * 2
        assert all(f"connecting to 127.0.0.1:{port}" in each["cause"] for each in logs)
        assert "hush" not in str(logs)

    async def test_what_a_server_says_is_not_logged(self, fragile: RedisServer) -> None:
        """It may hold what is stored. The kind says what to do."""
        async with sharing(fragile.url, budget=5.0) as (shared, _):
            with structlog.testing.capture_logs() as logs:
                async with Redis.from_url(fragile.url) as redis:
                    await redis.replicaof("127.0.0.1", free_port())
                assert not await shared.usable()
        assert logs == [
            {"event": "cache_unavailable", "log_level": "warning", "operation": "probe", "error": "ReadOnlyError"}
        ]

    async def test_many_at_a_time_are_logged_once(self) -> None:
        with structlog.testing.capture_logs() as logs:
            async with sharing(f"redis://127.0.0.1:{free_port()}") as (shared, _):
                await asyncio.gather(*(look(shared, f"k{number}") for number in range(100)))
        assert len(logs) == 1


class TestAMarkThatCouldNotBeSet:
    async def test_is_set_when_redis_is_back(self, server: RedisServer, prefix: str) -> None:
        clock = Clock(0.0)
        async with (
            sharing(server.url, prefix, budget=5, clock=clock) as (one, store),
            sharing(server.url, prefix, budget=5) as (two, _),
        ):
            await keep(two, ENTRY)
            _, lease = await look(two)
            store.down = True
            await one.close("k", await one.open("k"))
            assert await look(one) == (None, None)
            assert (await look(two))[0] == ENTRY
            store.down = False
            assert await look(one) == (None, None)
            clock.advance(1)
            await look(one, "another")
            await eventually(lambda: not one._owed)
            assert (await look(two))[0] is None
            assert lease is not None
            assert not await two.put("k", StoredEntry(10, 2_000.0, b""), lease, ttl=TTL)
            _, lease = await look(two)
            assert lease is not None
            assert not await two.put("k", StoredEntry(6, 2_000.0, b""), lease, ttl=TTL)

    async def test_is_set_though_nobody_asks_for_anything_else(self, server: RedisServer, prefix: str) -> None:
        clock = Clock(0.0)
        async with sharing(server.url, prefix, budget=5, clock=clock) as (shared, store):
            store.down = True
            await shared.open("k")
            store.down = False
            clock.advance(1)
            assert await look(shared) == (None, None)
            await eventually(lambda: not shared._owed)
            assert (await look(shared))[1] is not None

    async def test_is_owed_for_the_end_of_a_write_too(self, server: RedisServer, prefix: str) -> None:
        """What tells of its beginning may have been lost, or be too old, by the time that it ends."""
        clock = Clock(0.0)
        async with sharing(server.url, prefix, budget=5, clock=clock) as (shared, store):
            writer = await shared.open("k")
            store.down = True
            await shared.close("k", writer)
            store.down = False
            clock.advance(1)
            assert await look(shared) == (None, None)
            await eventually(lambda: not shared._owed)
            assert (await look(shared))[1] is not None

    async def test_keeps_its_session_out_of_use_until_it_is_set(self, server: RedisServer, prefix: str) -> None:
        """Its being set has begun, but another connection may be faster."""
        clock = Clock(0.0)
        async with sharing(server.url, prefix, budget=5, clock=clock) as (shared, store):
            await keep(shared, ENTRY)
            store.down = True
            await shared.close("k", await shared.open("k"))
            store.down, store.held = False, asyncio.Event()
            clock.advance(1)
            await look(shared, "another")
            await store.arrived.wait()
            assert await look(shared) == (None, None)
            store.held.set()
            await eventually(lambda: not shared._owed)
            assert (await look(shared))[0] is None

    async def test_is_owed_again_when_a_later_one_fails_while_it_is_set(self, server: RedisServer, prefix: str) -> None:
        clock = Clock(0.0)
        async with sharing(server.url, prefix, budget=5, clock=clock) as (shared, store):
            store.down = True
            await shared.open("k")
            store.down, store.held = False, asyncio.Event()
            clock.advance(1)
            await look(shared, "another")
            await store.arrived.wait()
            store.down = True
            await shared.open("k")
            store.held.set()
            await settled()
            assert await look(shared) == (None, None)
            await eventually(lambda: shared._settling is None or shared._settling.done())
            assert "k" in shared._owed
            store.down, store.held = False, None
            clock.advance(1)
            await look(shared)
            await eventually(lambda: not shared._owed)

    async def test_is_tried_once_a_rest_and_not_more(self, server: RedisServer, prefix: str) -> None:
        clock = Clock(0.0)
        async with sharing(server.url, prefix, budget=5, clock=clock) as (shared, store):
            store.down = True
            for number in range(20):
                await shared.open(f"k{number}")
            assert store.marks == 1
            clock.advance(1)
            await look(shared, "another")
            await eventually(lambda: store.marks == 2)
            await settled()
            await look(shared, "another")
            await settled()
            assert store.marks == 2
            assert len(shared._owed) == 20

    @pytest.mark.parametrize("ahead", [-1, 3_600], ids=["", "by a machine whose clock is ahead"])
    async def test_of_too_many_leaves_nothing_trusted_that_was_kept_until_then(
        self, server: RedisServer, prefix: str, ahead: float
    ) -> None:
        clock = Clock(0.0)
        async with sharing(server.url, prefix, budget=5, clock=clock, max_owed=2) as (shared, store):
            _, lease = await look(shared)
            assert lease is not None
            old = StoredEntry(7, time.time() + ahead, b"old")
            assert await shared.put("k", old, lease, ttl=TTL - 30)  # which is what is left of one that old
            store.down = True
            for number in range(3):
                await shared.open(f"k{number}")
            assert len(shared._owed) <= 2
            clock.advance(20)
            found, lease = await look(shared)
            assert found is None
            assert lease is not None
            new = StoredEntry(8, time.time() - ahead, b"new")
            assert await shared.put("k", new, lease, ttl=TTL)
            assert (await look(shared))[0] == new

    async def test_keeps_its_session_out_of_redis_too_for_reads_that_began_before(
        self, server: RedisServer, prefix: str
    ) -> None:
        """Redis knows nothing of the write, and would take what was read before it."""
        clock = Clock(0.0)
        async with sharing(server.url, prefix, budget=5, clock=clock) as (shared, store):
            marks = Marks(clock, lifetime=TTL, open_for=30)
            tiers = TieredCache(marks, Recorder(), TTL, shared=shared)
            _, ticket = await tiers.look("k")
            entry = Entry(context_of("k", 7), time.time(), ticket.local)
            store.down = True
            await tiers.close("k", await tiers.open("k"))
            store.down = False
            clock.advance(1)
            assert not await tiers.keep("k", entry, ticket)
            assert (await store.get("k", lease="x", ttl=TTL))[0] is None


class TestManyWhoLook:
    async def test_look_once_and_are_told_as_of_when(self, server: RedisServer, prefix: str) -> None:
        async with sharing(server.url, prefix, budget=5) as (shared, store):
            store.held_get = asyncio.Event()
            first = asyncio.create_task(shared.get("k", Generation(1)))
            await store.arrived.wait()
            others = [asyncio.create_task(shared.get("k", Generation(2))) for _ in range(100)]
            await settled()
            first.cancel()
            await settled()
            store.held_get.set()
            assert {each.as_of for each in await asyncio.gather(*others)} == {1}
            assert store.gets == 1
            assert (await shared.get("k", Generation(3))).as_of == 3

    async def test_do_not_wait_for_one_who_looks_for_what_is_owed(self, server: RedisServer, prefix: str) -> None:
        async with sharing(server.url, prefix, budget=5) as (shared, store):
            store.held_get = asyncio.Event()
            early = asyncio.create_task(shared.get("k", Generation(1)))
            await store.arrived.wait()
            store.down = True
            await shared.open("k")
            assert await shared.get("k", Generation(2)) == Looked(None, None, Generation(2))
            store.held_get.set()
            await early


class TestLeaving:
    async def test_leaves_no_task_behind_while_a_mark_is_being_set(self, server: RedisServer, prefix: str) -> None:
        before = asyncio.all_tasks()
        clock = Clock(0.0)
        async with sharing(server.url, prefix, budget=5, clock=clock) as (shared, store):
            store.down = True
            await shared.open("k")
            store.down, store.held = False, asyncio.Event()
            clock.advance(1)
            await look(shared, "another")
            await store.arrived.wait()
        assert asyncio.all_tasks() <= before

    async def test_leaves_no_task_behind_while_an_entry_is_looked_for(self, server: RedisServer, prefix: str) -> None:
        before = asyncio.all_tasks()
        async with sharing(server.url, prefix, budget=5) as (shared, store):
            store.held_get = asyncio.Event()
            looking = asyncio.create_task(look(shared))
            await store.arrived.wait()
        await asyncio.wait([looking], timeout=3)
        assert asyncio.all_tasks() <= before

    async def test_passes_the_error_on_that_was_the_cause(self, server: RedisServer) -> None:
        async def fail() -> None:
            async with sharing(server.url):
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fail()


async def test_a_connection_that_takes_long_to_make_does_not_leave_redis_alone(
    server: RedisServer, prefix: str
) -> None:
    class Far(RedisStore):
        async def probe(self) -> bool:
            await asyncio.sleep(3 * BUDGET)
            return await super().probe()

    async with open_redis(SecretStr(server.url), cluster=False, patience=1.0) as connections:
        store = Far(connections.client, prefix)
        make = partial(
            SharedCache, store, Recorder(), budget=BUDGET, mark_lifetime=TTL, open_for=30.0, lease_lifetime=20.0
        )
        async with make() as shared:
            assert not await shared.usable()
            assert (await look(shared))[1] is None
        async with make() as shared:
            await shared.connect(30.0)
            assert (await look(shared))[1] is not None


@pytest.mark.parametrize("cluster", [False, True])
async def test_a_connection_that_cannot_be_made_is_no_failure(cluster: bool) -> None:
    async with sharing(f"redis://127.0.0.1:{free_port()}", cluster=cluster) as (shared, _):
        await shared.connect(30.0)
        assert not await shared.usable()


async def test_a_replica_which_answers_and_takes_no_writes_is_not_usable(fragile: RedisServer) -> None:
    clock = Clock(0.0)
    async with Redis.from_url(fragile.url) as redis, sharing(fragile.url, budget=5, clock=clock) as (shared, _):
        assert await shared.usable()
        await redis.replicaof("127.0.0.1", free_port())
        for _ in range(3):
            assert await redis.ping()
            assert not await shared.usable()
            clock.advance(1)
        await redis.replicaof("NO", "ONE")
        assert await shared.usable()


@pytest.mark.parametrize("channels", ["resetchannels", "&*"])
async def test_redis_is_not_usable_by_a_user_who_may_not_tell_of_writes(fragile: RedisServer, channels: str) -> None:
    async with Redis.from_url(fragile.url) as redis:
        await redis.execute_command("ACL", "SETUSER", "gateway", "on", ">secret", "~*", "+@all", channels)  # type: ignore[no-untyped-call]
    async with sharing(fragile.url.replace("//", "//gateway:secret@"), budget=5) as (shared, _):
        assert await shared.usable() == (channels == "&*")


async def test_no_two_names_are_the_same(server: RedisServer) -> None:
    async with sharing(server.url) as (one, _), sharing(server.url) as (two, _):
        names = [each._name() for each in (one, two, one, two)]
    assert len(set(names)) == 4
