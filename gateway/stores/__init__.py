"""Where values are kept for a time. The only package that imports aiocache.

Both backends are aiocache caches of our own: its memory cache has no bound, and its Redis cache knows no cluster. Its
traps stay in here: the default timeout of 5 s, decorators that log values (not used), and `AIOCACHE_DISABLE`, which
turns calls into no-ops (refused when the settings are read). What is in Redis (`gateway.stores.redis`, and `buckets`)
is imported by whoever opens Redis, and then: redis-py takes 20 MiB.
"""

from gateway.stores.memory import MemoryStore
from gateway.stores.stored import StoredEntry

__all__ = ["MemoryStore", "StoredEntry"]
