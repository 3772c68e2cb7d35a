"""Values in this process, limited by their number, their size and their time to live."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar, cast

from gateway.stores.base import BaseCache, NullSerializer

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["MemoryStore"]

Value = TypeVar("Value")


class MemoryStore(Generic[Value]):
    """Keeps values until they expire, or are the least recently used when there is no room.

    There is room for `max_entries`, and for a total of `max_size` as measured by `size_of`.
    """

    def __init__(
        self,
        max_entries: int,
        clock: Callable[[], float] = time.monotonic,
        *,
        max_size: int = 0,
        size_of: Callable[[Value], int] = lambda _: 0,
    ) -> None:
        self._cache: _BoundedMemoryCache[Value] = _BoundedMemoryCache(max_entries, clock, max_size, size_of)
        self.peek = self._cache.peek
        """As `get`, but synchronous: without aiocache's plugins, and its look at the environment, for each request."""

    def __len__(self) -> int:
        return len(self._cache.entries)

    @property
    def size(self) -> int:
        """The size of all values together."""
        return self._cache.size

    async def get(self, key: str) -> Value | None:
        """The value, or None if there is none (any more)."""
        return cast("Value | None", await self._cache.get(key))

    async def set(self, key: str, value: Value, *, ttl: float) -> None:
        """Keep the value for so many seconds."""
        await self._cache.set(key, value, ttl=ttl)

    async def delete(self, key: str) -> None:
        """Drop the value, if there is one."""
        await self._cache.delete(key)


class _Kept(NamedTuple, Generic[Value]):
    until: float
    value: Value
    size: int


class _BoundedMemoryCache(BaseCache, Generic[Value]):  # type: ignore[misc]  # aiocache is untyped
    """An aiocache LRU cache. No timers: expired values are dropped when they are looked up, or pushed out."""

    def __init__(
        self, max_entries: int, clock: Callable[[], float], max_size: int, size_of: Callable[[Value], int]
    ) -> None:
        super().__init__(serializer=NullSerializer(), timeout=None)
        self.entries: OrderedDict[str, _Kept[Value]] = OrderedDict()
        """The most recently used last. cachetools' LRU cache takes three times as long."""
        self.size = 0
        self._max_entries = max_entries
        self._clock = clock
        self._max_size = max_size
        self._size_of = size_of

    async def _get(self, key: str, **_: object) -> object:
        return self.peek(key)

    def peek(self, key: str) -> Value | None:
        entry = self.entries.get(key)
        if entry is None:
            return None
        until, value, _ = entry
        if until > self._clock():
            self.entries.move_to_end(key)
            return value
        self._drop(key)
        return None

    async def _set(self, key: str, value: Value, ttl: float, **_: object) -> bool:
        self._drop(key)
        size = self._size_of(value)
        if size > self._max_size:  # it would push out all others, and then itself
            return False
        self.entries[key] = _Kept(self._clock() + ttl, value, size)
        self.size += size
        while len(self.entries) > self._max_entries or self.size > self._max_size:
            self._drop(next(iter(self.entries)))
        return True

    async def _delete(self, key: str, **_: object) -> int:
        return 1 if self._drop(key) else 0

    def _drop(self, key: str) -> bool:
        entry = self.entries.pop(key, None)
        if entry is None:
            return False
        self.size -= entry.size
        return True
