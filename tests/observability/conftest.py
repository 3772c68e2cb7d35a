"""A gateway of these tests' own: what it has counted is theirs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import httpx
import pytest_asyncio
from access.calls import Clients

from stage import opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def watched() -> AsyncIterator[Clients]:
    """A gateway with a cache, and the ways to it."""
    async with (
        opened(cache={"backend": "memory"}, upstream={"timeout": 0.5}) as dev,
        grpc.aio.insecure_channel(dev.doors.grpc) as channel,
        httpx.AsyncClient() as http,
    ):
        yield Clients(dev, channel, http)


@pytest_asyncio.fixture
async def clients(watched: Clients) -> Clients:
    """The same; the sandbox behind it is as new."""
    watched.dev.sandbox.reset()
    watched.dev.sandbox.faults.clear()
    return watched
