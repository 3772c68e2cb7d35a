"""The bound alone: who gets a place, who waits, and who is turned away."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.deadline import Deadline
from gateway.errors import UpstreamSpared
from gateway.telemetry import Unobserved
from gateway.upstream.attempts import Attempts
from gateway.upstream.breaker import Breaker, Rules
from gateway.upstream.http import Answer
from gateway.upstream.limiter import Limiter

if TYPE_CHECKING:
    from gateway.telemetry import CallShed

REQUEST = httpx.Request("GET", "http://upstream.test")
RULES = Rules(failure_rate=0.5, min_calls=20, window=10.0, open_for=2.0, probes=3)


class Upstream:
    """Holds every call until it is told to let one go."""

    def __init__(self) -> None:
        self.under_way = 0
        self.most = 0
        self.gates: list[asyncio.Event] = []

    async def __call__(self, request: httpx.Request, deadline: Deadline) -> Answer:
        gate = asyncio.Event()
        self.gates.append(gate)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await gate.wait()
        finally:
            self.under_way -= 1
            self.gates.remove(gate)
        return Answer(200, httpx.Response(200), b"")


class Watcher(Unobserved):
    def __init__(self) -> None:
        self.shed: list[str] = []

    def call_shed(self, event: CallShed) -> None:
        self.shed.append(event.cause)


def attempts(upstream: Upstream, limiter: Limiter, watcher: Watcher) -> Attempts:
    return Attempts(upstream, Breaker(RULES), limiter, watcher, slow=60.0)


def queued(limiter: Limiter) -> int:
    """Calls that wait."""
    return len(limiter._queue)


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_who_comes_after_the_queue_is_full_is_turned_away_at_once() -> None:
    upstream, watcher = Upstream(), Watcher()
    limiter = Limiter(max_concurrent=1, max_queued=1, max_wait=60)
    send = attempts(upstream, limiter, watcher)
    tasks = [asyncio.ensure_future(send(REQUEST, Deadline.never())) for _ in range(2)]
    await settled()
    with pytest.raises(UpstreamSpared) as caught:
        await send(REQUEST, Deadline.never())
    assert caught.value.retry_after == 1.0
    assert not caught.value.leaves_doubt
    assert watcher.shed == ["full"]
    assert (limiter.in_flight, queued(limiter)) == (1, 1)
    for _ in range(2):
        upstream.gates[0].set()
        await settled()
    assert [each.result().status for each in tasks] == [200, 200]
    assert (limiter.in_flight, queued(limiter), upstream.most) == (0, 0, 1)


@pytest.mark.parametrize(("max_wait", "deadline"), [(0.01, 60.0), (60.0, 0.01)])
async def test_who_has_waited_long_enough_is_turned_away(max_wait: float, deadline: float) -> None:
    upstream, watcher = Upstream(), Watcher()
    send = attempts(upstream, Limiter(max_concurrent=1, max_queued=5, max_wait=max_wait), watcher)
    first = asyncio.ensure_future(send(REQUEST, Deadline.never()))
    await settled()
    with pytest.raises(UpstreamSpared):
        await send(REQUEST, Deadline.after(deadline))
    assert watcher.shed == ["waited"]
    upstream.gates[0].set()
    await first


async def test_a_caller_who_goes_away_as_the_place_is_given_passes_it_on() -> None:
    upstream = Upstream()
    limiter = Limiter(max_concurrent=1, max_queued=5, max_wait=60)
    send = attempts(upstream, limiter, Watcher())
    first, second, third = (asyncio.ensure_future(send(REQUEST, Deadline.never())) for _ in range(3))
    await settled()
    limiter.give_back()  # the second is given a place, and has not run yet
    second.cancel()
    await settled()
    assert second.cancelled()
    assert (upstream.under_way, queued(limiter)) == (2, 0), "the third has it"
    for gate in list(upstream.gates):
        gate.set()
    await asyncio.gather(first, third)


@given(
    st.lists(st.sampled_from(["call", "end", "cancel"]), max_size=60),
    st.integers(1, 3),
    st.integers(0, 3),
)
def test_places_are_neither_lost_nor_made(steps: list[str], places: int, room: int) -> None:
    async def run() -> None:
        upstream = Upstream()
        limiter = Limiter(max_concurrent=places, max_queued=room, max_wait=60)
        send = attempts(upstream, limiter, Watcher())
        tasks: list[asyncio.Future[Answer]] = []
        for number, step in enumerate(steps):
            live = [each for each in tasks if not each.done()]
            if step == "call":
                tasks.append(asyncio.ensure_future(send(REQUEST, Deadline.never())))
            elif step == "end" and upstream.gates:
                upstream.gates[number % len(upstream.gates)].set()
            elif step == "cancel" and live:
                live[number % len(live)].cancel()
            if number % 2:  # else the next step comes before anybody has run
                await settled()
                assert upstream.under_way == limiter.in_flight <= places
                assert queued(limiter) <= room
                assert not queued(limiter) or limiter.in_flight == places
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (limiter.in_flight, queued(limiter)) == (0, 0)

    asyncio.run(run())
