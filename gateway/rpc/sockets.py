"""The sockets of gRPC's server, which gives nobody access to them. On Linux this process's open files show them."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["listeners", "sockets"]

_OPEN_FILES: Final = Path("/proc/self/fd")


def listeners(port: int) -> Iterator[socket.socket]:
    """Those of `sockets` that listen."""
    for each in sockets(port):
        if each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            yield each


def sockets(port: int) -> Iterator[socket.socket]:
    """This process's TCP sockets with this local port, one after the other: copies, open while they are looked at.

    None on other systems than Linux.
    """
    for each in _OPEN_FILES.iterdir() if _OPEN_FILES.exists() else ():
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
