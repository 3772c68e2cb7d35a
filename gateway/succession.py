"""Replaces a resource while it is in use: the old one stays open for a while."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType
    from typing import Self

__all__ = ["Succession"]

T = TypeVar("T")


class Succession(Generic[T]):
    """Keeps each resource open for `afterlife` seconds after the next was opened, and the last until the end.

    Enter it before use: each resource has a task, in which it is opened and closed.
    """

    def __init__(self, afterlife: float) -> None:
        self._afterlife = afterlife
        self._ending = asyncio.Event()
        self._over: asyncio.Event | None = None
        self._tasks = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        if self._over is not None:
            self._over.set()
        await self._tasks.__aexit__(None, None, None)  # an error passes unchanged: the group would wrap it

    async def next(self, opening: AbstractAsyncContextManager[T]) -> T:
        """Open the next, and close the previous one after a while. Raises what opening raises; then nothing changes."""
        over = asyncio.Event()
        opened: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._tasks.create_task(self._keep(opening, opened, over), name="keep what may be replaced")
        value = await opened
        if self._over is not None:
            self._over.set()
        self._over = over
        return value

    async def _keep(
        self, opening: AbstractAsyncContextManager[T], opened: asyncio.Future[T], over: asyncio.Event
    ) -> None:
        try:
            value = await opening.__aenter__()
        except Exception as error:  # noqa: BLE001 - it is raised where it was asked for
            opened.set_exception(error)
            return
        try:
            opened.set_result(value)
            await over.wait()
            try:
                async with asyncio.timeout(self._afterlife):
                    await self._ending.wait()
            except TimeoutError:
                pass
        finally:
            await opening.__aexit__(None, None, None)
