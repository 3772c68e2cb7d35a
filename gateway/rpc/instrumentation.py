"""Records every call as a request (`gateway.request`), and returns its id to the caller as metadata."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import grpc

from gateway.rpc.call import Call

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.telemetry.requests import Requests

__all__ = ["Answer", "Context", "Served", "instrumented"]

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Served: TypeAlias = "Callable[[object, Context], Awaitable[bytes]]"
"""A method as grpc.aio serves it."""
Answer: TypeAlias = "Callable[[Call], Awaitable[bytes]]"
"""What such a method returns for one call."""

_CANCELLED: Final = grpc.StatusCode.CANCELLED


def instrumented(requests: Requests, name: str, answer: Answer, *, budget: float) -> Served:
    """The method of this name, `service/method`, each of whose calls begins and ends as one of `requests`."""
    operation = name.rpartition("/")[2]

    async def answered(messages: object, context: Context) -> bytes:
        call = Call(context, budget)
        request = requests.begin("grpc", name, call.header)
        request.operation = operation
        request.status = 0
        context.set_trailing_metadata((("x-request-id", request.id),))
        try:
            return await answer(call)
        except asyncio.CancelledError:
            request.failed(_CANCELLED.name)
            request.status = _CANCELLED.value[0]
            raise
        except grpc.aio.AbortError as abortion:
            # The call refers to it, and the frames of its traceback refer to the call: for a thousand such cycles the
            # garbage collector takes tens of milliseconds.
            raise abortion.with_traceback(None) from None
        finally:
            code: object = context.code()  # 0 unless the call was aborted, whatever the stubs say
            if isinstance(code, grpc.StatusCode):
                request.failed(code.name)
                request.status = code.value[0]
            requests.end(request)
            del messages, context, call  # by which this frame, the last in the traceback, would refer to the call

    return answered
