"""The two services: each method converts, calls the use case, and converts back.

Reads return bytes, those of one session possibly from `gateway.rpc.encoded`; writes return a message.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from gateway.cache.freshness import combined
from gateway.cache.readthrough import Found, NotThere
from gateway.errors import AnswerTooLarge, InvalidArgument, NotRepresentable
from gateway.gen.emporix.sessioncontext.v1 import session_context_pb2 as pb
from gateway.gen.emporix.sessioncontext.v1 import session_context_pb2_grpc as pb_grpc
from gateway.rpc.convert import fill_session_context, json_from_value, replacement_from_message, session_context_message
from gateway.rpc.encoded import EncodedAnswers
from gateway.rpc.errors import answers
from gateway.rpc.field_mask import patch_from_message
from gateway.sessions.service import OWN_WRITABLE, WRITABLE
from gateway.sessions.writer import WriteOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.access.guard import Guard
    from gateway.cache.freshness import CacheStatus
    from gateway.errors import GatewayError
    from gateway.model import JSON, Replacement
    from gateway.rpc.call import Call
    from gateway.sessions.writer import Written

__all__ = ["OwnSessionContextServicer", "SessionContextServicer"]

Write: TypeAlias = (
    pb.ReplaceSessionContextRequest
    | pb.PatchSessionContextRequest
    | pb.AddAttributeRequest
    | pb.RemoveAttributeRequest
    | pb.UpdateOwnSessionContextRequest
    | pb.AddOwnAttributeRequest
    | pb.RemoveOwnAttributeRequest
)


class SessionContextServicer(pb_grpc.SessionContextServiceServicer):
    """The management side. `max_answer` is as in `Limits`: a batch stops as soon as it is too large."""

    def __init__(self, guard: Guard, *, max_answer: int) -> None:
        self._guard = guard
        self._max_answer = max_answer
        self._answers = EncodedAnswers(pb.GetSessionContextResponse)

    @answers
    async def GetSessionContext(self, request: pb.GetSessionContextRequest, call: Call) -> bytes:
        """See the proto."""
        found = await self._guard.sessions(call.credentials()).get(
            request.tenant, request.session_id, call.deadline(), call.read_options(request)
        )
        call.tell_of_cache(found.status)
        return self._answers.of(found.context)

    @answers
    async def BatchGetSessionContexts(self, request: pb.BatchGetSessionContextsRequest, call: Call) -> bytes:
        """See the proto."""
        found = await self._guard.sessions(call.credentials()).batch_get(
            request.tenant, request.session_ids, call.deadline(), call.read_options(request)
        )
        call.tell_of_cache(combined(_status(each) for each in found))
        return self._batch(request.session_ids, found)

    def _batch(self, session_ids: Sequence[str], found: Sequence[Found | GatewayError]) -> bytes:
        """The answer, entry by entry: each session is encoded once, and no more once it is too large."""
        encoded: dict[str, bytes] = {}
        size = 0
        for session_id, each in zip(session_ids, found, strict=True):
            if session_id not in encoded:
                encoded[session_id] = _answer_of_one(session_id, each)
            size += len(encoded[session_id])
            if size > self._max_answer:
                raise AnswerTooLarge(self._max_answer)
        return b"".join(encoded[session_id] for session_id in session_ids)

    @answers
    async def ReplaceSessionContext(
        self, request: pb.ReplaceSessionContextRequest, call: Call
    ) -> pb.ReplaceSessionContextResponse:
        """See the proto."""
        written = await self._guard.sessions(call.credentials()).replace(
            request.tenant,
            request.session_id,
            partial(_replacement, request),
            _options(request, call),
            upsert=request.upsert,
        )
        return pb.ReplaceSessionContextResponse(session_context=_message_if_read(written))

    @answers
    async def PatchSessionContext(
        self, request: pb.PatchSessionContextRequest, call: Call
    ) -> pb.PatchSessionContextResponse:
        """See the proto."""
        written = await self._guard.sessions(call.credentials()).patch(
            request.tenant,
            request.session_id,
            partial(patch_from_message, request.session_context, request.update_mask.paths, writable=WRITABLE),
            _options(request, call),
        )
        return pb.PatchSessionContextResponse(session_context=_message_if_read(written), attempts=written.attempts)

    @answers
    async def AddAttribute(self, request: pb.AddAttributeRequest, call: Call) -> pb.AddAttributeResponse:
        """See the proto."""
        written = await self._guard.sessions(call.credentials()).add_attribute(
            request.tenant,
            request.session_id,
            request.attribute_name,
            partial(_value, request),
            _options(request, call),
        )
        return pb.AddAttributeResponse(session_context=_message_if_read(written))

    @answers
    async def RemoveAttribute(self, request: pb.RemoveAttributeRequest, call: Call) -> pb.RemoveAttributeResponse:
        """See the proto."""
        written = await self._guard.sessions(call.credentials()).remove_attribute(
            request.tenant, request.session_id, request.attribute_name, _options(request, call)
        )
        return pb.RemoveAttributeResponse(session_context=_message_if_read(written))


class OwnSessionContextServicer(pb_grpc.OwnSessionContextServiceServicer):
    """The storefront side."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._answers = EncodedAnswers(pb.GetOwnSessionContextResponse)

    @answers
    async def GetOwnSessionContext(self, request: pb.GetOwnSessionContextRequest, call: Call) -> bytes:
        """See the proto."""
        found = await self._guard.own(call.credentials()).get(
            request.tenant, call.deadline(), call.read_options(request)
        )
        call.tell_of_cache(found.status)
        return self._answers.of(found.context)

    @answers
    async def UpdateOwnSessionContext(
        self, request: pb.UpdateOwnSessionContextRequest, call: Call
    ) -> pb.UpdateOwnSessionContextResponse:
        """See the proto."""
        written = await self._guard.own(call.credentials()).update(
            request.tenant,
            partial(patch_from_message, request.session_context, request.update_mask.paths, writable=OWN_WRITABLE),
            _options(request, call),
        )
        return pb.UpdateOwnSessionContextResponse(session_context=_message_if_read(written), attempts=written.attempts)

    @answers
    async def AddOwnAttribute(self, request: pb.AddOwnAttributeRequest, call: Call) -> pb.AddOwnAttributeResponse:
        """See the proto."""
        written = await self._guard.own(call.credentials()).add_attribute(
            request.tenant, request.attribute_name, partial(_value, request), _options(request, call)
        )
        return pb.AddOwnAttributeResponse(session_context=_message_if_read(written))

    @answers
    async def RemoveOwnAttribute(
        self, request: pb.RemoveOwnAttributeRequest, call: Call
    ) -> pb.RemoveOwnAttributeResponse:
        """See the proto."""
        written = await self._guard.own(call.credentials()).remove_attribute(
            request.tenant, request.attribute_name, _options(request, call)
        )
        return pb.RemoveOwnAttributeResponse(session_context=_message_if_read(written))


def _options(request: Write, call: Call) -> WriteOptions:
    return WriteOptions(
        deadline=call.deadline(),
        expected_version=request.expected_version if request.HasField("expected_version") else None,
        read_back=not request.omit_session_context,
    )


def _replacement(request: pb.ReplaceSessionContextRequest) -> Replacement:
    if not request.HasField("session_context"):
        raise InvalidArgument.of("session_context", "is required: to remove everything, send an empty one")
    return replacement_from_message(request.session_context)


def _value(request: pb.AddAttributeRequest | pb.AddOwnAttributeRequest) -> JSON:
    if not request.HasField("value"):
        raise InvalidArgument.of("value", "is required: for null set its null_value")
    return json_from_value(request.value, "value")


def _message_if_read(written: Written) -> pb.SessionContext | None:
    """The session context after the write; if protobuf cannot represent it, the write has succeeded all the same."""
    if written.session_context is None:
        return None
    try:
        return session_context_message(written.session_context)
    except NotRepresentable:
        return None


def _status(found: Found | GatewayError) -> CacheStatus:
    """Where one read of a batch was answered from.

    A session that does not exist is no failure; any other failure fails the batch.
    """
    if isinstance(found, Found | NotThere):
        return found.status
    raise found


def _answer_of_one(session_id: str, found: Found | GatewayError) -> bytes:
    """The answer to a batch of one; concatenated, several of them are the answer to all.

    Raises NotRepresentable.
    """
    answer = pb.BatchGetSessionContextsResponse()
    entry = answer.entries.add(session_id=session_id)
    if isinstance(found, Found):
        fill_session_context(entry.session_context, found.context)
    return answer.SerializeToString()
