"""TLS handshakes of a listener: its connections, until the handshake is complete.

asyncio could accept them by itself, but tells nobody of a connection before its handshake is complete: any number could
wait for that, at some 80 KiB each, uncounted.
"""

from __future__ import annotations

import asyncio
from itertools import islice
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable, Iterator

__all__ = ["Handshakes", "taken_from"]

_PATIENCE: Final = 10.0
"""Seconds for a handshake; asyncio's own limit is a minute."""
_FAREWELL: Final = 0.5
"""Seconds for a client to answer TLS's close_notify. One with an idle connection does not read, so does not answer;
asyncio would wait for half a minute, and each such connection would hold up the shutdown for as long as it may."""
_AT_ONCE: Final = 100
"""Connections that are accepted before anything else has its turn."""
_PAUSE: Final = 1.0
"""Seconds for which none is accepted when no file descriptor is left."""


class Handshakes:
    """Accepts connections, and hands each to its `protocol` after the handshake. While it is `full` it closes them."""

    def __init__(self, tls: ssl.SSLContext, protocol: Callable[[], asyncio.Protocol], full: Callable[[], bool]) -> None:
        self._tls = tls
        self._protocol = protocol
        self._full = full
        self._listeners: set[socket.socket] = set()
        self._under_way: dict[asyncio.Task[None], asyncio.Protocol] = {}

    def under_way(self) -> set[asyncio.Protocol]:
        """Protocols whose handshake is not complete, or has just been completed."""
        return set(self._under_way.values())

    def take_from(self, listener: socket.socket) -> None:
        """Accept the connections of this listener from now on."""
        listener.setblocking(False)
        self._listeners.add(listener)
        asyncio.get_running_loop().add_reader(listener, self._take_some, listener)

    def take(self, connection: socket.socket) -> None:
        """Begin the handshake of an accepted connection, however many there are."""
        protocol = self._protocol()
        task = asyncio.get_running_loop().create_task(self._agree(connection, protocol), name="agree on TLS")
        self._under_way[task] = protocol
        task.add_done_callback(self._under_way.pop)

    def close(self) -> None:
        """Accept no more connections."""
        for each in self._listeners:
            asyncio.get_running_loop().remove_reader(each)
        self._listeners.clear()

    async def abandon(self) -> None:
        """Close those whose handshake is not complete."""
        tasks = list(self._under_way)
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _take_some(self, listener: socket.socket) -> None:
        try:
            for each in islice(taken_from(listener), _AT_ONCE):
                if self._full():
                    each.close()
                else:
                    self.take(each)
        except OSError:  # it would be called again at once
            loop = asyncio.get_running_loop()
            loop.remove_reader(listener)
            loop.call_later(_PAUSE, self._go_on, listener)

    def _go_on(self, listener: socket.socket) -> None:
        if listener in self._listeners:
            self.take_from(listener)

    async def _agree(self, connection: socket.socket, protocol: asyncio.Protocol) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: protocol,
                connection,
                ssl=self._tls,
                ssl_handshake_timeout=_PATIENCE,
                ssl_shutdown_timeout=_FAREWELL,
            )
        except OSError:  # ssl's errors are such; or its client has gone
            connection.close()


def taken_from(listener: socket.socket) -> Iterator[socket.socket]:
    """Connections that wait to be accepted. The listener must not block. Raises OSError when one cannot be accepted."""
    while True:
        try:
            connection, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        connection.setblocking(False)
        yield connection
