"""Values in this process, bounded by their number and by their time to live."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from gateway.stores.base import BaseCache, NullSerializer

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["MemoryStore"]

Value = TypeVar("Value")


class MemoryStore(Generic[Value]):
    """Keeps values until their time is over, or until others are used more recently and the room is needed."""

    def __init__(self, max_entries: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._cache: _BoundedMemoryCache[Value] = _BoundedMemoryCache(max_entries, clock)
        self.peek = self._cache.peek
        """As `get`, at once: without aiocache's plugins, and its look at the environment, at every request."""

    def __len__(self) -> int:
        return len(self._cache.entries)

    async def get(self, key: str) -> Value | None:
        """The value, or None when there is none (any longer)."""
        return cast("Value | None", await self._cache.get(key))

    async def set(self, key: str, value: Value, *, ttl: float) -> None:
        """Keep the value for so many seconds."""
        await self._cache.set(key, value, ttl=ttl)

    async def delete(self, key: str) -> None:
        """Forget the value, if there is one."""
        await self._cache.delete(key)


class _BoundedMemoryCache(BaseCache, Generic[Value]):  # type: ignore[misc]  # aiocache is untyped
    """An aiocache cache in order of use. No timers: what has expired goes when it is met, or pushed out."""

    NAME = "bounded-memory"

    def __init__(self, max_entries: int, clock: Callable[[], float]) -> None:
        super().__init__(serializer=NullSerializer(), timeout=None)
        self.entries: OrderedDict[str, tuple[float, Value]] = OrderedDict()
        """What was used most recently is last. cachetools' LRU cache does the same in three times the time."""
        self._max_entries = max_entries
        self._clock = clock

    async def _get(self, key: str, **_: object) -> object:
        return self.peek(key)

    def peek(self, key: str) -> Value | None:
        entry = self.entries.get(key)
        if entry is None:
            return None
        until, value = entry
        if until > self._clock():
            self.entries.move_to_end(key)
            return value
        del self.entries[key]
        return None

    async def _set(self, key: str, value: Value, ttl: float, **_: object) -> bool:
        self.entries[key] = self._clock() + ttl, value
        self.entries.move_to_end(key)
        if len(self.entries) > self._max_entries:
            self.entries.popitem(last=False)
        return True

    async def _delete(self, key: str, **_: object) -> int:
        return 0 if self.entries.pop(key, None) is None else 1
