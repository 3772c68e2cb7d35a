"""Concurrent writes of this process that replace the same version: at most one of them can win. No I/O.

If the answer to a write is lost, reading back cannot tell it from another one that wrote the very same: two callers,
for example, that both count from 7 to 8. But if the outcome of one is known, so is that of the other.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from gateway.sessions.versioning import Rival

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gateway.model import Metadata, SessionContext

__all__ = ["Contest", "Entrant", "Place"]

Place: TypeAlias = "tuple[str, str, int | None]"
"""What at most one write can take: tenant, session id, and the version that is replaced, or None for a creation."""

_MAX_TAKEN: Final = 10_000
"""Places that are remembered as taken. Above that, the oldest is forgotten."""


@dataclass(slots=True)
class _Taken:
    """A write that has taken a place."""

    moment: int
    by: Entrant
    left: Metadata | None = None
    """The metadata of the session context that was read afterwards, if it was."""


class Contest:
    """All writes in progress, and which places have been taken."""

    def __init__(self, *, max_taken: int = _MAX_TAKEN) -> None:
        self._max_taken = max_taken
        self._moments = itertools.count()
        self._entrants: dict[Entrant, int] = {}
        """When each has begun."""
        self._taken: OrderedDict[Place, _Taken] = OrderedDict()
        """The earliest first."""

    @contextmanager
    def entered(self) -> Iterator[Entrant]:
        """A write, from before it reads what it is based on until its end."""
        entrant = Entrant(self)
        self._entrants[entrant] = next(self._moments)
        try:
            yield entrant
        finally:
            del self._entrants[entrant]

    def take(self, place: Place, by: Entrant) -> None:
        """Record that a write has taken the place."""
        self._taken.pop(place, None)
        self._taken[place] = _Taken(next(self._moments), by)
        if len(self._taken) > self._max_taken:
            self._taken.popitem(last=False)

    def leave(self, place: Place, by: Entrant, current: SessionContext) -> None:
        """Record what was read after a write had taken the place."""
        taken = self._taken.get(place)
        if taken is not None and taken.by is by:
            taken.left = current.metadata

    def has_lost(self, entrant: Entrant, place: Place) -> bool:
        """Whether another has taken the place since this one began, or before that and is still in progress.

        One that had ended before proves nothing: a session that is created again has the same versions again.
        """
        taken = self._taken.get(place)
        if taken is None or taken.by is entrant:
            return False
        return taken.moment > self._entrants[entrant] or taken.by in self._entrants

    def rival(self, entrant: Entrant, place: Place, current: SessionContext) -> Rival:
        """What is known of others that tried to take the place, given what was read afterwards."""
        if self.has_lost(entrant, place) or self._has_been_left(place, current.metadata):
            return Rival.CERTAIN
        others = (each for each in self._entrants if each is not entrant)
        return Rival.POSSIBLE if any(each.may_have_made(current, place) for each in others) else Rival.NONE

    def _has_been_left(self, place: Place, found: Metadata) -> bool:
        """Whether a write that took the place, and has ended, read the very same afterwards.

        Then it made this state, or the state is older than whatever was sent later.
        """
        taken = self._taken.get(place)
        return taken is not None and found.modified_at is not None and taken.left == found


class Entrant:
    """One write, as the others see it. If it is repeated, it tries to take one place after another."""

    __slots__ = ("_contest", "_had", "_is_in", "_place")

    def __init__(self, contest: Contest) -> None:
        self._contest = contest
        self._place: Place | None = None
        self._had: Place | None = None
        self._is_in: Callable[[SessionContext], bool] | None = None

    @contextmanager
    def going_for(self, place: Place, is_in: Callable[[SessionContext], bool]) -> Iterator[None]:
        """Try to take the place; `is_in` tells whether a session context contains what is written."""
        self._place, self._is_in = place, is_in
        try:
            yield
        finally:
            self._place = self._is_in = None

    def has_lost(self, place: Place) -> bool:
        """Whether another has taken that place during this write: there is no point in trying."""
        return self._contest.has_lost(self, place)

    def won(self) -> None:
        """This write has taken the place."""
        if self._place is not None:
            self._had = self._place
            self._contest.take(self._place, self)

    def left(self, current: SessionContext) -> None:
        """This was read after the write had taken the place."""
        if self._had is not None:
            self._contest.leave(self._had, self, current)

    def rival(self, current: SessionContext) -> Rival:
        """What is known of others that tried to take the same place, given what was read afterwards."""
        return Rival.NONE if self._place is None else self._contest.rival(self, self._place, current)

    def may_have_made(self, current: SessionContext, place: Place) -> bool:
        """Whether this write may have made the session context what it is, by replacing that version."""
        return self._place == place and self._is_in is not None and self._is_in(current)
