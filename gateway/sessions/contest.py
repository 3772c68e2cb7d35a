"""The writes of this process that go for the place of one version, of which one at most can have it. No I/O.

Reading back cannot tell a write whose answer was lost from another that wrote the very same: two callers, say, that
both count 7 up to 8. But what became of the one says what became of the other.
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
"""Tenant, session id, and the version that is replaced; None for a session context that is to be created."""

_MAX_TAKEN: Final = 10_000
"""Places that are remembered as taken; past that, the one that was taken first is forgotten."""


@dataclass(slots=True)
class _Taken:
    """What is known of a write that has had a place."""

    moment: int
    by: Entrant
    left: Metadata | None = None
    """That of the session context as it was read afterwards, if it was."""


class Contest:
    """All writes under way, and which places have been taken."""

    def __init__(self, *, max_taken: int = _MAX_TAKEN) -> None:
        self._max_taken = max_taken
        self._moments = itertools.count()
        self._entrants: dict[Entrant, int] = {}
        """When each began."""
        self._taken: OrderedDict[Place, _Taken] = OrderedDict()
        """The earliest first."""

    @contextmanager
    def entered(self) -> Iterator[Entrant]:
        """A write, from before it reads what it builds on until its end."""
        entrant = Entrant(self)
        self._entrants[entrant] = next(self._moments)
        try:
            yield entrant
        finally:
            del self._entrants[entrant]

    def take(self, place: Place, by: Entrant) -> None:
        """Note that a write has had the place."""
        self._taken.pop(place, None)
        self._taken[place] = _Taken(next(self._moments), by)
        if len(self._taken) > self._max_taken:
            self._taken.popitem(last=False)

    def leave(self, place: Place, by: Entrant, current: SessionContext) -> None:
        """Note what was read after a write had had the place."""
        taken = self._taken.get(place)
        if taken is not None and taken.by is by:
            taken.left = current.metadata

    def has_lost(self, entrant: Entrant, place: Place) -> bool:
        """Whether another has had the place since this one began, or has had it before and is still under way.

        From one that has ended by then nothing follows: a session that is made anew has the same versions once more.
        """
        taken = self._taken.get(place)
        if taken is None or taken.by is entrant:
            return False
        return taken.moment > self._entrants[entrant] or taken.by in self._entrants

    def rival(self, entrant: Entrant, place: Place, current: SessionContext) -> Rival:
        """What is known of others that went for the place, where this is what was read afterwards."""
        if self.has_lost(entrant, place) or self._has_been_left(place, current.metadata):
            return Rival.CERTAIN
        others = (each for each in self._entrants if each is not entrant)
        return Rival.POSSIBLE if any(each.may_have_made(current, place) for each in others) else Rival.NONE

    def _has_been_left(self, place: Place, found: Metadata) -> bool:
        """Whether one that had the place, and has ended since, has read the very same afterwards.

        Then this is its doing, or was there before whatever was sent later.
        """
        taken = self._taken.get(place)
        return taken is not None and found.modified_at is not None and taken.left == found


class Entrant:
    """One write, as the others see it. It goes for one place after another when it is done anew."""

    __slots__ = ("_contest", "_had", "_is_in", "_place")

    def __init__(self, contest: Contest) -> None:
        self._contest = contest
        self._place: Place | None = None
        self._had: Place | None = None
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
        """Whether another has had that place while this one was under way: to go for it would be in vain."""
        return self._contest.has_lost(self, place)

    def won(self) -> None:
        """The place is this write's."""
        if self._place is not None:
            self._had = self._place
            self._contest.take(self._place, self)

    def left(self, current: SessionContext) -> None:
        """This is what was read after it had had the place."""
        if self._had is not None:
            self._contest.leave(self._had, self, current)

    def rival(self, current: SessionContext) -> Rival:
        """What is known of others that went for the same place, where this is what was read afterwards."""
        return Rival.NONE if self._place is None else self._contest.rival(self, self._place, current)

    def may_have_made(self, current: SessionContext, place: Place) -> bool:
        """Whether this may be the write that made the session context what it is, by replacing that version."""
        return self._place == place and self._is_in is not None and self._is_in(current)
