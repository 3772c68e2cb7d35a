"""Calls are told of like all requests, and callers get each one's id in the trailing metadata."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import grpc

from gateway.rpc.call import Call

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.telemetry.requests import Requests

__all__ = ["told_of"]

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Served: TypeAlias = "Callable[[object, Context], Awaitable[bytes]]"
Answer: TypeAlias = "Callable[[Call], Awaitable[bytes]]"

_CANCELLED: Final = grpc.StatusCode.CANCELLED


def told_of(requests: Requests, name: str, answer: Answer) -> Served:
    """The method as it is served, each of its calls being told of. `name` is `service/method`."""
    operation = name.rpartition("/")[2]

    async def answered(messages: object, context: Context) -> bytes:
        call = Call(context)
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
            # The call holds it, and the frames that it has passed hold the call: the garbage collector would have to
            # tell them apart, which takes it tens of milliseconds for a thousand of them.
            raise abortion.with_traceback(None) from None
        finally:
            code: object = context.code()  # 0 unless the call was aborted, whatever the stubs say
            if isinstance(code, grpc.StatusCode):
                request.failed(code.name)
                request.status = code.value[0]
            requests.end(request)
            del messages, context, call  # by which this frame, the last to be passed, would hold the call

    return answered
