"""How each contender is asked for the same things: its GraphQL fields, its gRPC messages."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from google.protobuf.json_format import MessageToDict, ParseDict

from bench.stub import SESSION, document
from gateway.gen.emporix.sessioncontext.v1 import session_context_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.message import Message

__all__ = ["API_KEY", "HEADERS", "HIVE", "OURS", "PLAIN", "RPC", "RPC_READ_ONLY", "TRANSCODED", "GraphQL", "Rpc"]

API_KEY: Final = "bench-0123456789abcdef0123456789abcdef0123456789abcdef"
"""Of the one caller that all contenders have; ours checks it."""
HEADERS: Final = {"x-api-key": API_KEY, "saas-token": "a-customer-token"}
"""Sent to all of them alike."""

ALL: Final = (
    "sessionId customerId siteCode currency cartId targetLocation language context"
    " metadata { version createdAt modifiedAt }"
)
TWO: Final = "currency metadata { version }"
FIELDS: Final = {"all": ALL, "two": TWO}

_READ: Final = "query Read($t: String!, $s: %s!) { sessionContext%s(tenant: $t, sessionId: $s) { %s } }"


@dataclass(frozen=True, slots=True)
class GraphQL:
    """A GraphQL dialect."""

    id_type: str
    """Of a session's id."""
    read_field: str
    write_field: str
    write: str
    """The mutation; its variables are `$t`, `$s` and what `writing` makes."""
    path: str = "/graphql"
    ours: bool = False

    def read_body(self, fields: str, session_id: str = SESSION) -> bytes:
        """A request for one session."""
        alias = "" if self.read_field == "sessionContext" else f": {self.read_field}"
        query = _READ % (self.id_type, alias, FIELDS[fields])
        return json.dumps({"query": query, "variables": {"t": "acme", "s": session_id}}).encode()

    def expected(self, fields: str, session_id: str = SESSION, version: int = 10) -> object:
        """The whole body that answers it."""
        whole = document(session_id, version)
        if fields == "two":
            whole = {"currency": whole["currency"], "metadata": {"version": version}}
        return {"data": {"sessionContext": whole}}

    def write_body(self, session_id: str, version: int, page: int) -> bytes:
        """A request that replaces one session, which has the version."""
        state = {name: value for name, value in document().items() if name not in {"sessionId", "metadata"}}
        state["context"] = {"customObject": {"property1": "value1"}, "page": page}
        if self.ours:
            variables: Mapping[str, object] = {
                "i": {"tenant": "acme", "sessionId": session_id, "expectedVersion": version, "sessionContext": state}
            }
        else:
            variables = {"t": "acme", "s": session_id, "c": {**state, "metadata": {"version": version}}}
        return json.dumps({"query": self.write, "variables": variables}).encode()


_PUT: Final = (
    "mutation Write($t: String!, $s: String!, $c: %s!) { putSessionContext(tenant: $t, sessionId: $s, %s: $c) }"
)

OURS: Final = GraphQL(
    "ID",
    "sessionContext",
    "replaceSessionContext",
    "mutation Write($i: ReplaceSessionContextInput!) { replaceSessionContext(input: $i)"
    " { __typename ... on Failure { code message } } }",
    ours=True,
)
PLAIN: Final = GraphQL(
    "String", "sessionContext", "putSessionContext", _PUT % ("SessionContextInput", "sessionContext")
)
HIVE: Final = GraphQL("String", "getSessionContext", "putSessionContext", _PUT % ("SessionContext_Input", "input"))


@dataclass(frozen=True, slots=True)
class Rpc:
    """A gRPC dialect. Messages are the gateway's own; what differs is where they stand."""

    wrapped: bool
    """Whether an answer is a response with a session context in it, or that alone."""
    writes: bool

    read_method = "/emporix.sessioncontext.v1.SessionContextService/GetSessionContext"
    write_method = "/emporix.sessioncontext.v1.SessionContextService/ReplaceSessionContext"

    def read_message(self, session_id: str = SESSION) -> bytes:
        """A request for one session."""
        return pb.GetSessionContextRequest(tenant="acme", session_id=session_id).SerializeToString()

    def session_context(self, answer: bytes) -> pb.SessionContext:
        """What an answer holds."""
        if self.wrapped:
            return pb.GetSessionContextResponse.FromString(answer).session_context
        return pb.SessionContext.FromString(answer)

    def expected(self, session_id: str = SESSION, version: int = 10) -> dict[str, object]:
        """What the answer must hold, as JSON."""
        return _as_json(ParseDict(document(session_id, version), pb.SessionContext()))

    def found(self, answer: bytes) -> dict[str, object]:
        """What an answer holds, as JSON."""
        return _as_json(self.session_context(answer))

    def write_message(self, session_id: str, version: int, page: int) -> bytes:
        """A request that replaces one session, which has the version."""
        state = ParseDict(document(session_id, version), pb.SessionContext())
        state.context["page"] = page
        if self.wrapped:
            state.ClearField("metadata")
            return pb.ReplaceSessionContextRequest(
                tenant="acme",
                session_id=session_id,
                session_context=state,
                expected_version=version,
                omit_session_context=True,
            ).SerializeToString()
        return pb.ReplaceSessionContextRequest(
            tenant="acme", session_id=session_id, session_context=state
        ).SerializeToString()


def _as_json(message: Message) -> dict[str, object]:
    found: dict[str, object] = MessageToDict(message)
    return found


RPC: Final = Rpc(wrapped=True, writes=True)
RPC_READ_ONLY: Final = Rpc(wrapped=True, writes=False)
TRANSCODED: Final = Rpc(wrapped=False, writes=True)
