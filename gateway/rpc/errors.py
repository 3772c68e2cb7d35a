"""From the error tree to gRPC: one table of codes, and the details that go with each (AIP-193)."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any, Final, Never, TypeVar

import grpc
import structlog
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2 as details
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from gateway import errors
from gateway.cache.readthrough import NotThere
from gateway.defects import reported
from gateway.gen.emporix.sessioncontext.v1 import session_context_pb2 as pb
from gateway.request import current
from gateway.rpc.convert import fill_session_context

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from google.protobuf.message import Message

    from gateway.rpc.call import Call

__all__ = ["CODES", "DOMAIN", "abort", "answers", "status_of"]

CODES: Final[dict[type[errors.GatewayError], grpc.StatusCode]] = {
    errors.InvalidArgument: grpc.StatusCode.INVALID_ARGUMENT,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    errors.IssuerUnavailable: grpc.StatusCode.UNAVAILABLE,
    errors.CallerRateLimited: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.VersionConflict: grpc.StatusCode.ABORTED,
    errors.MinVersionNotReached: grpc.StatusCode.OUT_OF_RANGE,
    errors.NotRepresentable: grpc.StatusCode.FAILED_PRECONDITION,
    errors.AnswerTooLarge: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.RequestNotReceived: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.NoRoomForRequest: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.WriteOutcomeUnknown: grpc.StatusCode.UNKNOWN,
    errors.RateLimited: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.UpstreamUnavailable: grpc.StatusCode.UNAVAILABLE,
    errors.UpstreamTimeout: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.GatewayError: grpc.StatusCode.INTERNAL,
}
"""The most specific row wins: a class that has none takes its base's."""

DOMAIN: Final = "session-gateway"

_MAX_STATUS: Final = 5_300
"""Bytes of a status that fit, in base64, into the 8 KiB of metadata that clients accept by default."""
_MAX_MESSAGE: Final = 500
"""Bytes of a message as it goes over the wire, beside the status."""
_MAX_VIOLATIONS: Final = 4_000
"""Bytes of the violations that are told."""

_log = structlog.stdlib.get_logger(__name__)

Self = TypeVar("Self")
Request = TypeVar("Request")


def answers(
    method: Callable[[Self, Request, Call], Awaitable[Message | bytes]],
) -> Callable[[Self, Request, Any], Awaitable[Any]]:
    """Make a servicer's method end with the right status, whatever it raises.

    If there is no session context, the metadata tells where that is known from. Any other exception is a bug
    (`gateway.defects`). The types of generated code do not know that `Methods` passes a `Call`, and accepts bytes as an
    answer.
    """

    @functools.wraps(method)
    async def answer(self: Self, request: Request, call: Call) -> Message | bytes:
        try:
            return await method(self, request, call)
        except errors.GatewayError as error:
            if isinstance(error, NotThere):
                call.tell_of_cache(error.status)
            refusal = error.with_traceback(None)  # this frame is in it, and would refer to it in turn
        except Exception as defect:  # noqa: BLE001 - the outermost frame of a call: nothing of it may reach the caller
            refusal = errors.GatewayError(reported(defect, _log))
        return await abort(call.context, refusal)

    return answer


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: errors.GatewayError) -> Never:
    """End a call with an error. Trailing metadata that was set before is kept."""
    current().failed(error.reason)
    sent = rpc_status.to_status(status_of(error))
    try:
        await context.abort(
            sent.code, sent.details, (*(sent.trailing_metadata or ()), *(context.trailing_metadata() or ()))
        )
    except grpc.aio.InternalError:
        # The caller has just gone. grpc.aio would cancel the call if it knew; otherwise it logs a traceback.
        raise asyncio.CancelledError from None


def status_of(error: errors.GatewayError) -> Status:
    """The whole status of an error, small enough to reach the caller."""
    code = next(CODES[each] for each in type(error).__mro__ if each in CODES)
    if isinstance(error, errors.WriteOutcomeUnknown) and error.timed_out:
        code = grpc.StatusCode.DEADLINE_EXCEEDED
    number: int = code.value[0]
    status = Status(code=number, message=_shortened(error.message))
    for detail in _details(error):
        packed = AnyMessage()
        packed.Pack(detail)
        if isinstance(detail, pb.VersionConflict) and status.ByteSize() + packed.ByteSize() > _MAX_STATUS:
            detail.ClearField("current")  # its version is told all the same
            packed.Pack(detail)
        if status.ByteSize() + packed.ByteSize() <= _MAX_STATUS:
            status.details.append(packed)
    return status


def _shortened(message: str) -> str:
    """At most what fits: gRPC writes all but visible ASCII as `%XX`, byte by byte."""
    room = _MAX_MESSAGE
    for place, char in enumerate(message):
        room -= 1 if " " <= char <= "~" and char != "%" else 3 * len(char.encode())
        if room < 0:
            return f"{message[:place]}…"
    return message


def _details(error: errors.GatewayError) -> Iterator[Message]:
    """ErrorInfo, which holds what the message says, and what else fits."""
    yield details.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=dict(_metadata(error)))
    match error:
        case errors.InvalidArgument():
            yield _bad_request(error)
        case errors.SessionNotFound():
            yield details.ResourceInfo(
                resource_type="emporix.sessioncontext.v1.SessionContext", resource_name=error.session_id or "me"
            )
        case errors.TenantNotConfigured():
            yield details.ResourceInfo(resource_type="tenant", resource_name=error.tenant)
        case errors.VersionConflict():
            yield _conflict(error)
        case errors.RateLimited() | errors.UpstreamUnavailable() if error.retry_after is not None:
            yield details.RetryInfo(retry_delay=_duration(error.retry_after))
        case errors.CallerRateLimited() | errors.NoRoomForRequest() | errors.NoRoomForAnswer():
            yield details.RetryInfo(retry_delay=_duration(error.retry_after))


def _metadata(error: errors.GatewayError) -> Iterator[tuple[str, str]]:
    match error:
        case errors.SessionNotFound(session_id=str(session_id)) | errors.NotRepresentable(session_id=session_id):
            yield "session_id", session_id
        case errors.TenantNotConfigured():
            yield "tenant", error.tenant
        case errors.CallerNotPermitted():
            yield "caller", error.caller
            yield "permission", error.permission
            yield "tenant", error.tenant
        case errors.MinVersionNotReached():
            yield "min_version", str(error.min_version)
            yield "current_version", str(error.current_version)
        case errors.VersionConflict():
            if error.expected_version is not None:
                yield "expected_version", str(error.expected_version)
            if error.current is not None:
                yield "current_version", str(error.current.metadata.version)


def _bad_request(error: errors.InvalidArgument) -> details.BadRequest:
    """As many of the violations as fit."""
    refusal = details.BadRequest()
    for each in error.violations:
        refusal.field_violations.add(field=each.field, description=_shortened(each.message))
        if refusal.ByteSize() > _MAX_VIOLATIONS:
            del refusal.field_violations[-1]
            break
    return refusal


def _conflict(error: errors.VersionConflict) -> pb.VersionConflict:
    conflict = pb.VersionConflict(expected_version=error.expected_version)
    if error.current is not None:
        conflict.current_version = error.current.metadata.version
        try:
            fill_session_context(conflict.current, error.current)
        except errors.NotRepresentable:
            conflict.ClearField("current")
    return conflict


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(round(seconds * 1e9))
    return duration
