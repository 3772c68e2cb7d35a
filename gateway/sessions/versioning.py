"""What became of a versioned write whose answer was lost. Pure: values in, a verdict out."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.model import SessionContext

__all__ = ["Rival", "Verdict", "settle"]


class Verdict(enum.Enum):
    """What is known of a write after reading back."""

    APPLIED = enum.auto()
    NOT_APPLIED = enum.auto()
    """Not yet, at least: it may be on its way still. Repeating it is safe, as only one of the two can match."""
    REFUSED = enum.auto()
    """Another writer came first."""
    UNKNOWN = enum.auto()


class Rival(enum.Enum):
    """What is known of other writes to the place of the same version."""

    NONE = enum.auto()
    POSSIBLE = enum.auto()
    """One is under way that would leave the same behind, so that what is there may be its doing."""
    CERTAIN = enum.auto()
    """One was acknowledged, and it has had the place."""


def settle(
    expected: int | None,
    current: SessionContext | None,
    *,
    is_there: bool,
    rival: Rival = Rival.NONE,
    upsert: bool = False,
) -> Verdict:
    """Decide by what a read finds after the lost answer.

    `expected` is the version that the write named, None for a creation; `current` is what was read, None when there
    is no session context; `is_there` tells whether `current` holds what was written; `upsert` that the write creates
    when there is nothing to replace.

    The only thing assumed of upstream's versions is that every write raises them (live use: attribute writes too). So
    a version that moved by one was moved by one write, and if what we wrote is not there, that one was not ours. Had
    it moved by more, ours may have been applied and overwritten since: calling that a conflict would make the caller
    apply it twice. Where ours may have created, at whatever version, that holds for every version there can be.

    That what we wrote is there shows that ours was applied, unless another wrote the very same to the place of the
    same version. Such a one is known as a rival if it was under way in this process at the same time, or has ended here
    having read just what was read now. One that is not known is not seen, and we take its write for ours: who counts
    does well to write a value of his own along with the count.
    """
    if current is None:
        return Verdict.NOT_APPLIED
    if upsert or expected is None:
        return _settle_creation(expected, current, is_there=is_there, rival=rival)
    moved = current.metadata.version - expected
    if moved == 0:
        return Verdict.NOT_APPLIED
    if rival is Rival.CERTAIN or moved < 0:
        return Verdict.REFUSED
    if is_there:
        return Verdict.APPLIED if rival is Rival.NONE else Verdict.UNKNOWN
    return Verdict.REFUSED if moved == 1 else Verdict.UNKNOWN


def _settle_creation(expected: int | None, current: SessionContext, *, is_there: bool, rival: Rival) -> Verdict:
    if rival is Rival.CERTAIN:
        return Verdict.REFUSED
    if is_there:
        return Verdict.APPLIED if rival is Rival.NONE else Verdict.UNKNOWN
    return Verdict.NOT_APPLIED if current.metadata.version == expected else Verdict.UNKNOWN
