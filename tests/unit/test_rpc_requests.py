"""Calls that wait for their requests: one timer ends each of them in its time, and none whose request has come."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from gateway.gen.emporix.sessioncontext.v1 import session_context_pb2 as pb
from gateway.memory_budget import MemoryBudget
from gateway.rpc.reading import Reader

if TYPE_CHECKING:
    import grpc

REQUEST = pb.GetSessionContextRequest(tenant="acme", session_id="s")
PATIENCE = 0.05


class Aborted(Exception):
    """How a call ends."""


class Waiting:
    """A call whose request comes when it is told to."""

    def __init__(self) -> None:
        self.reading = asyncio.Event()
        self._request: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def come(self) -> None:
        self._request.set_result(REQUEST.SerializeToString())

    async def read(self) -> bytes:
        self.reading.set()
        return await self._request

    def trailing_metadata(self) -> None:
        """None was set."""

    async def abort(self, code: grpc.StatusCode, _: str, __: object) -> NoReturn:
        raise Aborted(code.name)


def reading(reader: Reader, call: Any) -> asyncio.Task[Any]:
    return asyncio.create_task(reader.read(call, pb.GetSessionContextRequest.FromString))


async def ended(task: asyncio.Task[Any]) -> str:
    async with asyncio.timeout(5):
        with pytest.raises(Aborted) as aborted:
            await task
    return str(aborted.value)


async def test_each_that_waits_too_long_is_ended_and_no_other() -> None:
    reader = Reader(PATIENCE, 1024, MemoryBudget())
    late, served, later = Waiting(), Waiting(), Waiting()
    first, second = reading(reader, late), reading(reader, served)
    await served.reading.wait()
    served.come()
    assert await second == REQUEST
    third = reading(reader, later)

    assert await ended(first) == "DEADLINE_EXCEEDED"
    assert await ended(third) == "DEADLINE_EXCEEDED"


async def test_a_call_that_comes_while_another_is_being_ended_has_all_of_its_time() -> None:
    reader = Reader(PATIENCE, 1024, MemoryBudget())
    await ended(reading(reader, Waiting()))
    call = Waiting()
    task = reading(reader, call)
    await call.reading.wait()
    call.come()

    assert await task == REQUEST
    assert await ended(reading(reader, Waiting())) == "DEADLINE_EXCEEDED"


async def test_a_caller_who_goes_away_is_not_taken_for_a_late_request() -> None:
    reader, call = Reader(PATIENCE, 1024, MemoryBudget()), Waiting()
    task = reading(reader, call)
    await call.reading.wait()

    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
