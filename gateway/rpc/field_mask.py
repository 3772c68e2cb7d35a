"""From an update mask to a patch (AIP-134, AIP-161)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from gateway.errors import InvalidArgument
from gateway.model import SCALAR_FIELDS
from gateway.rpc.convert import MAX_NAMES, json_from_attribute, json_from_struct
from gateway.sessions.changes import CLEAR, Assignment, Clear, Patch

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from gateway.gen.emporix.sessioncontext.v1 import session_context_pb2 as pb
    from gateway.model import JSON
    from gateway.sessions.changes import Path

__all__ = ["parse_path", "patch_from_message"]

_SEGMENT = re.compile(r"`((?:[^`]|``)*)`|(\w+)")

_MAX_PATHS: Final = 1_000
"""Paths that a mask may have. A session context has seven fields and some dozens of attributes; a caller that sets
thousands of them needs no mask."""
_MAX_NAMES: Final = MAX_NAMES + 1
"""Names that a path may have: `context`, and as many below it as a message can nest."""


def patch_from_message(message: pb.SessionContext, paths: Iterable[str], *, writable: Iterable[str]) -> Patch:
    """The patch that a message and its mask ask for.

    No paths mean the fields that are set, an attribute at a time; `*` means all that is writable. A path without a
    value clears. Several paths mean their union, whatever their order, so that each value is converted once.

    Raises InvalidArgument for an invalid path, for too many of them, and if the patch would write a number that arrived
    rounded.
    """
    named = dict.fromkeys(paths)
    if len(named) > _MAX_PATHS:
        raise InvalidArgument.of(
            "update_mask", f"names {len(named)} paths, of which {_MAX_PATHS} are allowed: name `context`, or no path"
        )
    parsed = [_field_path(path) for path in named if path != "*"]
    if not named:
        chosen = list(_set_paths(message))
    elif "*" in named:
        chosen = _union([*((field,) for field in writable), *parsed])
    else:
        chosen = _union(parsed)
    assignments = tuple(Assignment(path, _value(message, path)) for path in chosen)
    _check_exact(message, assignments)
    return Patch(
        assignments,
        session_id=message.session_id or None,
        version=message.metadata.version if message.HasField("metadata") else None,
    )


def parse_path(path: str) -> Path:
    """Split a path at its dots; a segment in backticks may hold anything, a backtick itself doubled.

    Raises InvalidArgument.
    """
    segments: list[str] = []
    position = 0
    while match := _SEGMENT.match(path, position):
        if len(segments) == _MAX_NAMES:
            raise InvalidArgument.of("update_mask", f"a path has at most {_MAX_NAMES} names: no message nests deeper")
        quoted, plain = match.groups()
        segments.append(plain if quoted is None else quoted.replace("``", "`"))
        position = match.end()
        if position == len(path):
            return tuple(segments)
        if path[position] != ".":
            break
        position += 1
    raise InvalidArgument.of(
        "update_mask", f"{path!r} is not a path: names with dots, spaces or other signs stand in backticks"
    )


def _field_path(path: str) -> Path:
    """A path that leads into no field which has none of its own. Raises InvalidArgument."""
    field, *inner = parsed = parse_path(path)
    if inner and field in SCALAR_FIELDS:
        raise InvalidArgument.of("update_mask", f"{path!r} leads into {field!r}, which has no fields")
    return parsed


def _set_paths(message: pb.SessionContext) -> Iterator[Path]:
    for field in SCALAR_FIELDS:
        if message.HasField(field):
            yield (field,)
    for name in message.context.fields:
        yield "context", name


def _union(paths: Iterable[Path]) -> list[Path]:
    """The paths without those that lie below another one, which includes them (AIP-161)."""
    named = dict.fromkeys(paths)
    return [path for path in named if not any(path[:length] in named for length in range(1, len(path)))]


def _check_exact(message: pb.SessionContext, assignments: Iterable[Assignment]) -> None:
    """Raise InvalidArgument if an attribute that arrived rounded would be written so."""
    written = {name for each in assignments for name in _attributes_set(each)}
    if rounded := [name for name in message.rounded_attributes if name in written]:
        raise InvalidArgument.of(
            "session_context.rounded_attributes",
            f"{', '.join(rounded)}: arrived rounded, and would be written so; name in update_mask the fields that are "
            "to change and no others, or take from rounded_attributes what you have given a new value",
        )


def _attributes_set(assignment: Assignment) -> Iterable[str]:
    if assignment.path[0] != "context" or assignment.value is CLEAR:
        return ()
    if len(assignment.path) == 1 and isinstance(assignment.value, dict):
        return assignment.value
    return assignment.path[1:2]


def _value(message: pb.SessionContext, path: Path) -> JSON | Clear:
    field, *inner = path
    if field in SCALAR_FIELDS:
        value: str = getattr(message, field)
        return value if message.HasField(field) else CLEAR
    if field != "context":
        return CLEAR  # not a field that may be changed: refused, with all else, by the use case
    return _attribute(message, inner)


def _attribute(message: pb.SessionContext, inner: list[str]) -> JSON | Clear:
    where = "session_context.context"
    if not inner:
        return json_from_struct(message.context, where) or CLEAR
    struct = message.context
    *outer, last = inner
    for name in outer:
        if name not in struct.fields:
            return CLEAR
        struct = struct.fields[name].struct_value
    if last not in struct.fields:
        return CLEAR
    return json_from_attribute(inner[0], struct.fields[last], where, below=len(outer))
