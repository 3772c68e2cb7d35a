"""Turns of requests that arrive: none is lost, however their tasks end, and none is had twice."""

from __future__ import annotations

import asyncio
import random

import pytest

from gateway import arrivals
from gateway.arrivals import Arrivals
from waiting import eventually

HALF = arrivals._ROOM // 2
"""Of which two have room."""


async def steps(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


@pytest.mark.parametrize("seed", range(50))
async def test_no_turn_is_lost_or_had_twice_however_those_who_wait_end(seed: int) -> None:
    chance = random.Random(seed)
    turns, has_turn, most = Arrivals[int](HALF, lambda _: None), set[int](), 0

    async def arrive(number: int) -> None:
        nonlocal most
        await turns.enter(number)
        has_turn.add(number)
        most = max(most, len(has_turn))
        try:
            await steps(chance.randrange(5))
        finally:
            has_turn.discard(number)
            turns.leave(number)

    tasks = [asyncio.create_task(arrive(number)) for number in range(60)]
    while not all(each.done() for each in tasks):
        for each in chance.sample(tasks, 3):
            each.cancel()
        await steps(chance.randrange(3))
    await asyncio.gather(*tasks, return_exceptions=True)

    assert most == 2
    for number in range(2):
        assert not turns.full
        await turns.enter(number)
    assert turns.full


async def test_a_turn_is_handed_over_in_the_order_of_waiting() -> None:
    turns, order = Arrivals[int](HALF, lambda _: None), list[int]()

    async def arrive(number: int) -> None:
        await turns.enter(number)
        order.append(number)
        await steps(2)
        turns.leave(number)

    await asyncio.gather(*map(arrive, range(10)))

    assert order == [*range(10)]


async def test_where_others_wait_each_that_takes_too_long_loses_its_turn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "_TURN", 0.05)
    lost: list[int] = []
    turns = Arrivals[int](HALF, lost.append)
    await turns.enter(1)
    await turns.enter(2)
    await asyncio.sleep(0.2)
    assert lost == []  # nobody waits

    waiting = asyncio.create_task(turns.enter(3))
    await eventually(lambda: lost == [1, 2])
    await asyncio.sleep(0.2)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert lost == [1, 2]
