"""Stores for values with a time to live. The only package that imports aiocache.

Both backends are our own subclasses of aiocache's: its memory cache has no limit, and its Redis cache does not support
clusters. Its traps stay in here: the default timeout of 5 s, decorators that log values (not used), and
`AIOCACHE_DISABLE`, which turns calls into no-ops (refused when the settings are read). The modules for Redis
(`gateway.stores.redis` and `buckets`) are imported only where Redis is opened: redis-py takes 20 MiB.
"""

from gateway.stores.memory import MemoryStore
from gateway.stores.stored import StoredEntry

__all__ = ["MemoryStore", "StoredEntry"]
