"""Answers to reads that the cache answers, encoded once for each session context however often it is asked for.

Making protobuf of a session context costs more than all else that is done for such a read. The model is immutable, so
the same session context is always the same bytes; they go when it goes, wherever it was kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import KeyedRef

from gateway.rpc.convert import session_context_message

if TYPE_CHECKING:
    from gateway.cache.readthrough import Found
    from gateway.gen.emporix.sessioncontext.v1 import session_context_pb2 as pb
    from gateway.model import SessionContext

__all__ = ["EncodedAnswers"]


class EncodedAnswers:
    """Answers of one method, `kind` being their message."""

    def __init__(self, kind: type[pb.GetSessionContextResponse | pb.GetOwnSessionContextResponse]) -> None:
        self._kind = kind
        self._known: dict[int, tuple[KeyedRef[int, SessionContext], bytes]] = {}
        """By identity: comparing session contexts would cost what this saves."""

    def __len__(self) -> int:
        return len(self._known)

    def of(self, found: Found) -> bytes:
        """The answer. Raises NotRepresentable."""
        context = found.context
        known = self._known.get(id(context))
        if known is not None:
            return known[1]
        encoded = self._kind(session_context=session_context_message(context)).SerializeToString()
        if found.status.hit:  # who came first brought it into the cache, if there is one; who comes second asks again
            self._known[id(context)] = KeyedRef(context, self._forget, id(context)), encoded
        return encoded

    def _forget(self, gone: KeyedRef[int, SessionContext]) -> None:
        """The session context is no more, and another may get its identity."""
        del self._known[gone.key]
