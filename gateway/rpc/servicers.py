"""The two services: each method converts, calls the use case, and converts back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from gateway.errors import GatewayError, InvalidArgument, NotRepresentable, SessionNotFound
from gateway.gen.emporix.sessioncontext.v1 import session_context_pb2 as pb
from gateway.gen.emporix.sessioncontext.v1 import session_context_pb2_grpc as pb_grpc
from gateway.rpc.call import credentials_of, deadline_of
from gateway.rpc.convert import json_from_value, replacement_from_message, session_context_message
from gateway.rpc.errors import answers
from gateway.rpc.field_mask import patch_from_message
from gateway.sessions.service import OWN_WRITABLE, WRITABLE
from gateway.sessions.writer import WriteOptions

if TYPE_CHECKING:
    import grpc

    from gateway.model import JSON, SessionContext
    from gateway.sessions.service import OwnSessionContexts, SessionContexts
    from gateway.sessions.writer import Written

__all__ = ["OwnSessionContextServicer", "SessionContextServicer"]

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
"""What grpc.aio hands a method; its message types are of no interest here."""

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
    """The management side. `budget` bounds a call, in seconds, whatever deadline its caller sets."""

    def __init__(self, sessions: SessionContexts, *, budget: float) -> None:
        self._sessions = sessions
        self._budget = budget

    @answers
    async def GetSessionContext(
        self, request: pb.GetSessionContextRequest, context: Context
    ) -> pb.GetSessionContextResponse:
        """See the proto."""
        found = await self._sessions.get(request.tenant, request.session_id, deadline_of(context, self._budget))
        return pb.GetSessionContextResponse(session_context=session_context_message(found))

    @answers
    async def BatchGetSessionContexts(
        self, request: pb.BatchGetSessionContextsRequest, context: Context
    ) -> pb.BatchGetSessionContextsResponse:
        """See the proto."""
        found = await self._sessions.batch_get(request.tenant, request.session_ids, deadline_of(context, self._budget))
        return pb.BatchGetSessionContextsResponse(
            entries=[
                pb.BatchGetSessionContextsEntry(session_id=session_id, session_context=_message_if_found(each))
                for session_id, each in zip(request.session_ids, found, strict=True)
            ]
        )

    @answers
    async def ReplaceSessionContext(
        self, request: pb.ReplaceSessionContextRequest, context: Context
    ) -> pb.ReplaceSessionContextResponse:
        """See the proto."""
        written = await self._sessions.replace(
            request.tenant,
            request.session_id,
            replacement_from_message(request.session_context),
            _options(request, context, self._budget),
            upsert=request.upsert,
            saas_token=credentials_of(context).saas_token,
        )
        return pb.ReplaceSessionContextResponse(session_context=_message_if_read(written))

    @answers
    async def PatchSessionContext(
        self, request: pb.PatchSessionContextRequest, context: Context
    ) -> pb.PatchSessionContextResponse:
        """See the proto."""
        written = await self._sessions.patch(
            request.tenant,
            request.session_id,
            patch_from_message(request.session_context, request.update_mask.paths, writable=WRITABLE),
            _options(request, context, self._budget),
            saas_token=credentials_of(context).saas_token,
        )
        return pb.PatchSessionContextResponse(session_context=_message_if_read(written), attempts=written.attempts)

    @answers
    async def AddAttribute(self, request: pb.AddAttributeRequest, context: Context) -> pb.AddAttributeResponse:
        """See the proto."""
        written = await self._sessions.add_attribute(
            request.tenant,
            request.session_id,
            request.attribute_name,
            _value(request),
            _options(request, context, self._budget),
            saas_token=credentials_of(context).saas_token,
        )
        return pb.AddAttributeResponse(session_context=_message_if_read(written))

    @answers
    async def RemoveAttribute(self, request: pb.RemoveAttributeRequest, context: Context) -> pb.RemoveAttributeResponse:
        """See the proto."""
        written = await self._sessions.remove_attribute(
            request.tenant,
            request.session_id,
            request.attribute_name,
            _options(request, context, self._budget),
            saas_token=credentials_of(context).saas_token,
        )
        return pb.RemoveAttributeResponse(session_context=_message_if_read(written))


class OwnSessionContextServicer(pb_grpc.OwnSessionContextServiceServicer):
    """The storefront side. `budget` is as for the management side."""

    def __init__(self, own: OwnSessionContexts, *, budget: float) -> None:
        self._own = own
        self._budget = budget

    @answers
    async def GetOwnSessionContext(
        self, request: pb.GetOwnSessionContextRequest, context: Context
    ) -> pb.GetOwnSessionContextResponse:
        """See the proto."""
        token = credentials_of(context).access_token
        found = await self._own.get(request.tenant, token, deadline_of(context, self._budget))
        return pb.GetOwnSessionContextResponse(session_context=session_context_message(found))

    @answers
    async def UpdateOwnSessionContext(
        self, request: pb.UpdateOwnSessionContextRequest, context: Context
    ) -> pb.UpdateOwnSessionContextResponse:
        """See the proto."""
        written = await self._own.update(
            request.tenant,
            credentials_of(context).access_token,
            patch_from_message(request.session_context, request.update_mask.paths, writable=OWN_WRITABLE),
            _options(request, context, self._budget),
        )
        return pb.UpdateOwnSessionContextResponse(session_context=_message_if_read(written), attempts=written.attempts)

    @answers
    async def AddOwnAttribute(self, request: pb.AddOwnAttributeRequest, context: Context) -> pb.AddOwnAttributeResponse:
        """See the proto."""
        written = await self._own.add_attribute(
            request.tenant,
            credentials_of(context).access_token,
            request.attribute_name,
            _value(request),
            _options(request, context, self._budget),
        )
        return pb.AddOwnAttributeResponse(session_context=_message_if_read(written))

    @answers
    async def RemoveOwnAttribute(
        self, request: pb.RemoveOwnAttributeRequest, context: Context
    ) -> pb.RemoveOwnAttributeResponse:
        """See the proto."""
        written = await self._own.remove_attribute(
            request.tenant,
            credentials_of(context).access_token,
            request.attribute_name,
            _options(request, context, self._budget),
        )
        return pb.RemoveOwnAttributeResponse(session_context=_message_if_read(written))


def _options(request: Write, context: Context, budget: float) -> WriteOptions:
    return WriteOptions(
        deadline=deadline_of(context, budget),
        expected_version=request.expected_version if request.HasField("expected_version") else None,
        read_back=not request.omit_session_context,
    )


def _value(request: pb.AddAttributeRequest | pb.AddOwnAttributeRequest) -> JSON:
    if not request.HasField("value"):
        raise InvalidArgument.of("value", "is required: for null set its null_value")
    return json_from_value(request.value, "value")


def _message_if_read(written: Written) -> pb.SessionContext | None:
    """What the write left; that it was read but cannot be carried does not make the write a failure."""
    if written.session_context is None:
        return None
    try:
        return session_context_message(written.session_context)
    except NotRepresentable:
        return None


def _message_if_found(found: SessionContext | GatewayError) -> pb.SessionContext | None:
    """One read of a batch: what does not exist is no failure, and any other failure fails the batch."""
    if isinstance(found, SessionNotFound):
        return None
    if isinstance(found, GatewayError):
        raise found
    return session_context_message(found)
