"""Memory in front of Redis, kept in step with what other processes write; not used when it cannot be."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import pytest
import structlog
from cache.cache_stage import SOON, Clock, Process, Upstream, heard_all, in_step, opened, process, settled
from cache.redis_server import RedisServer, free_port, running
from cache.test_shared import ODD_ANSWERS, impostor
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from gateway.cache.contexts import session_key
from gateway.cache.freshness import FRESH_ENOUGH
from gateway.cache.invalidation import Invalidations
from gateway.cache.marks import Marks
from gateway.cache.shared import message_of, parse_message
from gateway.stores.redis import open_redis
from waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from typing import Self

    from gateway.cache.entry import Entry
    from gateway.stores import StoredEntry

KEY = session_key("acme", "s")


async def read(gateway: Process, session_id: str = "s") -> int:
    found = await gateway.client.session("acme", session_id).get(FRESH_ENOUGH, SOON)
    return found.context.metadata.version


async def write(gateway: Process, session_id: str = "s") -> None:
    await gateway.client.session("acme", session_id).write(b"{}", SOON)


async def remembered(gateway: Process) -> Entry:
    entry = await gateway.memory.get(KEY)
    assert entry is not None
    return entry


class TestAWriteByOneProcess:
    async def test_reaches_the_memory_of_the_other_long_before_it_would_have_to(
        self, server: RedisServer, redis: Redis, prefix: str
    ) -> None:
        upstream = Upstream()
        upstream.have("s", 1)
        async with (
            process(upstream, redis=server, prefix=prefix, max_silence=60) as one,
            process(upstream, redis=server, prefix=prefix, max_silence=60) as two,
        ):
            assert await read(two) == 1
            entry = await remembered(two)
            assert two.tiers.good(KEY, entry)
            await write(one)
            await eventually(lambda: not two.tiers.good(KEY, entry))
            await heard_all(redis, two)
            assert await read(two) == 2
            assert await read(one) == 2
        assert len(upstream.reads) == 2

    async def test_is_heard_of_before_it_is_sent(self, server: RedisServer, prefix: str) -> None:
        upstream = Upstream()
        upstream.have("s", 1)
        async with (
            process(upstream, redis=server, prefix=prefix) as one,
            process(upstream, redis=server, prefix=prefix) as two,
        ):
            assert await read(two) == 1
            entry = await remembered(two)
            held = upstream.hold_write()
            writing = asyncio.create_task(write(one))
            await held.arrived.wait()
            await eventually(lambda: not two.tiers.good(KEY, entry))
            assert await read(two) == 1
            held.go.set()
            await writing
            assert await read(one) == 2

    async def test_is_not_news_to_itself(self, server: RedisServer, redis: Redis, prefix: str) -> None:
        """Its own messages arrive after it has read anew, and must not take that away again."""
        upstream = Upstream()
        upstream.have("s", 1)
        async with process(upstream, redis=server, prefix=prefix) as one:
            await write(one)
            assert await read(one) == 2
            entry = await remembered(one)
            await heard_all(redis, one)
            assert one.tiers.good(KEY, entry)

    async def test_is_heard_of_by_what_holds_own_sessions_too(self, server: RedisServer, prefix: str) -> None:
        upstream = Upstream(tokens={"token": "s"})
        upstream.have("s", 1)
        async with (
            process(upstream, redis=server, prefix=prefix, memory=False) as one,
            process(upstream, redis=server, prefix=prefix, memory=False) as two,
        ):
            own = two.client.own_session("acme", SecretStr("token"))
            assert (await own.get(FRESH_ENOUGH, SOON)).context.metadata.version == 1
            assert (await own.get(FRESH_ENOUGH, SOON)).status.hit
            generation = two.marks.generation()
            await write(one)
            await eventually(lambda: not two.marks.allows(KEY, generation))
            assert (await own.get(FRESH_ENOUGH, SOON)).context.metadata.version == 2


@pytest.mark.parametrize("memory", [False, True], ids=["redis", "two tiers"])
async def test_what_redis_said_before_a_write_that_was_heard_of_is_not_used(
    server: RedisServer, redis: Redis, prefix: str, monkeypatch: pytest.MonkeyPatch, memory: bool
) -> None:
    upstream = Upstream()
    upstream.have("s", 1)
    async with (
        process(upstream, redis=server, prefix=prefix, memory=memory) as one,
        process(upstream, redis=server, prefix=prefix, memory=memory) as two,
    ):
        assert await read(one) == 1
        assert two.store is not None
        said, go_on, ask = asyncio.Event(), asyncio.Event(), two.store.get

        async def ask_and_wait(key: str, *, lease: str, ttl: float) -> tuple[StoredEntry | None, str]:
            answer = await ask(key, lease=lease, ttl=ttl)
            said.set()
            await go_on.wait()
            return answer

        monkeypatch.setattr(two.store, "get", ask_and_wait)
        early = asyncio.create_task(read(two))
        await said.wait()
        await write(one)
        await heard_all(redis, two)
        late = asyncio.create_task(read(two))
        await settled()
        go_on.set()
        assert (await early, await late) == (2, 2)
        assert await read(two) == 2


class TestWhenTheConnectionIsLost:
    @pytest.mark.parametrize("frozen", [False, True], ids=["killed", "frozen"])
    async def test_memory_is_not_used_after_so_much_silence(self, fragile: RedisServer, frozen: bool) -> None:
        """A connection that breaks says so at once."""
        upstream, clock = Upstream(), Clock(0.0)
        upstream.have("s", 1)
        async with process(
            upstream, redis=fragile, budget=0.5, patience=1, max_silence=60, silence_clock=clock
        ) as gateway:
            assert gateway.invalidations is not None
            assert await read(gateway) == 1
            upstream.have("s", 2)
            assert await read(gateway) == 1
            (fragile.freeze if frozen else fragile.kill)()
            if frozen:
                clock.advance(60)
            invalidations = gateway.invalidations
            await eventually(lambda: not invalidations.in_step)
            assert await read(gateway) == 2
            assert await read(gateway) == 2
            assert len(upstream.reads) == 3

    async def test_what_was_read_before_is_forgotten_when_it_is_back(self, server: RedisServer, prefix: str) -> None:
        upstream = Upstream()
        upstream.have("s", 1)
        async with (
            process(upstream, redis=server, prefix=prefix) as gateway,
            Redis.from_url(server.url) as other,
        ):
            assert gateway.invalidations is not None
            assert await read(gateway) == 1
            entry = await remembered(gateway)
            await heard_all(other, gateway)
            assert gateway.tiers.good(KEY, entry)
            await other.execute_command("CLIENT", "KILL", "TYPE", "pubsub")  # type: ignore[no-untyped-call]
            await eventually(lambda: not gateway.tiers.good(KEY, entry))
            await in_step(gateway.invalidations)
            assert await read(gateway) == 1
            entry = await remembered(gateway)
            await heard_all(other, gateway)
            assert gateway.tiers.good(KEY, entry)

    async def test_a_write_that_was_not_heard_of_is_seen_when_it_is_back(self, fragile: RedisServer) -> None:
        upstream = Upstream()
        upstream.have("s", 1)
        async with process(upstream, redis=fragile, budget=0.05, patience=1, max_silence=1.0) as gateway:
            assert gateway.invalidations is not None
            invalidations = gateway.invalidations
            assert await read(gateway) == 1
            fragile.kill()
            await eventually(lambda: not invalidations.in_step)
            upstream.have("s", 2)
            fragile.start()
            await in_step(invalidations)
            assert await read(gateway) == 2

    async def test_it_is_logged_once_a_minute_however_often_it_is_tried(self) -> None:
        listener = Scripted(fails=True)
        with structlog.testing.capture_logs() as logs:
            async with listening(listener):
                await eventually(lambda: listener.opened >= 3)
        error = {"error": "ConnectionError", "cause": "not today"}
        assert logs == [{"event": "cache_invalidations_lost", "log_level": "warning", **error}]

    async def test_its_password_is_in_no_log(self, redis_program: str) -> None:

        with running(redis_program, "--requirepass", "hush") as guarded, structlog.testing.capture_logs() as logs:
            url = SecretStr(f"redis://:hush-hush@127.0.0.1:{guarded.port}")
            async with open_redis(url, cluster=False, patience=1) as connections:
                marks = Marks(time.monotonic, lifetime=60, open_for=30)
                async with Invalidations(connections.listener, "c", marks, "me", max_silence=1):
                    await eventually(lambda: bool(logs))
        assert "hush" not in repr(logs)


class Scripted:
    """A connection that says what it is told to, when it is told to."""

    def __init__(self, *, fails: bool = False) -> None:
        self._fails = fails
        self.said: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.subscribed = asyncio.Event()
        self.pings = 0
        self.opened = 0

    def pubsub(self) -> Scripted:
        self.opened += 1
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def subscribe(self, channel: str) -> None:
        if self._fails:
            raise RedisConnectionError("not today")
        self.subscribed.set()

    async def ping(self, message: str) -> None:
        assert message == "me"
        self.pings += 1

    async def get_message(self, timeout: float) -> dict[str, Any] | None:
        try:
            async with asyncio.timeout(timeout):
                return await self.said.get()
        except TimeoutError:
            return None

    async def say(self, kind: str, data: bytes = b"") -> None:
        await self.said.put({"type": kind, "data": data})
        await eventually(self.said.empty)
        await settled()


@asynccontextmanager
async def listening(
    listener: Scripted, clock: Callable[[], float] = time.monotonic, max_silence: float = 60
) -> AsyncIterator[tuple[Invalidations, Marks]]:
    marks = Marks(time.monotonic, lifetime=60, open_for=30)
    async with Invalidations(
        cast("Redis", listener), "c", marks, "me", max_silence=max_silence, clock=clock
    ) as invalidations:
        yield invalidations, marks


class TestListening:
    async def test_counts_from_when_redis_says_so_and_not_from_when_it_was_asked(self) -> None:
        """A read between the two may be outdated by a write that nobody told of."""
        listener = Scripted()
        async with listening(listener) as (_, marks):
            await listener.subscribed.wait()
            await settled()
            generation = marks.generation()
            await listener.say("subscribe")
            assert not marks.allows("k", generation)
            assert marks.allows("k", marks.generation())

    async def test_is_in_step_once_its_own_pong_is_there(self) -> None:
        listener = Scripted()
        async with listening(listener) as (invalidations, _):
            assert not invalidations.in_step
            await listener.subscribed.wait()
            await listener.say("subscribe")
            assert not invalidations.in_step
            await listener.say("pong", b"you")
            assert not invalidations.in_step
            await listener.say("pong", b"me")
            assert invalidations.in_step

    async def test_is_in_step_as_of_the_ping_and_not_of_the_pong(self) -> None:
        """What was said between the two comes after the pong."""
        listener = Scripted()
        clock = Clock(0.0)
        async with listening(listener, clock) as (invalidations, _):
            await eventually(lambda: listener.pings == 1)
            await listener.say("subscribe")
            clock.advance(50)
            await listener.say("pong", b"me")
            clock.advance(9.9)
            assert invalidations.in_step
            clock.advance(0.1)
            assert not invalidations.in_step

    async def test_is_in_step_as_of_when_the_ping_began_to_be_sent(self) -> None:
        clock = Clock(0.0)

        class Slow(Scripted):
            async def ping(self, message: str) -> None:
                clock.advance(50)
                await super().ping(message)

        listener = Slow()
        async with listening(listener, clock) as (invalidations, _):
            await eventually(lambda: listener.pings == 1)
            await listener.say("pong", b"me")
            clock.advance(9.9)
            assert invalidations.in_step
            clock.advance(0.1)
            assert not invalidations.in_step

    async def test_does_not_ask_again_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("gateway.cache.invalidation._PING_EVERY", 60.0)
        listener = Scripted()
        async with listening(listener) as (invalidations, _):
            await eventually(lambda: listener.pings == 1)
            await listener.say("pong", b"me")
            assert invalidations.in_step
            assert listener.pings == 1

    async def test_goes_on_by_one_connection_while_it_is_answered(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """However much longer that is than it would wait for one. If the machine stood still, it is tried again."""
        monkeypatch.setattr("gateway.cache.invalidation._PING_EVERY", 0.05)

        async def connections() -> int:
            listener = Scripted()
            until = time.monotonic() + 0.8
            async with listening(listener, max_silence=0.5):
                while time.monotonic() < until:
                    asked = listener.pings
                    await listener.say("pong", b"me")
                    await eventually(lambda: listener.pings > asked)  # noqa: B023 - it is called at once
            return listener.opened

        opened = 0
        for _ in range(5):
            if (opened := await connections()) == 1:
                break
        assert opened == 1

    async def test_asks_again_for_as_long_as_it_is_answered(self) -> None:
        listener = Scripted()
        async with listening(listener) as (invalidations, _):
            await eventually(lambda: listener.pings == 1)
            await listener.say("pong", b"me")
            await eventually(lambda: listener.pings == 2)
            await settled()
            assert listener.pings == 2
            assert invalidations.in_step

    async def test_takes_what_it_hears_before_and_after_a_pong(self) -> None:
        listener = Scripted()
        async with listening(listener) as (_, marks):
            await listener.subscribed.wait()
            await listener.say("subscribe")
            for key in ("before", "after"):
                generation = marks.generation()
                await listener.say("message", message_of("other", key))
                assert not marks.allows(key, generation)
                assert marks.allows(key, marks.generation())
                await listener.say("pong", b"me")

    @pytest.mark.parametrize(
        "message",
        [
            b"",
            b" ",
            b"\xff\xfe",
            b"other",
            b"other ",
            b" k ",
            b"other k k",
            b"other \xd9\xa7",
            b"9" * 5_000,
            b"me k",
        ],
        ids=lambda message: repr(message[:20]),
    )
    async def test_passes_over_what_is_not_for_it(self, server: RedisServer, prefix: str, message: bytes) -> None:
        async with opened(server) as connections:
            marks = Marks(time.monotonic, lifetime=60, open_for=30)
            async with Invalidations(connections.listener, prefix, marks, "me", max_silence=5) as invalidations:
                await in_step(invalidations)
                generation = marks.generation()
                await connections.client.publish(prefix, message)
                await connections.client.publish(prefix, message_of("other", "fence"))
                await eventually(lambda: not marks.allows("fence", generation))
                assert marks.allows("k", generation)
                assert invalidations.in_step

    async def test_to_something_that_is_not_redis_harms_nobody(self) -> None:
        async def listen(answer: bytes) -> None:
            marks = Marks(time.monotonic, lifetime=60, open_for=30)
            async with (
                impostor(answer) as (it, url),
                open_redis(SecretStr(url), cluster=False, patience=0.1) as connections,
                Invalidations(connections.listener, "c", marks, "me", max_silence=0.2) as invalidations,
            ):
                await eventually(lambda: it.connections >= 2)
                assert not invalidations.in_step

        await asyncio.gather(*map(listen, ODD_ANSWERS))

    async def test_to_nobody_is_not_in_step(self) -> None:

        marks = Marks(time.monotonic, lifetime=60, open_for=30)
        url = SecretStr(f"redis://127.0.0.1:{free_port()}")
        with structlog.testing.capture_logs() as logs:
            async with (
                open_redis(url, cluster=False, patience=0.1) as connections,
                Invalidations(connections.listener, "c", marks, "me", max_silence=0.2) as invalidations,
            ):
                await eventually(lambda: bool(logs))
                assert not invalidations.in_step


class TestLeaving:
    async def test_is_possible_at_any_moment(self, server: RedisServer) -> None:
        """The client has moments in which it loses a cancellation, if it is told of a time-out for its answers."""
        before = asyncio.all_tasks()
        async with asyncio.timeout(20), impostor(b":1\r\n") as (_, other):
            for url in (server.url, other):
                for steps in range(60):
                    async with open_redis(SecretStr(url), cluster=False, patience=1) as connections:
                        marks = Marks(time.monotonic, lifetime=60, open_for=30)
                        async with Invalidations(connections.listener, "c", marks, "me", max_silence=60):
                            for _ in range(steps):
                                await asyncio.sleep(0)
        await eventually(lambda: asyncio.all_tasks() <= before)

    async def test_leaves_no_task_behind(self, server: RedisServer) -> None:
        before = asyncio.all_tasks()
        async with process(Upstream(), redis=server):
            assert len(asyncio.all_tasks() - before) == 1
        assert asyncio.all_tasks() <= before

    async def test_passes_the_error_on_that_was_the_cause(self, server: RedisServer) -> None:
        async def fail() -> None:
            async with process(Upstream(), redis=server):
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fail()


@given(st.text(alphabet="0123456789abcdef", min_size=1), st.text(min_size=1))
def test_what_is_told_is_what_is_understood(origin: str, key: str) -> None:
    key = key.encode("utf-8", "ignore").decode()
    if key:
        assert parse_message(message_of(origin, key)) == (origin, key)


@given(st.binary() | st.text(alphabet="0123456789 abc\u00b2").map(str.encode))
def test_no_garbage_fails_to_be_passed_over(message: bytes) -> None:
    parse_message(message)
