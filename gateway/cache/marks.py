"""What writes and reads leave behind in this process, so that no older answer is kept or served after them.

Every write raises the generation of its session, before it is sent and after it has ended. A read notes the generation
when it begins; what it brings back may be kept only if no write has raised the generation since, and none is under way.

Every version seen is a floor for its session: nothing lower is kept or served, by whatever way it was read. A lower one
that upstream itself answers later is passed on, and not kept: a replica of upstream's that is behind, or a session made
anew. Marks and floors outlast every read in flight and every entry.

Pure but for the clock, which is handed in.
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
"""When a read began, in generations."""

WriterId = NewType("WriterId", int)
"""One write under way."""

_MAX_MARKS: Final = 100_000
"""Marks that are kept; past that, the oldest is folded into one that counts for every session. As many floors; past
that, the one that was seen the longest ago is forgotten."""

_OTHERS: Final = WriterId(0)
"""What more writes under way than `MAX_WRITERS` count as."""


@dataclass(slots=True)
class _Mark:
    until: float
    generation: int = 0
    writers: dict[WriterId, float] = field(default_factory=dict)
    """Writes under way, and until when each counts as such, whatever became of whoever sent it."""


class _Floor(Struct, frozen=True, gc=False):
    version: int
    seen: int
    """When, in generations."""
    until: float


class Marks:
    """The marks and floors of all sessions.

    `lifetime` is how long each counts, in seconds: longer than any read takes and than any entry lives. `open_for` is
    how long a write that never ended counts as under way.
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
        """Apart from the marks: no number of reads folds those."""
        self._generation = 0
        self._written = 0
        """The generation of the last write, whichever session's."""
        self._folded = 0
        """A generation that counts for every session."""
        self._folded_writers_until: float | None = None
        """Until when a write under way counts for every session."""

    def generation(self) -> Generation:
        """For a read that begins now."""
        return Generation(self._generation)

    def allows(self, key: str | None, generation: Generation, version: int | None = None) -> bool:
        """Whether what a read that began at `generation` brought back is still good, its version included.

        `key` is None when it is not known which session's writes count: then all do.
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
        """Whether it may be passed on, though not kept: then a floor that was seen before the read does not count."""
        floor = None if key is None else self._floors.get(key)
        if floor is not None and floor.seen <= generation:
            version = floor.version
        return self.allows(key, generation, version)

    def saw(self, key: str, version: int) -> None:
        """Somebody has been told of this version, or is about to be."""
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
        """A write has ended, and it is known how; one whose outcome is not known is left open: it may yet come through.

        `writer` is None for a write of another process.
        """
        mark = self._raised(key)
        if writer is not None:
            mark.writers.pop(writer, None)

    def fold(self) -> None:
        """Count everything that has been read so far as out of date."""
        self._generation += 1
        self._folded = self._generation

    def _raised(self, key: str) -> _Mark:
        """The session's mark at a new generation, as the youngest of all."""
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
        """The oldest come first, as every mark lives equally long."""
        while self._marks and next(iter(self._marks.values())).until <= now:
            self._marks.popitem(last=False)
