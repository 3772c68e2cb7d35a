"""One gateway and one sandbox for the whole run, on one event loop; the sandbox is reset for every test."""

# ruff: noqa: E402 - grpc reads a variable when it is imported
from __future__ import annotations

import os

import gateway  # noqa: F401 - it sets variables for gRPC, before gRPC is imported

os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
"""Tests make gRPC calls while they start processes, for which uvloop forks, unlike asyncio: gRPC's fork handlers then
crash some children before they exec (grpc/grpc#29044)."""

from typing import TYPE_CHECKING

import httpx
import pytest
import pytest_asyncio
import uvloop

from doors import Caller
from gateway.development import dev_headers
from gateway.sandbox import Sandbox, Switches, seed
from stage import entered, opened

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping

    from doors import Door
    from stage import Dev


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def dev() -> AsyncIterator[Dev]:
    async with opened() as dev:
        yield dev


@pytest.fixture
def upstream(dev: Dev) -> Iterator[Sandbox]:
    """The sandbox behind the gateway, reset."""
    dev.sandbox.reset()
    yield dev.sandbox
    for name, value in ((each, getattr(Switches(), each)) for each in Switches.__struct_fields__):
        setattr(dev.sandbox.switches, name, value)
    dev.sandbox.faults.clear()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def doors(dev: Dev) -> AsyncIterator[Mapping[str, Door]]:
    async with entered("grpc", dev) as by_grpc, entered("graphql", dev) as by_graphql:
        yield {"grpc": by_grpc, "graphql": by_graphql}


@pytest.fixture(params=["grpc", "graphql"])
def door(request: pytest.FixtureRequest, doors: Mapping[str, Door], upstream: Sandbox) -> Door:
    """Each door of the gateway in turn; the sandbox behind it is reset."""
    return doors[request.param]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """For plain HTTP requests, with the API key."""
    async with httpx.AsyncClient(headers={"x-api-key": "dev-key"}) as client:
        yield client


@pytest.fixture
def playground_headers(upstream: Sandbox) -> dict[str, str]:
    """The headers that the playground sends."""
    return dict(dev_headers(upstream))


@pytest.fixture
def customer(upstream: Sandbox) -> Caller:
    """The seeded customer, who owns `seed.CUSTOMER_SESSION`."""
    return Caller(token=seed.CUSTOMER_TOKEN, saas_token=upstream.saas_token)


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop that the gateway runs on."""
    return {"uvloop": uvloop.new_event_loop}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print figures that tests have recorded, for readers of CI's log."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            if name == "figures" and report.when == "call":
                terminalreporter.write_line(f"{report.nodeid.partition('::')[2]}: {value}")
