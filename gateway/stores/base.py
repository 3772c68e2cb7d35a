"""aiocache's base class and its null serializer, imported without redis-py.

aiocache imports redis-py if that is installed: 20 MiB for each worker, which are of no use without Redis. So the import
is made to fail (https://docs.python.org/3/reference/import.html#the-module-cache).
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
