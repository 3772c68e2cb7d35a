"""Writes, delivered: sent, and when the answer is lost, settled by reading back.

What to write is for `changes`, what a finding means is for `versioning` to say.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from gateway.errors import (
    GatewayError,
    SessionNotFound,
    UpstreamFault,
    UpstreamNotAsked,
    UpstreamUnreachable,
    VersionConflict,
    WriteOutcomeUnknown,
)
from gateway.sessions.versioning import Rival, Verdict, settle

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.cache.contexts import Readable
    from gateway.deadline import Deadline
    from gateway.model import SessionContext
    from gateway.sessions.contest import Entrant, Place

__all__ = ["UnversionedWrite", "VersionedWrite", "backoff"]

_ATTEMPT_SHARE: Final = 0.6
"""How much of the remaining time one attempt may take, so that there is time left to settle what became of it."""

_READS: Final = 3
"""How often reading back is tried."""


@dataclass(slots=True)
class _Write:
    """A write that may have to be sent more than once.

    `send` sends it once; `is_in` tells whether a session context holds what it writes.
    """

    resource: Readable
    send: Callable[[Deadline], Awaitable[None]]
    is_in: Callable[[SessionContext], bool]
    attempts: int = 0
    lost: list[GatewayError] = field(default_factory=list)
    """Failures after which it was not known whether the write had been applied."""

    async def _attempt(self, deadline: Deadline) -> GatewayError | None:
        """Send once. Returns a failure that leaves something to find out, and raises all others."""
        await backoff(self.attempts, deadline)
        self.attempts += 1
        try:
            await self.send(deadline.share(_ATTEMPT_SHARE))
        except SessionNotFound:
            raise  # which settles all: nothing is left that could have been written to
        except GatewayError as error:
            if error.leaves_doubt:
                self.lost.append(error)
            elif not self.lost:
                raise
            return error
        return None

    async def _current(self, deadline: Deadline) -> SessionContext:
        """Read back after a lost answer, again if need be. Raises SessionNotFound, or else WriteOutcomeUnknown."""
        for attempt in range(_READS):
            await backoff(attempt, deadline)
            last = attempt == _READS - 1
            try:
                return await self.resource.read(deadline if last else deadline.share(_ATTEMPT_SHARE))
            except SessionNotFound:
                raise
            except GatewayError as error:
                failure = error
            if not _passes(failure):
                break
        raise self._unknown(deadline) from failure

    def _check_repeatable(self, failure: GatewayError, deadline: Deadline) -> None:
        """Raise WriteOutcomeUnknown after a failure that a repetition would only meet again."""
        if not isinstance(failure, VersionConflict) and not _passes(failure):
            raise self._unknown(deadline) from failure

    def _given_up(self, deadline: Deadline) -> GatewayError:
        """What to say when all attempts are used up: a server error that was read back is certain, all else is not."""
        certain = all(isinstance(error, UpstreamFault) for error in self.lost)
        return self.lost[-1] if certain and self.lost else self._unknown(deadline)

    def _unknown(self, deadline: Deadline) -> WriteOutcomeUnknown:
        return WriteOutcomeUnknown(timed_out=deadline.passed)


@dataclass(slots=True, kw_only=True)
class VersionedWrite(_Write):
    """A write to one place, that of a version or of nothing. `entrant` is what other writes of this process see of it.

    Repeating it is safe: only one of the repetitions can find the version that it names. `insists` tells that the
    caller named the version, and so must not be told of success when another has had the place; who named none is
    content with what he wants being there. `upsert` tells that it creates when there is nothing to replace.
    """

    place: Place
    entrant: Entrant
    insists: bool
    upsert: bool = False

    @property
    def version(self) -> int | None:
        """The version that it names."""
        return self.place[-1]

    async def run(self, deadline: Deadline, *, max_attempts: int) -> SessionContext | None:
        """Write; return the session context after it, if it had to be read to settle what became of the write.

        Raises VersionConflict, with what was read if it had to be, and SessionNotFound; WriteOutcomeUnknown when it
        cannot be settled; whatever else it raises means that nothing was written.
        """
        with self.entrant.going_for(self.place, self.is_in):
            while self.attempts < max_attempts:
                failure = await self._attempt(deadline)
                if failure is None:
                    self.entrant.won()
                    return None
                current = await self._current_or_none(deadline)
                match self._settled(current):
                    case Verdict.APPLIED:
                        return current
                    case Verdict.REFUSED:
                        raise VersionConflict(self.version, current) from None
                    case Verdict.UNKNOWN:
                        raise self._unknown(deadline) from failure
                    case Verdict.NOT_APPLIED:
                        self._check_repeatable(failure, deadline)
            raise self._given_up(deadline)

    def _settled(self, current: SessionContext | None) -> Verdict:
        if current is None:
            return settle(self.version, None, is_there=False)
        rival = self.entrant.rival(current)
        counts = self.insists or rival is not Rival.POSSIBLE
        verdict = settle(
            self.version,
            current,
            is_there=self.is_in(current),
            rival=rival if counts else Rival.NONE,
            upsert=self.upsert,
        )
        if verdict is Verdict.APPLIED and rival is Rival.NONE:
            self.entrant.won()
        return verdict

    async def _current_or_none(self, deadline: Deadline) -> SessionContext | None:
        """Read back; None when there is no session context."""
        try:
            return await self._current(deadline)
        except SessionNotFound:
            return None


@dataclass(slots=True)
class UnversionedWrite(_Write):
    """A write that upstream checks no version for, and whose repetition has the same result."""

    async def run(self, deadline: Deadline, *, max_attempts: int) -> SessionContext | None:
        """As `VersionedWrite.run`, but for conflicts, of which there are none."""
        while self.attempts < max_attempts:
            failure = await self._attempt(deadline)
            if failure is None:
                return None
            current = await self._current(deadline)
            if self.is_in(current):
                return current
            self._check_repeatable(failure, deadline)
        raise self._given_up(deadline)


async def backoff(attempt: int, deadline: Deadline) -> None:
    """Wait before a repetition: full jitter, up to 40 ms doubling to half a second, and not past the deadline."""
    if attempt:
        delay = random.uniform(0, min(0.5, 0.02 * 2**attempt))  # noqa: S311 - jitter
        await asyncio.sleep(min(delay, max(0.0, deadline.remaining)))


def _passes(error: GatewayError) -> bool:
    """Whether the same may succeed a moment later."""
    return error.leaves_doubt or isinstance(error, UpstreamUnreachable | UpstreamNotAsked)
