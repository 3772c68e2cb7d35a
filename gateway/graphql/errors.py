"""From the error tree to GraphQL: codes, and which errors are members of a mutation's union.

An error's code is its `reason`, so that both doors use the same codes. Any other exception is a bug
(`gateway.defects`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

import strawberry
import structlog
from graphql import GraphQLError, GraphQLFormattedError

from gateway import errors
from gateway.defects import reported
from gateway.graphql import types
from gateway.graphql.scalars import UnfitValueError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from strawberry.types import Info
    from strawberry.types.field import StrawberryField

__all__ = ["HANDLERS", "MAX_ERRORS", "code_of", "failure", "formatted", "time_to_wait"]

MAX_ERRORS: Final = 3
"""Errors reported for a document, and for the variables of a request: each repeats the value that it is about, or
searches all of it, so that more of them would cost more than all the rest."""

_INVALID: Final = "GRAPHQL_VALIDATION_FAILED"

_log = structlog.stdlib.get_logger(__name__)


def failure(error: Exception, mutation: str) -> types.Failure | None:
    """The member of a mutation's union for this error, if there is one."""
    match error:
        case errors.VersionConflict():
            return types.VersionConflict.of(error)
        case errors.SessionNotFound():
            return types.SessionNotFound.of(error)
        case errors.InvalidArgument():
            return types.InvalidInput.of(error, mutation)
        case errors.Unauthenticated():
            return types.Unauthenticated(code=error.reason, message=error.message)
        case errors.PermissionDenied():
            return types.PermissionDenied(code=error.reason, message=error.message)
        case errors.WriteOutcomeUnknown():
            return types.WriteOutcomeUnknown(code=error.reason, message=error.message)
        case _:
            return None


class _Failures(strawberry.ExceptionHandler[errors.GatewayError, Any]):
    error_type: ClassVar = types.PermissionDenied  # a union that has one of the failures has them all

    def handle(self, exception: errors.GatewayError, *, field: StrawberryField, info: Info) -> types.Failure | None:
        return failure(exception, info.field_name)


HANDLERS: Final = (_Failures(),)
"""If a field's type is a union of a payload and the failures, an error becomes one of the failures if it can."""


def formatted(error: GraphQLError) -> GraphQLFormattedError:
    """An error as the response has it, with `extensions.code`. A bug is logged."""
    cause = _cause(error)
    if isinstance(cause, errors.GatewayError):
        _let_go(error)
        if isinstance(cause, errors.InvalidArgument):
            cause = types.in_terms_of_inputs(cause)
        return _formatted(error, cause.message, _extensions(cause))
    if cause is None:
        _let_go(error)
        return _formatted(error, error.message, {"code": _INVALID, **(error.extensions or {})})
    return _formatted(error, reported(cause, _log, path=error.path), {"code": errors.GatewayError.reason})


def code_of(error: GraphQLError) -> str:
    """Its `extensions.code`, as `formatted` has it."""
    match _cause(error):
        case errors.GatewayError(reason=reason):
            return reason
        case None:
            return str((error.extensions or {}).get("code", _INVALID))
        case _:
            return errors.GatewayError.reason


def time_to_wait(
    failed: Iterable[GraphQLError], kind: type[errors.CallerRateLimited | errors.UpstreamSpared]
) -> float | None:
    """Seconds to wait, if all errors are that this gateway rejects calls for this reason; else None."""
    causes = [each.original_error for each in failed]
    waits = [each.retry_after or 0.0 for each in causes if isinstance(each, kind)]
    return max(waits) if waits and len(waits) == len(causes) else None


def _cause(error: GraphQLError) -> Exception | None:
    """The exception that was raised, unless it is GraphQL's own or about the value of a scalar."""
    cause = error.original_error
    while isinstance(cause, GraphQLError):
        cause = cause.original_error
    return None if isinstance(cause, UnfitValueError) else cause


def _let_go(error: GraphQLError) -> None:
    """Remove the tracebacks of an error and of its causes.

    Their frames refer to the errors in turn, and for a thousand such cycles the garbage collector takes tens of
    milliseconds.
    """
    passed: Exception | None = error
    while passed is not None:
        passed.__traceback__ = None
        passed = passed.original_error if isinstance(passed, GraphQLError) else None


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
        extensions["violations"] = [{"field": each.field, "message": each.message} for each in error.violations]
    return extensions
