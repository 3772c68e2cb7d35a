"""Decides what became of a versioned write whose answer was lost. Pure: values in, a verdict out."""

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
    """Not yet, at least: it may still be on its way. It can be repeated, since only one of the two can match."""
    REFUSED = enum.auto()
    """Another writer came first."""
    UNKNOWN = enum.auto()


class Rival(enum.Enum):
    """What is known of other writes that replace the same version."""

    NONE = enum.auto()
    POSSIBLE = enum.auto()
    """One is in progress that writes the same, and so may have made what is there."""
    CERTAIN = enum.auto()
    """One was acknowledged, and so has replaced the version."""


def settle(
    expected: int | None,
    current: SessionContext | None,
    *,
    is_there: bool,
    rival: Rival = Rival.NONE,
    upsert: bool = False,
) -> Verdict:
    """Decide by what a read finds after the lost answer.

    `expected` is the version that the write named, None for a creation; `current` is what was read, None if there is no
    session context; `is_there` tells whether `current` contains what was written; `upsert` that the write creates a
    session context if there is none.

    The only assumption about upstream's versions is that every write raises them (live use: attribute writes too). So a
    version that is higher by one is the result of one write, and if what we wrote is not there, that was not ours. If
    it is higher by more, ours may have been applied and overwritten since: calling that a conflict would make the
    caller apply it twice. If ours may have created the session context, the same holds for any version.

    If what we wrote is there, ours was applied, unless another write of the very same replaced the same version. Such a
    rival is known if it was in progress in this process at the same time, or ended here having read just what was read
    now. An unknown one goes unnoticed, and we take its write for ours: callers that count should also write a value of
    their own.
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
