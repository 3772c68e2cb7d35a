"""Responses of GraphQL over HTTP: which media type, which status, which headers.

Responses are `application/graphql-response+json` for clients that accept it, with a status that tells a request that
could not be executed (400) from one that was (200); or `application/json`, for clients that name neither, with 200 for
every well-formed request. Upstream's status is never passed on; the gateway's own refusals have one (429, 503).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from gateway.cache.freshness import combined
from gateway.direct import Response
from gateway.graphql.answers import encode
from gateway.graphql.errors import formatted
from gateway.graphql.head import LEGACY, MODERN

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from graphql import GraphQLError, GraphQLFormattedError
    from strawberry.types import ExecutionResult

    from gateway.errors import AnswerTooLarge
    from gateway.graphql.head import Refused
    from gateway.graphql.resolvers import FieldRead

__all__ = ["failed", "not_sent", "refused", "result_response", "turned_away"]

_CONTENT_TYPE: Final = {each: (b"content-type", f"{each}; charset=utf-8".encode()) for each in (MODERN, LEGACY)}
_PRIVATE: Final = (b"cache-control", b"private, no-store")


def result_response(
    result: ExecutionResult, media_type: str, reads: Sequence[FieldRead] = (), *, tell_of_cache: bool = False
) -> Response:
    """The result of an operation. `reads` are where its answer came from, included in the body if requested."""
    executed = result.data is not None or any(error.path for error in result.errors or ())
    document: dict[str, object] = {"data": result.data} if executed else {}
    if result.errors:
        document = {"errors": _formatted(result.errors), **document}
    if tell_of_cache and reads:
        document["extensions"] = {"cache": [_cache_extension(each) for each in reads]}
    response = _response(200 if executed or media_type == LEGACY else 400, document, media_type)
    if reads and not (result.errors and all(each.status.hit for each in reads)):  # who failed may have asked upstream
        response.headers.extend(_cache_headers(reads))
    return response


def turned_away(result: ExecutionResult, media_type: str, status: int, wait: float) -> Response:
    """The request was rejected as a whole, before anything was done: there is no `data` then, not even null.

    429 tells that the caller makes too many calls, 503 that upstream is busy; both say when to come back.
    """
    document = {"errors": _formatted(result.errors)}
    return _response(status, document, media_type, {"retry-after": str(max(1, math.ceil(wait)))})


def not_sent(error: AnswerTooLarge, media_type: str) -> Response:
    """The operation was executed, but its result is too large to be sent."""
    errors = [{"message": error.message, "extensions": {"code": error.reason}}]
    return _response(200, {"errors": errors, "data": None}, media_type)


def refused(refusal: Refused, media_type: str) -> Response:
    """It was not a valid request of GraphQL over HTTP."""
    errors = [{"message": refusal.message, "extensions": {"code": refusal.code}}]
    return _response(refusal.status, {"errors": errors}, media_type, refusal.headers)


def failed(message: str) -> Response:
    """There is a bug in the gateway."""
    return _response(500, {"errors": [{"message": message, "extensions": {"code": "INTERNAL"}}]}, LEGACY)


def _formatted(errors: Sequence[GraphQLError] | None) -> list[GraphQLFormattedError]:
    return [formatted(error) for error in errors or ()]


def _cache_headers(reads: Sequence[FieldRead]) -> tuple[tuple[bytes, bytes], ...]:
    """Where the answer came from (RFC 9211) and how old it is (RFC 9111, 5.1), for people and gateways in between."""
    status = reads[0].status if len(reads) == 1 else combined(each.status for each in reads)
    return (b"cache-status", status.header().encode()), (b"age", b"%d" % status.age)


def _cache_extension(read: FieldRead) -> dict[str, object]:
    status = read.status
    return {
        "path": read.path,
        "hit": status.hit,
        "fwd": status.fwd or None,
        "age": round(status.age, 3),
        "ttl": None if status.ttl is None else round(status.ttl, 3),
        "stored": status.stored,
        "collapsed": status.collapsed,
    }


def _response(status: int, document: object, media_type: str, headers: Mapping[str, str] | None = None) -> Response:
    body = encode(document)
    head = [_CONTENT_TYPE[media_type], (b"content-length", b"%d" % len(body)), _PRIVATE]
    if headers:
        head.extend((name.encode(), value.encode()) for name, value in headers.items())
    return Response(status, head, body)
