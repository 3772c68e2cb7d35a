"""Encoded answers to reads, kept for sessions that are read again (`gateway.encoded`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.encoded import Encoded
from gateway.rpc.convert import fill_session_context

if TYPE_CHECKING:
    from gateway.gen.emporix.sessioncontext.v1 import session_context_pb2 as pb
    from gateway.model import SessionContext

__all__ = ["EncodedAnswers"]


class EncodedAnswers:
    """Answers of one method; `kind` is their message."""

    def __init__(self, kind: type[pb.GetSessionContextResponse | pb.GetOwnSessionContextResponse]) -> None:
        self._kind = kind
        self._known = Encoded()

    def __len__(self) -> int:
        return len(self._known)

    def of(self, context: SessionContext) -> bytes:
        """The answer. Raises NotRepresentable."""
        encoded = self._known.get(context, 0)
        if encoded is None:
            answer = self._kind()
            fill_session_context(answer.session_context, context)
            encoded = answer.SerializeToString()
            if self._known.recurs(context):
                self._known.put(context, 0, encoded)
        return encoded
