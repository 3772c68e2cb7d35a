"""One sandbox for all tests of it, as new for each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, settings
from sandbox.sandbox_api import Clock, Emporix

from gateway.sandbox import Sandbox, Switches, serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

settings.register_profile(
    "sandbox",
    deadline=None,
    derandomize=True,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("sandbox")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def served() -> AsyncIterator[Emporix]:
    clock = Clock()
    async with (
        serve(Sandbox(clock=clock)) as server,
        httpx.AsyncClient(base_url=server.url, verify=False, timeout=5) as http,
    ):
        yield Emporix(server.sandbox, clock, server.url, http)


@pytest.fixture
def emporix(served: Emporix) -> Iterator[Emporix]:
    """The sandbox as new."""
    served.sandbox.reset()
    yield served
    for name in Switches.__struct_fields__:
        setattr(served.sandbox.switches, name, getattr(Switches(), name))
    served.sandbox.faults.clear()
