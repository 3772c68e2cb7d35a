"""What the use cases check before anything is sent. Pure; every function yields violations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway import validation
from gateway.errors import Violation
from gateway.model import UPSTREAM_NAMES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from pydantic import SecretStr

    from gateway.cache.freshness import ReadOptions
    from gateway.model import Replacement
    from gateway.sessions.changes import Patch

__all__ = ["batch", "expected_version", "patch", "read_options", "replacement", "saas_token"]


def batch(session_ids: Sequence[str], largest: int) -> Iterator[Violation]:
    """At most so many ids, each of them valid."""
    if len(session_ids) > largest:
        yield Violation("session_ids", f"must be at most {largest}, are {len(session_ids)}")
        return
    for index, session_id in enumerate(session_ids):
        yield from validation.segment(f"session_ids[{index}]", session_id)


def expected_version(value: int | None, *, required: bool = False) -> Iterator[Violation]:
    """A version, which may be required, so that nobody overwrites by accident."""
    if required and value is None:
        yield Violation("expected_version", "is required: pass the metadata.version that you have read")
    yield from validation.version("expected_version", value)


def read_options(value: ReadOptions) -> Sequence[Violation]:
    """A valid age and version."""
    found = validation.version("read_options.min_version", value.min_version)
    if value.max_age is None or value.max_age >= 0:
        return found
    return (*found, Violation("read_options.max_age", "must not be negative"))


def saas_token(value: SecretStr | None) -> Iterator[Violation]:
    """Upstream refuses every PUT without one, for an anonymous session too (live use)."""
    if value is None:
        yield Violation(
            "saas-token", "is required: pass the customer's saas_token in the header or metadata of this name"
        )
    else:
        yield from validation.token("saas-token", value)


def replacement(value: Replacement, session_id: str, version: int | None) -> Iterator[Violation]:
    """A whole new state, based on this session at this version."""
    yield from _origin(value, session_id, version)
    if value.rounded_attributes:
        yield Violation(
            "session_context.rounded_attributes",
            f"{', '.join(value.rounded_attributes)}: arrived rounded, and would be written so; use PatchSessionContext"
            " with an update_mask of what changes",
        )
    yield from validation.currency("session_context.currency", value.currency)
    for name in value.additional_properties or {}:
        if name in UPSTREAM_NAMES.values():
            yield Violation("session_context.additional_properties", f"must not hold {name!r}, which has its own field")
    yield from _names("session_context.context", value.context or ())


def patch(value: Patch, allowed: Collection[str], session_id: str | None, version: int | None) -> Iterator[Violation]:
    """Changes, all of them to fields that may be changed, based on this session at this version.

    `session_id` is None for the caller's own session, whose id is known only when it has been read.
    """
    yield from _origin(value, session_id, version)
    if not value.assignments:
        yield Violation("update_mask", "holds nothing to change: set or name at least one field")
    for assignment in value.assignments:
        name, *inner = assignment.path
        if name not in allowed:
            yield Violation("update_mask", f"{name!r} cannot be changed here; what can: {', '.join(sorted(allowed))}")
        elif name == "context" and not inner and isinstance(assignment.value, dict):
            inner = [*assignment.value]
        yield from _names(f"session_context.{name}", inner)
        if name == "currency" and isinstance(assignment.value, str):
            yield from validation.currency("session_context.currency", assignment.value)


def _names(field: str, names: Iterable[str]) -> Iterator[Violation]:
    """The names of a field's attributes: the message says that it is about a name, not about the field."""
    for name in names:
        for each in validation.segment(field, name):
            yield Violation(each.field, f"the name of an attribute {each.message}")


def _origin(value: Replacement | Patch, session_id: str | None, version: int | None) -> Iterator[Violation]:
    """If the caller's message says what it is based on, it has to agree with the request."""
    if None not in {value.session_id, session_id} and value.session_id != session_id:
        yield Violation("session_context.session_id", "is not the session_id of the request")
    if None not in {value.version, version} and value.version != version:
        yield Violation(
            "session_context.metadata.version",
            f"is {value.version}, expected_version is {version}: send both as they were read together",
        )
