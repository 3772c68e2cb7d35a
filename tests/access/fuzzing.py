"""Inputs that are nearly right: requests, frames, messages and documents, with something wrong about many of them.

Each is made from a `random.Random`, so that one number tells how to make it again.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from graphql import (
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLObjectType,
    get_named_type,
    get_nullable_type,
    is_list_type,
    is_object_type,
    is_union_type,
)

from gateway.gen.emporix.sessioncontext.v1 import session_context_pb2 as pb
from gateway.graphql.schema import make_schema
from gateway.sandbox import seed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

    from google.protobuf.message import Message
    from graphql import GraphQLField, GraphQLInputType, GraphQLOutputType

CORE = make_schema().core

WORDS = [
    "acme", "globex", seed.CUSTOMER_SESSION, seed.ODD_SESSION, "EUR", "", "..", "\x00", "\u202e", "a" * 300, "ünï-🛒",
    "-1", "NaN", "{}", "%2F", "__proto__", "'; --", "\r\n", "<script>",
]  # fmt: skip
"""There are few, so that what they come to name is little."""


def mangled(random: Random, source: bytes) -> bytes:
    """The same with some bytes left out, put in, or changed; or as it is."""
    data = bytearray(source)
    for _ in range(random.choice((0, 0, 0, 1, 1, 2, 8))):
        place = random.randrange(len(data) + 1)
        match random.randrange(4):
            case 0:
                del data[place : place + random.choice((1, 3, 50))]
            case 1:
                data[place:place] = random.randbytes(random.choice((1, 2, 9)))
            case 2:
                data[place : place + 1] = random.choice(
                    (b"\r\n", b"\n", b"\x00", b"\xff", b":", b" ", b"{", b'"', b"\\")
                )
            case _:
                data[place:place] = data[: random.randrange(40)]
    return bytes(data)


# HTTP/1.1


def http_request(random: Random) -> bytes:
    """A request, mangled."""
    method = random.choice(("GET", "POST", "POST", "POST", "OPTIONS", "HEAD", "PUT", "BREW", "CONNECT", "PRI", ""))
    path = random.choice(("/graphql",) * 6 + ("/", "*", "/graphql/assets/../x", "//", "http://a/graphql"))
    request = graphql_request(random)
    body = json.dumps(request).encode()
    if method == "GET":
        pairs = [(name, each if isinstance(each, str) else json.dumps(each)) for name, each in request.items()]
        path += (
            "?" + random.choice(("&&", "%", "documentId=sha256:", "query")) * (random.random() < 0.2) + urlencode(pairs)
        )
    version = random.choice(("1.1", "1.1", "1.1", "1.1", "1.1", "1.0", "2.0", "9"))
    head = [f"{method} {path} HTTP/{version}", "host: gateway", "graphql-require-preflight: 1"]
    head += random.sample(_HEADERS, random.choice((0, 1, 1, 2, 5)))
    if random.random() < 0.8:
        head.append("content-type: application/json")
    if random.random() < 0.2:
        head.append("transfer-encoding: chunked")
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body) + random.choice((0, 0, 1, 99)), body)
    else:
        head.append(f"content-length: {len(body) + random.choice((0, 0, 0, 0, 0, 0, 0, -3, 7))}")
    return mangled(random, "\r\n".join(head).encode() + b"\r\n\r\n" + body)


_HEADERS = [
    "host: gateway", "content-type: application/json", "content-type: application/json; charset=utf-16",
    "content-type: text/plain", "accept: application/graphql-response+json", "accept: text/html",
    "accept: ;q=x,,*/*;q=",
    "x-api-key: dev-key", "x-api-key: ", "authorization: Bearer a", "authorization: Bearer", "saas-token: \u00ff\u00fe",
    "cache-control: max-age=abc, max-age=99999999999999999999", "cache-control: no-cache", "expect: 100-continue",
    "connection: upgrade", "upgrade: websocket", "upgrade: h2c", "http2-settings: AAMAAABkAAQCAAAAAAIAAAAA",
    "graphql-require-preflight: 1", "origin: null", "range: bytes=0-", "content-encoding: gzip", "te: trailers",
    f"x-long: {'a' * 5000}",
]  # fmt: skip


# HTTP/2, as far as gRPC has it

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEAD = {
    b":method": b"POST",
    b":scheme": b"http",
    b":path": b"/grpc.health.v1.Health/Check",
    b":authority": b"a",
    b"content-type": b"application/grpc",
    b"te": b"trailers",
    b"grpc-timeout": b"1S",
    b"x-request-id": b"a",
}


def _head(random: Random) -> bytes:
    """A block of header fields, without Huffman's code (RFC 7541, C.2.2); often one of them has any bytes."""
    fields = [*_HEAD.items()]
    if random.random() < 0.7:
        place = random.randrange(len(fields))
        name, value = fields[place]
        fields[place] = name, mangled(random, value)[:100] + random.randbytes(random.randrange(3))
    return b"".join(b"\0" + bytes((len(name),)) + name + bytes((len(value),)) + value for name, value in fields)


def http2_frames(random: Random) -> bytes:
    """A connection's beginning, often a call, and some frames, mangled."""
    frames = [PREFACE] if random.random() < 0.9 else []
    if random.random() < 0.8:
        frames.append(_frame(4, 0, 0, b""))
    if random.random() < 0.5:
        frames.append(_frame(1, random.choice((4, 5)), 1, _head(random)))
    for _ in range(random.randrange(6)):
        kind = random.choice((0, 1, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 255))
        stream = random.choice((0, 1, 1, 3, 2, 2**31 - 1))
        payload = random.choice(
            (b"", _head(random), random.randbytes(5), random.randbytes(40), b"\0\0\0\0\5hello", bytes(8))
        )
        frames.append(_frame(kind, random.choice((0, 1, 4, 5, 8, 0x20, 255)), stream, payload))
    return mangled(random, b"".join(frames))


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


# Messages of gRPC

SERVICES = pb.DESCRIPTOR.services_by_name.values()
METHODS = [
    (f"/{service.full_name}/{method.name}", method.input_type.name)
    for service in SERVICES
    for method in service.methods
]


def grpc_call(random: Random) -> tuple[str, bytes]:
    """A method and a message, mangled."""
    path, kind = random.choice(METHODS)
    message: Message = getattr(pb, kind)()
    _fill(random, message)
    return path, mangled(random, message.SerializeToString())


def _fill(random: Random, message: Any, depth: int = 0) -> None:
    for field in message.DESCRIPTOR.fields:
        if random.random() < 0.3 or depth > 4:
            continue
        if field.message_type is not None:
            if not field.is_repeated:
                getattr(message, field.name).SetInParent()
                _fill(random, getattr(message, field.name), depth + 1)
        elif field.type == field.TYPE_STRING:
            value = random.choice(WORDS)
            getattr(message, field.name).extend([value] * 2) if field.is_repeated else setattr(
                message, field.name, value
            )
        elif (
            field.type in {field.TYPE_INT64, field.TYPE_INT32, field.TYPE_UINT32, field.TYPE_UINT64}
            and not field.is_repeated
        ):
            setattr(message, field.name, random.choice((0, 1, 7, 2**31 - 1)))
        elif field.type == field.TYPE_BOOL:
            setattr(message, field.name, random.random() < 0.5)


# Documents of GraphQL


def graphql_request(random: Random) -> dict[str, object]:
    """The parameters of a request, of which some may be wrong."""
    writer = _Writer(random)
    request: dict[str, object] = {"query": writer.document(), "variables": writer.variables}
    if random.random() < 0.1:
        request["query"] = mangled(random, str(request["query"]).encode()).decode(errors="replace")
    if random.random() < 0.05:
        request["operationName"] = random.choice(("A", "B", "", None, 1))
    if random.random() < 0.05:
        request["extensions"] = random.choice(
            ({"cache": True}, {"persistedQuery": {"version": 1, "sha256Hash": "x"}}, {"persistedQuery": 1}, [], None)
        )
    if random.random() < 0.05:
        request["variables"] = _any_json(random)
    return request


class _Writer:
    """Writes one document, in a way that is right by the schema but for what `_slips` puts in."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._slippery = random.choice((0.0, 0.0, 0.0, 0.01, 0.05))
        self._defined: list[str] = []
        self._fragments: list[str] = []
        self.variables: dict[str, object] = {}

    def document(self) -> str:
        """One operation or two, and their fragments."""
        random = self._random
        operations = []
        for name in ("A", "B")[: random.choice((1, 1, 1, 1, 1, 2))]:
            self._defined = []
            root = CORE.query_type if random.random() < 0.6 else CORE.mutation_type
            assert root is not None
            selections = self._selections(root, 0)
            variables = f"({' '.join(self._defined)})" if self._defined else ""
            kind = "subscription" if self._slips() else "query" if root is CORE.query_type else "mutation"
            operations.append(f"{kind} {name}{variables}{' @nope' if self._slips() else ''} {selections}")
        return "\n".join((*operations, *self._fragments))

    def _slips(self) -> bool:
        return self._random.random() < self._slippery

    def _selections(self, kind: GraphQLOutputType, depth: int) -> str:
        named = get_named_type(kind)
        members: Sequence[GraphQLObjectType]
        if is_union_type(named):
            members = self._random.sample(named.types, self._random.randrange(1, 4))
            return "{ __typename " + " ".join(self._inline(each, depth) for each in members) + " }"
        if not isinstance(named, GraphQLObjectType | GraphQLInterfaceType):
            return "{ a }" if self._slips() else ""
        if depth > 12:
            return "{ __typename }"
        names = self._random.choices(list(named.fields), k=self._random.choice((1, 1, 2, 3, 3, 8)))
        fields = [self._field(name, named.fields[name], depth) for name in names]
        if self._random.random() < 0.07 and is_object_type(named) and len(self._fragments) < 8:
            fields.append(self._spread(named.name, " ".join(fields)))
        if self._slips():
            fields.append(
                self._random.choice(("nothing", "...Nowhere", "... { a }", "__schema { types { name } }", ""))
            )
        return "{ " + " ".join(fields) + " }"

    def _inline(self, kind: GraphQLObjectType, depth: int) -> str:
        return f"... on {kind.name} {self._selections(kind, depth)}"

    def _spread(self, kind: str, body: str) -> str:
        name = f"F{len(self._fragments)}"
        inner = f"...{name}" if self._slips() else ""
        self._fragments.append(f"fragment {name} on {kind} {{ {body} {inner} }}")
        return f"...{name}"

    def _field(self, name: str, field: GraphQLField, depth: int) -> str:
        wants = bool(field.args) or self._random.random() < 0.03  # two that differ need different names in the answer
        alias = f"{self._random.choice('abcdefgh')}{self._random.randrange(999)}: " if wants else ""
        given = [
            f"{each}: {self._argument(argument.type)}"
            for each, argument in field.args.items()
            if self._random.random() < (0.99 if "!" in str(argument.type) else 0.2)
        ]
        if self._slips():
            given.append("nothing: 1")
        arguments = f"({', '.join(given)})" if given else ""
        return f"{alias}{name}{arguments}{self._directives()} {self._selections(field.type, depth + 1)}"

    def _directives(self) -> str:
        if self._slips():
            return self._random.choice((" @include", " @nope", " @skip(if: $nothing)", " @include(if: 1)"))
        chosen = self._random.choices(
            ("", " @include(if: true)", " @skip(if: false)", " @skip(if: true)"), (90, 4, 4, 2)
        )
        return chosen[0]

    def _argument(self, kind: GraphQLInputType) -> str:
        if self._random.random() < 0.3:
            name = f"v{len(self.variables)}"
            self._defined.append(f"${name}: {kind}")
            if not self._slips():
                self.variables[name] = self._value(kind)
            return f"${name}"
        return _literal(self._value(kind))

    def _value(self, kind: GraphQLInputType) -> object:
        random = self._random
        if self._slips():
            return _any_json(random)
        nullable = get_nullable_type(kind)
        if nullable is kind and random.random() < 0.1:
            return None
        if is_list_type(nullable):
            return [self._value(nullable.of_type) for _ in range(random.choice((0, 1, 2, 3, 3, 3, 101)))]
        named = get_named_type(kind)
        if isinstance(named, GraphQLInputObjectType):
            return {
                name: self._value(field.type)
                for name, field in named.fields.items()
                if "!" in str(field.type) or random.random() < 0.5
            }
        return _SCALARS.get(named.name, _any_json)(random)


_SCALARS: dict[str, Callable[[Random], object]] = {
    "String": lambda random: "acme" if random.random() < 0.8 else random.choice(WORDS),
    "ID": lambda random: random.choice(WORDS),
    "Boolean": lambda random: random.random() < 0.5,
    "Float": lambda random: random.choice((0, 0.5, -1, 1e308, 10**400)),
    "Version": lambda random: random.choice((0, 1, 2, 2**63 - 1) if random.random() < 0.9 else (2**63, -1)),
}


def _any_json(random: Random, depth: int = 0) -> object:
    match random.randrange(8 if depth < 4 else 5):
        case 0:
            return None
        case 1:
            return random.choice((True, False))
        case 2:
            return random.choice((0, -1, 2**64, 10**30, 0.1, 1e300))
        case 3 | 4:
            return random.choice(WORDS)
        case 5:
            return [_any_json(random, depth + 1) for _ in range(random.randrange(4))]
        case 6:
            return {random.choice(WORDS): _any_json(random, depth + 1) for _ in range(random.randrange(4))}
        case _:
            value: object = 1
            for _ in range(random.choice((90, 120, 300))):
                value = [value]
            return value


def _literal(value: object) -> str:
    """As GraphQL writes it."""
    match value:
        case dict():
            names = ((name if name.isidentifier() and name.isascii() else "a") for name in value)
            return (
                "{"
                + ", ".join(f"{name}: {_literal(each)}" for name, each in zip(names, value.values(), strict=True))
                + "}"
            )
        case list():
            return "[" + ", ".join(map(_literal, value)) + "]"
        case _:
            return json.dumps(value)
