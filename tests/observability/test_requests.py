"""Every request is counted, timed and has an id, whichever door it comes in by."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from access.calls import CALLS, Answer, Clients, Field
from observability.metrics import grown, grows_to, samples

from doors import Caller, GraphQLDoor
from gateway.gen.emporix.sessioncontext.v1 import session_context_pb2 as pb
from gateway.gen.emporix.sessioncontext.v1 import session_context_pb2_grpc as pb_grpc
from gateway.request import current, under_way
from gateway.sandbox import seed
from gateway.telemetry import WRITES
from gateway.telemetry.requests import Requests

if TYPE_CHECKING:
    from collections.abc import Mapping

KEY = {"x-api-key": "dev-key"}
GET = {
    "query": f'{{ sessionContext(tenant: "acme", sessionId: "{seed.ANONYMOUS_SESSION}") {{ currency }} }}',
}
"""Of a session that no other call is about."""


def credentials(clients: Clients) -> dict[str, str]:
    return {
        **KEY,
        "authorization": f"Bearer {seed.CUSTOMER_TOKEN}",
        "saas-token": clients.dev.sandbox.saas_token,
    }


# metrics


@pytest.mark.parametrize("name", CALLS)
async def test_every_call_is_counted_once_by_what_became_of_it(clients: Clients, name: str) -> None:
    call = CALLS[name]
    good = credentials(clients)
    before = await samples(clients)

    answers: list[Answer] = [
        await call(clients, good),
        await call(clients, good, good=False),
        await call(clients, {}),
        await call(clients, {**good, "x-api-key": "nobody's"}),
        await call(clients, good, tenant="nosuch"),
    ]
    clients.dev.sandbox.faults.arm("status=500", times=None)
    answers.append(await call(clients, {**good, "cache-control": "no-cache"}))

    door, operation = (
        ("graphql", name.partition(".")[2]) if isinstance(call, Field) else ("grpc", name.partition(".")[2])
    )
    expected: dict[frozenset[tuple[str, str]], float] = {}
    for each in answers:
        labels = frozenset({"door": door, "operation": operation, "code": each.reason}.items())
        expected[labels] = expected.get(labels, 0) + 1
    assert {each.reason for each in answers} >= {"OK"}
    assert len(expected) >= 4
    await grows_to(clients, before, "session_gateway_requests_total", expected)
    timed = {frozenset({"door": door, "operation": operation}.items()): float(len(answers))}
    await grows_to(clients, before, "session_gateway_request_duration_seconds_count", timed)


@pytest.mark.parametrize(
    ("request_", "operation", "code"),
    [
        ({"json": {"query": "{ sessionContext"}}, "none", "GRAPHQL_VALIDATION_FAILED"),
        ({"json": {"query": "{ canaryOfAName { x } }"}}, "none", "GRAPHQL_VALIDATION_FAILED"),
        ({"json": {"query": "query A { __typename } query B { __typename }"}}, "none", "GRAPHQL_VALIDATION_FAILED"),
        ({"json": {"documentId": "sha256:0"}}, "none", "PERSISTED_QUERY_NOT_FOUND"),
        ({"json": {"query": "{" + " a: __typename" * 2000 + "}"}}, "none", "GRAPHQL_LIMIT_EXCEEDED"),
        ({"content": b"{", "headers": {"content-type": "application/json"}}, "none", "BAD_REQUEST"),
        ({"content": b"{}", "headers": {"content-type": "text/plain"}}, "none", "BAD_REQUEST"),
        ({"json": {"query": "{ a: __typename b: __typename }"}}, "several", "OK"),
        ({"json": {"query": "{ __typename }"}}, "__typename", "OK"),
    ],
)
async def test_a_document_goes_by_names_that_no_client_can_choose(
    clients: Clients, request_: dict[str, Any], operation: str, code: str
) -> None:
    before = await samples(clients)
    await clients.http.post(clients.dev.graphql_url, **request_)
    labels = {"door": "graphql", "operation": operation, "code": code}
    await grows_to(clients, before, "session_gateway_requests_total", {frozenset(labels.items()): 1})


async def test_a_call_that_cannot_be_read_is_counted_by_its_status(clients: Clients) -> None:
    before = await samples(clients)
    call: Any = clients.channel.unary_unary("/emporix.sessioncontext.v1.SessionContextService/GetSessionContext")
    with pytest.raises(grpc.aio.AioRpcError):
        await call(b"\xff", metadata=tuple(KEY.items()))
    labels = {"door": "grpc", "operation": "GetSessionContext", "code": "INVALID_ARGUMENT"}
    await grows_to(clients, before, "session_gateway_requests_total", {frozenset(labels.items()): 1})


async def test_health_checks_are_not_counted(clients: Clients) -> None:
    before = await samples(clients)
    call: Any = clients.channel.unary_unary("/grpc.health.v1.Health/Check")
    await call(b"")
    after = await samples(clients)

    assert grown(before, after, "session_gateway_requests_total") == {}


@pytest.mark.parametrize("door", ["grpc", "graphql"])
async def test_what_is_under_way_is_counted_until_its_caller_goes_away(clients: Clients, door: str) -> None:
    clients.dev.sandbox.faults.arm("latency=2000ms", "get", times=None)
    before = await samples(clients)
    stub = pb_grpc.SessionContextServiceStub(clients.channel)
    request = pb.GetSessionContextRequest(tenant="acme", session_id=seed.ANONYMOUS_SESSION)
    waiting: Any = (
        stub.GetSessionContext(request, metadata=(("x-api-key", "dev-key"), ("cache-control", "no-cache")))
        if door == "grpc"
        else asyncio.ensure_future(
            clients.http.post(clients.dev.graphql_url, json=GET, headers={**KEY, "cache-control": "no-cache"})
        )
    )

    async def in_flight() -> float:
        found = await samples(clients)
        return found["session_gateway_requests_in_flight", frozenset({("door", door)})]

    async with asyncio.timeout(5):
        while await in_flight() != 1:
            await asyncio.sleep(0.01)
        waiting.cancel()
        while await in_flight() != 0:
            await asyncio.sleep(0.01)

    operation = {"grpc": "GetSessionContext", "graphql": "sessionContext"}[door]
    cancelled = {"door": door, "operation": operation, "code": "CANCELLED"}
    await grows_to(clients, before, "session_gateway_requests_total", {frozenset(cancelled.items()): 1})


async def test_overhead_leaves_out_what_upstream_took(clients: Clients) -> None:
    clients.dev.sandbox.faults.arm("latency=300ms", "get", times=None)
    before = await samples(clients)

    for headers in (KEY, KEY, {**KEY, "cache-control": "no-cache"}):  # a miss, a hit, and the caller's own wish
        assert (await clients.http.post(clients.dev.graphql_url, json=GET, headers=headers)).status_code == 200

    of_graphql = frozenset({("door", "graphql")})
    await grows_to(clients, before, "session_gateway_request_overhead_seconds_count", {of_graphql: 2})
    after = await samples(clients)
    (whole,) = grown(before, after, "session_gateway_request_duration_seconds_sum").values()
    (beside,) = grown(before, after, "session_gateway_request_overhead_seconds_sum").values()
    assert 0 < beside <= whole - 0.6


async def test_the_process_itself_is_told_of(clients: Clients) -> None:
    found = {name for name, _ in await samples(clients)}

    assert found >= {
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_max_fds",
        "process_start_time_seconds",
        "python_info",
        "python_gc_collections_total",
    }


# ids


async def answered(clients: Clients, door: str, given: str | None, *, good: bool = True) -> str:
    """The id that an answer has, good or bad."""
    sent = {**(KEY if good else {}), "cache-control": "no-cache"}
    if given is not None:
        sent["x-request-id"] = given
    if door == "graphql":
        return (await clients.http.post(clients.dev.graphql_url, json=GET, headers=sent)).headers["x-request-id"]
    stub = pb_grpc.SessionContextServiceStub(clients.channel)
    request = pb.GetSessionContextRequest(tenant="acme", session_id=seed.CUSTOMER_SESSION)
    call: Any = stub.GetSessionContext(request, metadata=tuple(sent.items()))
    try:
        await call
    except grpc.aio.AioRpcError as error:
        assert not good
        return _the_one(error.trailing_metadata())
    trailing = await call.trailing_metadata()
    assert "cache-status" in dict(trailing)
    return _the_one(trailing)


def _the_one(metadata: Any) -> str:
    (value,) = (value for name, value in metadata if name == "x-request-id")
    return str(value)


@pytest.mark.parametrize("door", ["grpc", "graphql"])
@pytest.mark.parametrize("good", [True, False], ids=["answered", "refused"])
async def test_a_caller_gets_its_own_id_back(clients: Clients, door: str, *, good: bool) -> None:
    assert await answered(clients, door, "mine: {1}~!", good=good) != "mine: {1}~!"  # a space is none of it
    assert await answered(clients, door, "mine:{1}~!", good=good) == "mine:{1}~!"


@pytest.mark.parametrize("door", ["grpc", "graphql"])
async def test_who_has_none_or_a_bad_one_is_given_one_of_few_characters(clients: Clients, door: str) -> None:
    given = [await answered(clients, door, each) for each in (None, None, "x" * 129, "two words")]

    assert len(set(given)) == len(given)
    for each in given:
        assert each.isascii()
        assert len(each) <= 32


@pytest.mark.parametrize("door", ["grpc", "graphql"])
async def test_upstream_is_told_the_id(clients: Clients, door: str) -> None:
    clients.dev.sandbox.requests.clear()
    await answered(clients, door, f"for-upstream-by-{door}")

    # A read that an earlier caller has left to itself may come in between; it has that caller's id.
    ids = [each.headers.get("x-request-id") for each in clients.dev.sandbox.requests if each.operation == "get"]
    assert ids.count(f"for-upstream-by-{door}") == 1
    assert None not in ids


async def test_what_comes_after_a_request_is_no_part_of_it() -> None:
    nothing: Mapping[str, str] = {}
    requests = Requests()
    request = requests.begin("grpc", "x", nothing.get)
    assert under_way.get() is request
    requests.end(request)

    assert under_way.get() is None
    assert current() is not request


async def test_what_upstream_takes_after_a_request_has_ended_is_not_counted() -> None:
    """Somebody else may still wait for the same answer, or nobody."""
    nothing: Mapping[str, str] = {}
    requests = Requests()
    request = requests.begin("grpc", "x", nothing.get)
    request.exchange_began(10.0)
    request.exchange_ended(11.0)
    request.exchange_began(12.0)
    requests.end(request)
    request.exchange_ended(20.0)

    assert request.upstream == 1.0


def test_ids_of_two_gateways_do_not_meet() -> None:
    nothing: Mapping[str, str] = {}
    ids = {Requests().begin("grpc", "x", nothing.get).id for _ in range(1000)}

    assert len(ids) == 1000


async def test_requests_side_by_side_do_not_mix(clients: Clients) -> None:
    ids = [f"side-by-side-{number}" for number in range(50)]
    got = await asyncio.gather(*(answered(clients, ("grpc", "graphql")[n % 2], each) for n, each in enumerate(ids)))

    assert got == ids
    assert {each.headers.get("x-request-id") for each in clients.dev.sandbox.requests} >= set(ids)


async def test_everything_comes_to_an_end(clients: Clients) -> None:
    """After all of the above."""
    found = await samples(clients)
    for door in ("grpc", "graphql"):
        assert found["session_gateway_requests_in_flight", frozenset({("door", door)})] == 0


async def test_every_operation_that_writes_is_known(clients: Clients) -> None:
    """After all of the above, and of attributes without a version. Alerts need to know them before they are used."""
    door = GraphQLDoor(clients.http, clients.dev.graphql_url)
    await door.add_attribute("acme", seed.ANONYMOUS_SESSION, "name", 1, Caller())
    await door.remove_attribute("acme", seed.ANONYMOUS_SESSION, "name", Caller())

    found = [dict(labels) for name, labels in await samples(clients) if name == "session_gateway_writes_total"]

    assert {each["operation"] for each in found if each["outcome"] == "applied"} == set(WRITES)
    assert {each["operation"] for each in found} == set(WRITES)


async def test_requests_for_tokens_are_counted_by_what_became_of_them(clients: Clients) -> None:
    before = await samples(clients)
    clients.dev.sandbox.tokens.revoke(service_only=True)
    await answered(clients, "grpc", None)  # upstream refuses the one there was, and another is asked for
    clients.dev.sandbox.tokens.revoke(service_only=True)
    clients.dev.sandbox.faults.arm("status=401", "token", times=1)
    with pytest.raises(AssertionError):
        await answered(clients, "grpc", None)

    grown_by = grown(before, await samples(clients), "session_gateway_token_requests_total")
    assert grown_by == {frozenset({("outcome", "ok")}): 1, frozenset({("outcome", "GATEWAY_CREDENTIALS_REFUSED")}): 1}
