"""From an update mask to a patch (AIP-134, AIP-161)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from gateway.errors import InvalidArgument
from gateway.rpc.convert import json_from_struct, json_from_value
from gateway.sessions.changes import CLEAR, Assignment, Clear, Patch

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from gateway.gen.emporix.sessioncontext.v1 import session_context_pb2 as pb
    from gateway.model import JSON
    from gateway.sessions.changes import Path

__all__ = ["parse_path", "patch_from_message"]

_SCALARS: Final = ("customer_id", "site_code", "currency", "cart_id", "target_location", "language")
_SEGMENT = re.compile(r"`((?:[^`]|``)*)`|(\w+)")


def patch_from_message(message: pb.SessionContext, paths: Iterable[str], *, writable: Iterable[str]) -> Patch:
    """The patch that a message and its mask ask for.

    No paths mean the fields that are set, an attribute at a time; `*` means all that is writable. A path without a
    value clears. Raises InvalidArgument for a path that is none.
    """
    named = list(paths)
    parsed = [parse_path(path) for path in named if path != "*"]
    if not named:
        parsed = list(_set_paths(message))
    elif "*" in named:
        parsed = [(field,) for field in writable]
    return Patch(tuple(Assignment(path, _value(message, path)) for path in parsed))


def parse_path(path: str) -> Path:
    """Split a path at its dots; a segment in backticks may hold anything, a backtick itself doubled.

    Raises InvalidArgument.
    """
    segments: list[str] = []
    position = 0
    while match := _SEGMENT.match(path, position):
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


def _set_paths(message: pb.SessionContext) -> Iterator[Path]:
    for field in _SCALARS:
        if message.HasField(field):
            yield (field,)
    for name in message.context.fields:
        yield "context", name


def _value(message: pb.SessionContext, path: Path) -> JSON | Clear:
    field, *inner = path
    if field in _SCALARS:
        if inner:
            raise InvalidArgument.of("update_mask", f"{'.'.join(path)!r} leads into {field!r}, which has no fields")
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
    for name in inner[:-1]:
        if name not in struct.fields:
            return CLEAR
        struct = struct.fields[name].struct_value
    return json_from_value(struct.fields[inner[-1]], where) if inner[-1] in struct.fields else CLEAR
