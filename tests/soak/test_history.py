"""Many writers and readers at a time, while upstream fails: what they are told agrees with what became of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
import pytest_asyncio

from doors import Caller, Refused
from gateway.development import DEV_DEFAULTS
from gateway.sandbox import seed
from soak.storm import TIMEOUT, weather_a_storm
from stage import entered, opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    import httpx

    from doors import Door
    from gateway.sandbox import Sandbox
    from stage import Dev


PATIENT: dict[str, object] = {"timeout": 5.0}
"""For what is not to fail on a busy machine."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def dev() -> AsyncIterator[Dev]:
    """A gateway that does not wait long for upstream."""
    key = {**DEV_DEFAULTS["access"]["keys"]["dev"], "tenants": ("acme",)}  # type: ignore[index]  # settings, as in TOML
    impatient: dict[str, object] = {"timeout": TIMEOUT, "retries": {"max_attempts": 3}}
    async with opened(upstream=impatient, access={"keys": {"dev": key}}) as dev:
        yield dev


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def doors(dev: Dev) -> AsyncIterator[Mapping[str, Door]]:
    async with entered("grpc", dev) as by_grpc, entered("graphql", dev) as by_graphql:
        yield {"grpc": by_grpc, "graphql": by_graphql}


async def test_a_thousand_requests_while_upstream_fails(
    dev: Dev, doors: Mapping[str, Door], client: httpx.AsyncClient, record_property: Callable[[str, object], None]
) -> None:
    storm = await weather_a_storm([dev], list(doors.values()), client, seed=7)

    record_property("figures", str(storm))
    assert storm.played.wrong == []
    assert dict(storm.tally.unexplained) == {}
    assert storm.reads > 200
    assert storm.applied > 300
    assert storm.tally.errors["VERSION_CONFLICT"] > 20, "they do get into one another's way"
    assert storm.lost > 30, "and answers do get lost"


async def test_no_count_is_lost_when_all_write_the_very_same() -> None:
    """As the counting above, but with nothing in the document to tell one writer's count from another's."""

    async def count(door: Door) -> list[str]:
        told = []
        for _ in range(25):
            seen = await door.get("acme", seed.CUSTOMER_SESSION)
            assert seen is not None
            changes = {"context": {"counter": int(seen.context.get("counter", 0)) + 1}}
            try:
                await door.patch("acme", seed.CUSTOMER_SESSION, changes, customer, expected_version=seen.version)
            except Refused as refused:
                told.append(refused.reason)
            else:
                told.append("ok")
        return told

    async with opened(upstream=PATIENT) as dev, entered("grpc", dev) as one, entered("graphql", dev) as other:
        customer = Caller(saas_token=dev.sandbox.saas_token)
        for fault in ("drop-after-write", "status=504-after-write", "drop", "latency=10ms;drop-after-write"):
            dev.sandbox.faults.arm(fault, "put", times=None, probability=0.1)

        outcomes = [each for told in await asyncio.gather(*map(count, [one, other] * 3)) for each in told]

        counted = stored(dev.sandbox)["context"]["counter"]
    assert set(outcomes) <= {"ok", "VERSION_CONFLICT", "WRITE_OUTCOME_UNKNOWN"}
    assert outcomes.count("ok") <= counted <= outcomes.count("ok") + outcomes.count("WRITE_OUTCOME_UNKNOWN")
    assert outcomes.count("ok") > 20
    assert outcomes.count("VERSION_CONFLICT") > 20


async def test_two_who_patch_without_a_version_both_end_with_all_their_changes_in_place() -> None:
    async def patch(door: Door) -> int:
        attempts = 0
        for number in range(200):
            changes = {"context": {f"{door.name}-{number}": number}}
            after = await door.patch("acme", seed.CUSTOMER_SESSION, changes, customer)
            assert after is not None
            attempts += after.attempts or 0
        return attempts

    async with opened(upstream=PATIENT) as dev, entered("grpc", dev) as one, entered("graphql", dev) as other:
        customer = Caller(saas_token=dev.sandbox.saas_token)

        attempts = sum(await asyncio.gather(patch(one), patch(other)))

        attributes = stored(dev.sandbox)["context"]
        assert {f"{door.name}-{number}" for door in (one, other) for number in range(200)} <= attributes.keys()
        assert dev.sandbox.store.version("acme", seed.CUSTOMER_SESSION) == 410
        assert attempts < 500


def stored(upstream: Sandbox) -> dict[str, Any]:
    source = upstream.store.get("acme", seed.CUSTOMER_SESSION)
    assert source is not None
    document: dict[str, Any] = msgspec.json.decode(source)
    return document
