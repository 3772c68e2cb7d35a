"""What a shop of a given size needs, reckoned from what was measured: the table in docs/capacity.md.

.venv/bin/python bench/model.py
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

__all__ = ["COSTS", "Costs", "Needs", "Shop", "needs"]


@dataclass(frozen=True, slots=True)
class Costs:
    """By `bench/capacity.py`, by gRPC, with Redis and no memory before it. Microseconds of CPU, and bytes, of each."""

    miss: float
    """A read found nowhere, of the gateway."""
    hit: float
    """A read found in Redis."""
    write: float
    heard: float
    """A message about another gateway's write."""
    redis_miss: float
    """The same of Redis."""
    redis_hit: float
    redis_write: float
    redis_sent: float
    """A message to one listener."""
    miss_bytes: float
    """To and from Redis."""
    hit_bytes: float
    write_bytes: float
    message_bytes: float
    entry: float
    """Redis's memory for an entry."""
    answer: float
    """To a caller, with its head."""


# On one core of a small machine, by the image's Python.
COSTS: Final = Costs(
    miss=650,
    hit=465,
    write=810,
    heard=35,
    redis_miss=96,
    redis_hit=55,
    redis_write=116,
    redis_sent=1.3,
    miss_bytes=836,
    hit_bytes=683,
    write_bytes=956,
    message_bytes=116,
    entry=1025,
    answer=787,
)


@dataclass(frozen=True, slots=True)
class Shop:
    """What callers do. A session's pages are further apart than `ttl`, so that the first read of each is a miss."""

    tenants: int
    sessions: int
    reads: float
    """A second."""
    reads_a_page: float = 5
    pages_a_write: float = 10
    lifetime: float = 65
    """Seconds that an entry is of use: `cache.ttl` and `stale_if_error`."""
    token_lifetime: float = 14_400
    """Seconds."""
    busy: float = 0.6
    """How much of a core is to be used."""
    redis_busy: float = 0.5


@dataclass(frozen=True, slots=True)
class Needs:
    """What that takes."""

    misses: float
    """Of all reads."""
    writes: float
    """A second, as all the following rates."""
    upstream: float
    processes: int
    """Of the gateway, each with a core."""
    redis_cores: float
    redis_memory: float
    """Bytes."""
    shards: int
    redis_network: float
    """Bytes."""
    callers_network: float
    """Bytes."""
    tokens: float
    first_tokens: int
    """When all processes start."""


def needs(shop: Shop, costs: Costs = COSTS) -> Needs:
    """Reckon it up."""
    writes = shop.reads / shop.reads_a_page / shop.pages_a_write
    misses = 1 / shop.reads_a_page + writes / shop.reads  # the first read of a page, and the first after a write
    missed, hit = shop.reads * misses, shop.reads * (1 - misses)
    upstream = missed + 2 * writes  # a whole-object write reads first
    # Every process hears of every write, when it begins and when it ends.
    work = (missed * costs.miss + hit * costs.hit + writes * costs.write) / 1e6
    hearing = 2 * writes * costs.heard / 1e6
    processes = math.ceil(work / (shop.busy - hearing))
    messages = 2 * writes * processes
    redis = missed * costs.redis_miss + hit * costs.redis_hit + writes * costs.redis_write + messages * costs.redis_sent
    # What a write leaves in an entry's place, a mark, is kept for 30 s longer, and is no larger.
    entries = min(shop.sessions, missed * shop.lifetime + writes * (shop.lifetime + 30))
    return Needs(
        misses=misses,
        writes=writes,
        upstream=upstream,
        processes=processes,
        redis_cores=redis / 1e6,
        redis_memory=entries * costs.entry,
        shards=math.ceil(redis / 1e6 / shop.redis_busy),
        redis_network=missed * costs.miss_bytes
        + hit * costs.hit_bytes
        + writes * costs.write_bytes
        + messages * costs.message_bytes,
        callers_network=(shop.reads + writes) * costs.answer,
        tokens=processes * shop.tenants / (0.625 * shop.token_lifetime),
        first_tokens=processes * shop.tenants,
    )


def main() -> None:
    """Print the table."""
    shops = (
        Shop(10, 100_000, 1_000),
        Shop(100, 1_000_000, 10_000),
        Shop(1_000, 10_000_000, 100_000),
        Shop(1_000, 10_000_000, 100_000, lifetime=3_605),
    )
    print("| tenants, sessions | reads/s | entries' life | upstream calls/s | processes |", end="")
    print(" Redis's cores, shards, memory | its network | callers' | tokens/s | at the start |")
    print("| --- |" + " --: |" * 9)
    for shop in shops:
        it = needs(shop)
        print(
            f"| {shop.tenants:,}, {shop.sessions:,} | {shop.reads:,.0f} | {shop.lifetime:,.0f} s | {it.upstream:,.0f}"
            f" | {it.processes} | {it.redis_cores:.1f}, {it.shards}, {it.redis_memory / 1e9:.1f} GB"
            f" | {it.redis_network / 1e6:,.0f} MB/s | {it.callers_network / 1e6:,.0f} MB/s | {it.tokens:.2f}"
            f" | {it.first_tokens:,} |"
        )


if __name__ == "__main__":
    main()
