"""Coroutines begun at once."""

from __future__ import annotations

import asyncio

import pytest

from gateway.eagerly import Begun


async def test_what_never_waits_is_done_when_it_has_begun() -> None:
    async def work() -> int:
        await _nothing()
        return 3

    begun = Begun(work())
    assert begun.done
    assert await begun == 3


async def test_what_waits_goes_on_when_it_is_awaited() -> None:
    steps: list[str] = []
    gate = asyncio.Event()

    async def work() -> str:
        steps.append("begun")
        await gate.wait()
        await asyncio.sleep(0)
        steps.append("ended")
        return "result"

    begun = Begun(work())
    assert not begun.done
    assert steps == ["begun"]
    asyncio.get_running_loop().call_soon(gate.set)
    assert await begun == "result"
    assert steps == ["begun", "ended"]


@pytest.mark.parametrize("waits", [False, True])
async def test_what_it_raises_comes_through(*, waits: bool) -> None:
    async def work() -> None:
        if waits:
            await asyncio.sleep(0)
        raise LookupError

    with pytest.raises(LookupError):  # noqa: PT012 - either line may raise
        begun = Begun(work())
        await begun


async def test_it_runs_in_the_task_that_began_it() -> None:
    tasks = [asyncio.current_task()]

    async def work() -> None:
        tasks.append(asyncio.current_task())
        await asyncio.sleep(0)
        tasks.append(asyncio.current_task())

    await Begun(work())
    assert len(set(tasks)) == 1


async def test_a_time_out_around_the_wait_cancels_it() -> None:
    cancelled = False

    async def work() -> None:
        nonlocal cancelled
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled = True
            raise

    begun = Begun(work())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001):
            await begun
    assert cancelled


async def test_a_time_out_inside_counts_from_its_beginning() -> None:
    async def work() -> None:
        async with asyncio.timeout(0.001):
            await asyncio.Event().wait()

    begun = Begun(work())
    with pytest.raises(TimeoutError):
        await begun


async def test_what_ends_on_its_own_cancellation_gives_its_result() -> None:
    async def work() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "tidied up"
        return "never"

    begun = Begun(work())
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().call_soon(task.cancel)
    assert await begun == "tidied up"
    task.uncancel()


async def _nothing() -> None:
    pass
