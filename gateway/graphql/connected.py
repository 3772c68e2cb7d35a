"""Work for a client, cancelled when the client goes away."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from starlette.requests import ClientDisconnect

from gateway.eagerly import Begun

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from types import TracebackType

    from starlette.types import Receive

    from gateway.graphql.requests import HttpRequest
    from gateway.protocol import Client

__all__ = ["Connected", "while_connected"]

Result = TypeVar("Result")


async def while_connected(request: HttpRequest, work: Coroutine[Any, None, Result]) -> Result:
    """Do the work; as soon as it waits, cancel it when the client goes away. Raises ClientDisconnect then."""
    begun = Begun(work)
    if begun.done:
        return begun.result
    body = request.body
    if isinstance(body, bytes):
        with Connected(request.client):
            return await begun
    gone = False
    try:
        async with asyncio.TaskGroup() as tasks:
            watch = tasks.create_task(_disconnected(body))
            result = await begun
            watch.cancel()
    except* ClientDisconnect:
        gone = True  # what is raised in here comes in a group, before Python 3.11.4
    if gone:
        raise ClientDisconnect
    return result


async def _disconnected(receive: Receive) -> NoReturn:
    while (await receive())["type"] != "http.disconnect":
        pass
    raise ClientDisconnect


class Connected:
    """Cancels the block when the client goes away. Raises ClientDisconnect then.

    A task that watches the client would cost as much as all the rest here.
    """

    __slots__ = ("_cancelling", "_client", "_gone", "_task")

    def __init__(self, client: Client) -> None:
        self._client = client
        self._gone = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("only a task can be cancelled")
        self._task = task
        self._cancelling = task.cancelling()
        self._client.when_gone(self._cancel)

    def _cancel(self) -> None:
        self._gone = True
        self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.when_gone(None)
        # As in gateway.deadline: nobody else wanted the task cancelled if there are no more that do than there were.
        if self._gone and self._task.uncancel() <= self._cancelling and isinstance(error, asyncio.CancelledError):
            raise ClientDisconnect from None
