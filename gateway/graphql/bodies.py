"""The bodies of requests: which media types, how long they may take to arrive, how much memory all of them may take.

Anybody can send one, and no caller is authenticated before it has arrived. So large ones take turns.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Final

from starlette.requests import ClientDisconnect

from gateway.arrivals import Arrivals
from gateway.eagerly import Begun
from gateway.errors import RequestNotReceived
from gateway.graphql.connected import Connected
from gateway.graphql.head import LEGACY, Head, Refused

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.types import Receive

    from gateway.deadline import Deadline
    from gateway.graphql.requests import HttpRequest
    from gateway.protocol import Client

__all__ = ["Bodies", "NotReceived"]

_SMALL: Final = 65_536
"""Bytes of a body that needs no turn: uvicorn buffers more than this for each connection anyway."""
_PATIENCE: Final = 0.5
"""Share of the remaining time that is spent on waiting for a turn."""

_UTF_8: Final = frozenset({"utf-8", "utf8"})
_AS_IT_IS: Final = "identity"
"""The content coding that means none."""


class NotReceived(Refused):
    """The request did not arrive in time, or there was no room for it beside others."""

    code = RequestNotReceived.reason


class Bodies:
    """Receives bodies of up to `max_size` bytes."""

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size
        self._arrivals = Arrivals(max_size, _pass)

    async def of(self, request: HttpRequest, deadline: Deadline) -> bytes:
        """The body of a POST, whose headers say that it is JSON. Raises Refused, and ClientDisconnect."""
        _check_is_json(request.head)
        if isinstance(request.body, bytes):
            self._check_size(len(request.body))
            return request.body
        announced = _announced(request.head)
        if announced is not None:  # then who waits for 100 (Continue) sends nothing of it (RFC 9110, 10.1.1)
            self._check_size(announced)
        bound = asyncio.timeout(deadline.remaining)
        received = Begun(self._received(request, request.body, deadline, bound))
        if received.done:
            return await received
        try:
            async with bound:
                return await received
        except TimeoutError:
            raise NotReceived(408, "the body took longer to arrive than it may", {"connection": "close"}) from None

    async def _received(
        self, request: HttpRequest, receive: Receive, deadline: Deadline, bound: asyncio.Timeout
    ) -> bytes:
        body = bytearray()
        async with self._turn(request.client, deadline, bound) if _may_be_large(request.head) else nullcontext():
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                body += message.get("body", b"")
                self._check_size(len(body))
                if not message.get("more_body", False):
                    return bytes(body)

    @asynccontextmanager
    async def _turn(self, client: Client, deadline: Deadline, bound: asyncio.Timeout) -> AsyncIterator[None]:
        """Room for the largest body, while the block runs. Until there is, most of the body stays with the client."""
        if self._arrivals.full:
            await self._wait(client, deadline, bound)
        else:
            await self._arrivals.enter(bound)
        try:
            yield
        finally:
            self._arrivals.leave(bound)

    async def _wait(self, client: Client, deadline: Deadline, bound: asyncio.Timeout) -> None:
        """Wait for a turn, while the client is there: one that has gone would hold memory that no limit counts."""
        try:
            async with asyncio.timeout(deadline.remaining * _PATIENCE):
                with Connected(client):
                    await self._arrivals.enter(bound)
        except TimeoutError:
            raise NotReceived(
                503, "too many large bodies are arriving: send it again", {"retry-after": "1", "connection": "close"}
            ) from None

    def _check_size(self, size: int) -> None:
        if size > self._max_size:
            raise Refused(413, f"the body is larger than {self._max_size} bytes")


def _pass(bound: asyncio.Timeout) -> None:
    """Have the bound expire now."""
    if not bound.expired():
        bound.reschedule(asyncio.get_running_loop().time())


def _announced(head: Head) -> int | None:
    """Bytes of the body; None if it comes in chunks."""
    length = head.header("content-length")
    return None if length is None else int(length)


def _may_be_large(head: Head) -> bool:
    size = _announced(head)
    return size is None or size > _SMALL


def _check_is_json(head: Head) -> None:
    if head.media_type != LEGACY or head.charset not in _UTF_8:
        content_type = head.header("content-type") or ""
        raise Refused(415, f"content-type {content_type!r} is not supported: send {LEGACY} in UTF-8")
    if head.content_coding != _AS_IT_IS:
        raise Refused(
            415,
            f"content-encoding {head.content_coding!r} is not supported: send the body as it is",
            {"accept-encoding": _AS_IT_IS},  # RFC 9110, 15.5.16
        )
