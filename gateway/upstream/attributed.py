"""What upstream is asked on behalf of a request is put down to it: its id goes along, and the time is counted."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

import httpx

from gateway.request import under_way

if TYPE_CHECKING:
    from gateway.request import Request

__all__ = ["Attributed"]


class Attributed(httpx.AsyncBaseTransport):
    """Stands around the whole way to upstream, whatever is waited for there. The transport is lent.

    Where several requests wait for one answer, it is put down to the first of them.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self._transport = transport

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """See `httpx.AsyncBaseTransport`."""
        cause = under_way()
        if cause is None:
            return await self._transport.handle_async_request(request)
        request.headers["x-request-id"] = cause.id
        _began(cause)
        try:
            return await self._transport.handle_async_request(request)
        finally:
            _ended(cause)


def _began(cause: Request) -> None:
    if not cause.exchanges:
        cause.since = perf_counter()
    cause.exchanges += 1


def _ended(cause: Request) -> None:
    cause.exchanges -= 1
    if not cause.exchanges:
        cause.upstream += perf_counter() - cause.since
