"""Both doors behind one interface, so that a behaviour test runs over gRPC and over GraphQL.

Each is a client as a user would write it: generated stubs over a channel, documents over HTTP.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.struct_pb2 import Struct, Value
from google.rpc import error_details_pb2 as details
from grpc_status import rpc_status

from gateway.gen.emporix.sessioncontext.v1 import session_context_pb2 as pb
from gateway.gen.emporix.sessioncontext.v1 import session_context_pb2_grpc as pb_grpc

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import httpx
    from google.protobuf.message import Message

JSON: TypeAlias = Any
"""Any JSON value."""

FIELDS = ("customer_id", "site_code", "currency", "cart_id", "target_location", "language")


@dataclass(frozen=True)
class Seen:
    """A session context as a caller got it."""

    session_id: str
    version: int
    fields: Mapping[str, str]
    context: Mapping[str, JSON]
    additional: Mapping[str, JSON]
    attempts: int | None = None


@dataclass(frozen=True)
class Caller:
    """A caller's credentials."""

    token: str | None = None
    saas_token: str | None = None

    def headers(self) -> dict[str, str]:
        """As headers or metadata."""
        sent = {"x-api-key": "dev-key"}
        if self.token is not None:
            sent["authorization"] = f"Bearer {self.token}"
        if self.saas_token is not None:
            sent["saas-token"] = self.saas_token
        return sent


@dataclass
class Refused(Exception):
    """A call that failed, in terms that both doors share."""

    reason: str
    message: str
    code: str
    """gRPC status, or `error` for a GraphQL error and the type's name for a member of a union."""
    violations: Mapping[str, str] = field(default_factory=dict)
    """By the field's name in the protobuf contract."""
    expected_version: int | None = None
    current: Seen | None = None
    retry_after: float | None = None


class Door(Protocol):
    """What both doors do. A read returns None if there is no session context."""

    name: str
    gateway: str
    """Which gateway's it is, if there are several."""

    async def get(
        self,
        tenant: str,
        session_id: str,
        *,
        min_version: int | None = None,
        max_age: float | None = None,
        timeout: float = 10,
    ) -> Seen | None: ...
    async def batch(
        self, tenant: str, session_ids: Sequence[str], *, max_age: float | None = None
    ) -> list[Seen | None]: ...
    async def get_own(
        self, tenant: str, caller: Caller, *, min_version: int | None = None, max_age: float | None = None
    ) -> Seen | None: ...
    async def replace(
        self,
        tenant: str,
        session_id: str,
        state: Mapping[str, JSON],
        caller: Caller,
        *,
        expected_version: int | None = None,
        upsert: bool = False,
        read_back: bool = True,
        timeout: float = 10,
    ) -> Seen | None: ...
    async def patch(
        self,
        tenant: str,
        session_id: str,
        changes: Mapping[str, JSON],
        caller: Caller,
        *,
        expected_version: int | None = None,
        read_back: bool = True,
        timeout: float = 10,
    ) -> Seen | None:
        """Changes by field, `context` a map of attributes; None clears."""
        ...

    async def update_own(
        self,
        tenant: str,
        changes: Mapping[str, JSON],
        caller: Caller,
        *,
        expected_version: int | None = None,
        timeout: float = 10,
    ) -> Seen | None: ...
    async def add_attribute(
        self,
        tenant: str,
        session_id: str,
        name: str,
        value: JSON,
        caller: Caller,
        *,
        expected_version: int | None = None,
        read_back: bool = True,
    ) -> Seen | None: ...
    async def remove_attribute(
        self, tenant: str, session_id: str, name: str, caller: Caller, *, expected_version: int | None = None
    ) -> Seen | None: ...
    async def add_own_attribute(
        self, tenant: str, name: str, value: JSON, caller: Caller, *, expected_version: int | None = None
    ) -> Seen | None: ...
    async def remove_own_attribute(
        self, tenant: str, name: str, caller: Caller, *, expected_version: int | None = None
    ) -> Seen | None: ...


class GrpcDoor:
    """The gRPC door."""

    name = "grpc"

    def __init__(self, channel: grpc.aio.Channel, gateway: str = "") -> None:
        self.gateway = gateway
        self._managed = pb_grpc.SessionContextServiceStub(channel)
        self._own = pb_grpc.OwnSessionContextServiceStub(channel)

    async def get(
        self,
        tenant: str,
        session_id: str,
        *,
        min_version: int | None = None,
        max_age: float | None = None,
        timeout: float = 10,
    ) -> Seen | None:
        options = pb.ReadOptions(min_version=min_version, max_age=_duration(max_age))
        request = pb.GetSessionContextRequest(tenant=tenant, session_id=session_id, read_options=options)
        return await _read(self._managed.GetSessionContext, request, Caller(), timeout)

    async def batch(
        self, tenant: str, session_ids: Sequence[str], *, max_age: float | None = None
    ) -> list[Seen | None]:
        request = pb.BatchGetSessionContextsRequest(
            tenant=tenant, session_ids=session_ids, read_options=pb.ReadOptions(max_age=_duration(max_age))
        )
        answer = await _called(self._managed.BatchGetSessionContexts, request, Caller(), 10)
        assert [each.session_id for each in answer.entries] == list(session_ids)
        return [_seen(each.session_context) if each.HasField("session_context") else None for each in answer.entries]

    async def get_own(
        self, tenant: str, caller: Caller, *, min_version: int | None = None, max_age: float | None = None
    ) -> Seen | None:
        options = pb.ReadOptions(min_version=min_version, max_age=_duration(max_age))
        request = pb.GetOwnSessionContextRequest(tenant=tenant, read_options=options)
        return await _read(self._own.GetOwnSessionContext, request, caller, 10)

    async def replace(
        self,
        tenant: str,
        session_id: str,
        state: Mapping[str, JSON],
        caller: Caller,
        *,
        expected_version: int | None = None,
        upsert: bool = False,
        read_back: bool = True,
        timeout: float = 10,
    ) -> Seen | None:
        request = pb.ReplaceSessionContextRequest(
            tenant=tenant,
            session_id=session_id,
            session_context=_message(state),
            expected_version=expected_version,
            upsert=upsert,
            omit_session_context=not read_back,
        )
        return _written(await _called(self._managed.ReplaceSessionContext, request, caller, timeout))

    async def patch(
        self,
        tenant: str,
        session_id: str,
        changes: Mapping[str, JSON],
        caller: Caller,
        *,
        expected_version: int | None = None,
        read_back: bool = True,
        timeout: float = 10,
    ) -> Seen | None:
        request = pb.PatchSessionContextRequest(
            tenant=tenant,
            session_id=session_id,
            session_context=_message(changes, null_clears=True),
            update_mask=_mask(changes),
            expected_version=expected_version,
            omit_session_context=not read_back,
        )
        return _written(await _called(self._managed.PatchSessionContext, request, caller, timeout))

    async def update_own(
        self,
        tenant: str,
        changes: Mapping[str, JSON],
        caller: Caller,
        *,
        expected_version: int | None = None,
        timeout: float = 10,
    ) -> Seen | None:
        request = pb.UpdateOwnSessionContextRequest(
            tenant=tenant,
            session_context=_message(changes, null_clears=True),
            update_mask=_mask(changes),
            expected_version=expected_version,
        )
        return _written(await _called(self._own.UpdateOwnSessionContext, request, caller, timeout))

    async def add_attribute(
        self,
        tenant: str,
        session_id: str,
        name: str,
        value: JSON,
        caller: Caller,
        *,
        expected_version: int | None = None,
        read_back: bool = True,
    ) -> Seen | None:
        request = pb.AddAttributeRequest(
            tenant=tenant,
            session_id=session_id,
            attribute_name=name,
            value=ParseDict(value, Value()),
            expected_version=expected_version,
            omit_session_context=not read_back,
        )
        return _written(await _called(self._managed.AddAttribute, request, caller, 10))

    async def remove_attribute(
        self, tenant: str, session_id: str, name: str, caller: Caller, *, expected_version: int | None = None
    ) -> Seen | None:
        request = pb.RemoveAttributeRequest(
            tenant=tenant, session_id=session_id, attribute_name=name, expected_version=expected_version
        )
        return _written(await _called(self._managed.RemoveAttribute, request, caller, 10))

    async def add_own_attribute(
        self, tenant: str, name: str, value: JSON, caller: Caller, *, expected_version: int | None = None
    ) -> Seen | None:
        request = pb.AddOwnAttributeRequest(
            tenant=tenant,
            attribute_name=name,
            value=ParseDict(value, Value()),
            expected_version=expected_version,
        )
        return _written(await _called(self._own.AddOwnAttribute, request, caller, 10))

    async def remove_own_attribute(
        self, tenant: str, name: str, caller: Caller, *, expected_version: int | None = None
    ) -> Seen | None:
        request = pb.RemoveOwnAttributeRequest(tenant=tenant, attribute_name=name, expected_version=expected_version)
        return _written(await _called(self._own.RemoveOwnAttribute, request, caller, 10))


def _duration(seconds: float | None) -> Duration | None:
    return None if seconds is None else Duration(nanos=round(seconds % 1 * 1e9), seconds=int(seconds))


async def _read(method: Any, request: Message, caller: Caller, timeout: float) -> Seen | None:
    try:
        return _seen((await _called(method, request, caller, timeout)).session_context)
    except Refused as refused:
        if refused.reason == "SESSION_NOT_FOUND":
            return None
        raise


async def _called(method: Any, request: Message, caller: Caller, timeout: float) -> Any:
    try:
        return await method(request, timeout=timeout, metadata=tuple(caller.headers().items()))
    except grpc.aio.AioRpcError as error:
        raise refusal(error) from None


def refusal(error: grpc.aio.AioRpcError) -> Refused:
    """A gRPC error in terms that both doors share."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type]  # documented to take it; the stubs want a Call
    refused = Refused("", error.details() or "", error.code().name)
    for packed in () if status is None else status.details:
        for kind in (details.ErrorInfo, details.BadRequest, details.RetryInfo, pb.VersionConflict):
            message = kind()
            if packed.Unpack(message):
                _take(refused, message)
    return refused


def _take(refused: Refused, detail: Message) -> None:
    match detail:
        case details.ErrorInfo():
            assert detail.domain == "session-gateway"
            refused.reason = detail.reason
        case details.BadRequest():
            refused.violations = {each.field: each.description for each in detail.field_violations}
        case details.RetryInfo():
            refused.retry_after = detail.retry_delay.ToNanoseconds() / 1e9
        case pb.VersionConflict():
            refused.expected_version = detail.expected_version if detail.HasField("expected_version") else None
            refused.current = _seen(detail.current) if detail.HasField("current") else None
            if refused.current is not None:
                assert detail.current_version == refused.current.version


def _seen(message: pb.SessionContext, attempts: int | None = None) -> Seen:
    return Seen(
        message.session_id,
        message.metadata.version,
        {name: getattr(message, name) for name in FIELDS if message.HasField(name)},
        MessageToDict(message.context),
        MessageToDict(message.additional_properties),
        attempts,
    )


def _written(answer: Any) -> Seen | None:
    return (
        _seen(answer.session_context, getattr(answer, "attempts", None)) if answer.HasField("session_context") else None
    )


def _message(state: Mapping[str, JSON], *, null_clears: bool = False) -> pb.SessionContext:
    message = pb.SessionContext(**{name: state.get(name) for name in FIELDS})
    given = (state.get("context") or {}).items()
    context = {name: value for name, value in given if value is not None or not null_clears}
    message.context.CopyFrom(ParseDict(context, Struct()))
    message.additional_properties.CopyFrom(ParseDict(state.get("additional_properties") or {}, Struct()))
    return message


def _mask(changes: Mapping[str, JSON]) -> FieldMask:
    paths = [name for name in changes if name != "context"]
    attributes = changes.get("context", {})
    paths += ["context"] if attributes is None else [f"context.`{each.replace('`', '``')}`" for each in attributes]
    return FieldMask(paths=paths)


SELECTION = """{
  sessionId customerId siteCode currency cartId targetLocation language context additionalProperties
  metadata { version createdAt modifiedAt }
}"""

_PAYLOAD = """{
  __typename
  ... on %s { %s sessionContext @include(if: $readBack) %s }
  ... on VersionConflict { expectedVersion currentVersion current %s }
  ... on InvalidInput { violations { field message } }
  ... on Failure { code message }
}"""


class GraphQLDoor:
    """The GraphQL door."""

    name = "graphql"

    def __init__(self, client: httpx.AsyncClient, url: str, gateway: str = "") -> None:
        self.gateway = gateway
        self._client = client
        self._url = url

    async def get(
        self,
        tenant: str,
        session_id: str,
        *,
        min_version: int | None = None,
        max_age: float | None = None,
        timeout: float = 10,
    ) -> Seen | None:
        arguments = "tenant: $t, sessionId: $s, minVersion: $v, maxAge: $a"
        query = f"query($t: String!, $s: ID!, $v: Version, $a: Float) {{ sessionContext({arguments}) {SELECTION} }}"
        variables = {"t": tenant, "s": session_id, "v": min_version, "a": max_age}
        return _seen_json(await self._one(query, variables, Caller(), timeout))

    async def batch(
        self, tenant: str, session_ids: Sequence[str], *, max_age: float | None = None
    ) -> list[Seen | None]:
        arguments = "tenant: $t, sessionIds: $s, maxAge: $a"
        query = f"query($t: String!, $s: [ID!]!, $a: Float) {{ sessionContexts({arguments}) {SELECTION} }}"
        found = await self._one(query, {"t": tenant, "s": list(session_ids), "a": max_age}, Caller(), 10)
        return [_seen_json(each) for each in found]

    async def get_own(
        self, tenant: str, caller: Caller, *, min_version: int | None = None, max_age: float | None = None
    ) -> Seen | None:
        arguments = "tenant: $t, minVersion: $v, maxAge: $a"
        query = f"query($t: String!, $v: Version, $a: Float) {{ mySessionContext({arguments}) {SELECTION} }}"
        return _seen_json(await self._one(query, {"t": tenant, "v": min_version, "a": max_age}, caller, 10))

    async def replace(
        self,
        tenant: str,
        session_id: str,
        state: Mapping[str, JSON],
        caller: Caller,
        *,
        expected_version: int | None = None,
        upsert: bool = False,
        read_back: bool = True,
        timeout: float = 10,
    ) -> Seen | None:
        given = {
            "tenant": tenant,
            "sessionId": session_id,
            "sessionContext": _camel(state),
            "expectedVersion": expected_version,
            "upsert": upsert,
        }
        return await self._write("replaceSessionContext", given, caller, read_back=read_back, timeout=timeout)

    async def patch(
        self,
        tenant: str,
        session_id: str,
        changes: Mapping[str, JSON],
        caller: Caller,
        *,
        expected_version: int | None = None,
        read_back: bool = True,
        timeout: float = 10,
    ) -> Seen | None:
        given = {
            "tenant": tenant,
            "sessionId": session_id,
            "patch": _camel(changes),
            "expectedVersion": expected_version,
        }
        return await self._write("patchSessionContext", given, caller, read_back=read_back, timeout=timeout)

    async def update_own(
        self,
        tenant: str,
        changes: Mapping[str, JSON],
        caller: Caller,
        *,
        expected_version: int | None = None,
        timeout: float = 10,
    ) -> Seen | None:
        given = {"tenant": tenant, "patch": _camel(changes), "expectedVersion": expected_version}
        return await self._write("updateMySessionContext", given, caller, timeout=timeout)

    async def add_attribute(
        self,
        tenant: str,
        session_id: str,
        name: str,
        value: JSON,
        caller: Caller,
        *,
        expected_version: int | None = None,
        read_back: bool = True,
    ) -> Seen | None:
        given = {
            "tenant": tenant,
            "sessionId": session_id,
            "name": name,
            "value": value,
            "expectedVersion": expected_version,
        }
        return await self._write("addSessionContextAttribute", given, caller, read_back=read_back)

    async def remove_attribute(
        self, tenant: str, session_id: str, name: str, caller: Caller, *, expected_version: int | None = None
    ) -> Seen | None:
        given = {"tenant": tenant, "sessionId": session_id, "name": name, "expectedVersion": expected_version}
        return await self._write("removeSessionContextAttribute", given, caller)

    async def add_own_attribute(
        self, tenant: str, name: str, value: JSON, caller: Caller, *, expected_version: int | None = None
    ) -> Seen | None:
        given = {"tenant": tenant, "name": name, "value": value, "expectedVersion": expected_version}
        return await self._write("addMySessionContextAttribute", given, caller)

    async def remove_own_attribute(
        self, tenant: str, name: str, caller: Caller, *, expected_version: int | None = None
    ) -> Seen | None:
        given = {"tenant": tenant, "name": name, "expectedVersion": expected_version}
        return await self._write("removeMySessionContextAttribute", given, caller)

    async def _write(
        self, field: str, given: Mapping[str, JSON], caller: Caller, *, read_back: bool = True, timeout: float = 10
    ) -> Seen | None:
        kind = field[0].upper() + field[1:]
        attempts = "attempts" if "patch" in given else ""
        payload = _PAYLOAD % (f"{kind}Payload", attempts, SELECTION, SELECTION)
        document = f"mutation($input: {kind}Input!, $readBack: Boolean!) {{ {field}(input: $input) {payload} }}"
        answer = await self._one(document, {"input": given, "readBack": read_back}, caller, timeout)
        if answer["__typename"] == f"{kind}Payload":
            return _seen_json(answer.get("sessionContext"), answer.get("attempts"))
        raise Refused(
            answer["code"],
            answer["message"],
            answer["__typename"],
            violations={_in_proto(field, each["field"]): each["message"] for each in answer.get("violations", ())},
            expected_version=answer.get("expectedVersion"),
            current=_seen_json(answer.get("current")),
        )

    async def _one(self, document: str, variables: Mapping[str, JSON], caller: Caller, timeout: float) -> JSON:
        """Run a document of one root field; returns the field."""
        response = await self._client.post(
            self._url, json={"query": document, "variables": variables}, headers=caller.headers(), timeout=timeout
        )
        turned_away = response.status_code in {429, 503} and "retry-after" in response.headers
        assert response.status_code == 200 or turned_away, response.text
        answer = response.json()
        assert "data" not in answer or response.status_code == 200
        for error in answer.get("errors", ()):
            extensions = error.get("extensions", {})
            raise Refused(
                extensions.get("code", ""),
                error["message"],
                "error",
                violations={_snake(each["field"]): each["message"] for each in extensions.get("violations", ())},
                retry_after=extensions.get("retryAfter"),
            )
        (value,) = answer["data"].values()
        return value


def _seen_json(found: JSON, attempts: int | None = None) -> Seen | None:
    if found is None:
        return None
    fields = {_snake(name): value for name, value in found.items() if value is not None}
    return Seen(
        found["sessionId"],
        found["metadata"]["version"],
        {name: fields[name] for name in FIELDS if name in fields},
        found["context"] or {},
        found["additionalProperties"] or {},
        attempts,
    )


def _camel(state: Mapping[str, JSON]) -> dict[str, JSON]:
    def camel(name: str) -> str:
        first, *rest = name.split("_")
        return first + "".join(each.capitalize() for each in rest)

    return {camel(name): value for name, value in state.items()}


def _in_proto(mutation: str, field: str) -> str:
    """A field's name in the protobuf contract, if it differs in a mutation's input."""
    first, dot, rest = field.partition(".")
    names = {"patch": "session_context", "name": "attribute_name"}
    return f"{names.get(first, _snake(first))}{dot}{_snake(rest)}"


def _snake(name: str) -> str:
    return "".join(f"_{each.lower()}" if each.isupper() else each for each in name)
