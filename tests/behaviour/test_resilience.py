"""Upstream in trouble, seen from both doors: repeated within a budget, left alone, and not crowded."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx
import pytest
import structlog

from doors import Caller, Refused
from gateway.sandbox import seed
from stage import entered, opened
from waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from doors import Door
    from gateway.sandbox import Sandbox
    from stage import Dev

SESSION = seed.CUSTOMER_SESSION
RETRIES: dict[str, object] = {"retries": {"max_attempts": 3, "min_per_second": 0}}
OPEN_FOR = 2.0
BREAKER: dict[str, object] = {"breaker": {"min_calls": 5, "open_for": OPEN_FOR, "probes": 1}}
OPEN_BREAKER: dict[str, object] = {"breaker": {"min_calls": 5, "open_for": 60}}
"""That stays so, however long the machine stands still."""


@pytest.fixture(params=["grpc", "graphql"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@asynccontextmanager
async def gateway(name: str, **upstream: object) -> AsyncIterator[tuple[Dev, Door]]:
    """A gateway with a token at hand, and one of its doors."""
    async with opened(upstream=upstream) as dev, entered(name, dev) as door:
        await door.get("acme", SESSION)
        dev.sandbox.requests.clear()
        yield dev, door


async def metric(dev: Dev, line: str) -> float:
    """The value of a metric, by its name and labels."""
    async with httpx.AsyncClient() as client:
        text = (await client.get(f"{dev.doors.admin}/metrics")).text
    return next((float(each.split()[-1]) for each in text.splitlines() if each.startswith(f"{line} ")), 0.0)


class TestARead:
    @pytest.mark.parametrize(
        ("fault", "reason"), [("drop", "lost"), ("status=502", "502"), ("status=503", "503"), ("status=504", "504")]
    )
    async def test_that_fails_once_is_answered_all_the_same(self, name: str, fault: str, reason: str) -> None:
        async with gateway(name, **RETRIES) as (dev, door):
            dev.sandbox.faults.arm(fault, "get")
            assert await door.get("acme", SESSION) is not None
            assert dev.sandbox.count("get") == 2
            assert await metric(dev, f'session_gateway_upstream_retries_total{{reason="{reason}"}}') == 1

    async def test_that_upstream_puts_off_is_sent_again_when_it_said(self, name: str) -> None:
        async with gateway(name, **RETRIES) as (dev, door):
            dev.sandbox.faults.arm("status=429;retry-after=1", "get")
            assert await door.get("acme", SESSION) is not None
            first, second = (each.at for each in dev.sandbox.requests)
            assert second - first >= 1.0

    async def test_that_upstream_puts_off_for_too_long_fails_at_once_and_says_when(self, name: str) -> None:
        async with gateway(name, **RETRIES) as (dev, door):
            dev.sandbox.faults.arm("status=429;retry-after=600", "get")
            with pytest.raises(Refused) as refused:
                await door.get("acme", SESSION)
            assert (refused.value.reason, refused.value.retry_after) == ("RATE_LIMITED", 600.0)
            assert dev.sandbox.count("get") == 1

    async def test_has_so_many_attempts(self, name: str) -> None:
        async with gateway(name, **RETRIES) as (dev, door):
            dev.sandbox.faults.arm("status=503", "get", times=None)
            with pytest.raises(Refused):
                await door.get("acme", SESSION)
            assert dev.sandbox.count("get") == 3


async def test_an_outage_brings_upstream_a_tenth_more_and_what_was_saved_up(name: str) -> None:
    async with gateway(name, **RETRIES) as (dev, door):
        dev.sandbox.faults.arm("status=503", "get", times=None)
        for _ in range(10):
            ended = await asyncio.gather(*(door.get("acme", SESSION) for _ in range(20)), return_exceptions=True)
            assert all(isinstance(each, Refused) for each in ended)
        assert 200 < dev.sandbox.count("get") <= 200 + 20 + 10


@pytest.mark.parametrize("fault", ["drop", "drop-after-write", "status=503", "status=503-after-write"])
async def test_a_write_is_read_back_before_it_is_sent_again(name: str, fault: str) -> None:
    async with gateway(name, **RETRIES) as (dev, door):
        dev.sandbox.faults.arm(fault, "add-attribute")
        await door.add_attribute("acme", SESSION, "color", 1, Caller(), read_back=False)
        operations = [each.operation for each in dev.sandbox.requests]
        assert operations[:2] == ["add-attribute", "get"]
        assert operations.count("add-attribute") == (1 if "after-write" in fault else 2)


async def test_a_write_that_upstream_puts_off_is_sent_again(name: str) -> None:
    async with gateway(name, **RETRIES) as (dev, door):
        dev.sandbox.faults.arm("status=429", "add-attribute")
        await door.add_attribute("acme", SESSION, "color", 1, Caller(), read_back=False)
        assert [each.operation for each in dev.sandbox.requests] == ["add-attribute", "add-attribute"]


async def test_why_a_connection_to_upstream_broke_is_in_the_log_alone(name: str) -> None:
    async with gateway(name) as (dev, door):
        dev.sandbox.faults.arm("drop", "get")
        with structlog.testing.capture_logs() as log, pytest.raises(Refused) as refused:
            await door.get("acme", SESSION)
    (line,) = (each for each in log if each["event"] == "upstream_failed")
    assert (line["outcome"], line["cause"]) == ("lost", "the connection ended before the answer did")
    assert line["cause"] not in refused.value.message


class TestTheBreaker:
    async def test_leaves_upstream_alone_while_it_fails_and_trusts_it_again_when_it_is_well(self, name: str) -> None:
        async with gateway(name, **BREAKER) as (dev, door):
            dev.sandbox.faults.arm("status=503", "get", times=None)
            for _ in range(20):
                with pytest.raises(Refused) as refused:
                    await door.get("acme", SESSION)
                assert refused.value.reason == "UPSTREAM_UNAVAILABLE"
            assert dev.sandbox.count("get") < 10
            assert refused.value.retry_after is not None
            assert 0 <= refused.value.retry_after <= OPEN_FOR
            assert await metric(dev, "session_gateway_upstream_breaker_state") == 2

            dev.sandbox.faults.clear()
            async with asyncio.timeout(5):
                while not await is_answered(door):
                    await asyncio.sleep(0.05)
            assert await metric(dev, "session_gateway_upstream_breaker_state") == 0

    async def test_takes_no_offence_at_what_callers_get_wrong(self, name: str) -> None:
        async with gateway(name, **BREAKER) as (dev, door):
            for _ in range(10):
                assert await door.get("acme", "nowhere") is None
            assert await door.get("acme", SESSION) is not None
            assert await metric(dev, "session_gateway_upstream_breaker_state") == 0

    async def test_does_not_let_a_write_be_doubted_that_was_never_sent(self, name: str) -> None:
        async with gateway(name, **OPEN_BREAKER) as (dev, door):
            dev.sandbox.faults.arm("status=500", "get", times=None)
            for _ in range(6):
                with pytest.raises(Refused):
                    await door.get("acme", SESSION)
            dev.sandbox.requests.clear()
            with pytest.raises(Refused) as refused:
                await door.add_attribute("acme", SESSION, "color", 1, Caller(), read_back=False)
            assert refused.value.reason == "UPSTREAM_UNAVAILABLE"
            assert not dev.sandbox.requests

    async def test_opens_although_few_calls_may_be_in_progress_and_all_of_them_hang(self, name: str) -> None:
        upstream = {"timeout": 0.5, "max_concurrent": 3, "breaker": {"open_for": 60}}
        async with gateway(name, **upstream) as (dev, door):
            dev.sandbox.faults.arm("hang", "get", times=None)
            for _ in range(3):
                await asyncio.gather(*(door.get("acme", SESSION) for _ in range(3)), return_exceptions=True)
            dev.sandbox.requests.clear()
            with pytest.raises(Refused) as refused:
                await door.get("acme", SESSION)
            assert refused.value.reason == "UPSTREAM_UNAVAILABLE"
            assert not dev.sandbox.requests


ONE = f'sessionContext(tenant: "acme", sessionId: "{SESSION}") {{ currency }}'
OTHER = f'sessionContext(tenant: "acme", sessionId: "{seed.ANONYMOUS_SESSION}") {{ currency }}'
BATCH = f'sessionContexts(tenant: "acme", sessionIds: ["{SESSION}", "x"]) {{ currency }}'
REMOVE = f'removeSessionContextAttribute(input: {{tenant: "acme", sessionId: "{SESSION}", name: "x"}}) {{ __typename }}'


@pytest.mark.parametrize("media_type", ["application/json", "application/graphql-response+json"])
@pytest.mark.parametrize(
    ("document", "status"),
    [
        (f"{{ {ONE} }}", 503),
        (f"{{ a: {ONE} b: {OTHER} }}", 503),
        (f"mutation {{ {REMOVE} }}", 503),
        (f"{{ {BATCH} }}", 503),
        (f"{{ {ONE} {BATCH} }}", 503),
        (f'{{ {ONE} none: sessionContexts(tenant: "acme", sessionIds: []) {{ currency }} }}', 200),
        (f"{{ {ONE} __typename }}", 200),
        (f'{{ a: {ONE} b: sessionContext(tenant: "nobody", sessionId: "x") {{ currency }} }}', 200),
    ],
    ids=[
        "a read",
        "two reads",
        "a write",
        "a batch",
        "a read and a batch",
        "a batch of none was answered",
        "something else was answered",
        "something else failed",
    ],
)
async def test_http_says_503_when_all_of_a_request_is_turned_away(document: str, status: int, media_type: str) -> None:
    async with gateway("graphql", **OPEN_BREAKER) as (dev, door):
        dev.sandbox.faults.arm("status=503", "get", times=None)
        for _ in range(6):
            with pytest.raises(Refused):
                await door.get("acme", SESSION)
        dev.sandbox.requests.clear()
        async with httpx.AsyncClient() as client:
            response = await client.post(
                dev.graphql_url, json={"query": document}, headers={**Caller().headers(), "accept": media_type}
            )
        answer = response.json()

        assert response.status_code == status
        assert response.headers["content-type"].startswith(media_type)
        assert ("retry-after" in response.headers) == (status == 503)
        assert ("data" in answer) == (status == 200)
        assert answer["errors"][0]["extensions"]["code"] == "UPSTREAM_UNAVAILABLE"
        if status == 503:
            assert 0 < answer["errors"][0]["extensions"]["retryAfter"] <= int(response.headers["retry-after"]) <= 60
        assert not dev.sandbox.requests


async def test_http_says_200_when_a_write_was_applied_before_the_next_was_turned_away() -> None:
    breaker = {"min_calls": 3, "failure_rate": 0.1, "open_for": 60}
    async with gateway("graphql", breaker=breaker, retries={"max_attempts": 1}) as (dev, _):
        dev.sandbox.faults.arm("status=500", "get", times=None)  # reading back, which opens the breaker
        put = f'addSessionContextAttribute(input: {{tenant: "acme", sessionId: "{SESSION}", name: "x", value: 1}})'
        left = "{ ... on AddSessionContextAttributePayload { sessionContext { currency } } }"
        document = f"mutation {{ first: {put} {left} second: {put} {left} }}"
        async with httpx.AsyncClient() as client:
            response = await client.post(dev.graphql_url, json={"query": document}, headers=Caller().headers())
        (error,) = response.json()["errors"]

        assert (error["path"], error["extensions"]["code"]) == (["second"], "UPSTREAM_UNAVAILABLE")
        assert dev.sandbox.count("add-attribute") == 1
        assert response.status_code == 200
        assert response.json()["data"] == {"first": {"sessionContext": None}, "second": None}


async def is_answered(door: Door) -> bool:
    try:
        return await door.get("acme", SESSION) is not None
    except Refused:
        return False


async def test_more_calls_than_upstream_is_to_have_are_turned_away(name: str) -> None:
    async with gateway(name, timeout=60, max_concurrent=2, max_queued=3, max_queue_wait=60) as (dev, door):
        dev.sandbox.faults.arm("latency=300ms", "get", times=None)
        ended = await asyncio.gather(*(door.get("acme", SESSION) for _ in range(9)), return_exceptions=True)
        refused = [each for each in ended if isinstance(each, Refused)]
        assert {(each.reason, each.retry_after) for each in refused} == {("UPSTREAM_UNAVAILABLE", 1.0)}
        assert len(refused) == 4
        assert dev.sandbox.peak <= 2
        assert dev.sandbox.count("get") == 5
        assert await metric(dev, 'session_gateway_upstream_shed_total{cause="full"}') == 4
        assert await metric(dev, "session_gateway_upstream_in_flight") == 0


async def test_who_is_turned_away_waits_neither_for_a_place_nor_in_the_queue(name: str) -> None:
    """Upstream stands still: of five callers four are within and stay there, and all others are turned away."""
    async with gateway(name, **RETRIES, timeout=60, max_concurrent=2, max_queued=2, max_queue_wait=60) as (dev, door):
        dev.sandbox.faults.arm("hang", "get", times=None)
        callers = [asyncio.create_task(door.get("acme", SESSION)) for _ in range(5)]
        (first,), within = await asyncio.wait(callers, return_when=asyncio.FIRST_COMPLETED)
        turned_away = [first.exception()]
        for _ in range(20):
            with pytest.raises(Refused) as caught:
                await door.get("acme", SESSION)
            turned_away.append(caught.value)
        assert not any(each.done() for each in within)
        assert len(within) == 4
        await eventually(lambda: dev.sandbox.under_way == 2)
        assert dev.sandbox.peak == 2
        assert {(each.reason, each.retry_after) for each in turned_away if isinstance(each, Refused)} == {
            ("UPSTREAM_UNAVAILABLE", 1.0)
        }
        assert await metric(dev, 'session_gateway_upstream_shed_total{cause="full"}') == len(turned_away)
        assert await metric(dev, 'session_gateway_upstream_shed_total{cause="waited"}') == 0
        assert await metric(dev, 'session_gateway_upstream_retries_total{reason="unreachable"}') == 0
        for each in within:
            each.cancel()
        await asyncio.wait(within)


async def test_a_caller_who_goes_away_ends_the_call_and_gives_its_place_back(name: str) -> None:
    async with gateway(name, max_concurrent=1) as (dev, door):
        await goes_away(dev.sandbox, door)
        assert await door.get("acme", SESSION) is not None


async def goes_away(upstream: Sandbox, door: Door) -> None:
    upstream.faults.arm("hang", "get")
    call = asyncio.create_task(door.get("acme", SESSION))
    await eventually(lambda: upstream.under_way == 1)
    call.cancel()
    await asyncio.wait([call])
    await eventually(lambda: upstream.under_way == 0, within=0.9)  # sooner than any time-out of the gateway


async def test_every_request_to_upstream_is_counted_and_timed(name: str) -> None:
    async with gateway(name, **RETRIES) as (dev, door):
        dev.sandbox.faults.arm("status=503", "get")
        await door.get("acme", SESSION)
        count = "session_gateway_upstream_request_duration_seconds_count"
        assert await metric(dev, f'{count}{{method="GET",outcome="5xx"}}') == 1
        assert await metric(dev, f'{count}{{method="GET",outcome="2xx"}}') == 2
        assert await metric(dev, f'{count}{{method="POST",outcome="2xx"}}') == 1
