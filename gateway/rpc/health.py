"""grpc.health.v1: all services are SERVING while the gateway is ready, and watches are told of changes.

grpcio-health-checking has a servicer too, but its watches never end by themselves, so that each holds up the shutdown
for as long as possible; and their number has no limit, though they need no credential.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Iterable

    from google.protobuf.message import Message

    from gateway.readiness import Readiness

__all__ = ["HealthServicer"]

_Status = health_pb2.HealthCheckResponse
_List: Any = health_pb2.HealthListResponse  # type: ignore[attr-defined]  # the stubs are of an older version


class HealthServicer(health_pb2_grpc.HealthServicer):
    """Health of these services, and of the whole under the empty name.

    `max_watches` is how many may watch at a time: a client that checks health has one on each of its connections, and
    gives a gateway up where it gets none.
    """

    def __init__(self, services: Iterable[str], readiness: Readiness, *, max_watches: int) -> None:
        self._services = frozenset(("", *services))
        self._readiness = readiness
        self._max_watches = max_watches
        self._ended = asyncio.Event()
        self._changed = asyncio.Event()
        self._watches = 0
        readiness.when_changed(self._tell_watches)

    def end(self) -> None:
        """Say NOT_SERVING from now on. Watches tell so, and end; there are no new ones."""
        self._ended.set()
        self._tell_watches()

    def _tell_watches(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

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
        if self._ended.is_set():  # who is told a status here again comes back at once, and again; who is not, later
            await context.abort(grpc.StatusCode.UNAVAILABLE, "this gateway is stopping")
        if self._watches >= self._max_watches:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{self._watches} watch already, as many as may")
        self._watches += 1
        try:
            told = None
            while True:
                changed, answer = self._changed, self._answer(request.service)
                if answer != told:
                    await context.write(answer)
                    told = answer
                if self._ended.is_set() and answer == self._answer(request.service):
                    return
                await changed.wait()
        finally:
            self._watches -= 1

    def _answer(self, service: str) -> health_pb2.HealthCheckResponse:
        if service not in self._services:
            return _Status(status=_Status.SERVICE_UNKNOWN)
        serving = self._readiness.ready and not self._ended.is_set()
        return _Status(status=_Status.SERVING if serving else _Status.NOT_SERVING)
