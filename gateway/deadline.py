"""How long a caller will wait: one point in time, handed down with every call."""

from __future__ import annotations

import asyncio
import math
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from msgspec import Struct

from gateway.errors import UpstreamTimeout

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["Deadline"]


class Deadline(Struct, frozen=True):
    """A point on the monotonic clock, in seconds."""

    at: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """The point so many seconds from now."""
        return cls(time.monotonic() + seconds)

    @classmethod
    def never(cls) -> Deadline:
        """No bound."""
        return cls(math.inf)

    @property
    def remaining(self) -> float:
        """Seconds left; negative when it has passed."""
        return self.at - time.monotonic()

    def sooner(self, seconds: float) -> Deadline:
        """This point, or so many seconds from now, whichever comes first."""
        return min(self, Deadline.after(seconds), key=lambda deadline: deadline.at)

    def share(self, fraction: float) -> Deadline:
        """The point at which so much of the remaining time is used up."""
        return self if math.isinf(self.at) else Deadline.after(self.remaining * fraction)

    @asynccontextmanager
    async def bound(self, what: str) -> AsyncIterator[None]:
        """Cancel the block when the deadline passes, and raise UpstreamTimeout, naming what was being done.

        The block does not begin when the deadline has passed already.
        """
        if self.remaining <= 0:
            raise UpstreamTimeout(f"{what}: there was no time left")
        try:
            async with asyncio.timeout(None if math.isinf(self.at) else self.remaining) as timeout:
                yield
        except TimeoutError as error:
            if not timeout.expired():
                raise
            raise UpstreamTimeout(f"{what} took longer than the time there was") from error
