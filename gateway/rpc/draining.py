"""Drains gRPC's connections before gRPC is stopped: they reach their maximum age meanwhile, and no call is lost.

gRPC's own end cancels whatever call reaches it as it says GOAWAY. At a connection's end of age it says so in advance
and answers until the client has heard (RFC 9113, 6.8), but it cannot be told to take no more connections until all have
come to that. The kernel can.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gateway.shutdown import Shutdown

__all__ = ["drain"]

_OPEN_FILES: Final = Path("/proc/self/fd")
_LOOK_EVERY: Final = 0.05
_QUIET: Final = 1.0
"""Seconds without a call, after which none is likely to come in the very moment of the end."""
_LOOKS: Final = 1000
_BETWEEN_LOOKS: Final = 0.001


async def drain(port: int, shutdown: Shutdown, *, calls: Callable[[], int], within: float) -> None:
    """Take no more connections on a port of this process, and return when there are none: `within` so many seconds.

    Those that the kernel has made already are taken, however few seconds that are.

    Returns sooner when no call comes any more, by the number of all `calls` that have come, or when `shutdown` is
    hastened; and at once where there is no such way: elsewhere than on Linux.
    """
    if not _OPEN_FILES.exists():
        return
    for each in _sockets(port):
        if each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            await _close(each)
    with suppress(TimeoutError):
        async with asyncio.timeout(within):
            seen, quiet = calls(), 0.0
            while quiet < _QUIET and _has_connections(port) and not shutdown.hastened:
                await shutdown.pause(_LOOK_EVERY)
                quiet = quiet + _LOOK_EVERY if calls() == seen else 0.0
                seen = calls()


async def _close(listener: socket.socket) -> None:
    """For all who have it. The kernel resets connections that nobody has taken: gRPC gets the time to take them."""
    waiting = select.poll()
    waiting.register(listener, select.POLLIN)
    for _ in range(_LOOKS):
        if not waiting.poll(0):
            break
        await asyncio.sleep(_BETWEEN_LOOKS)
    listener.shutdown(socket.SHUT_RD)


def _has_connections(port: int) -> bool:
    for each in _sockets(port):
        with suppress(OSError):  # it is not connected
            each.getpeername()
            return True
    return False


def _sockets(port: int) -> Iterator[socket.socket]:
    """This process's TCP sockets whose own port it is, one after the other: copies, open while they are looked at."""
    for each in _OPEN_FILES.iterdir():
        with suppress(OSError), _copy(int(each.name)) as found:  # it is no socket, or has been closed
            internet = found.family in {socket.AF_INET, socket.AF_INET6} and found.type == socket.SOCK_STREAM
            if internet and found.getsockname()[1] == port:
                yield found


def _copy(number: int) -> socket.socket:
    copied = os.dup(number)
    try:
        return socket.socket(fileno=copied)
    except OSError:
        os.close(copied)
        raise
