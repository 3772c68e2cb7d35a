"""Messages between supervisor and worker, over a pair of sockets that the worker inherits.

If the connection ends, that is a message too: a worker stops when its supervisor is gone, and a supervisor notices that
a worker has ended. Over another pair, the fork server reports the worker's process.
"""

from __future__ import annotations

import asyncio
import pickle
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec
from msgspec import Struct

from gateway.readiness import Report  # noqa: TC001 - msgspec reads the annotation at run time
from gateway.settings import Settings

if TYPE_CHECKING:
    import socket

__all__ = [
    "Beat",
    "Drain",
    "Exited",
    "Failed",
    "Forked",
    "Hasten",
    "Link",
    "Message",
    "NotForked",
    "Reload",
    "Start",
    "Up",
    "framed",
    "packed",
    "unpacked",
]

_LENGTH: Final = 4
"""Bytes of the length before each message."""


class Start(Struct, tag=True, frozen=True):
    """To a worker: serve, with these settings."""

    settings: bytes


class Reload(Struct, tag=True, frozen=True):
    """To a worker: apply what can change while it runs from these settings."""

    settings: bytes


class Drain(Struct, tag=True, frozen=True):
    """To a worker: stop."""


class Hasten(Struct, tag=True, frozen=True):
    """To a worker: stop at once."""


class Up(Struct, tag=True, frozen=True):
    """From a worker: its doors are open."""

    graphql: str
    grpc: str


class Beat(Struct, tag=True, frozen=True):
    """From a worker, every second: its heartbeat, with its state."""

    report: Report


class Failed(Struct, tag=True, frozen=True):
    """From a worker: it cannot serve."""

    problems: tuple[str, ...]
    status: int


class Forked(Struct, tag=True, frozen=True):
    """From the fork server: the worker's process was created."""

    pid: int


class NotForked(Struct, tag=True, frozen=True):
    """From the fork server: it could not be created."""

    error: int
    """The `errno`."""


class Exited(Struct, tag=True, frozen=True):
    """From the fork server: the process has exited."""

    status: int
    """Negative: it was killed by the signal with that number."""
    cpu: float
    """Seconds of CPU that it used."""


Message: TypeAlias = Start | Reload | Drain | Hasten | Up | Beat | Failed | Forked | NotForked | Exited


class Link:
    """One end of the connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)

    @classmethod
    async def over(cls, end: socket.socket) -> Link:
        """A link over this socket, which it closes."""
        return cls(*await asyncio.open_connection(sock=end))

    def send(self, message: Message) -> None:
        """Send when there is room. If the other end is gone, nothing happens."""
        self._writer.write(framed(message))

    async def receive(self) -> Message | None:
        """The next message; None if the other end is gone."""
        try:
            length = await self._reader.readexactly(_LENGTH)
            return self._decoder.decode(await self._reader.readexactly(int.from_bytes(length)))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    async def close(self) -> None:
        """Send what is still to be sent, and close."""
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()


def framed(message: Message) -> bytes:
    """As it goes over a link."""
    encoded = msgspec.msgpack.encode(message)
    return len(encoded).to_bytes(_LENGTH) + encoded


def packed(settings: Settings) -> bytes:
    """With secrets, for a worker alone: they go through a socket that only it has."""
    plain = Settings.model_construct(**{name: getattr(settings, name) for name in Settings.model_fields})
    return pickle.dumps(plain)


def unpacked(settings: bytes) -> Settings:
    """What was packed, as it was checked: files that they name may have changed since."""
    unpickled = pickle.loads(settings)  # noqa: S301 - by our own supervisor, which has all that we have
    assert isinstance(unpickled, Settings)  # noqa: S101 - as above
    return unpickled
