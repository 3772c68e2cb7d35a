"""Every write there is, made safe: one place for both doors and for both kinds of session."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeAlias

import msgspec

from gateway.errors import GatewayError, InvalidArgument, VersionConflict, WriteDiscarded
from gateway.sessions.changes import CLEAR, Assignment, Patch
from gateway.sessions.delivery import Readable, UnversionedWrite, VersionedWrite, backoff
from gateway.telemetry import WriteFinished

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from gateway.deadline import Deadline
    from gateway.model import JSON, SessionContext
    from gateway.telemetry import Observer

__all__ = ["Send", "WriteOptions", "Writer", "Written"]


class Resource(Readable, Protocol):
    """A session context upstream, as one caller may write it."""

    async def add_attribute(self, name: str, value: JSON, deadline: Deadline) -> None:
        """Set an attribute; no version is checked."""
        ...

    async def remove_attribute(self, name: str, deadline: Deadline) -> bool:
        """Remove an attribute; false when there was nothing to remove."""
        ...


Send: TypeAlias = "Callable[[bytes, Deadline], Awaitable[None]]"
"""Sends a document upstream, once."""


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """What a caller says about a write, whatever it writes."""

    deadline: Deadline
    expected_version: int | None = None
    read_back: bool = True


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a write that succeeded.

    `session_context` is None when it was not asked for, or could not be read afterwards. `attempts` is how many times
    the write was sent upstream.
    """

    session_context: SessionContext | None
    attempts: int


@dataclass(slots=True)
class _Tally:
    """What one write took, over all of its rounds."""

    attempts: int = 0
    ambiguous: int = 0


class Writer:
    """Carries out writes.

    `max_attempts` bounds how often one is sent; `max_document` is the largest document, in bytes.
    """

    def __init__(self, *, max_attempts: int, max_document: int, observer: Observer) -> None:
        self._max_attempts = max_attempts
        self._max_document = max_document
        self._observer = observer

    async def replace(
        self,
        resource: Readable,
        document: bytes,
        send: Send,
        is_in: Callable[[SessionContext], bool],
        options: WriteOptions,
    ) -> Written:
        """Write a document to the place of the expected version, or of nothing, if none is expected.

        Raises VersionConflict, SessionNotFound, WriteOutcomeUnknown; InvalidArgument when it is too large.
        """
        self._check_size(document)
        with self._observed("replace") as tally:
            write = VersionedWrite(resource, partial(send, document), is_in, version=options.expected_version)
            return await self._carry_out(write, tally, options)

    async def change(
        self,
        resource: Readable,
        render: Callable[[SessionContext], bytes],
        send: Send,
        is_in: Callable[[SessionContext], bool],
        options: WriteOptions,
    ) -> Written:
        """Read, render the document anew, and write it to the place of the version that was read.

        With an expected version that is one attempt; without, it is done again when another writer comes first.
        Raises as `replace`.
        """
        with self._observed("patch") as tally:
            current = await resource.read(options.deadline)
            while True:
                expected, version = options.expected_version, current.metadata.version
                if expected not in {None, version}:
                    raise VersionConflict(expected, current)
                document = render(current)
                self._check_size(document)
                write = VersionedWrite(resource, partial(send, document), is_in, version=version)
                try:
                    return await self._carry_out(write, tally, options)
                except VersionConflict as conflict:
                    if expected is not None or tally.attempts >= self._max_attempts:
                        raise VersionConflict(expected, conflict.current) from None
                    await backoff(tally.attempts, options.deadline)
                    current = conflict.current or await resource.read(options.deadline)

    async def add_attribute(self, resource: Resource, name: str, value: JSON, options: WriteOptions) -> Written:
        """Set an attribute by upstream's own endpoint, which checks no version. Setting it twice is setting it once.

        Raises SessionNotFound, WriteOutcomeUnknown; InvalidArgument when the value is too large.
        """
        self._check_size(msgspec.json.encode(value))
        is_in = Patch((Assignment(("context", name), value),)).is_in
        with self._observed("add_attribute") as tally:
            write = UnversionedWrite(resource, partial(resource.add_attribute, name, value), is_in)
            return await self._carry_out(write, tally, options)

    async def remove_attribute(self, resource: Resource, name: str, options: WriteOptions) -> Written:
        """Remove an attribute by upstream's own endpoint, which checks no version. Raises as `add_attribute`."""

        async def send(deadline: Deadline) -> None:
            if not await resource.remove_attribute(name, deadline):
                await resource.read(deadline)  # was it the attribute that is missing, or the session?

        is_in = Patch((Assignment(("context", name), CLEAR),)).is_in
        with self._observed("remove_attribute") as tally:
            return await self._carry_out(UnversionedWrite(resource, send, is_in), tally, options)

    async def _carry_out(
        self, write: VersionedWrite | UnversionedWrite, tally: _Tally, options: WriteOptions
    ) -> Written:
        try:
            current = await write.run(options.deadline, max_attempts=self._max_attempts)
        finally:
            tally.attempts += write.attempts
            tally.ambiguous += len(write.lost)
        if current is None and options.read_back:
            current = await _read_back(write, options.deadline)
        return Written(current if options.read_back else None, tally.attempts)

    def _check_size(self, document: bytes) -> None:
        if len(document) > self._max_document:
            raise InvalidArgument.of(
                "session_context", f"must be at most {self._max_document} bytes of JSON, has {len(document)}"
            )

    @contextmanager
    def _observed(self, operation: str) -> Iterator[_Tally]:
        """Report the write however it ends; a caller who goes away is an end too."""
        tally, outcome = _Tally(), "cancelled"
        try:
            yield tally
            outcome = "applied"
        except GatewayError as error:
            outcome = error.reason
            raise
        finally:
            self._observer.write_finished(WriteFinished(operation, outcome, tally.attempts, tally.ambiguous))


async def _read_back(write: VersionedWrite | UnversionedWrite, deadline: Deadline) -> SessionContext | None:
    """Read after a write that was acknowledged. That it cannot be read is no failure of the write.

    Raises WriteDiscarded when the version did not move and what was written is not there (seen in live use).
    """
    try:
        current = await write.resource.read(deadline)
    except GatewayError:
        return None
    version = write.version if isinstance(write, VersionedWrite) else None
    if current.metadata.version == version and not write.is_in(current):
        raise WriteDiscarded
    return current
