"""What `/readyz` says of a gateway that serves, while something that it needs is missing."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import httpx
import structlog.testing
from access.issuing import FakeIssuer, issuing
from cache.redis_server import free_port

from doors import Refused
from gateway.sandbox import seed
from stage import entered, opened
from waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from stage import Dev


async def checks(dev: Dev) -> dict[str, str]:
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"{dev.doors.admin}/readyz")
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    assert found["ready"]
    return dict(found["checks"])


async def until(met: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await met():
            await asyncio.sleep(0.02)


async def ready(dev: Dev) -> None:
    async def is_ready() -> bool:
        async with httpx.AsyncClient() as client:
            return (await client.get(f"{dev.doors.admin}/readyz")).status_code == 200

    await until(is_ready)


async def read(dev: Dev) -> None:
    async with entered("graphql", dev) as door:
        with suppress(Refused):
            await door.get("acme", seed.CUSTOMER_SESSION)


async def test_a_token_that_cannot_be_had_any_more_is_told_of_until_it_can() -> None:
    async with opened(upstream={"lazy_tokens": False}) as dev:
        await ready(dev)
        assert (await checks(dev))["tokens"] == "ok"
        dev.sandbox.tokens.revoke(service_only=True)
        dev.sandbox.faults.arm("status=401", "token")

        await read(dev)

        assert (await checks(dev))["tokens"] == (
            "acme: the token endpoint refuses the client id, secret or scope of tenant 'acme'"
        )

        async def is_well() -> bool:
            await read(dev)
            return (await checks(dev))["tokens"] == "ok"

        await until(is_well)


async def test_why_there_is_no_connection_for_a_token_is_told() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    async with opened(upstream={"lazy_tokens": True, "base_url": url}) as dev:
        await read(dev)

        told = (await checks(dev))["tokens"]

    assert told.startswith("acme: no token could be obtained: no connection to upstream could be made or used: ")
    assert "Connect call failed" in told


async def test_a_token_that_lacks_the_scope_is_told_of() -> None:
    async with opened(upstream={"lazy_tokens": False}) as dev:
        await ready(dev)
        dev.sandbox.tokens.revoke(service_only=True)
        dev.sandbox.switches.granted_scopes = ()

        await read(dev)

        assert (await checks(dev))["tokens"] == "acme: the client lacks the scope sessioncontext.context_manage"


async def test_tokens_that_upstream_refuses_one_after_another_are_told_of_until_it_takes_one() -> None:
    async with opened(upstream={"lazy_tokens": False}) as dev:
        await ready(dev)
        dev.sandbox.faults.arm("status=401", "get", times=3)

        for _ in range(2):
            await read(dev)

        assert (await checks(dev))["tokens"] == "acme: upstream refuses one new token of the gateway after another"

        async def is_well() -> bool:
            await read(dev)
            return (await checks(dev))["tokens"] == "ok"

        await until(is_well)


async def test_an_issuer_without_keys_is_told_of_until_it_has_some() -> None:
    port = free_port()
    fake = FakeIssuer(url=f"http://127.0.0.1:{port}")
    corp = {"issuer": fake.url, "audience": "gateway", "tenants": ["acme"], "jwks_url": fake.jwks_url}
    async with opened(access={"issuers": {"corp": corp}}) as dev:
        await ready(dev)
        said: dict[str, str] = {}

        async def is_tried() -> bool:
            said.update(await checks(dev))
            return not said["issuers"].endswith("not fetched yet")

        await until(is_tried)
        assert said["issuers"].startswith(f"corp: {fake.jwks_url}: ")
        assert "Connect call failed" in said["issuers"]

    async with issuing(fake, port), opened(access={"issuers": {"corp": corp}}) as dev:
        await ready(dev)
        await eventually(lambda: fake.fetches == 1)

        async def has_keys() -> bool:
            return (await checks(dev))["issuers"] == "ok"

        await until(has_keys)


async def test_what_may_be_secret_in_the_url_of_keys_is_not_told() -> None:
    """Neither there nor in the log, which has the same words."""
    port = free_port()
    url = f"http://user:hush@127.0.0.1:{port}/jwks?key=hush"
    corp = {"issuer": "https://issuer.example", "audience": "gateway", "tenants": ["acme"]}
    with structlog.testing.capture_logs() as log:
        async with opened(access={"issuers": {"corp": {**corp, "jwks_url": url, "plain_http": True}}}) as dev:
            await ready(dev)
            await eventually(lambda: any(each["event"] == "jwks_not_fetched" for each in log))
            said = (await checks(dev))["issuers"]

    assert said.startswith(f"corp: http://127.0.0.1:{port}/jwks: ")
    assert "hush" not in f"{said}{log}"


async def test_who_knows_no_issuers_says_nothing_of_them() -> None:
    async with opened() as dev:
        await ready(dev)

        assert "issuers" not in await checks(dev)
