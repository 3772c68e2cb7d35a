"""How a process shuts down: told to stop, it says so, then closes its doors together; told again, it hurries."""

from __future__ import annotations

import asyncio
import signal
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Shutdown", "hold_signals", "release_signals"]

_TO_STOP: Final = (signal.SIGINT, signal.SIGTERM)


def hold_signals() -> None:
    """Hold back SIGINT and SIGTERM, while there is something that must not be left behind.

    They are held until they are released, or until a `Shutdown` obeys them. A process that is forked meanwhile inherits
    none of those that wait, but has to release those that come.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _TO_STOP)


def release_signals() -> None:
    """Let SIGINT and SIGTERM through, also those that were held."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _TO_STOP)


class Shutdown:
    """The shutdown of this process, whether it has begun or not. One for all of its doors."""

    def __init__(self) -> None:
        self._begun = asyncio.Event()
        self._closing = asyncio.Event()
        self._hastened = asyncio.Event()
        self._to_call: list[Callable[[], None]] = []

    @property
    def begun(self) -> bool:
        """Whether it was told to stop."""
        return self._begun.is_set()

    @property
    def hastened(self) -> bool:
        """Whether it was told to do so at once: nothing more is to be waited for."""
        return self._hastened.is_set()

    def tell(self) -> None:
        """Stop; who says so twice wants it at once."""
        (self.hasten if self.begun else self.begin)()

    def begin(self) -> None:
        """Stop. Said again, it changes nothing."""
        if not self.begun:
            self._begun.set()
            for each in self._to_call:
                each()

    def close(self) -> None:
        """Have all doors close now. Said again, it changes nothing."""
        self.begin()
        self._closing.set()

    def hasten(self) -> None:
        """Stop at once."""
        self.begin()
        self._hastened.set()

    def when_begun(self, call: Callable[[], None]) -> None:
        """Call this as soon as it is told to stop; now, if it has been."""
        self._to_call.append(call)
        if self.begun:
            call()

    async def wait(self) -> None:
        """Until it is told to stop."""
        await self._begun.wait()

    async def wait_closing(self) -> None:
        """Until doors are to close."""
        await self._closing.wait()

    async def wait_hastened(self) -> None:
        """Until it is told to do so at once."""
        await self._hastened.wait()

    @contextmanager
    def hastened_by_cancellation(self) -> Iterator[None]:
        """Whoever cancels this block, in which a door closes, wants it at once, and of all others too."""
        try:
            yield
        except asyncio.CancelledError:
            self.hasten()
            raise

    async def pause(self, seconds: float) -> None:
        """For so long, or until there is no time for it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hastened.wait()

    def obey_signals(self) -> None:
        """SIGINT and SIGTERM tell it, also if they have waited. SIGHUP ends nothing: see `gateway.reloading`."""
        loop = asyncio.get_running_loop()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        for each in _TO_STOP:
            loop.add_signal_handler(each, self.tell)
        release_signals()
