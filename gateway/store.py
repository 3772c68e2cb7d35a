"""Where values are kept for a time. The only module that imports aiocache.

aiocache's own traps stay in here: its 5 s default timeout (off: memory does not wait), its timers (cancelled on close),
and `AIOCACHE_DISABLE`, which turns every call into a no-op (refused when the settings are read).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar, cast

from aiocache import SimpleMemoryCache

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

__all__ = ["MemoryStore"]

Value = TypeVar("Value")


class MemoryStore(Generic[Value]):
    """Keeps values in this process until their time to live is over.

    Has no bound of its own: for keys whose number the settings bound.
    """

    def __init__(self) -> None:
        self._cache = SimpleMemoryCache(timeout=None)
        self._keys: set[str] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for key in self._keys:
            await self._cache.delete(key)

    async def get(self, key: str) -> Value | None:
        """The value, or None when there is none (any longer)."""
        return cast("Value | None", await self._cache.get(key))

    async def set(self, key: str, value: Value, *, ttl: float) -> None:
        """Keep the value for so many seconds."""
        self._keys.add(key)
        await self._cache.set(key, value, ttl=ttl)

    async def delete(self, key: str) -> None:
        """Forget the value, if there is one."""
        self._keys.discard(key)
        await self._cache.delete(key)
