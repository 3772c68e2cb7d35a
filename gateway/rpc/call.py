"""What a gRPC call brings along besides its request message."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.credentials import CallerCredentials
from gateway.deadline import Deadline

if TYPE_CHECKING:
    import grpc

__all__ = ["credentials_of", "deadline_of"]

_MARGIN: Final = 0.05
"""Share of the caller's time kept back so that an answer, a typed error above all, can still reach the caller."""


def credentials_of(context: grpc.aio.ServicerContext[object, object]) -> CallerCredentials:
    """The caller's credentials, from the metadata. A key that comes twice is taken by its last value."""
    metadata = dict(context.invocation_metadata() or ())

    def header(name: str) -> str | None:
        value = metadata.get(name)
        return value if isinstance(value, str) else None

    return CallerCredentials.read(header)


def deadline_of(context: grpc.aio.ServicerContext[object, object], budget: float) -> Deadline:
    """The caller's deadline, or so many seconds from now, whichever comes first."""
    remaining: float | None = context.time_remaining()  # the stubs forget None, which a call without a deadline has
    return Deadline.after(budget if remaining is None else min(budget, remaining * (1 - _MARGIN)))
