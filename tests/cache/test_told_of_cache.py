"""What callers say of the cache, and what they are told of it, through the doors."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import pytest
from google.protobuf.duration_pb2 import Duration

from gateway.gen.emporix.sessioncontext.v1 import session_context_pb2 as pb
from gateway.gen.emporix.sessioncontext.v1 import session_context_pb2_grpc as pb_grpc
from gateway.sandbox import seed
from stage import opened

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stage import Dev

KEY = ("x-api-key", "dev-key")
CACHE: dict[str, object] = {"backend": "memory", "ttl": 1200}
WARM = seed.CUSTOMER_SESSION


def one(session: str, name: str = "sessionContext") -> str:
    return f'{name}: sessionContext(tenant: "acme", sessionId: "{session}") {{ currency }}'


async def post(dev: Dev, query: str, *headers: tuple[str, str]) -> httpx.Response:
    document = {"query": query, "extensions": {"cache": True}}
    async with httpx.AsyncClient() as client:
        return await client.post(dev.graphql_url, json=document, headers=[KEY, *headers])


async def get(dev: Dev, *metadata: tuple[str, str]) -> None:
    async with grpc.aio.insecure_channel(dev.doors.grpc) as channel:
        request = pb.GetSessionContextRequest(tenant="acme", session_id=WARM)
        await pb_grpc.SessionContextServiceStub(channel).GetSessionContext(request, metadata=(KEY, *metadata))


async def batch(dev: Dev, *ids: str) -> str:
    async with grpc.aio.insecure_channel(dev.doors.grpc) as channel:
        request = pb.BatchGetSessionContextsRequest(tenant="acme", session_ids=ids)
        call = pb_grpc.SessionContextServiceStub(channel).BatchGetSessionContexts(request, metadata=(KEY,))
        await call
        trailing: Any = await call.trailing_metadata()
    return str(dict(trailing)["cache-status"])


LINES = [
    (("cache-control", "max-stale=1"), ("cache-control", "no-cache")),
    (("cache-control", "no-cache"), ("cache-control", "max-stale=1")),
]


@pytest.mark.parametrize("lines", LINES)
async def test_lines_of_cache_control_are_as_one(lines: Sequence[tuple[str, str]]) -> None:
    async with opened(cache=CACHE) as dev:
        for number in range(1, 3):
            await post(dev, f"{{ {one(WARM)} }}", *lines)
            assert dev.sandbox.count("get") == number
        for number in range(3, 5):
            await get(dev, *lines)
            assert dev.sandbox.count("get") == number


async def test_an_age_that_a_call_asks_for_is_held_to() -> None:
    async with opened(cache=CACHE) as dev, grpc.aio.insecure_channel(dev.doors.grpc) as channel:
        stub = pb_grpc.SessionContextServiceStub(channel)
        for options, reads in (
            (pb.ReadOptions(), 1),
            (pb.ReadOptions(), 1),
            (pb.ReadOptions(max_age=Duration(seconds=600)), 1),
            (pb.ReadOptions(max_age=Duration()), 2),
        ):
            request = pb.GetSessionContextRequest(tenant="acme", session_id=WARM, read_options=options)
            await stub.GetSessionContext(request, metadata=(KEY,))
            assert dev.sandbox.count("get") == reads


@pytest.mark.parametrize(
    "query",
    [
        f'{{ sessionContexts(tenant: "acme", sessionIds: ["{WARM}", "missing"]) {{ currency }} }}',
        f"{{ {one(WARM, 'a')} {one('missing', 'b')} }}",
        f"{{ {one('missing', 'b')} }}",
    ],
)
@pytest.mark.parametrize("planned", [True, False])
async def test_a_read_that_finds_nothing_counts_too(query: str, *, planned: bool) -> None:
    query = query if planned else f"{query[:-1]} __schema {{ __typename }} }}"
    async with opened(cache=CACHE) as dev:
        await post(dev, f"{{ {one(WARM)} }}")
        answer = await post(dev, query)
        again = await post(dev, query)

    for each in (answer, again):
        assert each.headers["cache-status"].startswith("session-gateway; fwd=miss")
        told = [(read["hit"], read["fwd"]) for read in each.json()["extensions"]["cache"]]
        assert sorted(told) == [(False, "miss"), (True, None)][: 1 + ("b:" not in query or "a:" in query)]


async def test_that_there_is_none_may_be_known_from_the_cache() -> None:
    async with opened(cache={**CACHE, "missing_ttl": 600}) as dev:
        first, second = [await post(dev, f"{{ {one('missing')} }}") for _ in range(2)]
        listed = await batch(dev, "missing")

    kept = re.fullmatch(r"session-gateway; fwd=miss; ttl=(\d+); stored", first.headers["cache-status"])
    hits = (second.headers["cache-status"], listed)
    found = [re.fullmatch(r"session-gateway; hit; ttl=(\d+)", each) for each in hits]
    assert all(each and int(each[1]) <= 600 for each in (kept, *found))
    assert all(0 <= int(each.headers["age"]) <= 600 for each in (first, second))


async def test_of_what_reads_nothing_nothing_is_told() -> None:
    async with opened(cache=CACHE) as dev:
        for query in ("{ __typename }", "{ __schema { __typename } }"):
            answer = await post(dev, query)
            assert "errors" not in answer.json()
            assert "extensions" not in answer.json()
            assert not {"cache-status", "age"} & set(answer.headers)


@pytest.mark.parametrize("own", [False, True])
async def test_by_grpc_too_it_may_be_known_from_the_cache_that_there_is_none(*, own: bool) -> None:
    cache = {**CACHE, "missing_ttl": 600, "own_sessions": True}
    async with opened(cache=cache) as dev, grpc.aio.insecure_channel(dev.doors.grpc) as channel:
        bearer = ("authorization", f"Bearer {dev.sandbox.tokens.issue('acme', None, 'missing')}")
        told: list[dict[str, str]] = []
        for _ in range(2):
            call: Any
            if own:
                stub = pb_grpc.OwnSessionContextServiceStub(channel)
                call = stub.GetOwnSessionContext(pb.GetOwnSessionContextRequest(tenant="acme"), metadata=(bearer,))
            else:
                request = pb.GetSessionContextRequest(tenant="acme", session_id="missing")
                call = pb_grpc.SessionContextServiceStub(channel).GetSessionContext(request, metadata=(KEY,))
            assert await call.code() == grpc.StatusCode.NOT_FOUND
            told.append(dict(await call.trailing_metadata()))

    first, second = told
    assert re.fullmatch(r"session-gateway; fwd=miss; ttl=(\d+); stored", first["cache-status"])
    assert re.fullmatch(r"session-gateway; hit; ttl=(\d+)", second["cache-status"])
    assert "age" in second


async def test_without_a_cache_upstream_is_what_says_that_there_is_none() -> None:
    async with opened() as dev:
        answer = await post(dev, f"{{ {one('missing')} }}")

    assert answer.headers["cache-status"] == "session-gateway; fwd=bypass"


async def test_it_is_no_hit_where_another_read_failed() -> None:
    async with opened(cache=CACHE) as dev:
        await post(dev, f"{{ {one(WARM)} }}")
        dev.sandbox.faults.arm("status=500", "get")
        answer = await post(dev, f"{{ {one(WARM, 'a')} {one(seed.ODD_SESSION, 'b')} }}")

    assert answer.json()["data"] == {"a": {"currency": "EUR"}, "b": None}
    assert "cache-status" not in answer.headers


async def test_a_batch_is_no_hit_where_one_was_not_found() -> None:
    async with opened(cache=CACHE) as dev:
        await batch(dev, WARM)
        told = await batch(dev, WARM, "missing")
        assert (await batch(dev, WARM)).startswith("session-gateway; hit")

    assert told.startswith("session-gateway; fwd=miss")
