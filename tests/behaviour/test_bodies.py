"""Bodies of requests that arrive at the same time: anybody can send them, and all of them together need room."""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx
import pytest

from gateway import arrivals, memory_budget
from gateway.sandbox import seed
from stage import opened
from waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from gateway.sandbox import Sandbox
    from stage import Dev

TWO_AT_A_TIME = 33_554_432
"""Bytes of the largest body, so that two of them take all the room there is."""
QUERY = {"query": "{ __typename }"}
JSON = {"content-type": "application/json"}
LARGE = {**QUERY, "variables": {"unused": "x" * 1_000_000}}
"""More than arrives at once."""


@asynccontextmanager
async def large_ones(
    dev: Dev, number: int, arrived: int = 200_000
) -> AsyncIterator[list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]:
    """Large bodies of which a part has arrived."""
    address = urlsplit(dev.graphql_url)
    connections: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    try:
        for _ in range(number):
            reader, writer = await asyncio.open_connection(address.hostname, address.port)
            connections.append((reader, writer))
            writer.write(b"POST /graphql HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n")
            writer.write(b"content-length: 1000000\r\n\r\n" + b" " * arrived)
        await until_in_flight(dev, lambda requests: requests >= number)
        yield connections
    finally:
        for _, writer in connections:
            writer.transport.abort()


async def until_in_flight(dev: Dev, are_so_many: Callable[[float], bool]) -> None:
    """Wait until so many requests are under way."""
    async with httpx.AsyncClient() as client, asyncio.timeout(10):
        while True:
            metrics = (await client.get(f"{dev.doors.admin}/metrics")).text
            found = re.search(r'session_gateway_requests_in_flight\{door="graphql"\} (\S+)', metrics)
            if found and are_so_many(float(found[1])):
                return
            await asyncio.sleep(0.01)


async def test_large_bodies_take_turns(upstream: Sandbox) -> None:
    async with (
        opened(graphql={"max_body": TWO_AT_A_TIME}) as dev,
        large_ones(dev, 2) as others,
        httpx.AsyncClient() as client,
    ):
        large = asyncio.create_task(client.post(dev.graphql_url, json=LARGE))
        for _ in range(3):  # small ones need none
            assert (await client.post(dev.graphql_url, json=QUERY)).status_code == 200
        await asyncio.wait([large], timeout=0.3)
        assert not large.done()

        others[0][1].transport.abort()

        assert (await large).json() == {"data": {"__typename": "Query"}}


async def test_who_has_no_turn_in_time_is_told_to_come_back(upstream: Sandbox) -> None:
    async with (
        opened(graphql={"max_body": TWO_AT_A_TIME, "budget": 4.0}) as dev,
        large_ones(dev, 2),
        httpx.AsyncClient() as client,
    ):
        response = await client.post(dev.graphql_url, json=LARGE)

    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    (error,) = response.json()["errors"]
    assert error["message"] == "too many large bodies are arriving: send it again"
    assert error["extensions"] == {"code": "REQUEST_NOT_RECEIVED"}


async def test_who_waits_for_a_turn_does_not_wait_for_all_that_never_come(
    upstream: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few that stop in the middle would keep out all others."""
    monkeypatch.setattr(arrivals, "_TURN", 0.3)
    async with (
        opened(graphql={"max_body": TWO_AT_A_TIME, "budget": 60.0}) as dev,
        large_ones(dev, 5) as others,
        httpx.AsyncClient(timeout=20) as client,
    ):
        response = await client.post(dev.graphql_url, json=LARGE)
        assert response.json() == {"data": {"__typename": "Query"}}

        async with asyncio.timeout(10):
            refusal = await others[0][0].read()
        assert refusal.startswith(b"HTTP/1.1 408 ")
        assert b"REQUEST_NOT_RECEIVED" in refusal


async def test_who_goes_away_waits_for_no_turn(upstream: Sandbox) -> None:
    """His connection is counted no more, and there may be any number of such."""
    async with opened(graphql={"max_body": TWO_AT_A_TIME, "budget": 60.0}) as dev, large_ones(dev, 2):
        async with large_ones(dev, 3, arrived=10_000):
            await until_in_flight(dev, lambda requests: requests == 5)

        await until_in_flight(dev, lambda requests: requests == 2)


async def test_a_turn_is_given_back_however_the_body_ends(upstream: Sandbox) -> None:
    async with opened(graphql={"max_body": TWO_AT_A_TIME}) as dev, httpx.AsyncClient() as client:
        for _ in range(2):
            async with large_ones(dev, 2):  # whose clients go away
                pass
        for _ in range(3):
            assert (await client.post(dev.graphql_url, json=LARGE)).status_code == 200
            too_large = await client.post(dev.graphql_url, content=b" " * (TWO_AT_A_TIME + 1), headers=JSON)
            assert too_large.status_code == 413


OWN = {"authorization": f"Bearer {seed.CUSTOMER_TOKEN}"}
MINE = '{ mySessionContext(tenant: "acme") { currency } }'
OBJECTS: list[dict[str, object]] = [{}] * 40_000
"""In 120 KB, that is, which come at once; decoded they take ten times as much at least."""
ADDED = """mutation ($value: JSON) {
  addMySessionContextAttribute(input: {tenant: "acme", name: "n", value: $value}) { __typename }
}"""
DENSE: dict[str, dict[str, object]] = {
    "variables that are not used": {"query": MINE, "variables": {"unused": OBJECTS}},
    "variables that are": {"query": ADDED, "variables": {"value": OBJECTS}},
    "extensions": {"query": MINE, "extensions": {"unused": OBJECTS}},
}


@pytest.mark.parametrize("body", DENSE.values(), ids=DENSE)
async def test_what_is_decoded_has_so_much_room_until_it_is_answered(
    upstream: Sandbox, monkeypatch: pytest.MonkeyPatch, body: dict[str, object]
) -> None:
    """Anybody can send such bodies: a few hundred would take all memory there is, while upstream is asked."""
    monkeypatch.setattr(memory_budget, "_ROOM", 5_000_000)
    async with opened(upstream={"timeout": 8.0}) as dev, httpx.AsyncClient(headers=OWN, timeout=20) as client:
        dev.sandbox.faults.arm("latency=1500ms", "*")
        first = asyncio.create_task(client.post(dev.graphql_url, json=body))
        await eventually(lambda: dev.sandbox.under_way == 1)

        refusal = await client.post(dev.graphql_url, json=body)
        assert refusal.status_code == 503
        assert refusal.headers["retry-after"] == "1"
        (error,) = refusal.json()["errors"]
        assert error["message"] == "too many large requests are under way: send it again"
        assert error["extensions"] == {"code": "REQUEST_NOT_RECEIVED"}
        assert (await client.post(dev.graphql_url, json={"query": MINE})).json()["data"]["mySessionContext"]

        assert "errors" not in (await first).json()
        assert "errors" not in (await client.post(dev.graphql_url, json=body)).json()


async def test_variables_in_a_url_have_no_more_room(upstream: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_budget, "_ROOM", 500_000)
    headers = {**OWN, "graphql-require-preflight": "1"}
    async with opened(upstream={"timeout": 8.0}) as dev, httpx.AsyncClient(headers=headers, timeout=20) as client:
        dev.sandbox.faults.arm("latency=1500ms", "*")
        url = f'{dev.graphql_url}?query={MINE}&variables={{"unused":[{"[],[]," * 2000}[]]}}'
        first = asyncio.create_task(client.get(url))
        await eventually(lambda: dev.sandbox.under_way == 1)

        assert (await client.get(url)).status_code == 503
        assert "errors" not in (await first).json()
        assert "errors" not in (await client.get(url)).json()
