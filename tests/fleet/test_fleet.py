"""More than one machine: what callers may see, and what they must not, while a gateway, Redis and upstream are lost.

The same run as `make fleet`, at a lower rate and with shorter phases; each test is one thing to be said of it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from doors import Refused
from fleet.machines import Options, missing, opened
from fleet.phases import PHASES, Run, run
from fleet.shoppers import CALLER, PATIENCE, TENANT
from gateway.sandbox import seed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from doors import Door
    from fleet.machines import Fleet

pytestmark = [
    pytest.mark.skipif(missing() is not None, reason=f"a fleet {missing()}"),
    pytest.mark.timeout(300),  # 20 s of CPU, by eight processes
]

RATE = 60.0
WARM, COLD = seed.CUSTOMER_SESSION, seed.ANONYMOUS_SESSION
OUT_OF_TIME = {"UPSTREAM_TIMEOUT", "UPSTREAM_UNAVAILABLE"}
UNTROUBLED = ("steady", "it is back", "Redis killed", "Redis is back", "calm", "rolling restart", "steady again")


@dataclass
class Probed:
    """What single calls came to while upstream was frozen: `ok`, or a reason; by door."""

    warm: dict[str, set[str]] = field(default_factory=dict)
    cold: dict[str, str] = field(default_factory=dict)
    write: dict[str, str] = field(default_factory=dict)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def ran(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Run, Probed]]:
    probed = Probed()

    async def during(fleet: Fleet, phase: str, doors: list[Door]) -> None:
        if phase == "Redis is back":
            await kept_by_all(fleet, doors)
        if phase == "upstream frozen":
            await asyncio.gather(*(probe(door, probed) for door in doors))
        if phase == "upstream goes on":
            await asyncio.gather(*map(tried_again, doors))

    options = Options(ttl=60, stale_if_error=0, upstream_timeout=1, budget=3, delay=1)
    async with opened(tmp_path_factory.mktemp("fleet"), options) as fleet:
        yield await run(fleet, seconds=0.5, rate=RATE, sessions=100, during=during), probed


async def kept_by_all(fleet: Fleet, doors: list[Door]) -> None:
    """Read until upstream hears nothing more of it."""
    async with asyncio.timeout(20):
        before = -1
        while before != (before := await asked(fleet)):
            for door in doors:
                assert await reads(door, WARM) == {"ok"}


async def asked(fleet: Fleet) -> int:
    requests = (await fleet.client.get(f"{fleet.sandbox_api}/requests")).json()
    return sum(each["operation"] == "get" and WARM in each["path"] for each in requests)


async def probe(door: Door, probed: Probed) -> None:
    probed.warm[door.name] = await reads(door, WARM)
    probed.cold[door.name] = await outcome(door, COLD)
    probed.write[door.name] = await outcome(door, COLD, write=True)


async def tried_again(door: Door) -> None:
    """Write until each gateway's circuit breaker lets it: no cache answers that."""
    async with asyncio.timeout(20):
        while {await outcome(door, WARM, write=True, version=None) for _ in range(6)} != {"ok"}:
            await asyncio.sleep(0.1)


async def reads(door: Door, session_id: str) -> set[str]:
    """By each gateway in turn, more than once."""
    return {await outcome(door, session_id) for _ in range(6)}


async def outcome(door: Door, session_id: str, *, write: bool = False, version: int | None = 1) -> str:
    """`ok`, or a reason. Fails when the client has to end the call itself."""
    try:
        if write:
            change = {"currency": "CHF"}
            await door.patch(TENANT, session_id, change, CALLER, expected_version=version, timeout=PATIENCE)
        else:
            assert await door.get(TENANT, session_id, timeout=PATIENCE) is not None
    except Refused as refused:
        return refused.reason
    return "ok"


def test_no_answer_is_wrong(ran: tuple[Run, Probed]) -> None:
    """None goes behind what its caller has seen, or shows what was not so; no write is lost, or applied twice."""
    book = ran[0].book
    assert book.wrong == []
    assert book.unsent == 0
    assert sum(each.requests for each in book.tallies.values()) > RATE
    assert {door for _, door in book.tallies} == {"graphql", "grpc"}
    assert sum(each.writes for each in book.tallies.values()) > 20


@pytest.mark.parametrize("phase", UNTROUBLED)
def test_nothing_fails_without_need(ran: tuple[Run, Probed], phase: str) -> None:
    """Neither without Redis, nor in a rolling restart, nor once what was lost is back."""
    assert not ran[0].book.errors(phase)
    for door in ("graphql", "grpc"):
        assert ran[0].book.tally(phase, door).requests > 0


def test_without_redis_there_are_reads_and_writes(ran: tuple[Run, Probed]) -> None:
    tallies = [ran[0].book.tally("Redis killed", door) for door in ("graphql", "grpc")]
    assert 0 < sum(each.writes for each in tallies) < sum(each.requests for each in tallies)


def test_of_a_gateway_that_is_killed_no_more_is_lost_than_it_had_under_way(ran: tuple[Run, Probed]) -> None:
    errors = ran[0].book.errors("a gateway killed")
    about_to_begin = RATE / 20  # in the moment until the load balancer hears of it
    assert errors.total() <= ran[0].at_the_kill + about_to_begin
    assert all("by the load balancer" in kind for kind in errors)
    assert not any(kind.startswith("read: UNAVAILABLE") for kind in errors), "a gRPC read is safe to send again"


def test_while_upstream_is_frozen_what_is_cached_is_answered_and_all_else_ends_in_time(
    ran: tuple[Run, Probed],
) -> None:
    run, probed = ran
    for door in ("graphql", "grpc"):
        assert probed.warm[door] == {"ok"}
        assert probed.cold[door] in OUT_OF_TIME
        assert probed.write[door] in {*OUT_OF_TIME, "WRITE_OUTCOME_UNKNOWN"}
    kinds = run.book.errors("upstream frozen") + run.book.errors("upstream goes on")
    reasons = {kind.partition(": ")[2] for kind in kinds}
    assert reasons <= {*OUT_OF_TIME, "WRITE_OUTCOME_UNKNOWN"}


def test_every_phase_was_gone_through(ran: tuple[Run, Probed]) -> None:
    assert list(ran[0].retries) == [phase.name for phase in PHASES]
