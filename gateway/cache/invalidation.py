"""Invalidates entries in this process's memory when other processes write.

To know that no message is missing, it sends a PING every half second on the connection that brings the messages: the
PONG comes after everything that was published before. Without a PONG for `max_silence` seconds the memory is not used,
which limits how old its answers can be, and what it holds is dropped.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING, Any, Final

import structlog

from gateway.cache.shared import EVERYTHING, parse_message
from gateway.stores.leash import told_of
from gateway.tasks import TaskGroup

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Self

    from redis.asyncio import Redis
    from redis.asyncio.client import PubSub

    from gateway.cache.marks import Marks

__all__ = ["Invalidations"]

_PING_EVERY: Final = 0.5
_LOG_EVERY: Final = 60.0


class Invalidations:
    """Listens while it is entered. It does not close `listener`."""

    def __init__(
        self,
        listener: Redis,
        channel: str,
        marks: Marks,
        origin: str,
        *,
        max_silence: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._listener = listener
        self._channel = channel
        self._marks = marks
        self._origin = origin
        self._max_silence = max_silence
        self._clock = clock
        self._in_step_as_of = float("-inf")
        self._logged_at = float("-inf")
        self._tasks = TaskGroup()
        self._log = structlog.stdlib.get_logger(__name__)

    @property
    def in_step(self) -> bool:
        """Whether all writes that ended more than `max_silence` seconds ago are known."""
        return self._clock() - self._in_step_as_of < self._max_silence

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._tasks.create_task(self._keep_listening(), name="listen for other processes' writes")
        return self

    async def __aexit__(self, *ended: object) -> None:
        await self._tasks.__aexit__(*ended)

    async def _keep_listening(self) -> None:
        while True:
            try:
                async with asyncio.timeout(None) as patience, self._listener.pubsub() as messages:
                    await self._listen(messages, patience)
            except Exception as error:  # noqa: BLE001 - the client raises anything when what answers is not Redis
                self._lost(error)
                await asyncio.sleep(random.uniform(0.25, 0.75))  # noqa: S311 - jitter

    async def _listen(self, messages: PubSub, patience: asyncio.Timeout) -> None:
        """Handle messages until the connection is lost, or silent for too long: then raise TimeoutError."""
        loop = asyncio.get_running_loop()
        patience.reschedule(loop.time() + self._max_silence)
        await messages.subscribe(self._channel)
        asked_at: float | None = None
        while True:
            if asked_at is None:
                asked_at = self._clock()
                await messages.ping(self._origin)
            message = await messages.get_message(timeout=_PING_EVERY)
            if message is None:
                continue
            if message["type"] == "pong" and message["data"] == self._origin.encode():
                self._in_step_as_of, asked_at = asked_at, None
                patience.reschedule(loop.time() + self._max_silence)
                await self._pause(messages)
            else:
                self._take(message)

    async def _pause(self, messages: PubSub) -> None:
        """Handle messages until it is time for the next PING."""
        until = time.monotonic() + _PING_EVERY
        while (remaining := until - time.monotonic()) > 0:
            message = await messages.get_message(timeout=remaining)
            if message is not None:
                self._take(message)

    def _take(self, message: Mapping[str, Any]) -> None:
        if message["type"] == "subscribe":
            self._marks.fold()  # messages before this one are not known; later ones will be
            return
        parsed = parse_message(message["data"]) if message["type"] == "message" else None
        if parsed is not None and parsed[0] != self._origin:
            _, key = parsed
            if key == EVERYTHING:
                self._marks.fold()
            else:
                self._marks.close(key)

    def _lost(self, error: Exception) -> None:
        self._in_step_as_of = float("-inf")
        if time.monotonic() - self._logged_at >= _LOG_EVERY:
            self._logged_at = time.monotonic()
            self._log.warning("cache_invalidations_lost", **told_of(error))
