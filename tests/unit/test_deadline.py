"""One point in time for all that a call does."""

from __future__ import annotations

import asyncio
import math
import socket
import time

import pytest

from gateway.deadline import Deadline
from gateway.errors import UpstreamTimeout
from waiting import LoopClock


def test_a_deadline_lies_so_many_seconds_from_now() -> None:
    assert 9 < Deadline.after(10).remaining <= 10
    assert Deadline.after(-1).remaining < 0


def test_no_deadline_leaves_all_the_time_there_is() -> None:
    assert Deadline.never().remaining == math.inf


@pytest.mark.parametrize(("deadline", "within"), [(0.01, 60.0), (60.0, 0.01), (math.inf, 0.01)])
async def test_the_sooner_of_two_bounds_counts(deadline: float, within: float) -> None:
    bound = Deadline.after(deadline).bound("reading", within=within)
    with pytest.raises(UpstreamTimeout, match="reading took longer"), bound:
        await asyncio.Event().wait()


def test_a_share_is_part_of_what_is_left() -> None:
    assert 5 < Deadline.after(10).share(0.6).remaining <= 6
    assert Deadline.after(-1).share(0.6).remaining < 0
    assert Deadline.never().share(0.6) == Deadline.never()


async def test_a_block_that_takes_too_long_is_cancelled_and_told_of() -> None:
    block = asyncio.create_task(asyncio.Event().wait())
    with pytest.raises(UpstreamTimeout, match="reading took longer"), Deadline.after(0.01).bound("reading"):
        await block
    assert block.cancelled()


async def test_a_block_that_ends_in_time_goes_its_way() -> None:
    for deadline in (Deadline.after(5), Deadline.never()):
        with deadline.bound("reading"):
            await asyncio.sleep(0)


async def test_a_timeout_from_inside_the_block_is_not_taken_for_the_deadline() -> None:
    with pytest.raises(TimeoutError), Deadline.after(5).bound("reading"):
        raise TimeoutError
    with pytest.raises(ZeroDivisionError), Deadline.after(5).bound("reading"):
        raise ZeroDivisionError


async def test_the_nearer_of_two_nested_deadlines_is_told_of() -> None:
    for outer, inner, nearer in ((5, 0.01, "inner"), (0.01, 5, "outer")):
        bounds = Deadline.after(outer).bound("outer"), Deadline.after(inner).bound("inner")
        with pytest.raises(UpstreamTimeout, match=nearer), bounds[0], bounds[1]:
            await asyncio.Event().wait()


async def test_a_cancelled_caller_is_cancelled_and_not_timed_out() -> None:
    waiting = asyncio.Event()

    async def work() -> None:
        with Deadline.after(5).bound("reading"):
            waiting.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await asyncio.wait_for(waiting.wait(), 3)
    task.cancel()
    await asyncio.wait([task], timeout=3)
    assert task.cancelled()


async def test_a_deadline_that_has_passed_ends_the_block_at_its_first_wait_at_the_latest() -> None:
    with pytest.raises(UpstreamTimeout), Deadline.after(-1).bound("reading"):
        await asyncio.Event().wait()


async def test_a_caller_who_is_cancelled_while_the_deadline_passes_is_cancelled() -> None:
    async def work() -> None:
        with Deadline.after(0.01).bound("reading"):
            try:
                await asyncio.Event().wait()
            finally:
                task.cancel()

    task = asyncio.create_task(work())
    await asyncio.wait([task], timeout=3)
    assert task.cancelled()


async def test_who_is_told_of_the_deadline_is_left_as_it_was_and_may_go_on() -> None:
    with pytest.raises(UpstreamTimeout), Deadline.after(0.01).bound("reading"):
        await asyncio.Event().wait()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)


async def test_bounds_that_are_far_off_pass_together_and_none_too_soon() -> None:
    began = time.monotonic()

    async def one(seconds: float) -> float:
        with pytest.raises(UpstreamTimeout, match="reading took longer"), Deadline(began + seconds).bound("reading"):
            await asyncio.Event().wait()
        return time.monotonic() - began - seconds

    async with LoopClock() as clock:
        late = await asyncio.gather(*(one(1.1 + number / 1000) for number in range(200)))
        assert clock.now() - began < 2.5
    assert min(late) > -0.002, "timers of the event loop are early by up to a millisecond"


async def test_bounds_that_are_left_in_time_never_pass() -> None:
    for _ in range(20):
        with Deadline.after(1.05).bound("reading"):
            await asyncio.sleep(0)
    await asyncio.sleep(1.2)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


def test_each_event_loop_has_bounds_of_its_own() -> None:
    async def late() -> None:
        with pytest.raises(UpstreamTimeout), Deadline.after(1.05).bound("reading"):
            await asyncio.Event().wait()

    for _ in range(2):
        asyncio.run(asyncio.wait_for(late(), 5))


@pytest.mark.parametrize("seconds", [0.05, 1.05], ids=["near", "far off"])
@pytest.mark.parametrize("answered", [True, False])
async def test_what_came_while_the_process_stood_still_is_taken(seconds: float, answered: bool) -> None:
    loop = asyncio.get_running_loop()
    here, there = socket.socketpair()
    here.setblocking(False)

    def stand_still() -> None:
        time.sleep(seconds + 0.3)  # as if it had been stopped
        if answered:
            there.send(b"answer")

    with here, there:
        loop.call_soon(stand_still)
        if answered:
            with Deadline.after(seconds).bound("reading"):
                assert await loop.sock_recv(here, 16) == b"answer"
        else:
            with pytest.raises(UpstreamTimeout), Deadline.after(seconds).bound("reading"):
                await loop.sock_recv(here, 16)


async def test_who_never_has_a_turn_in_time_is_not_waited_for_for_ever() -> None:
    async def slow() -> None:
        while True:
            time.sleep(0.2)  # noqa: ASYNC251 - that is what is wrong with it
            await asyncio.sleep(0.001)

    with pytest.raises(UpstreamTimeout), Deadline.after(0.01).bound("reading"):
        await asyncio.wait_for(slow(), 5)
