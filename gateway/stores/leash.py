"""Keeps Redis on a leash: operations have little time, and after a failure Redis is left alone for a while."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, TypeVar

import structlog

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["Leash", "told_of"]

Result = TypeVar("Result")

_REST: Final = 1.0
"""Seconds that Redis is left alone after a failure."""
_LOG_EVERY: Final = 60.0
"""Seconds between two lines in the log."""


class Leash:
    """Limits operations to `budget` seconds each. It raises nothing but cancellation.

    `failed` is called with the name of every operation that failed; `event` is the log event, at most once a minute.
    """

    def __init__(self, budget: float, event: str, failed: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._budget = budget
        self._event = event
        self._failed = failed
        self._clock = clock
        self._resting_until = float("-inf")
        self._logged_at = float("-inf")
        self._log = structlog.stdlib.get_logger(__name__)

    @property
    def resting(self) -> bool:
        """Whether Redis is left alone for now."""
        return self._clock() < self._resting_until

    async def tried(self, operation: str, call: Callable[[], Awaitable[Result]]) -> Result | None:
        """The result of the call, or None if it failed, took too long, or was not made since Redis is left alone."""
        if self.resting:
            return None
        try:
            async with asyncio.timeout(self._budget):
                return await call()
        except Exception as error:  # noqa: BLE001 - the client raises anything when what answers is not Redis
            self._rest(operation, error)
            return None

    def _rest(self, operation: str, error: Exception) -> None:
        now = self._clock()
        self._resting_until = now + _REST
        self._failed(operation)
        if now - self._logged_at >= _LOG_EVERY:
            self._logged_at = now
            self._log.warning(self._event, operation=operation, **told_of(error))


def told_of(error: Exception) -> dict[str, str]:
    """What is logged of a failure of Redis: its type, and for a connection also the address and what went wrong.

    A server's message is left out, since it may contain stored data. Types are compared by name, since redis-py is
    imported only if it is used.
    """
    found = {"error": type(error).__name__}
    if any(each.__name__ == "ConnectionError" for each in type(error).__mro__):
        found["cause"] = str(error)
    return found
