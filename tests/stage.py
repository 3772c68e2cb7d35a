"""Gateways and sandboxes for tests, over real sockets, and the doors into them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
import httpx
from defaults import RPC_LIMITS

from doors import GraphQLDoor, GrpcDoor
from gateway import sandbox
from gateway.app import Addresses, open_gateway
from gateway.configuration import load_settings
from gateway.development import DEV_DEFAULTS, dev_headers
from gateway.readiness import Readiness
from gateway.rpc.server import serve_rpc
from gateway.sandbox import Sandbox
from gateway.shutdown import Shutdown
from gateway.telemetry.requests import Requests

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from contextlib import AbstractAsyncContextManager

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


@asynccontextmanager
async def opened(**sections: dict[str, object]) -> AsyncIterator[Dev]:
    """A gateway and a sandbox of the test's own. `sections` are settings over those of `dev`."""
    async with opened_until(Shutdown(), sections) as dev:
        yield dev


@asynccontextmanager
async def opened_until(shutdown: Shutdown, sections: dict[str, dict[str, object]]) -> AsyncIterator[Dev]:
    """The same, with the shutdown by which the test stops it."""
    anywhere: dict[str, object] = {"port": 0}
    async with sandbox.serve(Sandbox()) as upstream:
        defaults: dict[str, dict[str, object]] = {
            **DEV_DEFAULTS,
            "upstream": {
                **DEV_DEFAULTS["upstream"],
                "base_url": upstream.url,
                "timeout": 1.0,
                "retries": {"max_attempts": 1},  # a single fault must be visible
                "breaker": {"enabled": False},  # and so must a long series of them
            },
            "graphql": {**DEV_DEFAULTS["graphql"], **anywhere},
            "grpc": {**DEV_DEFAULTS["grpc"], **anywhere},
            "admin": anywhere,
            "cache": {"backend": "none"},
        }
        for name, section in sections.items():
            defaults[name] = {**defaults.get(name, {}), **section}
        settings, headers = load_settings(None, defaults), dev_headers(upstream.sandbox)
        async with open_gateway(settings, headers, shutdown=shutdown) as doors:
            yield Dev(doors, upstream.sandbox, upstream.url)


class _WithKey(grpc.aio.UnaryUnaryClientInterceptor):
    """Adds the API key to every call that has none."""

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        metadata = [*(client_call_details.metadata or ())]
        if "x-api-key" not in dict(metadata):
            metadata.append(("x-api-key", "dev-key"))
        return await continuation(client_call_details._replace(metadata=grpc.aio.Metadata(*metadata)), request)


def served_rpc(guard: Any, *, budget: float, grace: float, shutdown: Shutdown) -> AbstractAsyncContextManager[str]:
    """The real gRPC server with these use cases, and nothing else; yields its address."""
    return serve_rpc(
        guard,
        Requests(),
        host="127.0.0.1",
        port=0,
        budget=budget,
        grace=grace,
        limits=RPC_LIMITS,
        readiness=Readiness(),
        shutdown=shutdown,
        reflected=False,
        certificates=None,
        shared=False,
    )


def channel_to(address: str, options: Sequence[tuple[str, Any]] = ()) -> grpc.aio.Channel:
    """A channel for calls by generated stubs, with the API key."""
    return grpc.aio.insecure_channel(address, options, interceptors=[_WithKey()])


@asynccontextmanager
async def entered(name: str, dev: Dev) -> AsyncIterator[Door]:
    """A door of a gateway, with connections of its own."""
    if name == "grpc":
        async with grpc.aio.insecure_channel(dev.doors.grpc) as channel:
            yield GrpcDoor(channel)
    else:
        async with httpx.AsyncClient() as client:
            yield GraphQLDoor(client, dev.graphql_url)
