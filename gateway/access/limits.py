"""How many calls a caller may make: a token bucket for each caller and tenant.

If the cache is in Redis, the buckets are there too, and all gateways share them. Otherwise, and while Redis does not
answer in time, they are in memory, and each process enforces the rate by itself.

For a shopper's own session there is a bucket for each Emporix token, in memory only: no trace of a token leaves the
process. It slows down a shopper, or a page that runs wild. Somebody who makes up tokens gets a bucket for each: that is
for whatever is in front of the gateway to stop, which sees where calls come from.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, Protocol

from gateway.access.rates import Rate, spend
from gateway.errors import CallerRateLimited
from gateway.stores.leash import Leash
from gateway.telemetry import CacheFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from pydantic import SecretStr

    from gateway.access.principal import Principal
    from gateway.telemetry import Observer

__all__ = ["Buckets", "LeashedBuckets", "MemoryBuckets", "RateLimits"]

_MAX_BUCKETS: Final = 100_000
"""In memory. Above that, the least recently used one is dropped, and so counts as full."""


class Buckets(Protocol):
    """Token buckets by key."""

    async def spend(self, key: str, *, interval: float, burst: int, cost: int) -> float:
        """Take so many tokens; returns seconds to wait, 0 for none."""
        ...


class MemoryBuckets:
    """Buckets in the memory of this process."""

    def __init__(self, clock: Callable[[], float], max_buckets: int = _MAX_BUCKETS) -> None:
        self._full_at: OrderedDict[str, float] = OrderedDict()
        """The most recently used last."""
        self._max_buckets = max_buckets
        self._clock = clock

    def __len__(self) -> int:
        return len(self._full_at)

    def spend(self, key: str, rate: Rate, cost: int) -> float:
        """Take so many tokens; returns seconds to wait, 0 for none."""
        now = self._clock()
        self._full_at[key], wait = spend(self._full_at.get(key, now), now, rate, cost)
        self._full_at.move_to_end(key)
        if len(self._full_at) > self._max_buckets:
            self._full_at.popitem(last=False)
        return wait


class LeashedBuckets:
    """Buckets in Redis (`gateway.stores.leash`). `budget` bounds each call, in seconds."""

    def __init__(
        self, buckets: Buckets, observer: Observer, *, budget: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._buckets = buckets
        self._leash = Leash(
            budget, "rate_limits_not_shared", lambda operation: observer.cache_failed(CacheFailed(operation)), clock
        )

    async def spend(self, key: str, rate: Rate, cost: int) -> float | None:
        """Take so many tokens; returns seconds to wait, or None if Redis does not answer."""
        return await self._leash.tried(
            "rate_limit", lambda: self._buckets.spend(key, interval=rate.interval, burst=rate.burst, cost=cost)
        )


class RateLimits:
    """Enforces rate limits: `default` for callers without one, `own` for a shopper's own session.

    `tenants` are those that exist. All others share a bucket, so that nobody gets more calls by inventing tenants.
    """

    def __init__(
        self,
        tenants: Container[str] = (),
        *,
        default: Rate | None = None,
        own: Rate | None = None,
        shared: LeashedBuckets | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tenants = tenants
        self._default = default
        self._own = own
        self._shared = shared
        self._memory = MemoryBuckets(clock)
        self._own_memory = MemoryBuckets(clock)  # apart: made-up tokens must not push callers' buckets out
        self._hash_key = secrets.token_bytes(32)

    async def check(self, principal: Principal, tenant: str, cost: int = 1) -> None:
        """Count one or more calls. Raises CallerRateLimited if they exceed the rate."""
        rate = principal.rate or self._default
        if rate is None or rate.unbounded:
            return
        cost = cost or 1
        key = f"{principal.kind}\n{principal.name}\n{tenant if tenant in self._tenants else ''}"
        wait = None if self._shared is None else await self._shared.spend(_hashed(key), rate, cost)
        if wait is None:
            wait = self._memory.spend(key, rate, cost)
        if wait > 0:
            raise CallerRateLimited(wait)

    def check_own(self, token: SecretStr, tenant: str) -> None:
        """Count a call for the session of this token. Raises CallerRateLimited."""
        if self._own is None or self._own.unbounded:
            return
        secret = token.get_secret_value().encode("utf-8", "surrogatepass")
        digest = hashlib.blake2b(secret, key=self._hash_key, digest_size=16).hexdigest()
        wait = self._own_memory.spend(f"{tenant if tenant in self._tenants else ''}:{digest}", self._own, 1)
        if wait > 0:
            raise CallerRateLimited(wait)


def _hashed(key: str) -> str:
    """Of limited length, and unreadable for anybody who looks into Redis."""
    return f"rate:{hashlib.sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"
