"""Where values are kept for a time. The only package that imports aiocache.

Both backends are aiocache caches of our own: its memory cache has no bound, and its Redis cache knows no cluster. Its
traps stay in here: the default timeout of 5 s, decorators that log values (not used), and `AIOCACHE_DISABLE`, which
turns calls into no-ops (refused when the settings are read).
"""

from gateway.stores.buckets import RedisBuckets
from gateway.stores.memory import MemoryStore
from gateway.stores.redis import RedisConnections, RedisError, RedisStore, StoredEntry, open_redis

__all__ = ["MemoryStore", "RedisBuckets", "RedisConnections", "RedisError", "RedisStore", "StoredEntry", "open_redis"]
