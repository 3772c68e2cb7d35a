"""However many ask for the same at a time, it is fetched once; and whoever gives up harms nobody."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from cache.cache_stage import context_of, settled

from gateway.cache.flights import Flights
from gateway.deadline import Deadline
from gateway.errors import (
    GatewayError,
    InvalidArgument,
    MinVersionNotReached,
    RateLimited,
    SessionNotFound,
    UpstreamTimeout,
    VersionConflict,
    WriteOutcomeUnknown,
)
from waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@dataclass
class Source:
    """Brings 1, 2, 3, ... when it is let go, or fails."""

    go: asyncio.Event = field(default_factory=asyncio.Event)
    error: Exception | None = None
    begun: int = 0
    cancelled: int = 0

    async def fetch(self) -> int:
        self.begun += 1
        number = self.begun
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        return number


@asynccontextmanager
async def flying() -> AsyncIterator[tuple[Flights[int], Source]]:
    async with asyncio.timeout(10), Flights[int]() as flights:
        yield flights, Source()


async def test_a_thousand_at_once_are_one_fetch() -> None:
    async with flying() as (flights, source):
        waiting = [asyncio.create_task(flights.join("a", source.fetch)) for _ in range(1_000)]
        await settled()
        source.go.set()
        found = await asyncio.gather(*waiting)
    assert source.begun == 1
    assert sorted(found, key=lambda each: each[1]) == [(1, False), *[(1, True)] * 999]


async def test_each_key_has_a_fetch_of_its_own() -> None:
    async with flying() as (flights, source):
        source.go.set()
        await asyncio.gather(flights.join("a", source.fetch), flights.join("b", source.fetch))
    assert source.begun == 2


async def test_what_was_brought_is_not_kept() -> None:
    async with flying() as (flights, source):
        source.go.set()
        assert await flights.join("a", source.fetch) == (1, False)
        assert await flights.join("a", source.fetch) == (2, False)


async def test_the_first_who_asked_gives_up_and_the_others_do_not_notice() -> None:
    async with flying() as (flights, source):
        waiting = [asyncio.create_task(flights.join("a", source.fetch)) for _ in range(1_000)]
        await settled()
        waiting[0].cancel()
        await settled()
        assert waiting[0].cancelled()
        late = asyncio.create_task(flights.join("a", source.fetch))
        await settled()
        source.go.set()
        found = await asyncio.gather(*waiting[1:], late)
    assert source.begun == 1
    assert set(found) == {(1, True)}


async def test_when_all_have_given_up_the_fetch_is_given_up_too() -> None:
    async with flying() as (flights, source):
        waiting = [asyncio.create_task(flights.join("a", source.fetch)) for _ in range(3)]
        await settled()
        for each in waiting:
            each.cancel()
        await settled()
        assert source.cancelled == 1
        source.go.set()
        assert await flights.join("a", source.fetch) == (2, False)


async def test_who_asks_right_after_the_last_gave_up_gets_a_new_fetch() -> None:
    """Its cancellation is under way, but has not been noticed yet."""
    async with flying() as (flights, source):
        given_up = asyncio.create_task(flights.join("a", source.fetch))
        await settled()
        given_up.cancel()
        await asyncio.sleep(0)
        source.go.set()
        assert await flights.join("a", source.fetch) == (2, False)


ERRORS: list[GatewayError] = [
    RateLimited("slow down", retry_after=2.5),
    SessionNotFound("s"),
    SessionNotFound(None),
    MinVersionNotReached(7, 6),
    VersionConflict(7, context_of("s", 8)),
    InvalidArgument.of("field", "message"),
    WriteOutcomeUnknown(timed_out=True),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_a_failure_reaches_all_as_an_error_of_their_own(error: GatewayError) -> None:
    async with flying() as (flights, source):
        source.error = error
        waiting = [asyncio.create_task(flights.join("a", source.fetch)) for _ in range(100)]
        await settled()
        source.go.set()
        told = await asyncio.gather(*waiting, return_exceptions=True)
    assert source.begun == 1
    assert len({id(each) for each in told}) == 100
    for each in told:
        assert type(each) is type(error)
        assert str(each) == str(error)
        assert vars(each) == vars(error)


async def test_a_failure_that_nobody_thought_of_reaches_all_and_harms_nothing() -> None:
    async with flying() as (flights, source):
        source.error = ZeroDivisionError("nobody thought of it")
        waiting = [asyncio.create_task(flights.join("a", source.fetch)) for _ in range(10)]
        await settled()
        source.go.set()
        told = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(each) for each in told} == {ZeroDivisionError}
        source.error = None
        assert await flights.join("a", source.fetch) == (2, False)


async def test_a_failure_is_not_kept() -> None:
    async with flying() as (flights, source):
        source.go.set()
        source.error = RateLimited("slow down")
        with pytest.raises(RateLimited):
            await flights.join("a", source.fetch)
        source.error = None
        assert await flights.join("a", source.fetch) == (2, False)


async def test_each_waits_as_long_as_its_own_deadline() -> None:
    async def ask(deadline: Deadline) -> tuple[int, bool]:
        with deadline.bound("the read"):
            return await flights.join("a", source.fetch)

    async with flying() as (flights, source):
        patient = asyncio.create_task(ask(Deadline.never()))
        await settled()
        with pytest.raises(UpstreamTimeout):
            await ask(Deadline.after(0.02))
        with pytest.raises(UpstreamTimeout):
            await ask(Deadline.after(-1))
        source.go.set()
        assert await patient == (1, False)
    assert source.begun == 1


class TestAFetchBehind:
    async def test_goes_on_while_nobody_waits(self) -> None:
        async with flying() as (flights, source):
            flights.run_behind("a", source.fetch)
            waiting = asyncio.create_task(flights.join("a", source.fetch))
            await settled()
            waiting.cancel()
            await settled()
            assert source.cancelled == 0
            late = asyncio.create_task(flights.join("a", source.fetch))
            await settled()
            source.go.set()
            assert await late == (1, True)

    async def test_is_made_once_however_many_want_it(self) -> None:
        async with flying() as (flights, source):
            for _ in range(100):
                flights.run_behind("a", source.fetch)
            await settled()
            source.go.set()
            await settled()
        assert source.begun == 1

    async def test_is_not_made_when_somebody_fetches_already(self) -> None:
        async with flying() as (flights, source):
            waiting = asyncio.create_task(flights.join("a", source.fetch))
            await settled()
            flights.run_behind("a", source.fetch)
            source.go.set()
            await waiting
        assert source.begun == 1

    @pytest.mark.parametrize("error", [RateLimited("slow down"), ZeroDivisionError()])
    async def test_fails_without_harm(self, error: Exception) -> None:
        async with flying() as (flights, source):
            source.go.set()
            source.error = error
            flights.run_behind("a", source.fetch)
            await settled()
            source.error = None
            assert await flights.join("a", source.fetch) == (2, False)


class TestAFlightThatIsForgotten:
    async def test_is_joined_by_nobody_any_more_and_still_arrives(self) -> None:
        async with flying() as (flights, source):
            early = asyncio.create_task(flights.join("a", source.fetch))
            await settled()
            flights.forget("a")
            late = asyncio.create_task(flights.join("a", source.fetch))
            await settled()
            source.go.set()
            assert await early == (1, False)
            assert await late == (2, False)

    async def test_leaves_the_one_after_it_alone_when_its_callers_give_up(self) -> None:
        async with flying() as (flights, source):
            early = asyncio.create_task(flights.join("a", source.fetch))
            await settled()
            flights.forget("a")
            late = asyncio.create_task(flights.join("a", source.fetch))
            await settled()
            early.cancel()
            await settled()
            later = asyncio.create_task(flights.join("a", source.fetch))
            await settled()
            source.go.set()
            assert await late == (2, False)
            assert await later == (2, True)
        assert source.begun == 2

    async def test_leaves_the_one_after_it_alone_when_it_arrives(self) -> None:
        async with flying() as (flights, source):
            other = Source()
            early = asyncio.create_task(flights.join("a", source.fetch))
            await settled()
            flights.forget("a")
            late = asyncio.create_task(flights.join("a", other.fetch))
            await settled()
            source.go.set()
            await early
            later = asyncio.create_task(flights.join("a", other.fetch))
            await settled()
            other.go.set()
            assert (await late, await later) == ((1, False), (1, True))

    def test_need_not_be_there(self) -> None:
        Flights[int]().forget("a")


class TestLeaving:
    async def test_cancels_whatever_is_under_way_and_leaves_no_task(self) -> None:
        before = asyncio.all_tasks()
        async with flying() as (flights, source):
            flights.run_behind("a", source.fetch)
            waiting = asyncio.create_task(flights.join("b", source.fetch))
            flights.forget("b")
            await eventually(lambda: source.begun == 2)
        await asyncio.wait([waiting])
        assert source.cancelled == 2
        assert asyncio.all_tasks() <= before

    async def test_passes_the_error_on_that_was_the_cause(self) -> None:
        before = asyncio.all_tasks()

        async def fail() -> None:
            async with flying() as (flights, source):
                flights.run_behind("a", source.fetch)
                await settled()
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fail()
        assert asyncio.all_tasks() <= before
