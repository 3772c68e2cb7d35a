"""The access log: one line for every request, in the log.

JSON lines are encoded many at a time: a logger costs more than all the rest of a request that the cache answers. Text
lines are logged like all others.
"""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from gateway.lines import NonBlockingHandler

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from gateway.request import Request

__all__ = ["AccessLog"]

_NAME: Final = "gateway.requests"
_TRY_AGAIN_AFTER: Final = 0.1
"""Seconds, if the reader of the log is slow."""

_ADDED: Final = {"level", "logger", "timestamp"}
"""Fields that a logger adds by itself."""

_encode_lines: Final = msgspec.json.Encoder().encode_lines


class _Line(msgspec.Struct, tag_field="event", tag="request", omit_defaults=True, gc=False):
    """A line. `level` and `logger` are always the same."""

    level: str
    logger: str
    timestamp: datetime
    door: str
    operation: str
    code: str
    duration_ms: float
    request_id: str
    tenant: str | None = None
    caller: str | None = None
    cache: str | None = None
    status: int | None = None
    trace_id: str | None = None


class AccessLog:
    """A `RequestWatcher` that writes lines. Call `end` at the end: the last lines may still wait."""

    def __init__(self, handler: NonBlockingHandler, loop: asyncio.AbstractEventLoop) -> None:
        self._handler = handler
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self._log = structlog.stdlib.get_logger(_NAME) if handler.readable else None

    @staticmethod
    def handler() -> NonBlockingHandler | None:
        """The handler of the log, if this process has one."""
        return next((each for each in logging.getLogger().handlers if isinstance(each, NonBlockingHandler)), None)

    @staticmethod
    def wanted() -> bool:
        """Whether the log's level includes these lines."""
        return logging.getLogger(_NAME).isEnabledFor(logging.INFO)

    def requests_finished(self, requests: Sequence[Request]) -> None:
        """Write a line for each."""
        zero = time.time() - time.perf_counter()
        lines = [_line(each, zero) for each in requests]
        if self._log is not None:
            for line in lines:
                self._log.info("request", **_fields(line))
            return
        self._handler.put(*_encode_lines(lines).splitlines(keepends=True))
        if self._timer is None:
            self._push()

    def end(self) -> None:
        """Write what is waiting, as far as possible without blocking."""
        if self._timer is not None:
            self._timer.cancel()
        self._handler.push()

    def _push(self) -> None:
        self._handler.push()
        # The rest, which the reader has not taken, is tried again later, even if there are no more requests.
        self._timer = self._loop.call_later(_TRY_AGAIN_AFTER, self._push) if self._handler.waiting else None


def _line(request: Request, zero: float) -> _Line:
    """`zero` is the time at which the performance counter was 0."""
    return _Line(
        "info",
        _NAME,
        datetime.fromtimestamp(zero + request.started + request.duration, UTC),
        request.door,
        request.operation,
        request.code,
        round(request.duration * 1000, 3),
        request.id,
        request.tenant,
        request.caller,
        request.cache,
        request.status,
        request.trace_id,
    )


def _fields(line: _Line) -> dict[str, object]:
    """The fields of the line, without those that the logger adds."""
    fields = {name: getattr(line, name) for name in line.__struct_fields__ if name not in _ADDED}
    return {name: value for name, value in fields.items() if value is not None}
