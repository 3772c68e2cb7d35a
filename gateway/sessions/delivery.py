"""Writes, delivered: sent, and when the answer is lost, settled by reading back.

What to write is for `changes`, what a finding means is for `versioning` to say.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from gateway.errors import (
    GatewayError,
    SessionNotFound,
    UpstreamFault,
    UpstreamTimeout,
    UpstreamUnavailable,
    UpstreamUnreachable,
    VersionConflict,
    WriteOutcomeUnknown,
)
from gateway.sessions.versioning import Verdict, settle

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.deadline import Deadline
    from gateway.model import SessionContext

__all__ = ["Readable", "UnversionedWrite", "VersionedWrite", "backoff"]

_ATTEMPT_SHARE: Final = 0.6
"""How much of the remaining time one attempt may take, so that there is time left to settle what became of it."""


class Readable(Protocol):
    """A session context upstream."""

    async def read(self, deadline: Deadline) -> SessionContext:
        """Read it, uncached."""
        ...


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
        except VersionConflict as conflict:
            return conflict
        except GatewayError as error:
            if _leaves_doubt(error):
                self.lost.append(error)
                return error
            if self.lost:
                raise self._unknown(deadline) from error
            raise
        return None

    async def _current(self, deadline: Deadline) -> SessionContext:
        """Read back after a lost answer. Raises SessionNotFound, or else WriteOutcomeUnknown."""
        try:
            return await self.resource.read(deadline)
        except SessionNotFound:
            raise
        except GatewayError as error:
            raise self._unknown(deadline) from error

    def _given_up(self, deadline: Deadline) -> GatewayError:
        """What to say when all attempts are used up: a server error that was read back is certain, all else is not."""
        certain = all(isinstance(error, UpstreamFault) for error in self.lost)
        return self.lost[-1] if certain and self.lost else self._unknown(deadline)

    def _unknown(self, deadline: Deadline) -> WriteOutcomeUnknown:
        return WriteOutcomeUnknown(timed_out=deadline.remaining <= 0)


@dataclass(slots=True)
class VersionedWrite(_Write):
    """A write to the place of one version; None for a session context that is to be created.

    Repeating it is safe: only one of the repetitions can find the version that it names.
    """

    version: int | None = None

    async def run(self, deadline: Deadline, *, max_attempts: int) -> SessionContext | None:
        """Write; return the session context after it, if it had to be read to settle what became of the write.

        Raises VersionConflict and SessionNotFound; WriteOutcomeUnknown when it cannot be settled; whatever else it
        raises means that nothing was written.
        """
        while self.attempts < max_attempts:
            failure = await self._attempt(deadline)
            if failure is None:
                return None
            if not self.lost:
                raise VersionConflict(self.version, await self._current_if_possible(deadline)) from None
            current = await self._current_or_none(deadline)
            is_there = current is not None and self.is_in(current)
            match settle(self.version, current, is_there=is_there):
                case Verdict.APPLIED:
                    return current
                case Verdict.REFUSED:
                    raise VersionConflict(self.version, current) from None
                case Verdict.UNKNOWN:
                    raise self._unknown(deadline) from failure
                case Verdict.NOT_APPLIED:
                    continue
        raise self._given_up(deadline)

    async def _current_or_none(self, deadline: Deadline) -> SessionContext | None:
        """Read back; None when there is no session context."""
        try:
            return await self._current(deadline)
        except SessionNotFound:
            return None

    async def _current_if_possible(self, deadline: Deadline) -> SessionContext | None:
        """What a conflict tells of; also settles a 404 that may have been a missing session after all."""
        try:
            return await self.resource.read(deadline)
        except SessionNotFound:
            raise
        except GatewayError:
            return None


@dataclass(slots=True)
class UnversionedWrite(_Write):
    """A write that upstream checks no version for, and whose repetition has the same result."""

    async def run(self, deadline: Deadline, *, max_attempts: int) -> SessionContext | None:
        """As `VersionedWrite.run`, but for conflicts, of which there are none."""
        while self.attempts < max_attempts:
            if await self._attempt(deadline) is None:
                return None
            current = await self._current(deadline)
            if self.is_in(current):
                return current
        raise self._given_up(deadline)


async def backoff(attempt: int, deadline: Deadline) -> None:
    """Wait before a repetition: full jitter, up to 40 ms doubling to half a second, and not past the deadline."""
    if attempt:
        delay = random.uniform(0, min(0.5, 0.02 * 2**attempt))  # noqa: S311 - jitter
        await asyncio.sleep(min(delay, max(0.0, deadline.remaining)))


def _leaves_doubt(error: GatewayError) -> bool:
    lost = isinstance(error, UpstreamTimeout | UpstreamUnavailable | UpstreamFault)
    return lost and not isinstance(error, UpstreamUnreachable)
