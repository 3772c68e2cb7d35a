"""Delivers writes: sends them, and if the answer is lost, reads back to find out whether they were applied.

`changes` says what is written, and `versioning` what a finding means.
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
"""Share of the remaining time that one attempt may take, so that there is time left to find out its outcome."""

_READS: Final = 3
"""How often reading back is tried."""


@dataclass(slots=True)
class _Write:
    """A write that may have to be sent more than once.

    `send` sends it once; `is_in` tells whether a session context contains what it writes.
    """

    resource: Readable
    send: Callable[[Deadline], Awaitable[None]]
    is_in: Callable[[SessionContext], bool]
    attempts: int = 0
    lost: list[GatewayError] = field(default_factory=list)
    """Failures after which it was not known whether the write had been applied."""

    async def _attempt(self, deadline: Deadline) -> GatewayError | None:
        """Send once. Returns a failure after which the outcome has to be found out, and raises all others."""
        await backoff(self.attempts, deadline)
        self.attempts += 1
        try:
            await self.send(deadline.share(_ATTEMPT_SHARE))
        except SessionNotFound:
            raise  # nothing can have been written
        except GatewayError as error:
            if error.leaves_doubt:
                self.lost.append(error)
            elif not self.lost:
                raise
            return error
        return None

    async def _current(self, deadline: Deadline) -> SessionContext:
        """Read back after a lost answer, repeatedly if necessary. Raises SessionNotFound, or WriteOutcomeUnknown."""
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
        """Raise WriteOutcomeUnknown after a failure that would only occur again."""
        if not isinstance(failure, VersionConflict) and not _passes(failure):
            raise self._unknown(deadline) from failure

    def _given_up(self, deadline: Deadline) -> GatewayError:
        """The error when all attempts are used up: after server errors alone it is certain that nothing was written."""
        certain = all(isinstance(error, UpstreamFault) for error in self.lost)
        return self.lost[-1] if certain else self._unknown(deadline)

    def _unknown(self, deadline: Deadline) -> WriteOutcomeUnknown:
        return WriteOutcomeUnknown(timed_out=deadline.passed)


@dataclass(slots=True, kw_only=True)
class VersionedWrite(_Write):
    """A write that replaces one version, or creates. `entrant` is what other writes of this process see of it.

    It can be repeated, since only one attempt can find the version that it names. `insists` tells that the caller named
    the version, and so must not be told of success if another write has replaced it; a caller that named none only
    wants its change to be there. `upsert` tells that it creates a session context if there is none.
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
        """Write; return the session context after it, if that had to be read to find out the outcome.

        Raises VersionConflict, with what was read if anything was, and SessionNotFound; WriteOutcomeUnknown if the
        outcome cannot be found out. After any other error nothing was written.
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
        """Read back; None if there is no session context."""
        try:
            return await self._current(deadline)
        except SessionNotFound:
            return None


@dataclass(slots=True)
class UnversionedWrite(_Write):
    """A write for which upstream checks no version, and which can be repeated with the same result."""

    async def run(self, deadline: Deadline, *, max_attempts: int) -> SessionContext | None:
        """As `VersionedWrite.run`, without conflicts."""
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
    """Wait before a repetition: with full jitter, from 40 ms doubling to half a second, but not past the deadline."""
    if attempt:
        delay = random.uniform(0, min(0.5, 0.02 * 2**attempt))  # noqa: S311 - jitter
        await asyncio.sleep(min(delay, max(0.0, deadline.remaining)))


def _passes(error: GatewayError) -> bool:
    """Whether the same request may succeed a moment later."""
    return error.leaves_doubt or isinstance(error, UpstreamUnreachable | UpstreamNotAsked)
