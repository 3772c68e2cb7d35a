"""A log handler that never waits for whoever reads the log: its descriptor may be slow, full or gone.

A pipe that nobody reads would block whoever writes to it. So what it does not take is kept, up to a limit; beyond that,
lines are dropped, counted, and reported as soon as there is room.
"""

from __future__ import annotations

import logging
import os
import select
import stat
import threading
import time
from collections import deque
from typing import Final

import structlog

__all__ = ["NonBlockingHandler"]

_ROOM: Final = 1_048_576
"""Bytes that are kept."""
_BATCH: Final = 65_536
"""Bytes from which waiting lines are written at once."""
_LAST_TRY: Final = 1.0
"""Seconds to write the rest, at the end."""


class NonBlockingHandler(logging.Handler):
    """Writes whole lines. Lines of at most `select.PIPE_BUF` bytes stay whole where processes share a pipe."""

    def __init__(self, descriptor: int, *, readable: bool = False, room: int = _ROOM) -> None:
        super().__init__()
        self.readable = readable
        """Whether the output is for people, not for programs."""
        self.dropped = 0
        """Lines for which there was no room, here or on the disk."""
        self._lock = threading.RLock()  # OpenTelemetry, and gRPC's certificates, log from threads of their own
        self._untold = 0
        self._log = structlog.stdlib.get_logger(__name__)
        self._room = room
        self._lines: deque[bytes] = deque()
        self._waiting = 0
        self._given = descriptor
        self._descriptor = _never_blocking(descriptor)
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLOUT)

    @property
    def waiting(self) -> int:
        """Bytes that are not written yet."""
        return self._waiting

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line at once, after those that wait; part of `logging.Handler`."""
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001 - as logging's own handlers do: no line is worth a failure
            self.handleError(record)
            return
        self.put(line.encode("utf-8", "backslashreplace") + b"\n")
        self.push()

    def put(self, *lines: bytes) -> None:
        """Add lines, with their ends, to be written later: the caller sees to it that `push` is called."""
        with self._lock:
            for line in lines:
                if self._waiting + len(line) > self._room:
                    self.dropped += 1
                    self._untold += 1
                    continue
                self._lines.append(line)
                self._waiting += len(line)
            if self._waiting >= _BATCH:
                self.push()

    def push(self) -> None:
        """Write as much as the descriptor takes without blocking."""
        took = False
        with self._lock:
            while self._lines and self._poll.poll(0):
                chunk = self._next_chunk()
                try:
                    written = os.write(self._descriptor, chunk)
                except BlockingIOError:
                    written = 0
                except OSError:  # the reader has gone, or the disk is full
                    lost = chunk.count(b"\n")
                    self.dropped += lost
                    self._untold += lost
                    self._waiting -= len(chunk)
                    continue
                took = took or written > 0
                self._waiting -= written
                if written < len(chunk):
                    self._lines.appendleft(chunk[written:])
                    return
            if took and self._untold and not self._lines:  # for a full disk it is reported once there is room
                untold, self._untold = self._untold, 0
                self._log.warning("lines_dropped", lines=untold)

    def flush(self) -> None:
        """Write everything, unless that takes too long; part of `logging.Handler`, and called at the end."""
        until = time.monotonic() + _LAST_TRY
        self.push()
        while self._lines and (left := until - time.monotonic()) > 0:
            self._poll.poll(left * 1000)
            self.push()

    def close(self) -> None:
        """Write everything, and close what was opened here."""
        self.flush()
        if self._descriptor != self._given:
            os.close(self._descriptor)
            self._poll.unregister(self._descriptor)
            self._descriptor = self._given
            self._poll.register(self._descriptor, select.POLLOUT)
        super().close()

    def _next_chunk(self) -> bytes:
        """As many lines as a pipe takes atomically, or one longer line."""
        parts = [self._lines.popleft()]
        size = len(parts[0])
        while self._lines and size + len(self._lines[0]) <= select.PIPE_BUF:
            part = self._lines.popleft()
            parts.append(part)
            size += len(part)
        return b"".join(parts)


def _never_blocking(descriptor: int) -> int:
    """The same pipe, opened again as non-blocking: setting the flag would affect all who share it. Otherwise as given.

    If it cannot be opened (another user's, or no /proc), `poll` before each write does nearly as well: only another
    process could fill the pipe in between.
    """
    try:
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            return os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        pass
    return descriptor
