"""From upstream's error answers to errors by meaning.

Pure: a status, headers and a body in, an error out. The body's text is searched where the status is ambiguous; none of
it is passed on.
"""

from __future__ import annotations

import enum
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final

import msgspec

from gateway.errors import (
    GatewayCredentialsRefused,
    GatewayError,
    InvalidArgument,
    PermissionDenied,
    RateLimited,
    SessionNotFound,
    Unauthenticated,
    UpstreamFault,
    UpstreamTimeout,
    UpstreamUnavailable,
    VersionConflict,
    Violation,
)
from gateway.model import SCALAR_FIELDS, UPSTREAM_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.model import JSON
    from gateway.upstream.http import Answer

__all__ = ["Authority", "error_for", "retry_after"]


_LONGEST_WAIT: Final = 3600.0
"""Seconds. A longer time is taken for an error, which must not put this gateway out of service."""


class Authority(enum.Enum):
    """Whose token a request carries: a refusal of it means different things."""

    GATEWAY = enum.auto()
    CALLER = enum.auto()


def error_for(answer: Answer, *, authority: Authority, session_id: str | None, versioned: bool) -> GatewayError:
    """What a status that is not a success means.

    `session_id` is None for the caller's own session. `versioned` tells that the request contained a version, and so
    was a PUT or PATCH. For these, a 404 is a conflict unless its text says that the session is missing (live use);
    after a conflict the current session context is read, which removes the doubt.
    """
    text = _texts(answer.body)
    match answer.status:
        case 400 | 413 | 422:
            return _bad_request(answer.status, text)
        case 401:
            return _unauthenticated(authority)
        case 403:
            return _forbidden(authority, text, versioned=versioned)
        case 404:
            return _not_found(text, session_id, versioned=versioned)
        case 409 | 412 if versioned:  # without a version there is no conflict
            return VersionConflict(None, None)
        case 429:
            return RateLimited("upstream's rate limit is reached", retry_after=retry_after(answer))
        case 502 | 503:
            return UpstreamUnavailable(f"upstream is unavailable ({answer.status})", retry_after=retry_after(answer))
        case 504:
            return UpstreamTimeout("upstream timed out (504)")
        case status:
            return UpstreamFault(f"upstream failed ({status})")


def retry_after(answer: Answer) -> float | None:
    """Seconds to wait, by the `Retry-After` header (RFC 9110, 10.2.3): a number, or a date."""
    value = answer.head.headers.get("retry-after")
    if value is None:
        return None
    if value.isascii() and value.isdigit():
        return min(float(value), _LONGEST_WAIT)
    try:
        at = parsedate_to_datetime(value)
        at = at.replace(tzinfo=at.tzinfo or UTC).astimezone(UTC)  # one of three forms names no zone (5.6.7)
    except (ValueError, OverflowError):
        return None
    seconds = (at - datetime.now(UTC)).total_seconds()
    return min(max(0.0, seconds), _LONGEST_WAIT)


def _bad_request(status: int, text: str) -> GatewayError:
    if status == 413:
        return InvalidArgument.of("session_context", "is larger than upstream takes")
    if "saas-token" in text:
        return InvalidArgument.of("saas-token", "is required by upstream: pass the customer's saas-token")
    return InvalidArgument(_violations(text))


def _violations(text: str) -> list[Violation]:
    """The fields that upstream names, with our names; its text is not passed on."""
    named = [
        Violation(f"session_context.{ours}", "is refused by upstream")
        for theirs, ours in _FIELDS.items()
        if theirs in text
    ]
    return named or [Violation("session_context", "is refused by upstream as a bad request")]


def _unauthenticated(authority: Authority) -> GatewayError:
    if authority is Authority.GATEWAY:
        return GatewayCredentialsRefused("upstream refuses the gateway's own token, a new one included")
    return Unauthenticated("the Emporix access token is expired, revoked or wrong: get a new one")


def _forbidden(authority: Authority, text: str, *, versioned: bool) -> GatewayError:
    if authority is Authority.CALLER:
        return PermissionDenied("the Emporix access token does not allow this")
    if versioned and "scope" not in text:
        return PermissionDenied("the saas-token is not one of this session's customer")
    return GatewayCredentialsRefused("the gateway's own token lacks the scope for this")


def _not_found(text: str, session_id: str | None, *, versioned: bool) -> GatewayError:
    if versioned and "session not found" not in text:
        return VersionConflict(None, None)
    return SessionNotFound(session_id)


_FIELDS: Final = {UPSTREAM_NAMES[name].lower(): name for name in (*SCALAR_FIELDS, "context")}
"""Upstream's names of fields, in lower case, and ours."""


def _texts(body: bytes) -> str:
    """All strings in an error body, in lower case, to be searched; empty if it is not JSON.

    The platform has at least five shapes of errors, and does not say which one comes with which status.
    """
    try:
        document: JSON = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        return ""
    return " ".join(_strings(document)).lower()


def _strings(value: JSON) -> Iterator[str]:
    """All string values at any depth, but for links. No recursion: upstream's answer must not exhaust the stack."""
    left = [value]
    while left:
        match left.pop():
            case str(text):
                yield text
            case list(each):
                left += reversed(each)
            case dict(each):
                left += reversed([inner for name, inner in each.items() if name != "_links"])
            case _:
                pass
