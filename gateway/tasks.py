"""Background tasks that belong to something, and end with it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator
    from contextvars import Context

__all__ = ["TaskGroup"]

_T = TypeVar("_T")


class TaskGroup(asyncio.TaskGroup):
    """A task group that cancels its tasks on leaving, where asyncio's waits for them.

    An error of the block passes as it is; asyncio's would wrap it in a group. mypy knows task groups by this name: it
    lets nothing else create tasks that nobody awaits.
    """

    def __init__(self) -> None:
        super().__init__()
        self._under_way: set[asyncio.Task[Any]] = set()

    def create_task(
        self,
        coro: Generator[Any, None, _T] | Coroutine[Any, Any, _T],
        *,
        name: str | None = None,
        context: Context | None = None,
    ) -> asyncio.Task[_T]:
        """Begin a task."""
        task = super().create_task(coro, name=name, context=context)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return task

    async def __aexit__(self, *_: object) -> None:
        for task in self._under_way:
            task.cancel()
        await super().__aexit__(None, None, None)
