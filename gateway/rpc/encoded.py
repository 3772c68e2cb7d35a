"""Encoded answers to reads, kept for reads that the cache answers (`gateway.encoded`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.encoded import Encoded
from gateway.rpc.convert import fill_session_context

if TYPE_CHECKING:
    from gateway.cache.readthrough import Found
    from gateway.gen.emporix.sessioncontext.v1 import session_context_pb2 as pb

__all__ = ["EncodedAnswers"]


class EncodedAnswers:
    """Answers of one method; `kind` is their message."""

    def __init__(self, kind: type[pb.GetSessionContextResponse | pb.GetOwnSessionContextResponse]) -> None:
        self._kind = kind
        self._known = Encoded()

    def __len__(self) -> int:
        return len(self._known)

    def of(self, found: Found) -> bytes:
        """The answer. Raises NotRepresentable."""
        context = found.context
        known = self._known.get(context, 0)
        if known is not None:
            return known
        answer = self._kind()
        fill_session_context(answer.session_context, context)
        encoded = answer.SerializeToString()
        if found.status.hit:  # the first read only fills the cache; the second shows that there are more
            self._known.put(context, 0, encoded)
        return encoded
