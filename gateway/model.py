"""The session context as the whole gateway uses it: immutable, decoded once, with nothing lost.

Shapes and names are those of the API reference (Emporix, Session Context service).
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias

import msgspec
from msgspec import Meta, Raw, Struct

__all__ = [
    "JSON",
    "MAX_VERSION",
    "SCALAR_FIELDS",
    "UPSTREAM_NAMES",
    "Metadata",
    "Replacement",
    "SessionContext",
    "decode_session_context",
    "decoded_size",
]

if TYPE_CHECKING:
    JSON: TypeAlias = None | bool | int | float | str | list["JSON"] | dict[str, "JSON"]
else:
    JSON = Any  # msgspec knows no recursive aliases; it decodes Any to just these types
"""Any JSON value. An attribute may hold any of them (live use; the reference says object or string)."""

MAX_VERSION: Final = 2**63 - 1

_Time = Annotated[datetime, Meta(tz=True)]


class Metadata(Struct, frozen=True, rename="camel"):
    """Version and times, kept by upstream."""

    version: Annotated[int, Meta(ge=0, le=MAX_VERSION)]
    created_at: _Time | None = None
    modified_at: _Time | None = None


class _Fields(Struct, frozen=True, kw_only=True, rename="camel"):
    """What the API reference lists. Upstream leaves out what it does not have."""

    session_id: str
    customer_id: str | None = None
    site_code: str | None = None
    currency: str | None = None
    cart_id: str | None = None
    target_location: str | None = None
    language: str | None = None
    context: dict[str, JSON] | None = None
    metadata: Metadata


class _FieldsAlone(_Fields, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """And nothing else."""


class SessionContext(_Fields, frozen=True, kw_only=True):
    """One session context as upstream sent it.

    `additional_properties` are the top-level fields that this version of the gateway does not know. `source` is the
    JSON document itself, from which a read-modify-write takes what must not change by a byte.
    """

    additional_properties: dict[str, JSON] | None = None
    source: bytes


class Replacement(Struct, frozen=True, kw_only=True):
    """The whole new state that a caller wants a session context to have.

    A field that is None is removed. `session_id`, `version` and `rounded_attributes` are not written: if the caller's
    message has them, they say what the state is based on, and are checked against the request.
    """

    session_id: str | None = None
    version: int | None = None
    rounded_attributes: tuple[str, ...] = ()

    customer_id: str | None = None
    site_code: str | None = None
    currency: str | None = None
    cart_id: str | None = None
    target_location: str | None = None
    language: str | None = None
    context: dict[str, JSON] | None = None
    additional_properties: dict[str, JSON] | None = None


def decode_session_context(source: bytes) -> SessionContext:
    """Decode upstream's JSON document.

    Raises ValueError (msgspec's errors are such), or RecursionError, when it is not a session context.
    """
    try:
        known, additional_properties = _nothing_else.decode(source), None
    except msgspec.ValidationError:
        known, additional_properties = _known_fields.decode(source), _additional_properties(source)
    metadata = known.metadata
    created_at, modified_at = metadata.created_at, metadata.modified_at
    if (created_at and created_at.tzinfo is not UTC) or (modified_at and modified_at.tzinfo is not UTC):
        metadata = Metadata(metadata.version, _utc(created_at), _utc(modified_at))
    return SessionContext(
        session_id=known.session_id,
        customer_id=known.customer_id,
        site_code=known.site_code,
        currency=known.currency,
        cart_id=known.cart_id,
        target_location=known.target_location,
        language=known.language,
        context=known.context,
        metadata=metadata,
        additional_properties=additional_properties,
        source=source,
    )


def decoded_size(source: bytes) -> int:
    """Bytes of memory that JSON takes together with all that is decoded from it, about: twice to thirty times as much.

    This is estimated from its punctuation: there is a comma for each value, and a bracket for each container. All
    characters of a text take as many bytes as its widest, up to four.
    """
    text = sys.getsizeof(source.decode(errors="replace"))
    containers = 150 * source.count(b"{") + 70 * source.count(b"[")
    return len(source) + text + 60 * source.count(b",") + containers


def _utc(time: datetime | None) -> datetime | None:
    """The same time in UTC. Raises ValueError if that is out of range."""
    try:
        return None if time is None else time.astimezone(UTC)
    except OverflowError:
        raise ValueError("a time is out of range in UTC") from None


def _additional_properties(source: bytes) -> dict[str, JSON] | None:
    document = _document.decode(source)
    if document.keys() <= _KNOWN:
        return None
    return {name: _value.decode(raw) for name, raw in document.items() if name not in _KNOWN}


SCALAR_FIELDS: Final = ("customer_id", "site_code", "currency", "cart_id", "target_location", "language")
"""Top-level fields that are strings, and that callers may write."""
UPSTREAM_NAMES: Final = dict(zip(_Fields.__struct_fields__, _Fields.__struct_encode_fields__, strict=True))
"""Our names of the top-level fields, and upstream's."""

_KNOWN = frozenset(UPSTREAM_NAMES.values())
_known_fields: msgspec.json.Decoder[_Fields] = msgspec.json.Decoder(_Fields)
_nothing_else: msgspec.json.Decoder[_Fields] = msgspec.json.Decoder(_FieldsAlone)
"""Decodes nearly all documents, in one pass."""
_document = msgspec.json.Decoder(dict[str, Raw])
_value: msgspec.json.Decoder[JSON] = msgspec.json.Decoder()
