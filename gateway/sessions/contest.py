"""The writes of this process that go for the place of one version, of which one at most can have it. No I/O.

Reading back cannot tell a write whose answer was lost from another that wrote the very same: two callers, say, that
both count 7 up to 8. But what became of the one says what became of the other.
"""

from __future__ import annotations

import itertools
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

from gateway.sessions.versioning import Rival

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gateway.model import SessionContext

__all__ = ["Contest", "Entrant", "Place"]

Place: TypeAlias = "tuple[str, str, int | None]"
"""Tenant, session id, and the version that is replaced; None for a session context that is to be created."""


class Contest:
    """All writes under way, and which places have been taken since the oldest of them began."""

    def __init__(self) -> None:
        self._moments = itertools.count()
        self._entrants: dict[Entrant, int] = {}
        """When each began, the oldest first."""
        self._taken: dict[Place, tuple[int, Entrant]] = {}
        """When and by which, the earliest first."""

    @contextmanager
    def entered(self) -> Iterator[Entrant]:
        """A write, from before it reads what it builds on until its end."""
        entrant = Entrant(self)
        self._entrants[entrant] = next(self._moments)
        try:
            yield entrant
        finally:
            del self._entrants[entrant]
            self._forget(next(iter(self._entrants.values()), next(self._moments)))

    def take(self, place: Place, by: Entrant) -> None:
        """Note that a write has had the place."""
        self._taken.pop(place, None)
        self._taken[place] = next(self._moments), by

    def has_lost(self, entrant: Entrant, place: Place) -> bool:
        """Whether another has had the place since this one began."""
        moment, winner = self._taken.get(place, (0, entrant))
        return winner is not entrant and moment > self._entrants[entrant]

    def rival(self, entrant: Entrant, place: Place, current: SessionContext) -> Rival:
        """What is known of others that went for the place, where this is what was read afterwards."""
        if self.has_lost(entrant, place):
            return Rival.CERTAIN
        others = (each for each in self._entrants if each is not entrant)
        return Rival.POSSIBLE if any(each.may_have_made(current, place) for each in others) else Rival.NONE

    def _forget(self, before: int) -> None:
        while self._taken:
            place, (moment, _) = next(iter(self._taken.items()))
            if moment > before:
                return
            del self._taken[place]


class Entrant:
    """One write, as the others see it. It goes for one place after another when it is done anew."""

    def __init__(self, contest: Contest) -> None:
        self._contest = contest
        self._place: Place | None = None
        self._is_in: Callable[[SessionContext], bool] | None = None

    @contextmanager
    def going_for(self, place: Place, is_in: Callable[[SessionContext], bool]) -> Iterator[None]:
        """Try to get the place; `is_in` tells whether a session context holds what is written to it."""
        self._place, self._is_in = place, is_in
        try:
            yield
        finally:
            self._place = self._is_in = None

    def has_lost(self, place: Place) -> bool:
        """Whether another has had that place since this one began: to go for it would be in vain."""
        return self._contest.has_lost(self, place)

    def won(self) -> None:
        """The place is this write's."""
        if self._place is not None:
            self._contest.take(self._place, self)

    def rival(self, current: SessionContext) -> Rival:
        """What is known of others that went for the same place, where this is what was read afterwards."""
        return Rival.NONE if self._place is None else self._contest.rival(self, self._place, current)

    def may_have_made(self, current: SessionContext, place: Place) -> bool:
        """Whether this may be the write that made the session context what it is, by replacing that version."""
        return self._place == place and self._is_in is not None and self._is_in(current)
