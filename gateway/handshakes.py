"""Connections of listeners with TLS, until it is agreed on.

asyncio would take them by itself, but tells nobody of one before that: any number of them could wait for it, with some
80 KiB each, beside those that are counted.
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
"""Seconds for TLS to be agreed on; asyncio's own is a minute."""
_FAREWELL: Final = 0.5
"""Seconds for a client to answer TLS's farewell. One that keeps an idle connection does not read, so does not answer;
asyncio would wait for half a minute, and each such connection would hold up the shutdown for as long as it may."""
_AT_ONCE: Final = 100
"""Connections that are taken before anything else has its turn."""
_PAUSE: Final = 1.0
"""Seconds for which none is taken when no descriptor is left for one."""


class Handshakes:
    """Takes connections, and hands each to its `protocol` once TLS is agreed on. While it is `full` it closes them."""

    def __init__(self, tls: ssl.SSLContext, protocol: Callable[[], asyncio.Protocol], full: Callable[[], bool]) -> None:
        self._tls = tls
        self._protocol = protocol
        self._full = full
        self._listeners: set[socket.socket] = set()
        self._under_way: dict[asyncio.Task[None], asyncio.Protocol] = {}

    def under_way(self) -> set[asyncio.Protocol]:
        """Whose connections are not agreed on yet, or have just been."""
        return set(self._under_way.values())

    def take_from(self, listener: socket.socket) -> None:
        """Take all connections of this listener from now on."""
        listener.setblocking(False)
        self._listeners.add(listener)
        asyncio.get_running_loop().add_reader(listener, self._take_some, listener)

    def take(self, connection: socket.socket) -> None:
        """Take one, however many there are."""
        protocol = self._protocol()
        task = asyncio.get_running_loop().create_task(self._agree(connection, protocol), name="agree on TLS")
        self._under_way[task] = protocol
        task.add_done_callback(self._under_way.pop)

    def close(self) -> None:
        """Take none from listeners any more."""
        for each in self._listeners:
            asyncio.get_running_loop().remove_reader(each)
        self._listeners.clear()

    async def abandon(self) -> None:
        """Close those that are not agreed on."""
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
    """Connections that wait to be taken. The listener must not block. Raises OSError when one cannot be."""
    while True:
        try:
            connection, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        connection.setblocking(False)
        yield connection
