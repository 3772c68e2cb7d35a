"""Bodies of requests that arrive at the same time: anybody can send them, and all of them together need room."""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx

from gateway import arrivals
from stage import opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    import pytest

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
