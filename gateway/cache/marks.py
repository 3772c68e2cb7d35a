"""Marks of writes, and floors of versions, in this process: no older answer is kept or served after them.

Every write raises the generation of its session, before it is sent and after it has ended. A read takes the generation
when it begins; its result may be kept only if no write has raised the generation since, and none is in progress.

Every version seen is a floor for its session: no lower version is kept or served, however it was read. If upstream
itself answers with a lower one later, that is passed on, but not kept: upstream has a replica that is behind, or the
session was created again. Marks and floors outlast every read in progress and every entry.

Pure but for the clock, which is passed in.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NewType

from msgspec import Struct

from gateway.stores.stored import MAX_WRITERS

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Generation", "Marks", "WriterId"]

Generation = NewType("Generation", int)
"""When a read began."""

WriterId = NewType("WriterId", int)
"""One write in progress."""

_MAX_MARKS: Final = 100_000
"""Marks that are kept. Above that, the oldest is merged into one that counts for every session. The same number of
floors; above that, the oldest is dropped."""

_OTHERS: Final = WriterId(0)
"""Stands for all writes in progress, if there are more than `MAX_WRITERS`."""


@dataclass(slots=True)
class _Mark:
    until: float
    generation: int = 0
    writers: dict[WriterId, float] = field(default_factory=dict)
    """Writes in progress, and until when each counts as such, even if its process has gone."""


class _Floor(Struct, frozen=True, gc=False):
    version: int
    seen: int
    """When, in generations."""
    until: float


class Marks:
    """The marks and floors of all sessions.

    `lifetime` is how long each counts, in seconds: longer than any read takes and any entry lives. `open_for` is how
    long a write whose end is not known counts as in progress.
    """

    def __init__(
        self, clock: Callable[[], float], *, lifetime: float, open_for: float, max_marks: int = _MAX_MARKS
    ) -> None:
        self._clock = clock
        self._lifetime = lifetime
        self._open_for = open_for
        self._max_marks = max_marks
        self._marks: OrderedDict[str, _Mark] = OrderedDict()
        self._floors: OrderedDict[str, _Floor] = OrderedDict()
        """Separate from the marks, so that reads, however many, do not push out marks."""
        self._generation = 0
        self._written = 0
        """The generation of the last write, of any session."""
        self._folded = 0
        """A generation that counts for every session."""
        self._folded_writers_until: float | None = None
        """Until when a write in progress counts for every session."""

    def generation(self) -> Generation:
        """For a read that begins now."""
        return Generation(self._generation)

    def allows(self, key: str | None, generation: Generation, version: int | None = None) -> bool:
        """Whether the result of a read that began at `generation`, with this version, may be kept and served.

        `key` is None if it is not known which session's writes count: then all do.
        """
        if generation < self._folded or (self._folded_writers_until and self._clock() < self._folded_writers_until):
            return False
        if key is None:
            return generation >= self._written
        floor = self._floors.get(key)
        if floor is not None and floor.version > (version or 0) and self._clock() < floor.until:
            return False
        mark = self._marks.get(key)
        if mark is None or mark.until <= self._clock():
            return True
        return mark.generation <= generation and all(until <= self._clock() for until in mark.writers.values())

    def lets_pass(self, key: str | None, generation: Generation, version: int | None) -> bool:
        """As `allows`, for passing on an answer without keeping it: floors from before the read do not count."""
        floor = None if key is None else self._floors.get(key)
        if floor is not None and floor.seen <= generation:
            version = floor.version
        return self.allows(key, generation, version)

    def saw(self, key: str, version: int) -> None:
        """A caller has got this version, or is about to."""
        now = self._clock()
        before = self._floors.get(key)
        if before is None or before.until <= now or before.version < version:
            self._generation += 1
            seen = self._generation
        elif before.version == version:
            seen = before.seen
        else:
            return
        self._floors[key] = _Floor(version, seen, now + self._lifetime)
        self._floors.move_to_end(key)
        while len(self._floors) > self._max_marks or next(iter(self._floors.values())).until <= now:
            self._floors.popitem(last=False)

    def open(self, key: str) -> WriterId:
        """A write is about to be sent."""
        mark = self._raised(key)
        writer, until = WriterId(mark.generation), self._clock() + self._open_for
        if len(mark.writers) >= MAX_WRITERS:
            mark.writers = {_OTHERS: until}
        mark.writers[writer] = until
        return writer

    def close(self, key: str, writer: WriterId | None = None) -> None:
        """A write has ended with a known outcome. One with an unknown outcome stays open: it may still be applied.

        `writer` is None for a write of another process.
        """
        mark = self._raised(key)
        if writer is not None:
            mark.writers.pop(writer, None)

    def fold(self) -> None:
        """Treat everything that has been read so far as out of date."""
        self._generation += 1
        self._folded = self._generation

    def _raised(self, key: str) -> _Mark:
        """The session's mark, raised to a new generation, and the newest of all."""
        now = self._clock()
        self._drop_expired(now)
        self._generation += 1
        self._written = self._generation
        mark = self._marks.pop(key, None) or _Mark(0.0)
        mark.until = now + self._lifetime
        mark.generation = self._generation
        self._marks[key] = mark
        if len(self._marks) > self._max_marks:
            _, oldest = self._marks.popitem(last=False)
            self._folded = max(self._folded, oldest.generation)
            if oldest.writers:
                self._folded_writers_until = max(self._folded_writers_until or 0.0, *oldest.writers.values())
        return mark

    def _drop_expired(self, now: float) -> None:
        """The oldest come first, since all marks live equally long."""
        while self._marks and next(iter(self._marks.values())).until <= now:
            self._marks.popitem(last=False)
