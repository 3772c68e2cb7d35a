"""The breaker alone: against a model of its rules, and around a call."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx
import pytest
import structlog
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway import errors
from gateway.deadline import Deadline
from gateway.telemetry import Unobserved
from gateway.upstream.attempts import Attempts
from gateway.upstream.breaker import Breaker, Rules, State
from gateway.upstream.http import Answer
from gateway.upstream.limiter import Limiter

if TYPE_CHECKING:
    from gateway.telemetry import BreakerChanged

REQUEST = httpx.Request("GET", "http://upstream.test")
RULES = Rules(failure_rate=0.5, min_calls=4, window=10.0, open_for=2.0, probes=2)


class BreakerMachine(RuleBasedStateMachine):
    """Calls that begin and end in any order while time passes."""

    @initialize()
    def begin(self) -> None:
        self.breaker = Breaker(RULES)
        self.now = 0.0
        self.under_way: list[tuple[int, int]] = []
        self.generation = 0
        self.opened_at: float | None = None
        self.ended: list[tuple[float, bool]] = []
        """Since it was last closed."""

    @rule(seconds=st.floats(0.01, 6.0))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def a_call_begins(self) -> None:
        before = self.breaker.state
        admitted = self.breaker.admit(self.now)
        match before:
            case State.CLOSED:
                assert admitted is not None
            case State.OPEN:
                assert self.opened_at is not None
                assert (admitted is not None) == (self.now >= self.opened_at + RULES.open_for)
            case State.HALF_OPEN:
                pass
        self._note(before)
        if admitted is not None:
            self.under_way.append((admitted, self.generation))
            if self.breaker.state is State.HALF_OPEN:
                probes = sum(generation == self.generation for _, generation in self.under_way)
                assert probes <= RULES.probes

    @precondition(lambda self: self.under_way)
    @rule(which=st.integers(0, 1000), well=st.sampled_from([True, False, None]))
    def a_call_ends(self, which: int, well: bool | None) -> None:
        admitted, generation = self.under_way.pop(which % len(self.under_way))
        before = self.breaker.state
        self.breaker.record(admitted, well=well, now=self.now)
        after = self.breaker.state
        if generation != self.generation or well is None:
            assert after is before, "it says nothing about now"
        elif before is State.CLOSED:
            self.ended.append((self.now, well))
            recent = [each for at, each in self.ended if at > self.now - RULES.window]
            oldest = [each for at, each in self.ended if at > self.now - RULES.window * 0.9]
            if after is State.OPEN:
                assert len(recent) >= RULES.min_calls
                assert not well
            elif not well and len(oldest) == len(recent) >= RULES.min_calls:
                assert recent.count(False) < RULES.failure_rate * len(recent)
        elif before is State.HALF_OPEN:
            assert after is (State.OPEN if not well else after)
            assert well or after is State.OPEN
        self._note(before)

    def _note(self, before: State) -> None:
        if self.breaker.state is before:
            return
        self.generation += 1
        if self.breaker.state is State.OPEN:
            self.opened_at = self.now
        if self.breaker.state is State.CLOSED:
            self.ended = []

    @invariant()
    def a_wait_is_bounded(self) -> None:
        if hasattr(self, "breaker"):
            assert 0.0 <= self.breaker.wait(self.now) <= RULES.open_for + 1e-9


TestAnyHistory = BreakerMachine.TestCase


def state(breaker: Breaker) -> State:
    return breaker.state


def failed(breaker: Breaker, times: int, now: float = 0.0) -> None:
    for _ in range(times):
        admitted = breaker.admit(now)
        assert admitted is not None
        breaker.record(admitted, well=False, now=now)


def test_it_opens_at_the_rate_and_not_before_the_number() -> None:
    breaker = Breaker(RULES)
    failed(breaker, 3)
    assert state(breaker) is State.CLOSED
    failed(breaker, 1)
    assert state(breaker) is State.OPEN
    assert breaker.admit(1.99) is None


def test_failures_of_long_ago_do_not_count() -> None:
    breaker = Breaker(RULES)
    failed(breaker, 3)
    failed(breaker, 1, now=10.0)
    assert state(breaker) is State.CLOSED


def test_it_closes_when_all_probes_are_well() -> None:
    breaker = Breaker(RULES)
    failed(breaker, 4)
    first, second = breaker.admit(2.0), breaker.admit(2.0)
    assert first is not None
    assert second is not None
    assert breaker.admit(2.0) is None, "two probes are under way"
    breaker.record(first, well=True, now=2.1)
    assert state(breaker) is State.HALF_OPEN
    breaker.record(second, well=True, now=2.1)
    assert state(breaker) is State.CLOSED


def test_a_probe_that_fails_opens_it_again_and_one_that_says_nothing_makes_room() -> None:
    breaker = Breaker(RULES)
    failed(breaker, 4)
    probe, other = breaker.admit(2.0), breaker.admit(2.0)
    assert probe is not None
    assert other is not None
    breaker.record(probe, well=None, now=2.1)
    assert breaker.admit(2.1) is not None
    breaker.record(other, well=False, now=2.2)
    assert state(breaker) is State.OPEN
    assert breaker.admit(4.1) is None
    assert breaker.admit(4.2) is not None


@dataclass
class Upstream:
    """Ends so after so many seconds, on a clock of its own."""

    end: int | errors.UpstreamError
    seconds: float = 0.0
    now: float = 0.0
    calls: int = 0

    async def __call__(self, request: httpx.Request, deadline: Deadline) -> Answer:
        self.calls += 1
        self.now += self.seconds
        if isinstance(self.end, errors.UpstreamError):
            raise self.end
        return Answer(self.end, httpx.Response(self.end), b"")


class Watcher(Unobserved):
    def __init__(self) -> None:
        self.states: list[str] = []

    def breaker_changed(self, event: BreakerChanged) -> None:
        self.states.append(event.state)


def attempts(upstream: Upstream, breaker: Breaker, watcher: Watcher) -> Attempts:
    limiter = Limiter(max_concurrent=1, max_queued=0, max_wait=1.0)
    return Attempts(upstream, breaker, limiter, watcher, slow=1.0, clock=lambda: upstream.now)


async def opened_by(upstream: Upstream, watcher: Watcher | None = None) -> bool:
    breaker = Breaker(RULES)
    send = attempts(upstream, breaker, watcher or Watcher())
    for _ in range(RULES.min_calls):
        try:
            await send(REQUEST, Deadline.never())
        except errors.UpstreamError as error:
            assert error is upstream.end  # noqa: PT017 - no other may come
    return breaker.state is State.OPEN


@pytest.mark.parametrize(
    "end",
    [
        500,
        502,
        503,
        504,
        errors.UpstreamUnavailable("x"),
        errors.UpstreamUnreachable("x"),
        errors.UpstreamMalformed("x"),
    ],
    ids=str,
)
async def test_failures_open_it(end: int | errors.UpstreamError) -> None:
    watcher = Watcher()
    assert await opened_by(Upstream(end), watcher)
    assert watcher.states == ["open"]


@pytest.mark.parametrize(
    "end",
    [200, 204, 400, 401, 403, 404, 409, 429, errors.UpstreamNotTaken("no room"), errors.UpstreamTooLarge("too large")],
    ids=str,
)
async def test_what_the_caller_did_does_not_open_it(end: int | errors.UpstreamError) -> None:
    assert not await opened_by(Upstream(end))


@pytest.mark.parametrize("end", [200, 404, errors.UpstreamTimeout("x")], ids=str)
async def test_slow_calls_open_it_and_time_that_was_short_from_the_start_does_not(
    end: int | errors.UpstreamError,
) -> None:
    assert await opened_by(Upstream(end, seconds=1.0))
    assert not await opened_by(Upstream(end, seconds=0.9))


@pytest.mark.parametrize("room", [0, 10], ids=["turned away", "gone while they waited"])
async def test_calls_that_found_no_place_say_nothing_however_long_they_took(room: int) -> None:
    breaker = Breaker(dataclasses.replace(RULES, window=1e9))  # in which all of them are
    limiter = Limiter(max_concurrent=1, max_queued=room, max_wait=60.0)
    hours = itertools.count(0.0, 3600.0)
    send = Attempts(Upstream(200), breaker, limiter, Watcher(), slow=1.0, clock=lambda: next(hours))
    assert limiter.take()
    calls = [asyncio.ensure_future(send(REQUEST, Deadline.never())) for _ in range(RULES.min_calls)]
    await asyncio.sleep(0)
    for each in calls:
        each.cancel()
    ends = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(each) for each in ends} == {asyncio.CancelledError if room else errors.UpstreamSpared}
    assert breaker.state is State.CLOSED
    assert breaker.admit(0.0) is not None


async def test_the_wait_for_a_place_is_none_of_upstreams() -> None:
    upstream, breaker, now = Upstream(200), Breaker(RULES), [0.0]
    limiter = Limiter(max_concurrent=1, max_queued=1, max_wait=60.0)
    send = Attempts(upstream, breaker, limiter, Watcher(), slow=1.0, clock=lambda: now[0])
    for _ in range(RULES.min_calls):
        assert limiter.take()
        call = asyncio.ensure_future(send(REQUEST, Deadline.never()))
        await asyncio.sleep(0)
        now[0] += 1.0
        limiter.give_back()
        assert (await call).status == 200
    assert breaker.state is State.CLOSED


async def test_one_that_is_off_never_opens() -> None:
    breaker = Breaker(dataclasses.replace(RULES, failure_rate=math.inf))
    send = attempts(Upstream(503), breaker, Watcher())
    assert [(await send(REQUEST, Deadline.never())).status for _ in range(100)] == [503] * 100


async def test_while_it_is_open_nothing_is_sent_and_the_caller_hears_when_to_come_back() -> None:
    upstream, breaker = Upstream(503), Breaker(RULES)
    send = attempts(upstream, breaker, Watcher())
    for _ in range(4):
        await send(REQUEST, Deadline.never())
    upstream.now += 0.5
    with pytest.raises(errors.UpstreamSpared) as caught:
        await send(REQUEST, Deadline.never())
    assert upstream.calls == 4
    assert caught.value.retry_after == 1.5
    assert not caught.value.leaves_doubt


async def test_why_connections_fail_is_logged_every_ten_seconds_at_most() -> None:
    end = errors.UpstreamUnreachable("x")
    end.__cause__ = httpx.ConnectError("certificate has expired")
    upstream = Upstream(end, seconds=0.5)
    send = attempts(upstream, Breaker(dataclasses.replace(RULES, failure_rate=math.inf)), Watcher())
    with structlog.testing.capture_logs() as logs:
        for _ in range(40):
            with pytest.raises(errors.UpstreamUnreachable):
                await send(REQUEST, Deadline.never())
    line = {"event": "upstream_failed", "log_level": "warning", "outcome": "unreachable"}
    assert logs == [{**line, "cause": "certificate has expired"}] * 2
