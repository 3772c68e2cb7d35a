"""What happens to the fleet, one after another, while callers go on.

A phase lasts `seconds`, or as long as what happens in it takes.
"""

from __future__ import annotations

import asyncio
import signal
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import grpc
import httpx

from doors import GraphQLDoor, GrpcDoor
from fleet.shoppers import PATIENCE, Book, Load, raise_for_status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from doors import Door
    from fleet.machines import Fleet

__all__ = ["PHASES", "Phase", "Run", "doors_of", "run"]


@dataclass
class Run:
    """What a run has shown."""

    book: Book = field(default_factory=Book)
    retries: dict[str, dict[str, int]] = field(default_factory=dict)
    """By phase and door: how often the load balancer sent a request again."""
    at_the_kill: int = 0
    """Requests under way when a gateway was killed."""


@dataclass(frozen=True)
class Phase:
    """What happens, after which callers go on until its time is over."""

    name: str
    happens: Callable[[Fleet, Load, Run], Awaitable[None]]


async def _nothing(_: Fleet, __: Load, ___: Run) -> None:
    """All is well."""


async def _kill_gateway(fleet: Fleet, load: Load, run: Run) -> None:
    run.at_the_kill = len(load.under_way)
    await fleet.gateways[0].kill()


async def _start_gateway(fleet: Fleet, _: Load, __: Run) -> None:
    await fleet.start_gateway(0)


async def _kill_redis(fleet: Fleet, _: Load, __: Run) -> None:
    for each in fleet.redis:
        each.kill()


async def _start_redis(fleet: Fleet, _: Load, __: Run) -> None:
    await fleet.start_redis()


async def _freeze_upstream(fleet: Fleet, _: Load, __: Run) -> None:
    fleet.sandbox.send(signal.SIGSTOP)


async def _thaw_upstream(fleet: Fleet, _: Load, __: Run) -> None:
    fleet.sandbox.send(signal.SIGCONT)


async def _restart_all(fleet: Fleet, _: Load, __: Run) -> None:
    for number, gateway in enumerate(fleet.gateways):
        gateway.send(signal.SIGTERM)
        assert await gateway.end() == 0
        await fleet.start_gateway(number)


PHASES: Final = (
    Phase("steady", _nothing),
    Phase("a gateway killed", _kill_gateway),
    Phase("it is back", _start_gateway),
    Phase("Redis killed", _kill_redis),
    Phase("Redis is back", _start_redis),
    Phase("upstream frozen", _freeze_upstream),
    Phase("upstream goes on", _thaw_upstream),
    Phase("calm", _nothing),
    Phase("rolling restart", _restart_all),
    Phase("steady again", _nothing),
)


async def run(
    fleet: Fleet,
    *,
    seconds: float,
    rate: float,
    sessions: int,
    phases: Sequence[Phase] = PHASES,
    told: Callable[[str], None] = lambda _: None,
    during: Callable[[Fleet, str, list[Door]], Awaitable[None]] | None = None,
) -> Run:
    """Go through all phases, `rate` requests a second; `during` is awaited when what happens has happened."""
    found = Run()
    async with doors_of(fleet) as doors:
        load = Load(doors, found.book, rate=rate, sessions=sessions)
        await load.put_in_place(fleet.client, fleet.sandbox_api)
        async with load:
            for phase in phases:
                told(phase.name)
                before = await fleet.retries()
                found.book.phase = phase.name
                await phase.happens(fleet, load, found)
                if during is not None:
                    await during(fleet, phase.name, doors)
                await asyncio.sleep(seconds)
                found.retries[phase.name] = {door: n - before[door] for door, n in (await fleet.retries()).items()}
            told("what was told is compared with what upstream has done")
        await load.check(fleet.client, fleet.sandbox_api)
    return found


@asynccontextmanager
async def doors_of(fleet: Fleet) -> AsyncIterator[list[Door]]:
    """Clients of the load balancer, which do not send anything again."""
    once = [("grpc.enable_retries", 0)]
    async with (
        httpx.AsyncClient(timeout=PATIENCE, event_hooks={"response": [raise_for_status]}) as client,
        grpc.aio.insecure_channel(fleet.grpc, once) as channel,
    ):
        yield [GraphQLDoor(client, fleet.graphql), GrpcDoor(channel)]
