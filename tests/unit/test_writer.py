"""Writes of one process that meet each other, with an upstream that does as it is told."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from gateway.deadline import Deadline
from gateway.errors import VersionConflict
from gateway.model import decode_session_context
from gateway.sessions.writer import Change, WriteOptions, Writer
from gateway.telemetry import Unobserved

if TYPE_CHECKING:
    from gateway.model import SessionContext


@dataclass
class Upstream:
    """One session context. A read that is held has read already, and tells so when it is let go."""

    version: int = 10
    writes: int = 0
    held: asyncio.Event | None = None
    reads: list[int] = field(default_factory=list)

    async def read(self, _: Deadline) -> SessionContext:
        version, held, self.held = self.version, self.held, None
        self.reads.append(version)
        if held is not None:
            await held.wait()
        return decode_session_context(msgspec.json.encode({"sessionId": "s", "metadata": {"version": version}}))

    async def write(self, document: bytes, _: Deadline) -> None:
        self.writes += 1
        expected = msgspec.json.decode(document)
        if expected != self.version:
            raise VersionConflict(expected, None)
        self.version += 1


async def test_what_another_has_replaced_since_it_was_read_is_read_again_before_it_is_written() -> None:
    upstream, held = Upstream(), asyncio.Event()
    writer = Writer(max_attempts=5, max_document=1000, observer=Unobserved())
    change = Change(lambda before: msgspec.json.encode(before.metadata.version), upstream.write, lambda _: True)
    options = WriteOptions(Deadline.after(10))
    upstream.held = held
    late = asyncio.create_task(writer.change("acme", upstream, change, options))
    await asyncio.sleep(0)
    await writer.change("acme", upstream, change, options)

    held.set()
    written = await late

    assert (written.attempts, upstream.writes, upstream.version) == (1, 2, 12)
    assert upstream.reads[:2] == [10, 10]
