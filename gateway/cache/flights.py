"""Single flight: however many callers ask for the same at the same time, it is fetched once."""

from __future__ import annotations

import asyncio
import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from gateway.errors import GatewayError
from gateway.tasks import TaskGroup

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Self

__all__ = ["Flight", "Flights"]

Value = TypeVar("Value")


@dataclass(slots=True)
class Flight(Generic[Value]):
    """A fetch in progress, and how many wait for it."""

    task: asyncio.Task[Value | Exception]
    waiting: int = 0


class Flights(Generic[Value]):
    """Fetches in progress, by key. Enter it before use: it owns their tasks, and no fetch outlives it."""

    def __init__(self) -> None:
        self._tasks = TaskGroup()
        self._flights: dict[str, Flight[Value]] = {}

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(self, *ended: object) -> None:
        await self._tasks.__aexit__(*ended)

    async def join(self, key: str, fetch: Callable[[], Awaitable[Value]]) -> tuple[Value, bool]:
        """The result of `fetch`, or of one that is in progress for this key; tells which.

        Every caller gets its own copy of an error. A caller that is cancelled does not affect the others; when all are,
        the fetch is cancelled too.
        """
        flight = self._flights.get(key)
        joined = flight is not None
        if flight is None:
            flight = self._depart(key, fetch)
        flight.waiting += 1
        try:
            result = await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.task.done():
                self._landed(key, flight)
                flight.task.cancel()
        if isinstance(result, GatewayError):
            raise copy.copy(result)
        if isinstance(result, Exception):
            raise result
        return result, joined

    def run_behind(self, key: str, fetch: Callable[[], Awaitable[Value]]) -> None:
        """Fetch in the background, unless a fetch is in progress."""
        if key not in self._flights:
            self._depart(key, fetch).waiting += 1  # for itself: it is not cancelled when nobody waits

    def forget(self, key: str) -> None:
        """Let later callers start a new fetch: the result of the one in progress may be too old for them."""
        self._flights.pop(key, None)

    def _depart(self, key: str, fetch: Callable[[], Awaitable[Value]]) -> Flight[Value]:
        async def fly() -> Value | Exception:
            """Failures are values here: no task of the group ever raises."""
            try:
                return await fetch()
            except GatewayError as error:
                return error.with_traceback(None)  # this frame is in it, and would refer to it in turn
            except Exception as error:  # noqa: BLE001 - raised again for each caller
                return error
            finally:
                self._landed(key, flight)

        flight = Flight(self._tasks.create_task(fly(), name=f"read {key}"))
        self._flights[key] = flight
        return flight

    def _landed(self, key: str, flight: Flight[Value]) -> None:
        """It can no longer be joined. Another may have taken its place."""
        if self._flights.get(key) is flight:
            del self._flights[key]
