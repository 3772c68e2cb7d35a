"""Every root field and every method there is, as one call each: made from the schema and from the descriptors.

What is new there is here too, and has no rule until somebody gives it one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import grpc
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.struct_pb2 import Value
from graphql import GraphQLInputObjectType, GraphQLSchema, get_named_type, is_composite_type, is_union_type

from doors import refusal
from gateway.gen.emporix.sessioncontext.v1 import session_context_pb2 as pb
from gateway.graphql.schema import make_schema
from gateway.sandbox import seed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import httpx
    from google.protobuf.descriptor import MethodDescriptor
    from graphql import GraphQLArgument, GraphQLInputField

    from stage import Dev

Side = Literal["read", "write", "own read", "own write"]

RULES: Mapping[str, Side] = {
    "Query.sessionContext": "read",
    "Query.sessionContexts": "read",
    "Query.mySessionContext": "own read",
    "Mutation.replaceSessionContext": "write",
    "Mutation.patchSessionContext": "write",
    "Mutation.addSessionContextAttribute": "write",
    "Mutation.removeSessionContextAttribute": "write",
    "Mutation.updateMySessionContext": "own write",
    "Mutation.addMySessionContextAttribute": "own write",
    "Mutation.removeMySessionContextAttribute": "own write",
    "SessionContextService.GetSessionContext": "read",
    "SessionContextService.BatchGetSessionContexts": "read",
    "SessionContextService.ReplaceSessionContext": "write",
    "SessionContextService.PatchSessionContext": "write",
    "SessionContextService.AddAttribute": "write",
    "SessionContextService.RemoveAttribute": "write",
    "OwnSessionContextService.GetOwnSessionContext": "own read",
    "OwnSessionContextService.UpdateOwnSessionContext": "own write",
    "OwnSessionContextService.AddOwnAttribute": "own write",
    "OwnSessionContextService.RemoveOwnAttribute": "own write",
}
"""What each call needs. Whoever adds one must say it here."""


ATTRIBUTE = ["note", "x"]
"""The name and the value of the attribute that calls set."""


@dataclass(frozen=True)
class Answer:
    """How a call ended: `OK`, or the reason; and the status, gRPC's or HTTP's."""

    reason: str
    status: str
    text: str


@dataclass(frozen=True)
class Clients:
    """The ways to one gateway."""

    dev: Dev
    channel: grpc.aio.Channel
    http: httpx.AsyncClient


@dataclass(frozen=True)
class Method:
    """A gRPC method."""

    name: str
    path: str
    descriptor: MethodDescriptor

    async def __call__(
        self, clients: Clients, headers: Mapping[str, str], *, tenant: str = "acme", good: bool = True
    ) -> Answer:
        answers = GetMessageClass(self.descriptor.output_type)
        call = clients.channel.unary_unary(
            self.path, request_serializer=_serialized, response_deserializer=answers.FromString
        )
        try:
            answer = await call(self._request(tenant, good=good), metadata=tuple(headers.items()), timeout=5)
        except grpc.aio.AioRpcError as error:
            return Answer(refusal(error).reason, error.code().name, f"{error.details()}{error.trailing_metadata()}")
        return Answer("OK", "OK", str(answer))

    def _request(self, tenant: str, *, good: bool) -> Any:
        values: dict[str, Any] = {
            "session_id": seed.CUSTOMER_SESSION,
            "session_ids": [seed.CUSTOMER_SESSION],
            "attribute_name": ATTRIBUTE[0],
            "value": Value(string_value=ATTRIBUTE[1]),
            "session_context": pb.SessionContext(currency="EUR"),
            "update_mask": FieldMask(paths=["currency"]),
            "expected_version": 10,
        }
        bad: dict[str, Any] = {"update_mask": FieldMask(paths=[f"no.{ATTRIBUTE[0]}`"]), "session_ids": [""]}
        given = {"tenant": tenant, **(values if good else bad)}
        fields = {each.name for each in self.descriptor.input_type.fields}
        return GetMessageClass(self.descriptor.input_type)(**{name: given[name] for name in fields & given.keys()})


def _serialized(message: Any) -> bytes:
    return bytes(message.SerializeToString())


@dataclass(frozen=True)
class Field:
    """A root field."""

    name: str
    schema: GraphQLSchema

    async def __call__(
        self, clients: Clients, headers: Mapping[str, str], *, tenant: str = "acme", good: bool = True
    ) -> Answer:
        response = await clients.http.post(
            clients.dev.graphql_url,
            json={"query": self._document(), "variables": self.variables(tenant, good=good)},
            headers=headers,
        )
        return Answer(_reason(response.json()), str(response.status_code), response.text)

    def _document(self) -> str:
        kind, name = self.name.split(".")
        field = self.schema.type_map[kind].fields[name]  # type: ignore[attr-defined]  # Query and Mutation have fields
        returned = get_named_type(field.type)
        variables = ", ".join(f"${each}: {argument.type}" for each, argument in field.args.items())
        arguments = ", ".join(f"{each}: ${each}" for each in field.args)
        failure = "... on Failure { code message }" if is_union_type(returned) else ""
        selection = f"{{ __typename {failure} }}" if is_composite_type(returned) else ""
        return f"{kind.lower()}({variables}) {{ {name}({arguments}) {selection} }}"

    def variables(self, tenant: str, *, good: bool) -> dict[str, Any]:
        kind, name = self.name.split(".")
        values: dict[str, Any] = {
            "sessionId": seed.CUSTOMER_SESSION if good else "",
            "sessionIds": [seed.CUSTOMER_SESSION] if good else [""],
            "name": ATTRIBUTE[0] if good else "",
            "currency": "EUR" if good else "EURO",
            "context": None if good else 7,
            "value": ATTRIBUTE[1],
            "expectedVersion": 10,
        }
        given = {"tenant": tenant, **values}
        if not good:
            del given["value"], given["expectedVersion"]
        return _filled(self.schema.type_map[kind].fields[name].args, given)  # type: ignore[attr-defined]  # as above


def _filled(
    fields: Mapping[str, GraphQLArgument] | Mapping[str, GraphQLInputField], given: Mapping[str, Any]
) -> dict[str, Any]:
    """Values for arguments, or for the fields of an input object, by their names."""
    filled: dict[str, Any] = {}
    for name, field in fields.items():
        kind = get_named_type(field.type)
        if isinstance(kind, GraphQLInputObjectType):
            filled[name] = _filled(kind.fields, {**given, "context": given["context"]})
        elif name in given and given[name] is not None:
            filled[name] = given[name]
    return filled


def _reason(answer: Any) -> str:
    for error in answer.get("errors", ()):
        return str(error["extensions"]["code"])
    (value,) = answer["data"].values()
    return str(value["code"]) if isinstance(value, dict) and "code" in value else "OK"


def all_calls() -> Iterator[Method | Field]:
    """Every one that there is."""
    schema = make_schema()._schema
    for kind in (schema.query_type, schema.mutation_type, schema.subscription_type):
        if kind is not None:
            yield from (Field(f"{kind.name}.{name}", schema) for name in kind.fields)
    for service in pb.DESCRIPTOR.services_by_name.values():
        for method in service.methods:
            yield Method(f"{service.name}.{method.name}", f"/{service.full_name}/{method.name}", method)


CALLS = {each.name: each for each in all_calls()}


def named(*sides: Side) -> list[str]:
    """The names of the calls of these sides; of those that have no rule, too."""
    return [name for name in CALLS if RULES.get(name, sides[0]) in sides]
