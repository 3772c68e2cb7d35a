"""What a write makes of a session context. Pure: documents in, documents out.

Documents are handled as raw JSON, member by member, so that what a change does not name is kept byte for byte, unknown
fields and large numbers included. Names of top-level fields are ours (`gateway.model.UPSTREAM_NAMES`).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec
from msgspec import Raw

from gateway.errors import InvalidArgument
from gateway.model import JSON, SCALAR_FIELDS, UPSTREAM_NAMES

if TYPE_CHECKING:
    from gateway.model import Replacement, SessionContext

__all__ = ["CLEAR", "Assignment", "Clear", "Patch", "Path", "Replace", "is_same"]

Path: TypeAlias = tuple[str, ...]
"""Where in the document: `("currency",)`, or into the attributes, `("context", "shoe size")`, at any depth."""

_Members: TypeAlias = "dict[str, Raw | _Members]"
"""An object of a document. A member that a path leads into is decoded, and encoded with the whole at the end: so each
object is decoded once, and encoded once, however many changes are made to it. All others stay as they came."""


class Clear(enum.Enum):
    """Type of `CLEAR`."""

    CLEAR = enum.auto()


CLEAR: Final = Clear.CLEAR
"""The value of a field that is removed; not the same as null, which an attribute may be."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """One field or attribute, and its new value."""

    path: Path
    value: JSON | Clear


@dataclass(frozen=True, slots=True)
class Patch:
    """Changes some fields and attributes of the current state, in the order given.

    `session_id` and `version` are not written: if the caller's message has them, they say what the changes are based
    on, and are checked against the request.
    """

    assignments: tuple[Assignment, ...]
    session_id: str | None = None
    version: int | None = None

    def whole(self, current: SessionContext) -> bytes:
        """The whole document with the changes made, for upstream's PUT.

        Raises InvalidArgument if a path leads into an attribute that is not an object.
        """
        return msgspec.json.encode(self._applied(current))

    def partial(self, current: SessionContext) -> bytes:
        """The version and the top-level fields that change, for upstream's PATCH, which replaces `context` as a whole.

        Raises as `whole`, and InvalidArgument if the changes are based on another session: which one is the caller's
        own is not known before it has been read.
        """
        if self.session_id not in {None, current.session_id}:
            raise InvalidArgument.of("session_context.session_id", "is not the id of your session")
        touched = {"metadata", *(UPSTREAM_NAMES[each.path[0]] for each in self.assignments)}
        return msgspec.json.encode({name: raw for name, raw in self._applied(current).items() if name in touched})

    def is_in(self, current: SessionContext) -> bool:
        """Whether the session context has everything as this patch makes it."""
        document = msgspec.json.decode(current.source)
        return all(_has(document, _upstream_path(each.path), each.value) for each in self.assignments)

    def _applied(self, current: SessionContext) -> _Members:
        document = _object(current.source)
        for each in self.assignments:
            _assign(document, _upstream_path(each.path), each.value)
        return document


@dataclass(frozen=True, slots=True)
class Replace:
    """Replaces the current state as a whole."""

    session_id: str
    replacement: Replacement
    version: int | None
    """The version that is replaced; None for a session context that is to be created."""

    def document(self) -> bytes:
        """The whole document, for upstream's PUT.

        A known field without a value is sent as null: whether upstream replaces or merges is not documented, and null
        means the same for both.
        """
        metadata = {} if self.version is None else {"metadata": {"version": self.version}}
        return msgspec.json.encode({"sessionId": self.session_id, **self._fields(), **metadata})

    def is_in(self, current: SessionContext) -> bool:
        """Whether the session context is as this makes it."""
        document = msgspec.json.decode(current.source)
        return all(_has(document, (name,), CLEAR if value is None else value) for name, value in self._fields().items())

    def _fields(self) -> dict[str, JSON]:
        new = self.replacement
        return {
            **(new.additional_properties or {}),
            **{UPSTREAM_NAMES[name]: getattr(new, name) for name in SCALAR_FIELDS},
            "context": new.context or {},
        }


def is_same(one: SessionContext, other: SessionContext) -> bool:
    """Whether two session contexts are the same but for their versions."""
    return _same(_said(one), _said(other))


def _said(context: SessionContext) -> JSON:
    """A document without its version, and without what upstream may leave out (see `_has`)."""
    document = msgspec.json.decode(context.source, type=dict[str, JSON])
    return {
        name: value
        for name, value in document.items()
        if name != "metadata" and value is not None and (name, value) != ("context", {})
    }


def _upstream_path(path: Path) -> Path:
    return (UPSTREAM_NAMES[path[0]], *path[1:])


def _assign(document: _Members, path: Path, value: JSON | Clear) -> None:
    """Make one change to a document. A cleared value becomes null at the top level, and is removed inside an object."""
    *outer, last = path
    members = document
    for name in outer:
        if value is CLEAR and _is_absent(members.get(name)):
            return
        members = _opened(members, name)
    if value is not CLEAR:
        members[last] = Raw(msgspec.json.encode(value))
    elif outer:
        members.pop(last, None)
    elif not _is_absent(members.get(last)):
        members[last] = Raw(b"{}" if last == "context" else b"null")


def _opened(members: _Members, name: str) -> _Members:
    """The object that a member holds, to be changed in place; an empty one if there is none.

    Raises InvalidArgument if the member holds something else.
    """
    member = members.get(name)
    if isinstance(member, dict):
        return member
    opened: _Members = {}
    if member is not None and not _is_absent(member):
        try:
            opened = _object(member)
        except msgspec.ValidationError:
            raise InvalidArgument.of("update_mask", f"leads into {name!r}, which is not an object") from None
    members[name] = opened
    return opened


def _object(source: bytes | Raw) -> _Members:
    """An object, with its members as they came. Raises ValidationError for anything else."""
    members: _Members = msgspec.json.decode(source, type=dict[str, Raw])
    return members


def _is_absent(member: Raw | _Members | None) -> bool:
    return member is None or (isinstance(member, Raw) and bytes(member) == b"null")


def _has(document: JSON, path: Path, value: JSON | Clear) -> bool:
    """Whether a document holds a value at a path.

    Upstream leaves out top-level fields that are null, and a `context` without attributes, so these count as absent.
    Inside `context` they do not: an attribute may be null or empty.
    """
    for name in path:
        if not isinstance(document, dict) or name not in document:
            return value is CLEAR or (path == ("context",) and value == {})
        document = document[name]
    match path:
        case ("context",) if value is CLEAR or value == {}:
            return document in (None, {})
        case (_,) if value is CLEAR:
            return document is None
        case _:
            return value is not CLEAR and _same(document, value)


def _same(one: JSON, other: JSON) -> bool:
    """Equality of JSON values, however deep: numbers by value, but true is not 1."""
    pairs = [(one, other)]
    while pairs:
        match pairs.pop():
            case dict() as left, dict() as right:
                if left.keys() != right.keys():
                    return False
                pairs += [(left[name], right[name]) for name in left]
            case list() as left, list() as right:
                if len(left) != len(right):
                    return False
                pairs += zip(left, right, strict=True)
            case left, right:
                if isinstance(left, bool) != isinstance(right, bool) or left != right:
                    return False
    return True
