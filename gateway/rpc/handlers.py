"""The methods that are served, and what is done around each.

A request must arrive in time and be readable; an answer must not be too large. gRPC itself waits forever for a request
that does not arrive, and logs a traceback for one that it cannot decode. So every method is served as one that reads a
stream of requests; its callers see no difference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

import grpc
from google.protobuf.message import DecodeError

from gateway.errors import AnswerTooLarge, NoRoomForAnswer
from gateway.memory_budget import UNCOUNTED, MemoryBudget
from gateway.rpc.errors import abort
from gateway.rpc.instrumentation import instrumented
from gateway.rpc.reading import Reader

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from google.protobuf.message import Message

    from gateway.rpc.call import Call
    from gateway.rpc.instrumentation import Answer, Context, Served
    from gateway.telemetry.requests import Requests

__all__ = ["Methods"]

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"

_PER_BYTE: Final = 2
"""Bytes of memory, by measurement, that each byte of an answer takes until the client has taken it: gRPC has a copy."""
_SMALL: Final = UNCOUNTED // _PER_BYTE
"""Length of an answer that is not counted: 64 KiB, which an HTTP/2 client takes by default."""


class Methods(grpc.GenericRpcHandler):
    """The object to which generated code adds servicers, in place of a server.

    `budget` bounds a call, in seconds, and before that the time for its request to arrive; `max_message` is the largest
    size of a request, and `max_answer` that of an answer, in bytes.

    grpc.aio's registered methods are not used: it has a task for each, and looks at all of these tasks at every call.
    `requests` are told of calls, except those to gRPC's own services, which load balancers make all the time.
    """

    def __init__(self, requests: Requests, *, budget: float, max_message: int, max_answer: int) -> None:
        self._requests = requests
        self._methods: dict[str, Handler] = {}
        self._budget = budget
        self._memory = MemoryBudget()
        self._reader = Reader(budget, max_message, self._memory)
        self._max_answer = max_answer

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler | None:
        """The handler of a method; None if there is no such method."""
        return self._methods.get(handler_call_details.method)

    def add_generic_rpc_handlers(self, _: object) -> None:
        """Ignore these: generated code passes the same handlers to the method below."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        """Add the methods of a service. One with a stream of requests reads them itself."""
        for name, handler in handlers.items():
            self._methods[f"/{service}/{name}"] = self._bounded(service, name, handler)

    def serve_also_as(self, service: str, other: str) -> None:
        """Serve the methods of a service that was added under another name too."""
        for path, handler in [*self._methods.items()]:
            if path.startswith(f"/{service}/"):
                self._methods[path.replace(service, other)] = handler

    def _bounded(self, service: str, name: str, handler: Handler) -> Handler:
        if handler.request_streaming:
            return _lenient(handler)
        if handler.response_streaming:
            return self._streaming(handler)
        if service.startswith("grpc."):
            return grpc.stream_unary_rpc_method_handler(self._unary(handler))
        answer = self._answer(handler, writes=not name.startswith(("Get", "BatchGet")))
        served = instrumented(self._requests, f"{service}/{name}", answer, budget=self._budget)
        return grpc.stream_unary_rpc_method_handler(served)

    def _unary(self, handler: Handler) -> Served:
        decode, method, encode = _parts(handler, handler.unary_unary)
        reader = self._reader

        async def answer(_: object, context: Context) -> bytes:
            return encode(await method(await reader.read(context, decode, small=True), context))

        return answer

    def _answer(self, handler: Handler, *, writes: bool) -> Answer:
        """A method of ours takes a `Call`, and returns a message, or the bytes of one."""
        decode, method, encode = _parts(handler, handler.unary_unary)
        reader, memory, max_answer = self._reader, self._memory, self._max_answer

        async def answer(call: Call) -> bytes:
            answer = await method(await reader.read(call.context, decode), call)
            memory.release()
            encoded = answer if isinstance(answer, bytes) else encode(answer)
            size = len(encoded)
            if size > max_answer or (size > _SMALL and not memory.reserve(_PER_BYTE * size)):
                if not writes:
                    await abort(call.context, AnswerTooLarge(max_answer) if size > max_answer else NoRoomForAnswer())
                answer.ClearField("session_context")  # what was written stays written, whoever can read it back
                encoded = encode(answer)
            return encoded

        return answer

    def _streaming(self, handler: Handler) -> Handler:
        decode, method, encode = _parts(handler, handler.unary_stream)
        reader = self._reader

        async def stream(_: object, context: Context) -> None:
            await method(await reader.read(context, decode, small=True), context)

        return grpc.stream_stream_rpc_method_handler(stream, response_serializer=encode)


def _lenient(handler: Handler) -> Handler:
    """The same, with an empty message in the place of one that cannot be decoded: reflection says that it is none."""
    decode, method, encode = _parts(handler, handler.stream_stream)

    def decoded(received: bytes) -> Message:
        try:
            return decode(received)
        except DecodeError:
            return decode(b"")

    return grpc.stream_stream_rpc_method_handler(method, request_deserializer=decoded, response_serializer=encode)


def _parts(handler: Handler, method: Any) -> tuple[Callable[[bytes], Message], Any, Callable[[Message], bytes]]:
    assert handler.request_deserializer is not None  # noqa: S101 - generated code always gives both
    assert handler.response_serializer is not None  # noqa: S101
    return handler.request_deserializer, method, handler.response_serializer
