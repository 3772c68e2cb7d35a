"""aiocache's base class and the serializer that does nothing, and no more of it.

aiocache imports redis-py along with itself wherever that is installed: 20 MiB of a worker, of no use to whoever
keeps nothing in Redis. So it finds none (https://docs.python.org/3/reference/import.html#the-module-cache).
"""

from __future__ import annotations

import sys

_alone = "redis" not in sys.modules
if _alone:
    sys.modules["redis"] = None  # type: ignore[assignment]  # documented, but typeshed has modules alone
try:
    from aiocache.base import BaseCache
    from aiocache.serializers import NullSerializer
finally:
    if _alone:
        del sys.modules["redis"]

__all__ = ["BaseCache", "NullSerializer"]
