"""What became of a versioned write whose answer was lost. Pure: values in, a verdict out."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.model import SessionContext

__all__ = ["Verdict", "settle"]


class Verdict(enum.Enum):
    """What is known of a write after reading back."""

    APPLIED = enum.auto()
    NOT_APPLIED = enum.auto()
    """Not yet, at least: it may be on its way still. Repeating it is safe, as only one of the two can match."""
    REFUSED = enum.auto()
    """Another writer came first."""
    UNKNOWN = enum.auto()


def settle(expected: int | None, current: SessionContext | None, *, is_there: bool) -> Verdict:
    """Decide by what a read finds after the lost answer.

    `expected` is the version that the write named, None for a creation; `current` is what was read, None when there
    is no session context; `is_there` tells whether `current` holds what was written.

    The only thing assumed of upstream's versions is that every write raises them (live use: attribute writes too). So
    a version that moved by one was moved by one write, and if what we wrote is not there, that one was not ours. Had
    it moved by more, ours may have been applied and overwritten since: calling that a conflict would make the caller
    apply it twice.
    """
    if current is None:
        return Verdict.NOT_APPLIED
    if expected is None:
        return Verdict.APPLIED if is_there else Verdict.REFUSED
    moved = current.metadata.version - expected
    if moved == 0:
        return Verdict.NOT_APPLIED
    if moved > 0 and is_there:
        return Verdict.APPLIED
    return Verdict.REFUSED if moved <= 1 else Verdict.UNKNOWN
