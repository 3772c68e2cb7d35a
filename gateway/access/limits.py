"""How many calls a caller may make: a token bucket for each caller and tenant.

The buckets are in Redis where the cache is, and so are those of all gateways together; else, and for as long as Redis
does not answer in its time, in the memory of this process. Then each process keeps to the rate by itself.

For a shopper's own session there is a bucket for each Emporix token, in memory alone: no trace of a token leaves the
process. It holds back a shopper, or a page that runs wild. Whoever makes up tokens has a bucket for each of them, and
is the business of what stands in front of the gateway and sees where calls come from.
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
"""In memory; past that, the one that was used least recently counts as full again."""


class Buckets(Protocol):
    """Token buckets by key."""

    async def spend(self, key: str, *, interval: float, burst: int, cost: int) -> float:
        """Take so many tokens; returns seconds to wait, 0 for none."""
        ...


class MemoryBuckets:
    """Buckets in the memory of this process."""

    def __init__(self, clock: Callable[[], float], max_buckets: int = _MAX_BUCKETS) -> None:
        self._full_at: OrderedDict[str, float] = OrderedDict()
        """What was used most recently is last."""
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
    """Buckets in Redis, on a leash: `budget` bounds each call, in seconds."""

    def __init__(
        self, buckets: Buckets, observer: Observer, *, budget: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._buckets = buckets
        self._leash = Leash(
            budget, "rate_limits_not_shared", lambda operation: observer.cache_failed(CacheFailed(operation)), clock
        )

    async def spend(self, key: str, rate: Rate, cost: int) -> float | None:
        """Take so many tokens; returns seconds to wait, or None when Redis does not say."""
        return await self._leash.tried(
            "rate_limit", lambda: self._buckets.spend(key, interval=rate.interval, burst=rate.burst, cost=cost)
        )


class RateLimits:
    """Holds callers to their rates: `default` for who has none of their own, `own` for a shopper's own session.

    `tenants` are those that there are. All others share a bucket, so that nobody gets more by making them up.
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
        self._own_memory = MemoryBuckets(clock)  # apart: whoever makes up tokens must not push callers' buckets out
        self._hash_key = secrets.token_bytes(32)

    async def check(self, principal: Principal, tenant: str, cost: int = 1) -> None:
        """Count a call, or several at once. Raises CallerRateLimited when it is one too many."""
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
        """Count a call about the session of whoever has this token. Raises CallerRateLimited."""
        if self._own is None or self._own.unbounded:
            return
        secret = token.get_secret_value().encode("utf-8", "surrogatepass")
        digest = hashlib.blake2b(secret, key=self._hash_key, digest_size=16).hexdigest()
        wait = self._own_memory.spend(f"{tenant if tenant in self._tenants else ''}:{digest}", self._own, 1)
        if wait > 0:
            raise CallerRateLimited(wait)


def _hashed(key: str) -> str:
    """Of a bounded length, and legible to nobody who looks into Redis."""
    return f"rate:{hashlib.sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"
