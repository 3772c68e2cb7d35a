"""Retries alone: the budget as a machine, and what is sent again after which end."""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.deadline import Deadline
from gateway.errors import (
    UpstreamError,
    UpstreamMalformed,
    UpstreamNotTaken,
    UpstreamSpared,
    UpstreamTimeout,
    UpstreamUnavailable,
    UpstreamUnreachable,
)
from gateway.telemetry import Unobserved
from gateway.upstream.http import Answer
from gateway.upstream.retries import Budget, Retrying

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.telemetry import UpstreamRetried

RESERVE = 10


class TestTheBudget:
    @given(
        ratio=st.floats(0, 1),
        per_second=st.floats(0, 100),
        steps=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50), st.floats(0, 5)), max_size=30),
    )
    def test_is_never_exceeded(self, ratio: float, per_second: float, steps: Sequence[tuple[int, int, float]]) -> None:
        budget, now, came, repeated = Budget(ratio, per_second, 0.0), 0.0, 0, 0
        for requests, repetitions, passed in steps:
            now += passed
            for _ in range(requests):
                budget.earn()
            came += requests
            repeated += sum(budget.spend(now) for _ in range(repetitions))
            assert repeated <= RESERVE + ratio * came + per_second * now + 1e-6

    def test_lets_a_tenth_more_through_in_a_long_outage(self) -> None:
        budget, repeated = Budget(0.1, 0.0, 0.0), 0
        for second in range(10_000):
            budget.earn()
            repeated += budget.spend(float(second))
        assert 1000 <= repeated <= 1000 + RESERVE

    def test_lets_a_few_through_however_few_requests_there_are(self) -> None:
        budget = Budget(0.1, 1.0, 0.0)
        while budget.spend(0.0):
            pass
        assert [budget.spend(now) for now in (0.5, 1.0, 1.5, 2.0)] == [False, True, False, True]

    @pytest.mark.parametrize(("ratio", "per_second"), [(0.1, 0.0), (0.0, 1.0)])
    def test_begins_with_all_that_may_be_saved_up(self, ratio: float, per_second: float) -> None:
        budget = Budget(ratio, per_second, 0.0)
        assert sum(budget.spend(0.0) for _ in range(100)) == RESERVE

    def test_of_nothing_lets_nothing_through(self) -> None:
        budget = Budget(0.0, 0.0, 0.0)
        budget.earn()
        assert not budget.spend(1e9)


class Upstream:
    """Answers or fails as it is told, in turn."""

    def __init__(self, *ends: int | UpstreamError, retry_after: str | None = None) -> None:
        self.ends = list(ends)
        self.times: list[float] = []
        self._headers = httpx.Headers({} if retry_after is None else {"retry-after": retry_after})

    @property
    def calls(self) -> int:
        return len(self.times)

    async def __call__(self, request: httpx.Request, deadline: Deadline) -> Answer:
        end = self.ends[min(self.calls, len(self.ends) - 1)]
        self.times.append(time.monotonic())
        if isinstance(end, UpstreamError):
            raise end
        return Answer(end, httpx.Response(end, headers=self._headers), b"")


class Watcher(Unobserved):
    def __init__(self) -> None:
        self.retried: list[str] = []

    def upstream_retried(self, event: UpstreamRetried) -> None:
        self.retried.append(event.reason)


async def call(
    upstream: Upstream,
    method: str = "GET",
    *,
    budget: Budget | None = None,
    deadline: float = 5.0,
    observer: Watcher | None = None,
    max_attempts: int = 3,
) -> Answer:
    retrying = Retrying(upstream, budget or Budget(1.0, 0.0, 0.0), observer or Watcher(), max_attempts=max_attempts)
    return await retrying(httpx.Request(method, "http://upstream.test"), Deadline.after(deadline))


LOST, UNREACHABLE = UpstreamUnavailable("lost"), UpstreamUnreachable("refused")


@pytest.mark.parametrize("end", [502, 503, 504, 429, LOST, UNREACHABLE], ids=str)
async def test_a_read_is_sent_again(end: int | UpstreamError) -> None:
    upstream, watcher = Upstream(end, 200), Watcher()
    assert (await call(upstream, observer=watcher)).status == 200
    assert upstream.calls == 2
    assert watcher.retried == [
        {LOST: "lost", UNREACHABLE: "unreachable"}[end] if isinstance(end, UpstreamUnavailable) else str(end)
    ]


@pytest.mark.parametrize("end", [200, 400, 401, 404, 500], ids=str)
async def test_a_read_with_any_other_answer_is_not_sent_again(end: int) -> None:
    upstream = Upstream(end, 200)
    assert (await call(upstream)).status == end
    assert upstream.calls == 1


@pytest.mark.parametrize("end", [UpstreamTimeout("late"), UpstreamMalformed("odd")], ids=type)
async def test_a_read_that_took_its_time_or_made_no_sense_is_not_sent_again(end: UpstreamError) -> None:
    upstream = Upstream(end, 200)
    with pytest.raises(type(end)):
        await call(upstream)
    assert upstream.calls == 1


@pytest.mark.parametrize("method", ["PUT", "POST", "PATCH", "DELETE"])
@pytest.mark.parametrize("end", [429, UNREACHABLE], ids=str)
async def test_a_write_that_was_not_begun_on_is_sent_again(method: str, end: int | UpstreamError) -> None:
    upstream = Upstream(end, 204)
    assert (await call(upstream, method)).status == 204
    assert upstream.calls == 2


@pytest.mark.parametrize("method", ["PUT", "POST", "PATCH", "DELETE"])
@pytest.mark.parametrize("end", [502, 503, 504])
async def test_a_write_that_may_have_been_applied_is_not_sent_again(method: str, end: int) -> None:
    upstream = Upstream(end, 204)
    assert (await call(upstream, method)).status == end
    assert upstream.calls == 1


@pytest.mark.parametrize("method", ["PUT", "POST", "PATCH", "DELETE"])
async def test_a_write_whose_answer_was_lost_is_not_sent_again(method: str) -> None:
    upstream = Upstream(LOST, 204)
    with pytest.raises(UpstreamUnavailable):
        await call(upstream, method)
    assert upstream.calls == 1


@pytest.mark.parametrize("end", [UpstreamSpared("open", retry_after=0.01), UpstreamNotTaken("large")], ids=type)
async def test_what_this_gateway_turned_away_itself_is_not_tried_again(end: UpstreamError) -> None:
    upstream = Upstream(end, 200)
    with pytest.raises(type(end)):
        await call(upstream)
    assert upstream.calls == 1


async def test_attempts_end() -> None:
    upstream = Upstream(503)
    assert (await call(upstream)).status == 503
    assert upstream.calls == 3


@pytest.mark.parametrize("end", [400, UpstreamTimeout("late"), UpstreamMalformed("odd"), LOST], ids=str)
async def test_the_last_attempt_is_what_counts(end: int | UpstreamError) -> None:
    upstream = Upstream(503, UNREACHABLE, end)
    if isinstance(end, int):
        assert (await call(upstream)).status == end
    else:
        with pytest.raises(UpstreamError) as raised:
            await call(upstream)
        assert raised.value is end
    assert upstream.calls == 3


@pytest.mark.parametrize("wanted", [0.0, 1.0])
async def test_waits_are_drawn_between_nothing_and_twice_as_much_each_time(
    wanted: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        drawn.append((low, high))
        return low + wanted * (high - low)

    monkeypatch.setattr(random, "uniform", uniform)
    upstream = Upstream(503)
    await call(upstream, max_attempts=4)
    assert drawn[:3] == [(0, 0.05), (0, 0.1), (0, 0.2)]
    waits = [after - before for before, after in zip(upstream.times, upstream.times[1:], strict=False)]
    assert all(waited >= wanted * high - 0.002 for waited, (_, high) in zip(waits, drawn, strict=False))


async def test_who_goes_away_during_a_repetition_ends_it() -> None:
    again = asyncio.Event()

    async def upstream(request: httpx.Request, deadline: Deadline) -> Answer:
        if first.calls:
            again.set()
            await asyncio.Event().wait()
        return await first(request, deadline)

    first, budget = Upstream(503), Budget(1.0, 0.0, 0.0)
    caller = asyncio.ensure_future(
        Retrying(upstream, budget, Watcher(), max_attempts=3)(httpx.Request("GET", "http://u.test"), Deadline.after(60))
    )
    await again.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert caller.cancelled()


async def test_every_request_earns_its_share_of_a_repetition() -> None:
    upstream, budget = Upstream(503), Budget(0.5, 0.0, 0.0)
    while budget.spend(0.0):
        pass
    calls = []
    for _ in range(4):
        await call(upstream, budget=budget)
        calls.append(upstream.calls)
    assert calls == [1, 3, 4, 6]


async def test_without_budget_there_is_one_attempt() -> None:
    upstream = Upstream(503)
    assert (await call(upstream, budget=Budget(0.0, 0.0, 0.0))).status == 503
    assert upstream.calls == 1


async def test_a_wait_that_the_deadline_has_no_room_for_is_not_begun() -> None:
    upstream = Upstream(429, 200, retry_after="3")
    assert (await call(upstream, deadline=2.0)).status == 429
    assert upstream.calls == 1


async def test_upstream_is_given_the_time_it_asks_for() -> None:
    upstream = Upstream(429, 200, retry_after="1")
    began = Deadline.after(0)
    assert (await call(upstream)).status == 200
    assert began.remaining <= -1.0
