"""What the sandbox answers, in the shapes of the API reference and of live use."""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

__all__ = [
    "Answer",
    "bad_request",
    "fault",
    "forbidden",
    "json",
    "missing_header",
    "no_content",
    "no_session",
    "of_status",
    "stale_version",
    "unknown_path",
]

_JSON: Final = "application/json"


class Answer(NamedTuple):
    """One HTTP answer."""

    status: int
    body: bytes = b""
    content_type: str = ""
    retry_after: str = ""


def json(status: int, document: object) -> Answer:
    """A JSON document."""
    return Answer(status, msgspec.json.encode(document), _JSON)


def no_content() -> Answer:
    """A write's success."""
    return Answer(204)


def fault(text: str, code: str, status: int = 401) -> Answer:
    """An error of the platform's edge, about tokens and clients."""
    return json(status, {"fault": {"faultstring": text, "detail": {"errorcode": code}}})


def bad_request(field: str, message: str) -> Answer:
    """An invalid body."""
    details = [{"field": field, "type": "invalid", "message": message}]
    return json(400, {"code": 400, "status": "Bad Request", "message": "Validation failed", "details": details})


def missing_header(name: str) -> Answer:
    """A missing header (live use)."""
    error = {"message": f"Required Header [{name}] not specified", "path": f"/{name}"}
    links = {"self": {"href": "/session-context", "templated": False}}
    return json(400, {"message": "Bad Request", "_links": links, "_embedded": {"errors": [error]}})


def forbidden(message: str) -> Answer:
    """A token without the necessary permission."""
    return json(403, {"code": 403, "status": "Forbidden", "message": message})


def no_session(session_id: str) -> Answer:
    """A session without a context."""
    return json(404, {"sessionId": session_id, "code": 404, "message": "Session not found"})


def stale_version(session_id: str, version: int, mode: str) -> Answer:
    """A version that is not the current one, as `Switches.conflict` says."""
    if mode == "disguised-404":
        message = f"The context with sessionId {session_id} and version {version} has not been found."
        return json(404, {"code": 404, "message": message})
    return json(int(mode), {"code": int(mode), "status": "Conflict", "message": "Version conflict"})


def unknown_path() -> Answer:
    """No such operation."""
    return json(404, {"code": 404, "message": "No such resource in the sandbox"})


def of_status(status: int, retry_after: str = "") -> Answer:
    """What the platform answers with this status for reasons that have nothing to do with the request."""
    match status:
        case 401:
            return fault("Access Token expired", "keymanagement.service.access_token_expired")
        case 403:
            return json(403, {"type": "forbidden", "status": 403, "message": "User not authorized."})
        case 429:
            return json(429, {"code": 429, "message": "Too many requests"})._replace(retry_after=retry_after)
        case 502:
            return Answer(502, b"<html><body><h1>502 Bad Gateway</h1></body></html>", "text/html")
        case 503:
            return Answer(503, retry_after=retry_after)
        case 504:
            detail = {"reason": "TARGET_READ_TIMEOUT"}
            return json(504, {"fault": {"faultstring": "Gateway Timeout", "detail": detail}})
        case _:
            return json(status, {"code": status, "message": "Something went wrong at com.emporix.Secret.java:42"})
