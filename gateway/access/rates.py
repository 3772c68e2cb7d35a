"""Token buckets by the generic cell rate algorithm, with one number for each bucket. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

__all__ = ["Rate", "spend"]

_ROUNDING = 1e-6
"""Seconds by which sums of floats may be off."""


@dataclass(frozen=True, slots=True)
class Rate:
    """A bucket of `burst` tokens that regains `per_second` of them; 0 per second means no limit."""

    per_second: float
    burst: int
    unbounded: bool = field(init=False)
    """Whether there is no limit."""
    interval: float = field(init=False)
    """Seconds that one token takes to come back."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "unbounded", self.per_second == 0)
        object.__setattr__(self, "interval", 0.0 if self.unbounded else 1 / self.per_second)

    @classmethod
    def of(cls, per_second: float, burst: int | None) -> Rate:
        """A rate whose burst is, by default, what it allows in a second."""
        return cls(per_second, max(1, math.ceil(per_second)) if burst is None else burst)


def spend(full_at: float, now: float, rate: Rate, cost: int) -> tuple[float, float]:
    """Take `cost` tokens out of a bucket that will be full at `full_at`.

    Returns when it will be full now, and how many seconds to wait; if that is not 0, nothing was taken. A cost above
    the bucket's size takes all of it.
    """
    interval, burst = rate.interval, rate.burst
    after = max(full_at, now) + min(cost, burst) * interval
    wait = after - now - burst * interval
    return (full_at, wait) if wait > _ROUNDING else (after, 0.0)
