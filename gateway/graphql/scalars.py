"""The scalars that GraphQL itself does not have."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NewType

import strawberry
from graphql import Undefined
from strawberry.scalars import JSON

from gateway.model import MAX_VERSION

if TYPE_CHECKING:
    from strawberry.types.scalar import ScalarDefinition

__all__ = ["JSON", "SCALARS", "UnfitValueError", "Version", "serialize_time"]

Version = NewType("Version", int)

_MAX_DEPTH: Final = 100
"""Levels of a JSON value: as many as a protobuf message has, and fewer than would use up the stack."""


class UnfitValueError(ValueError):
    """What a caller gave is no value of a scalar. GraphQL's own error, made of this one, tells where it stands."""


def serialize_time(value: datetime) -> str:
    """As upstream writes it: UTC, in milliseconds, unless there is more to tell."""
    precision = "microseconds" if value.microsecond % 1000 else "milliseconds"
    in_utc = value if value.tzinfo is UTC else value.astimezone(UTC)
    return in_utc.isoformat("T", precision)[:-6] + "Z"  # in the place of +00:00


def _parse_time(value: object) -> str:
    """It stays as it came: no input has a place for a time, but JSON may hold a variable of this type."""
    try:
        datetime.fromisoformat(value)  # type: ignore[arg-type]  # it says itself that it takes nothing but a string
    except (TypeError, ValueError):
        raise UnfitValueError("it must be a string, and a time of ISO 8601") from None
    return str(value)


def _parse_version(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_VERSION:
        raise UnfitValueError("it must be an integer from 0 to 2^63 - 1")
    return value


def _parse_json(value: object, depth: int = 0) -> object:
    """Any JSON value. A literal may name a number that no JSON document holds, such as 1e400.

    It may also hold variables that were not given: in an object there is no such field then, and in a list it is null
    (GraphQL specification, 3.10 and 3.11, of what is coerced by type).
    """
    if depth > _MAX_DEPTH:
        raise UnfitValueError(f"it must not be nested deeper than {_MAX_DEPTH} levels")
    if isinstance(value, float) and not math.isfinite(value):
        raise UnfitValueError("it must not hold a number beyond a double's range")
    if isinstance(value, dict):
        return {name: _parse_json(each, depth + 1) for name, each in value.items() if each is not Undefined}
    if isinstance(value, list):
        return [None if each is Undefined else _parse_json(each, depth + 1) for each in value]
    return value


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
        description="Any JSON value, integers of any size included.",
        specified_by_url="https://datatracker.ietf.org/doc/html/rfc8259",
        serialize=lambda value: value,
        parse_value=_parse_json,
    ),
    Version: strawberry.scalar(
        name="Version",
        description="A version, as a JSON integer from 0 to 2^63 - 1. Pass it on as it came; do not compute with it.",
        serialize=int,
        parse_value=_parse_version,
    ),
}
