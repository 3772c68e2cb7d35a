"""The scalars that GraphQL itself does not have."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NewType

import strawberry
from graphql import Undefined, VariableNode, value_from_ast_untyped
from strawberry.scalars import JSON

from gateway.graphql.answers import Json
from gateway.graphql.syntax import nodes_of
from gateway.model import MAX_VERSION

if TYPE_CHECKING:
    from graphql import ValueNode
    from strawberry.types.scalar import ScalarDefinition

__all__ = ["JSON", "SCALARS", "UnfitValueError", "Version", "serialize_time"]

Version = NewType("Version", int)

_MAX_DEPTH: Final = 100
"""Levels of a JSON value: as many as a protobuf message has, and fewer than would use up the stack. A variable in a
literal has as many of its own."""
_MAX_VARIABLES: Final = 10
"""Variables in one JSON literal. Each may stand for a value as large as a body, and so the literal for all of them."""


class UnfitValueError(ValueError):
    """The input is not a value of the scalar. GraphQL makes of it an error of its own, which tells where."""


def serialize_time(value: datetime) -> str:
    """As upstream writes it: UTC, in milliseconds, or in microseconds if it has them."""
    precision = "microseconds" if value.microsecond % 1000 else "milliseconds"
    in_utc = value if value.tzinfo is UTC else value.astimezone(UTC)
    return in_utc.isoformat("T", precision)[:-6] + "Z"  # in the place of +00:00


def _parse_time(value: object) -> str:
    """Returned as it came: no input has a field of this type, but a JSON literal may hold a variable of it."""
    try:
        datetime.fromisoformat(value)  # type: ignore[arg-type]  # it says itself that it takes nothing but a string
    except (TypeError, ValueError):
        raise UnfitValueError("it must be a string, and a time of ISO 8601") from None
    return str(value)


def _parse_version(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_VERSION:
        raise UnfitValueError("it must be an integer from 0 to 2^63 - 1")
    return value


def _parse_json(value: object) -> object:
    """A value from the request's JSON: it can only be nested too deeply.

    A level is looked at as a whole, as a body may hold hundreds of thousands of values; and by their very types, which
    takes a third of the time that isinstance would.
    """
    level = [value]
    for _ in range(_MAX_DEPTH + 1):
        containers = [each for each in level if type(each) is list or type(each) is dict]
        if not containers:
            return value
        level = [inner for each in containers for inner in (each.values() if isinstance(each, dict) else each)]
    raise _nested_too_deeply()


def _parse_json_literal(node: ValueNode, variables: dict[str, Any] | None = None) -> object:
    """Any JSON value that is a literal in a document, possibly with variables in it.

    The values of variables have been checked already, and may be large: they are inserted as they are, and not too
    often.
    """
    if sum(isinstance(each, VariableNode) for each in nodes_of(node)) > _MAX_VARIABLES:
        raise UnfitValueError(f"it must not hold more than {_MAX_VARIABLES} variables")
    given = {name: _Given(value) for name, value in (variables or {}).items()}
    return _spelt_out(value_from_ast_untyped(node, given))


class _Given(NamedTuple):
    """The value of a variable."""

    value: object


def _spelt_out(value: object, depth: int = 0) -> object:
    """A literal may contain a number that JSON does not have, such as 1e400, and variables without a value.

    Such a variable leaves its field out of an object, and is null in a list (as the GraphQL specification, 3.10 and
    3.11, has it for typed inputs).
    """
    match value:
        case _Given():
            return value.value
        case dict() | list() if depth >= _MAX_DEPTH:
            raise _nested_too_deeply()
        case dict():
            return {name: _spelt_out(each, depth + 1) for name, each in value.items() if each is not Undefined}
        case list():
            return [None if each is Undefined else _spelt_out(each, depth + 1) for each in value]
        case float() if not math.isfinite(value):
            raise UnfitValueError("it must not hold a number beyond a double's range")
        case _:
            return value


def _nested_too_deeply() -> UnfitValueError:
    return UnfitValueError(f"it must not be nested deeper than {_MAX_DEPTH} levels")


SCALARS: Final[dict[object, ScalarDefinition]] = {
    datetime: strawberry.scalar(
        name="DateTime",
        description="A time in UTC, by ISO 8601: `2026-02-04T16:36:44.047Z`.",
        specified_by_url="https://scalars.graphql.org/andimarek/date-time.html",
        serialize=serialize_time,
        parse_value=_parse_time,
    ),
    JSON: strawberry.scalar(
        name="JSON",
        description="Any JSON value, integers of any size included. A literal may hold up to ten variables.",
        specified_by_url="https://datatracker.ietf.org/doc/html/rfc8259",
        serialize=Json,
        parse_value=_parse_json,
        parse_literal=_parse_json_literal,
    ),
    Version: strawberry.scalar(
        name="Version",
        description="A version, as a JSON integer from 0 to 2^63 - 1. Pass it on as it came; do not compute with it.",
        serialize=int,
        parse_value=_parse_version,
    ),
}
