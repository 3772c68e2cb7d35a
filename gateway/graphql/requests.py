"""Requests of GraphQL over HTTP: their parameters, and what is refused before those are looked at.

A page of another site can make its visitor's browser send a GET, or a POST of a form's media types, without asking
here first. So a POST must be of `application/json`, and a GET must carry a header that no form and no link can set:
for either, browsers ask first (CORS preflight), and are told which origins may.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import parse_qsl

import msgspec

from gateway.graphql.documents import digest_of
from gateway.graphql.head import LEGACY, Head, Refused
from gateway.protocol import client_of

if TYPE_CHECKING:
    from starlette.types import Receive, Scope

    from gateway.graphql.documents import Documents, Prepared
    from gateway.protocol import Client

__all__ = [
    "PREFLIGHT_HEADERS",
    "HttpRequest",
    "Parameters",
    "parameters_in_body",
    "parameters_in_query",
]

PREFLIGHT_HEADERS: Final = ("x-apollo-operation-name", "apollo-require-preflight", "graphql-require-preflight")
"""Each of them shows that a GET does not come from a link or form. Their values do not matter."""

_PADDING: Final = b" " * 8

_MAX_PARAMETERS: Final = 100
"""Of a URL."""

Decoded = TypeVar("Decoded")


class HttpRequest:
    """What a client sends: the request line and head, and a body that may still have to be received (ASGI 3)."""

    def __init__(self, method: str, query: bytes, head: Head, body: Receive | bytes, client: Client) -> None:
        self.method = method
        self.query = query
        self.head = head
        self.body = body
        """Still to be received, or whole."""
        self.client = client

    @classmethod
    def of(cls, scope: Scope, receive: Receive) -> HttpRequest:
        """The request of a connection scope."""
        return cls(scope["method"], scope["query_string"], Head(scope["headers"]), receive, client_of(scope))


class _PersistedQuery(msgspec.Struct):
    """Apollo's automatic persisted queries."""

    version: int
    sha256Hash: str  # noqa: N815 - the parameter's name


class Parameters(msgspec.Struct):
    """The request parameters (GraphQL over HTTP, 5.1 and appendix A). Others are ignored."""

    query: str | None = None
    documentId: str | None = None  # noqa: N815 - the parameter's name
    operationName: str | None = None  # noqa: N815
    variables: dict[str, object] | None = None
    extensions: dict[str, object] | None = None

    def prepared(self, documents: Documents) -> Prepared:
        """The document that they name. Raises Refused, or NotExecutable where it is not available."""
        wanted = self.documentId if self.documentId is not None else self._persisted_hash()
        if self.query is None:
            if wanted is None:
                raise Refused(400, "the request's parameters are not right: Object missing required field `query`")
            return documents.by_id(wanted)
        if wanted is not None and wanted.removeprefix("sha256:") != digest_of(self.query):
            raise Refused(400, "the hash that was sent is not the SHA-256 of the query")
        return documents.by_text(self.query)

    def _persisted_hash(self) -> str | None:
        given = (self.extensions or {}).get("persistedQuery")
        if given is None:
            return None
        try:
            persisted = msgspec.convert(given, _PersistedQuery)
        except msgspec.ValidationError as error:
            raise Refused(400, f"extensions.persistedQuery is not right: {error}") from error
        if persisted.version != 1:
            raise Refused(400, f"extensions.persistedQuery: version {persisted.version} is not supported")
        return persisted.sha256Hash


def parameters_in_query(request: HttpRequest) -> Parameters:
    """The parameters of a GET. Raises Refused."""
    if request.head.header("sec-websocket-key") is not None:
        raise Refused(400, "there are no subscriptions here, and so no WebSockets: send each operation by POST")
    _check_not_simple(request.head)
    return _from_query(request.query)


def parameters_in_body(body: bytes) -> Parameters:
    """The parameters of a POST. Raises Refused."""
    try:
        return _decode(body, Parameters, "the body")
    except Refused:
        if body.lstrip().startswith(b"["):  # as clients send several at once, if they are set up for that
            raise Refused(400, "batches are not supported: send each operation in a request of its own") from None
        raise


def _check_not_simple(head: Head) -> None:
    """A GET's media type counts only if it is JSON: a browser has been seen to send others by itself."""
    if head.media_type != LEGACY and not any(map(head.header, PREFLIGHT_HEADERS)):
        raise Refused(
            400,
            "this GET could come from another site's page (CSRF): send it with a header "
            f"{PREFLIGHT_HEADERS[-1]}: 1, or with content-type: {LEGACY}",
        )


def _from_query(query: bytes) -> Parameters:
    try:
        pairs = parse_qsl(query.decode(), keep_blank_values=True, errors="strict", max_num_fields=_MAX_PARAMETERS)
    except UnicodeDecodeError as error:
        raise Refused(400, "the URL's query is not UTF-8") from error
    except ValueError as error:
        raise Refused(400, f"the URL's query has more than {_MAX_PARAMETERS} parameters") from error
    found = dict(pairs)
    given: dict[str, object] = {name: found[name] for name in ("query", "documentId") if name in found}
    if found.get("operationName"):  # empty is as good as left out (GraphQL over HTTP, 5.2)
        given["operationName"] = found["operationName"]
    for name in ("variables", "extensions"):
        if found.get(name):
            given[name] = _decode(found[name].encode(), object, name)
    try:
        return msgspec.convert(given, Parameters)
    except msgspec.ValidationError as error:
        raise _not_right(error) from error


def _decode(source: bytes, kind: type[Decoded], what: str) -> Decoded:
    """Decode JSON, or say why that is not possible; the decoder's messages hold nothing of the source."""
    if not source.strip():
        raise Refused(400, f"{what}: is empty")
    try:
        return msgspec.json.decode(source, type=kind)
    except msgspec.ValidationError as error:
        raise _not_right(error) from error
    except RecursionError as error:
        raise Refused(400, f"{what}: JSON is nested too deeply") from error
    except ValueError as error:
        raise Refused(400, f"{what}: {_why_malformed(source, kind, error)}") from error


def _why_malformed(source: bytes, kind: type[object], error: ValueError) -> ValueError:
    """What is wrong with JSON that was refused with this error.

    The decoder looks ahead: for half a character (a lone surrogate) near the end it says that the input is truncated.
    With space after it, it says so only if that is true.
    """
    try:
        msgspec.json.decode(source + _PADDING, type=kind)
    except ValueError as better:
        return better
    return error


def _not_right(error: msgspec.ValidationError) -> Refused:
    return Refused(400, f"the request's parameters are not right: {error}")
