"""Starts a gRPC server whose clients cannot end it by a path that is not UTF-8.

grpc.aio accepts all calls in one task, which decodes their paths, and ends if one cannot be decoded: one call, from
anybody, and nobody listens any more. Nothing of ours comes before that, be it an option, a handler or an interceptor.
But what Python does about bytes that cannot be decoded is a function that is looked up by name, `strict`. In that one
task it replaces them, so that the path is no method's; everywhere else it raises, as ever.
"""

from __future__ import annotations

import asyncio
import codecs
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

if TYPE_CHECKING:
    import grpc

__all__ = ["start"]

_accepting: Final[WeakSet[asyncio.Task[Any]]] = WeakSet()
"""Tasks that accept calls, of all servers: there is only one `strict` in a process."""


async def start(server: grpc.aio.Server) -> None:
    """Start it."""
    before = asyncio.all_tasks()
    await server.start()
    begun = asyncio.all_tasks() - before
    # Its own are compiled; others that have begun meanwhile are not.
    _accepting.update(each for each in begun if not isinstance(each.get_coro(), CoroutineType))
    codecs.register_error("strict", _strict)


def _strict(error: UnicodeError) -> tuple[str, int]:
    if isinstance(error, UnicodeDecodeError) and _current_task() in _accepting:
        return "\N{REPLACEMENT CHARACTER}", error.end
    raise error


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # there is no loop in this thread
        return None
