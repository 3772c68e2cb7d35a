"""Encoded session contexts: one that is read again and again is not encoded each time.

Encoding one costs more than all the rest of a read that the cache answers. A session context is made of its document
alone, so of the same document there are always the same bytes, whether it comes from the cache or once more from
upstream: most sessions are read more often than they change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gateway.model import SessionContext

__all__ = ["LARGEST", "Encoded"]

LARGEST: Final = 65_536
"""Bytes of a document, or of a form, that is kept. Larger ones cost little more to encode than to send, and much
memory."""

_FORMS: Final = 8
"""Forms in which one session context is kept."""

_ROOM: Final = 16_777_216
"""Bytes that all documents and forms may take: thousands of usual ones, or hundreds of the largest."""


class Encoded:
    """Bytes by document and form, which is a number that stands for what is sent of it.

    Keeps those of the newest `most` documents, or of fewer if there is no room, and of each the newest few forms. What
    is too large is not kept, nor what is made of a document that is here for the first time: it may be the last.
    """

    def __init__(self, most: int = 1024, room: int = _ROOM) -> None:
        self._most = most
        self._room = room
        self._size = 0
        self._known: dict[bytes, dict[int, bytes]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def get(self, context: SessionContext, form: int) -> bytes | None:
        """What was kept, if it still is."""
        forms = self._known.get(context.source)
        return None if forms is None else forms.get(form)

    def recurs(self, context: SessionContext) -> bool:
        """Whether the document has been here before, so that there is a point in keeping what is made of it."""
        document = context.source
        if document in self._known:
            return True
        if len(document) <= LARGEST:
            if len(self._known) == self._most:
                self._drop_oldest()
            self._known[document] = {}
            self._size += len(document)
            self._make_room()
        return False

    def put(self, context: SessionContext, form: int, encoded: bytes) -> None:
        """Keep this of a document that recurs, unless it is too large."""
        forms = self._known.get(context.source)
        if forms is None or len(encoded) > LARGEST:
            return
        self._size += len(encoded) - len(forms.pop(form, b""))
        if len(forms) == _FORMS:
            self._size -= len(forms.pop(next(iter(forms))))
        forms[form] = encoded
        self._make_room()

    def _make_room(self) -> None:
        while self._size > self._room:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        document = next(iter(self._known))
        self._size -= len(document) + sum(map(len, self._known.pop(document).values()))
