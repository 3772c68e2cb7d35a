"""Token buckets in Redis or Valkey, shared by all gateways: `gateway.access.rates.spend`, in one step and by its clock.

A key holds when its bucket will be full, in microseconds of Unix time, and expires then. A value that is not a number,
or further ahead than an empty bucket takes to fill, is not ours: it counts as a full or an empty bucket.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from redis.exceptions import NoScriptError

if TYPE_CHECKING:
    from gateway.stores.redis import Client

__all__ = ["RedisBuckets"]

_SPEND: Final = """
local interval, burst, cost = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local found = redis.pcall('GET', KEYS[1])
local full_at = type(found) == 'string' and tonumber(found) or now
if full_at ~= full_at then full_at = now end
full_at = math.min(math.max(full_at, now), now + burst * interval)
local after = full_at + math.min(cost, burst) * interval
local wait = after - now - burst * interval
if wait > 0.5 then return math.ceil(wait) end
redis.call('SET', KEYS[1], string.format('%.0f', after), 'PX', math.max(1, math.ceil((after - now) / 1000)))
return 0
"""

_SHA: Final = hashlib.sha1(_SPEND.encode(), usedforsecurity=False).hexdigest()


class RedisBuckets:
    """Buckets under one prefix. Raises what `RedisStore` raises if Redis fails."""

    def __init__(self, client: Client, prefix: str) -> None:
        self._client = client
        self._prefix = prefix

    async def spend(self, key: str, *, interval: float, burst: int, cost: int) -> float:
        """Take so many tokens, one of which comes back every `interval` seconds; returns seconds to wait, or 0."""
        arguments = (f"{self._prefix}{key}", repr(interval * 1e6), burst, cost)
        try:
            wait = await self._client.evalsha(_SHA, 1, *arguments)
        except NoScriptError:
            wait = await self._client.eval(_SPEND, 1, *arguments)
        return int(wait) / 1e6
