"""From the error tree to GraphQL: one table of codes, and which errors are members of a mutation's union.

An error's code is its `reason`, so that both doors use the same words. What is not in the tree is a defect: it is
logged under an id, and the caller is told the id and nothing else.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Final

import strawberry
import structlog
from graphql import GraphQLError, GraphQLFormattedError

from gateway import errors
from gateway.graphql import types

if TYPE_CHECKING:
    from collections.abc import Iterable

    from strawberry.types import Info
    from strawberry.types.field import StrawberryField

__all__ = ["HANDLERS", "code_of", "formatted", "time_to_wait"]

_INVALID: Final = "GRAPHQL_VALIDATION_FAILED"

_log = structlog.stdlib.get_logger(__name__)


class _VersionConflict(strawberry.ExceptionHandler[errors.VersionConflict, types.VersionConflict]):
    def handle(self, exception: errors.VersionConflict, *, field: StrawberryField, info: Info) -> types.VersionConflict:
        return types.VersionConflict.of(exception)


class _SessionNotFound(strawberry.ExceptionHandler[errors.SessionNotFound, types.SessionNotFound]):
    def handle(self, exception: errors.SessionNotFound, *, field: StrawberryField, info: Info) -> types.SessionNotFound:
        return types.SessionNotFound.of(exception)


class _InvalidInput(strawberry.ExceptionHandler[errors.InvalidArgument, types.InvalidInput]):
    def handle(self, exception: errors.InvalidArgument, *, field: StrawberryField, info: Info) -> types.InvalidInput:
        return types.InvalidInput.of(exception, info.field_name)


class _Unauthenticated(strawberry.ExceptionHandler[errors.Unauthenticated, types.Unauthenticated]):
    def handle(self, exception: errors.Unauthenticated, *, field: StrawberryField, info: Info) -> types.Unauthenticated:
        return types.Unauthenticated.of(exception)


class _PermissionDenied(strawberry.ExceptionHandler[errors.PermissionDenied, types.PermissionDenied]):
    def handle(
        self, exception: errors.PermissionDenied, *, field: StrawberryField, info: Info
    ) -> types.PermissionDenied:
        return types.PermissionDenied.of(exception)


class _WriteOutcomeUnknown(strawberry.ExceptionHandler[errors.WriteOutcomeUnknown, types.WriteOutcomeUnknown]):
    def handle(
        self, exception: errors.WriteOutcomeUnknown, *, field: StrawberryField, info: Info
    ) -> types.WriteOutcomeUnknown:
        return types.WriteOutcomeUnknown.of(exception)


HANDLERS: Final = (
    _VersionConflict(),
    _SessionNotFound(),
    _InvalidInput(),
    _Unauthenticated(),
    _PermissionDenied(),
    _WriteOutcomeUnknown(),
)
"""Where a field's type is a union with the failure as a member, the error becomes that member."""


def formatted(error: GraphQLError) -> GraphQLFormattedError:
    """An error as the response has it, with `extensions.code`."""
    cause = _cause(error)
    if isinstance(cause, errors.GatewayError):
        return _formatted(error, cause.message, _extensions(cause))
    if cause is None:
        return _formatted(error, error.message, {"code": _INVALID, **(error.extensions or {})})
    incident = uuid.uuid4().hex
    _log.error("defect", incident=incident, path=error.path, exc_info=cause)
    return _formatted(error, f"internal error; its id in the log is {incident}", {"code": "INTERNAL"})


def code_of(error: GraphQLError) -> str:
    """Its `extensions.code`, as `formatted` has it."""
    match _cause(error):
        case errors.GatewayError(reason=reason):
            return reason
        case None:
            return str((error.extensions or {}).get("code", _INVALID))
        case _:
            return errors.GatewayError.reason


def time_to_wait(failed: Iterable[GraphQLError]) -> float | None:
    """Seconds, if all that went wrong is that the caller makes too many calls; else None."""
    causes = [each.original_error for each in failed]
    waits = [each.retry_after for each in causes if isinstance(each, errors.CallerRateLimited)]
    return max(waits) if waits and len(waits) == len(causes) else None


def _cause(error: GraphQLError) -> Exception | None:
    """What was raised, if it is not GraphQL's own."""
    cause = error.original_error
    while isinstance(cause, GraphQLError):
        cause = cause.original_error
    return cause


def _formatted(error: GraphQLError, message: str, extensions: dict[str, object]) -> GraphQLFormattedError:
    result: GraphQLFormattedError = {"message": message, "extensions": extensions}
    if error.locations:
        result["locations"] = [location.formatted for location in error.locations]
    if error.path:
        result["path"] = error.path
    return result


def _extensions(error: errors.GatewayError) -> dict[str, object]:
    extensions: dict[str, object] = {"code": error.reason}
    if isinstance(error, errors.UpstreamError | errors.CallerRateLimited) and error.retry_after is not None:
        extensions["retryAfter"] = round(error.retry_after, 3)
    if isinstance(error, errors.InvalidArgument):
        extensions["violations"] = [
            {"field": types.input_path(each.field), "message": each.message} for each in error.violations
        ]
    return extensions
