"""Drains gRPC's connections before gRPC is stopped: they reach their maximum age meanwhile, and no call is lost.

When gRPC's server stops, it cancels calls that arrive just as it sends GOAWAY. When a connection reaches its maximum
age, it announces that first, and answers until the client knows (RFC 9113, 6.8); but it cannot be told to accept no
more connections until all have reached that age. The kernel can.
"""

from __future__ import annotations

import asyncio
import select
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from gateway.rpc.sockets import listeners, sockets

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.shutdown import Shutdown

__all__ = ["drain"]

_LOOK_EVERY: Final = 0.05
_QUIET: Final = 1.0
"""Seconds without a call, after which one is unlikely to arrive at the very moment of the end."""
_LOOKS: Final = 1000
_BETWEEN_LOOKS: Final = 0.001


async def drain(port: int, shutdown: Shutdown, *, calls: Callable[[], int], within: float) -> None:
    """Accept no more connections on a port of this process, and wait `within` so many seconds until none is left.

    Those that the kernel has established already are accepted, however short the time is.

    Returns sooner if no more calls arrive, going by the number of all `calls` so far, or when `shutdown` is hastened;
    and at once on other systems than Linux, where no sockets are found.
    """
    for each in listeners(port):
        await _close(each)
    with suppress(TimeoutError):
        async with asyncio.timeout(within):
            seen, quiet = calls(), 0.0
            while quiet < _QUIET and _has_connections(port) and not shutdown.hastened:
                await shutdown.pause(_LOOK_EVERY)
                quiet = quiet + _LOOK_EVERY if calls() == seen else 0.0
                seen = calls()


async def _close(listener: socket.socket) -> None:
    """For every process that has it. The kernel resets connections that are not accepted: gRPC gets time to do so."""
    waiting = select.poll()
    waiting.register(listener, select.POLLIN)
    for _ in range(_LOOKS):
        if not waiting.poll(0):
            break
        await asyncio.sleep(_BETWEEN_LOOKS)
    listener.shutdown(socket.SHUT_RD)


def _has_connections(port: int) -> bool:
    for each in sockets(port):
        with suppress(OSError):  # it is not connected
            each.getpeername()
            return True
    return False
