"""Calls are told of like all requests, and callers get each one's id in the trailing metadata."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.telemetry.requests import Requests

__all__ = ["told_of"]

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Answer: TypeAlias = "Callable[[object, Context], Awaitable[bytes]]"


def told_of(requests: Requests, name: str, answer: Answer) -> Answer:
    """The method, each of whose calls is told of. `name` is `service/method`."""
    operation = name.rpartition("/")[2]

    async def answered(messages: object, context: Context) -> bytes:
        metadata = context.invocation_metadata() or ()

        def header(name: str) -> str | None:
            for each, value in metadata:
                if each == name and isinstance(value, str):
                    return value
            return None

        request = requests.begin("grpc", name, header)
        request.operation = operation
        context.set_trailing_metadata((("x-request-id", request.id),))
        try:
            return await answer(messages, context)
        except asyncio.CancelledError:
            request.failed("CANCELLED")
            raise
        except grpc.aio.AbortError as abortion:
            # The call holds it, and the frames that it has passed hold the call: the garbage collector would have to
            # tell them apart, which takes it tens of milliseconds for a thousand of them.
            raise abortion.with_traceback(None) from None
        finally:
            request.status = 0
            code: object = context.code()  # 0 unless the call was aborted, whatever the stubs say
            if isinstance(code, grpc.StatusCode):
                request.failed(code.name)
                request.status = code.value[0]
            requests.end(request)
            del messages, context  # by which this frame, the last to be passed, would hold the call

    return answered
