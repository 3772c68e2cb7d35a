"""Encoded session contexts: each is encoded once, however often it is read.

Encoding one costs more than all the rest of a read that the cache answers. The model is immutable, so the same session
context is always the same bytes. They are dropped with the session context, wherever that is kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from weakref import KeyedRef

if TYPE_CHECKING:
    from gateway.model import SessionContext

__all__ = ["LARGEST", "Encoded"]

LARGEST: Final = 65_536
"""Bytes of a form that is kept. Larger ones cost little more to encode than to send, and much memory."""

_FORMS: Final = 8
"""Forms in which one session context is kept."""

_ROOM: Final = 16_777_216
"""Bytes that all forms may take: thousands of usual ones, or hundreds of the largest."""


class Encoded:
    """Bytes by session context and form, which is a number that stands for what is sent of it.

    Keeps those of the newest `most` session contexts, or of fewer if there is no room, and of each the newest few forms
    that are not too large.
    """

    def __init__(self, most: int = 1024, room: int = _ROOM) -> None:
        self._most = most
        self._room = room
        self._size = 0
        self._known: dict[int, tuple[KeyedRef[int, SessionContext], dict[int, bytes]]] = {}
        """By identity: comparing session contexts would cost what this saves."""

    def __len__(self) -> int:
        return len(self._known)

    def get(self, context: SessionContext, form: int) -> bytes | None:
        """What was kept, if it still is."""
        known = self._known.get(id(context))
        return None if known is None else known[1].get(form)

    def put(self, context: SessionContext, form: int, encoded: bytes) -> None:
        """Keep this, unless it is too large."""
        if len(encoded) > LARGEST:
            return
        known = self._known.get(id(context))
        if known is None:
            if len(self._known) == self._most:
                self._drop(next(iter(self._known)))
            known = self._known[id(context)] = KeyedRef(context, self._forget, id(context)), {}
        forms = known[1]
        self._size += len(encoded) - len(forms.pop(form, b""))
        if len(forms) == _FORMS:
            self._size -= len(forms.pop(next(iter(forms))))
        forms[form] = encoded
        while self._size > self._room:
            self._drop(next(iter(self._known)))

    def _forget(self, gone: KeyedRef[int, SessionContext]) -> None:
        """The session context was freed, and another may get its identity."""
        self._drop(gone.key)

    def _drop(self, identity: int) -> None:
        _, forms = self._known.pop(identity)
        self._size -= sum(map(len, forms.values()))
