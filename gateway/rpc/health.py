"""grpc.health.v1: every service serves until the end, and whoever watches hears of that.

grpcio-health-checking has a servicer too, but its watches never end by themselves, so that each holds up the shutdown
for as long as it may; and their number has no bound, though they need no credential.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Iterable

    from google.protobuf.message import Message

__all__ = ["MAX_WATCHES", "HealthServicer"]

MAX_WATCHES: Final = 100
"""At a time: one who opens any number of them must not use up what other calls need."""

_Status = health_pb2.HealthCheckResponse
_List: Any = health_pb2.HealthListResponse  # type: ignore[attr-defined]  # the stubs are of an older version


class HealthServicer(health_pb2_grpc.HealthServicer):
    """Health of these services, and of the whole under the empty name."""

    def __init__(self, services: Iterable[str]) -> None:
        self._services = frozenset(("", *services))
        self._ending = asyncio.Event()
        self._watches = 0

    def end(self) -> None:
        """Say NOT_SERVING from now on. Watches tell so, and end."""
        self._ending.set()

    async def Check(  # noqa: N802 - named by the proto, as are the others
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> health_pb2.HealthCheckResponse:
        """See the proto."""
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, "there is no such service here")
        return self._answer(request.service)

    async def List(  # noqa: N802
        self, _: Message, __: grpc.aio.ServicerContext[Any, Any]
    ) -> Message:
        """See the proto."""
        answer: Message = _List(statuses={each: self._answer(each) for each in self._services})
        return answer

    async def Watch(  # noqa: N802
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        """See the proto."""
        if self._watches >= MAX_WATCHES:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many watch already")
        self._watches += 1
        try:
            await context.write(self._answer(request.service))
            if not self._ending.is_set():
                await self._ending.wait()
                await context.write(self._answer(request.service))
        finally:
            self._watches -= 1

    def _answer(self, service: str) -> health_pb2.HealthCheckResponse:
        if service not in self._services:
            return _Status(status=_Status.SERVICE_UNKNOWN)
        return _Status(status=_Status.NOT_SERVING if self._ending.is_set() else _Status.SERVING)
