"""One gateway and one sandbox for the whole run, over real sockets, on one loop; the sandbox is as new for every test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
import httpx
import pytest
import pytest_asyncio

from doors import Caller, GraphQLDoor, GrpcDoor
from gateway import sandbox
from gateway.app import Addresses, open_gateway
from gateway.cli import DEV_DEFAULTS, dev_headers
from gateway.sandbox import Sandbox, Switches, seed
from gateway.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from doors import Door


@dataclass(frozen=True)
class Dev:
    """A gateway as `session-gateway dev` runs it, in this process."""

    doors: Addresses
    sandbox: Sandbox
    sandbox_url: str

    @property
    def graphql_url(self) -> str:
        return self.doors.graphql


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def dev() -> AsyncIterator[Dev]:
    anywhere = {"port": 0}
    async with sandbox.serve(Sandbox()) as upstream:
        settings = load_settings(
            None,
            {
                **DEV_DEFAULTS,
                "upstream": {"base_url": upstream.url, "timeout": 2.0},
                "graphql": {"playground": True, **anywhere},
                "grpc": anywhere,
                "admin": anywhere,
            },
        )
        async with open_gateway(settings, dev_headers(upstream.sandbox)) as doors:
            yield Dev(doors, upstream.sandbox, upstream.url)


@pytest.fixture
def upstream(dev: Dev) -> Iterator[Sandbox]:
    """The sandbox behind the gateway, as new."""
    dev.sandbox.reset()
    yield dev.sandbox
    for name, value in ((each, getattr(Switches(), each)) for each in Switches.__struct_fields__):
        setattr(dev.sandbox.switches, name, value)
    dev.sandbox.faults.clear()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient() as client:
        yield client


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def channel(dev: Dev) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(dev.doors.grpc) as channel:
        yield channel


@pytest.fixture(params=["grpc", "graphql"])
def door(
    request: pytest.FixtureRequest, dev: Dev, upstream: Sandbox, client: httpx.AsyncClient, channel: grpc.aio.Channel
) -> Door:
    """The gateway by either door."""
    return GrpcDoor(channel) if request.param == "grpc" else GraphQLDoor(client, dev.graphql_url)


@pytest.fixture
def customer(upstream: Sandbox) -> Caller:
    """The seeded customer, who owns `seed.CUSTOMER_SESSION`."""
    return Caller(token=seed.CUSTOMER_TOKEN, saas_token=upstream.saas_token)
