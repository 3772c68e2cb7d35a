"""Tasks that belong to something, and end with it."""

from __future__ import annotations

import asyncio

__all__ = ["TaskGroup"]


class TaskGroup(asyncio.TaskGroup):
    """asyncio's, for whoever has tasks at work behind: what is left of them on leaving is cancelled, not waited for.

    An error of the block passes as it is; asyncio's would wrap it in a group.
    """

    async def __aexit__(self, *_: object) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        await super().__aexit__(None, None, None)
