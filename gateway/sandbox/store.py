"""The session contexts: documents with a version, and every version they have had."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
from msgspec import Raw

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

__all__ = ["Document", "Revision", "StaleVersionError", "Store"]

Document = dict[str, Raw]
"""Top-level fields; raw, so that every value comes back to the byte."""

_KEPT: Final = 20_000


class Revision(NamedTuple):
    """One version of a session context, and what made it."""

    version: int
    source: bytes
    made_by: str


class StaleVersionError(Exception):
    """A write named a version that is not the current one."""


class _Session:
    def __init__(self, document: Document, version: int, created_at: str) -> None:
        self.document = document
        self.version = version
        self.created_at = created_at
        self.modified_at = created_at
        self.history: deque[Revision] = deque(maxlen=_KEPT)


class Store:
    """All session contexts of all tenants. Every write raises the version by one, as live use shows."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._sessions: dict[tuple[str, str], _Session] = {}

    def ids(self) -> list[tuple[str, str]]:
        """Tenant and id of every session context there is."""
        return list(self._sessions)

    def seed(self, tenant: str, session_id: str, source: bytes) -> None:
        """Put a document in place as it is, its metadata included."""
        document = msgspec.json.decode(source, type=Document)
        metadata = msgspec.json.decode(document.pop("metadata"), type=dict[str, int | str])
        session = _Session(_normal(document), int(metadata["version"]), str(metadata["createdAt"]))
        session.modified_at = str(metadata["modifiedAt"])
        self._sessions[tenant, session_id] = session
        self._record(session, "seed")

    def get(self, tenant: str, session_id: str) -> bytes | None:
        """The whole document, metadata last; None when there is none."""
        session = self._sessions.get((tenant, session_id))
        return None if session is None else _source(session)

    def fields(self, tenant: str, session_id: str) -> Document:
        """Its top-level fields but for the metadata. Raises KeyError."""
        return dict(self._sessions[tenant, session_id].document)

    def version(self, tenant: str, session_id: str) -> int:
        """Its version. Raises KeyError."""
        return self._sessions[tenant, session_id].version

    def history(self, tenant: str, session_id: str) -> list[Revision]:
        """Every version it has had, oldest first, within bounds. Raises KeyError."""
        return list(self._sessions[tenant, session_id].history)

    def create(self, tenant: str, session_id: str, document: Document, made_by: str, version: int = 1) -> None:
        """Make a session context."""
        session = _Session(_normal(document), version, self._now())
        self._sessions[tenant, session_id] = session
        self._record(session, made_by)

    def write(
        self, tenant: str, session_id: str, document: Document, made_by: str, *, version: int | None = None
    ) -> None:
        """Put all top-level fields in place. Raises StaleVersionError for another version than the current one."""
        session = self._sessions[tenant, session_id]
        if version is not None and version != session.version:
            raise StaleVersionError
        session.document = _normal(document)
        session.version += 1
        session.modified_at = self._now()
        self._record(session, made_by)

    def delete(self, tenant: str, session_id: str) -> None:
        """Remove it, if it is there."""
        self._sessions.pop((tenant, session_id), None)

    def clear(self) -> None:
        """Remove all."""
        self._sessions.clear()

    def _now(self) -> str:
        return self._clock().isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def _record(self, session: _Session, made_by: str) -> None:
        session.history.append(Revision(session.version, _source(session), made_by))


def _source(session: _Session) -> bytes:
    metadata = {"version": session.version, "createdAt": session.created_at, "modifiedAt": session.modified_at}
    return msgspec.json.encode({**session.document, "metadata": metadata})


def _normal(document: Document) -> Document:
    """Without fields that are null and without an empty context: upstream leaves both out (live use)."""
    return {
        name: raw
        for name, raw in document.items()
        if name != "metadata" and bytes(raw) != b"null" and not (name == "context" and _is_empty(raw))
    }


def _is_empty(raw: Raw) -> bool:
    return bool(msgspec.json.decode(raw) == {})
