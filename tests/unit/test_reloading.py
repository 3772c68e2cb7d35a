"""What of other settings can be taken while the gateway runs, and what is said of the rest."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from gateway.configuration import load_settings
from gateway.readiness import Readiness
from gateway.reloading import merged, reloading
from gateway.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

HASH = f"sha256:{'0' * 32}:{'0' * 64}"
KEY = {"hash": HASH, "permissions": ["sessions:read"], "tenants": ["*"]}


def settings(**sections: object) -> Settings:
    return load_settings(None, {"tenants": {"acme": {"client_id": "a", "client_secret": "b"}}, **sections})


def tenants(**tenants: dict[str, object]) -> dict[str, object]:
    return {name: {"client_id": "a", "client_secret": "b", **each} for name, each in tenants.items()}


@pytest.mark.parametrize(
    "found",
    [
        {},
        {"access": {"keys": {"shop": KEY}}},
        {"tenants": tenants(acme={"client_secret": "another"})},
        {"tenants": tenants(acme={"client_id": "another"})},
    ],
)
def test_callers_and_tenants_clients_are_taken(found: dict[str, object]) -> None:
    in_force, left = merged(settings(), settings(**found))

    assert dict(in_force) == dict(settings(**found))
    assert left == ()


@pytest.mark.parametrize(
    ("found", "names"),
    [
        ({"grpc": {"port": 1}}, ("grpc.port",)),
        (
            {"grpc": {"connections": {"max_age": 9}}, "log": {"level": "debug"}},
            ("grpc.connections.max_age", "log.level"),
        ),
        ({"tenants": tenants(acme={}, globex={})}, ("tenants.globex",)),
        ({"tenants": tenants(globex={})}, ("tenants.acme", "tenants.globex")),
        ({"tenants": tenants(acme={"cache": False})}, ("tenants.acme.cache",)),
        ({"workers": 3, "cache": {"backend": "redis://:hidden@a"}}, ("workers", "cache.backend")),
    ],
)
def test_all_else_is_named_and_stays(found: dict[str, object], names: tuple[str, ...]) -> None:
    in_force, left = merged(settings(), settings(**found))

    assert dict(in_force) == dict(settings())
    assert left == names


# SIGHUP


@pytest.fixture
def _own_signals() -> Iterator[None]:
    before = signal.getsignal(signal.SIGHUP)
    yield
    signal.signal(signal.SIGHUP, before)


async def told(readiness: Readiness, words: str) -> None:
    """Send SIGHUP, and wait until readiness says this of the configuration."""
    os.kill(os.getpid(), signal.SIGHUP)
    async with asyncio.timeout(10):
        while (await readiness.report()).checks["configuration"] != words:
            await asyncio.sleep(0.01)


@pytest.mark.usefixtures("_own_signals")
@pytest.mark.parametrize("where", ["read", "apply"])
async def test_a_defect_in_one_reload_is_told_of_and_the_next_is_made(where: str) -> None:
    readiness, defective, taken = Readiness(), [where], list[Settings]()

    def read() -> Settings:
        if "read" in defective:
            raise RecursionError
        return settings(access={"keys": {"shop": KEY}}, workers=3)

    async def apply(found: Settings) -> None:
        if "apply" in defective:
            raise RuntimeError
        taken.append(found)

    with capture_logs() as lines:
        async with asyncio.timeout(20), reloading(settings(), read, apply, readiness):
            await told(readiness, "the newest could not be taken: see the log")
            assert taken == []
            defective.clear()
            await told(readiness, "a restart is needed for workers")

    assert [set(each.access.keys) for each in taken] == [{"shop"}]
    assert [each["event"] for each in lines] == ["not_reloaded", "reloaded"]
    assert lines[0]["exc_info"]


@pytest.mark.usefixtures("_own_signals")
async def test_whoever_is_cancelled_while_a_reload_ends_hears_of_it() -> None:
    applying, ending, may_end = asyncio.Event(), asyncio.Event(), asyncio.Event()
    went_on = []

    async def apply(_: Settings) -> None:
        applying.set()
        try:
            await asyncio.Event().wait()
        finally:
            ending.set()
            await may_end.wait()

    async def serve() -> None:
        async with reloading(settings(), settings, apply, Readiness()):
            os.kill(os.getpid(), signal.SIGHUP)
            await applying.wait()
        went_on.append(True)

    serving = asyncio.create_task(serve())
    async with asyncio.timeout(20):
        await ending.wait()
        serving.cancel()
        await asyncio.sleep(0)
        may_end.set()
        await asyncio.wait([serving])

    assert serving.cancelled()
    assert went_on == []
