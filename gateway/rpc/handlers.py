"""What stands around every method: its request is there in time and can be read, its answer is not too large.

gRPC would do the first two by itself: it waits without an end for a request that does not come, and logs a traceback
for one that it cannot read. So every method is served as one that reads its requests itself; its callers see no
difference.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeAlias

import grpc
from google.protobuf.message import DecodeError
from grpc_status import rpc_status

from gateway.errors import InvalidArgument
from gateway.rpc.errors import status_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from google.protobuf.message import Message

__all__ = ["Bounded"]

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"

_LATE: Final = object()
"""Why a call is cancelled that waits for its request."""


class Bounded:
    """Stands for a server where generated code adds servicers to one. `patience` is how long a request may take."""

    def __init__(self, server: grpc.aio.Server, *, patience: float, max_answer: int | None) -> None:
        self._server = server
        self._patience = patience
        self._max_answer = max_answer

    def add_generic_rpc_handlers(self, _: object) -> None:
        """Generated code hands over the same handlers once more, for servers that take no registered ones."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        """Add the methods of a service. One that streams its requests reads them itself, and is left as it is."""
        self._server.add_registered_method_handlers(
            service, {name: self._bounded(name, handler) for name, handler in handlers.items()}
        )

    def _bounded(self, name: str, handler: Handler) -> Handler:
        if handler.request_streaming:
            return handler
        if handler.response_streaming:
            return self._streaming(handler)
        return self._unary(handler, writes=not name.startswith(("Get", "BatchGet")))

    def _unary(self, handler: Handler, *, writes: bool) -> Handler:
        decode, method, encode = _parts(handler, handler.unary_unary)
        patience, max_answer = self._patience, self._max_answer

        async def answer(_: object, context: Context) -> bytes:
            answer = await method(await _request(context, decode, patience), context)
            encoded = encode(answer)
            if max_answer is not None and len(encoded) > max_answer:
                if not writes:
                    await _abort_too_large(context, len(encoded), max_answer)
                answer.ClearField("session_context")  # what was written stays written, whoever can read it back
                encoded = encode(answer)
            return encoded

        return grpc.stream_unary_rpc_method_handler(answer)

    def _streaming(self, handler: Handler) -> Handler:
        decode, method, encode = _parts(handler, handler.unary_stream)
        patience = self._patience

        async def stream(_: object, context: Context) -> None:
            await method(await _request(context, decode, patience), context)

        return grpc.stream_stream_rpc_method_handler(stream, response_serializer=encode)


def _parts(handler: Handler, method: Any) -> tuple[Callable[[bytes], Message], Any, Callable[[Message], bytes]]:
    assert handler.request_deserializer is not None  # noqa: S101 - generated code always gives both
    assert handler.response_serializer is not None  # noqa: S101
    return handler.request_deserializer, method, handler.response_serializer


async def _request(context: Context, decode: Callable[[bytes], Message], patience: float) -> Message:
    task: asyncio.Task[object] = asyncio.current_task()  # type: ignore[assignment]  # grpc.aio runs each call in one
    timer = asyncio.get_running_loop().call_later(patience, task.cancel, _LATE)  # asyncio.timeout costs more
    try:
        received: Any = await context.read()
    except asyncio.CancelledError as cancelled:
        if cancelled.args != (_LATE,):
            raise
        task.uncancel()
        await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "the request did not come in time")
    finally:
        timer.cancel()
    if received is grpc.aio.EOF:
        await _abort_unreadable(context)
    try:
        return decode(received)
    except DecodeError:
        await _abort_unreadable(context)


async def _abort_unreadable(context: Context) -> NoReturn:
    error = InvalidArgument.of("request", "is not the message that this method takes")
    await context.abort_with_status(rpc_status.to_status(status_of(error)))
    raise AssertionError("abort returns never")


async def _abort_too_large(context: Context, size: int, bound: int) -> NoReturn:
    await context.abort(
        grpc.StatusCode.RESOURCE_EXHAUSTED, f"the answer is too large: {size} bytes, and {bound} are allowed"
    )
    raise AssertionError("abort returns never")
