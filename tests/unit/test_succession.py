"""Things that take each other's place while they are in use."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from gateway.succession import Succession
from waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Opened:
    def __init__(self) -> None:
        self.now: set[str] = set()

    @asynccontextmanager
    async def open(self, name: str) -> AsyncIterator[str]:
        async with asyncio.TaskGroup():  # has to be left by the task that has entered it
            self.now.add(name)
            try:
                yield name
            finally:
                self.now.remove(name)


class Failing(AbstractAsyncContextManager[str]):
    async def __aenter__(self) -> str:
        raise OSError("no")

    async def __aexit__(self, *_: object) -> None:
        pytest.fail("it was never entered")


async def test_the_one_before_stays_for_its_afterlife() -> None:
    opened = Opened()
    async with Succession[str](0.05) as succession:
        assert await succession.next(opened.open("a")) == "a"
        assert await succession.next(opened.open("b")) == "b"
        assert opened.now == {"a", "b"}
        await eventually(lambda: opened.now == {"b"})
    assert opened.now == set()


async def test_the_end_waits_for_no_afterlife() -> None:
    opened = Opened()
    async with asyncio.timeout(5), Succession[str](600) as succession:
        for name in "abc":
            await succession.next(opened.open(name))
        assert opened.now == {"a", "b", "c"}
    assert opened.now == set()


async def test_one_that_cannot_be_opened_changes_nothing() -> None:
    opened = Opened()
    async with Succession[str](0.0) as succession:
        await succession.next(opened.open("a"))
        with pytest.raises(OSError, match="no"):
            await succession.next(Failing())
        await asyncio.sleep(0)
        assert opened.now == {"a"}


async def test_an_error_within_passes_by_as_it_is() -> None:
    opened = Opened()

    async def fail() -> None:
        async with Succession[str](600) as succession:
            await succession.next(opened.open("a"))
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    assert opened.now == set()
