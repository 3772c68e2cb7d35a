"""Makes all writes safe, for both doors and for both kinds of session."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from gateway.errors import GatewayError, InvalidArgument, SessionNotFound, VersionConflict, WriteDiscarded
from gateway.sessions.changes import CLEAR, Assignment, Patch, is_same
from gateway.sessions.contest import Contest
from gateway.sessions.delivery import UnversionedWrite, VersionedWrite, backoff
from gateway.sessions.locks import SessionLocks
from gateway.telemetry import WriteFinished

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from gateway.cache.contexts import Readable, Resource
    from gateway.deadline import Deadline
    from gateway.model import JSON, SessionContext
    from gateway.sessions.changes import Replace
    from gateway.sessions.contest import Entrant, Place
    from gateway.telemetry import Observer

__all__ = ["Change", "Send", "WriteOptions", "Writer", "Written"]


Send: TypeAlias = "Callable[[bytes, Deadline], Awaitable[None]]"
"""Sends a document to upstream, once."""


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """Options of a write, of whatever kind."""

    deadline: Deadline
    expected_version: int | None = None
    read_back: bool = True


@dataclass(frozen=True, slots=True)
class Written:
    """The result of a write that succeeded.

    `session_context` is None if it was not requested, or could not be read afterwards. `attempts` is how many times the
    write was sent to upstream.
    """

    session_context: SessionContext | None
    attempts: int


@dataclass(slots=True)
class _Tally:
    """Counts for one write, over all of its attempts."""

    attempts: int = 0
    answers_lost: int = 0


@dataclass(frozen=True, slots=True)
class Change:
    """A change of the current state: the document that makes it, how to send that, and whether it has been made."""

    render: Callable[[SessionContext], bytes]
    send: Send
    is_in: Callable[[SessionContext], bool]


@dataclass(frozen=True, slots=True)
class _Work:
    """A change in progress."""

    tenant: str
    resource: Readable
    change: Change
    options: WriteOptions
    entrant: Entrant
    tally: _Tally


class Writer:
    """Carries out writes.

    `max_attempts` bounds how often one is sent; `max_document` is the largest document, in bytes.
    """

    def __init__(self, *, max_attempts: int, max_document: int, observer: Observer) -> None:
        self._max_attempts = max_attempts
        self._max_document = max_document
        self._observer = observer
        self._contest = Contest()
        self._locks = SessionLocks()

    async def replace(
        self, tenant: str, resource: Readable, change: Replace, send: Send, options: WriteOptions, *, upsert: bool
    ) -> Written:
        """Replace the expected version by a whole new state, or create it, if no version is expected.

        `upsert` tells that the request creates a session context if there is none, whatever version is expected. Raises
        VersionConflict, SessionNotFound, WriteOutcomeUnknown; InvalidArgument if it is too large.
        """
        document = change.document()
        self._check_size(document)
        with self._observed("replace") as tally, self._contest.entered() as entrant:
            write = VersionedWrite(
                resource,
                partial(send, document),
                change.is_in,
                place=(tenant, change.session_id, change.version),
                entrant=entrant,
                insists=True,
                upsert=upsert,
            )
            try:
                return await self._carry_out(write, tally, options)
            except VersionConflict as conflict:
                raise await _with_current(conflict, change.version, resource, options.deadline) from None

    async def change(self, tenant: str, resource: Readable, change: Change, options: WriteOptions) -> Written:
        """Read, render the new document, and replace the version that was read.

        Without an expected version this is repeated if another writer comes first. Raises as `replace`.
        """
        with self._observed("patch") as tally, self._contest.entered() as entrant:
            current = await resource.read(options.deadline)
            work = _Work(tenant, resource, change, options, entrant, tally)
            if options.expected_version is not None:
                return await self._change_expected(work, current)
            async with self._locks.held(tenant, current.session_id, options.deadline):
                overtaken = entrant.has_lost(_place(tenant, current))  # by others of this process, while it was read
                return await self._change_until_done(work, None if overtaken else current)

    async def _change_expected(self, work: _Work, current: SessionContext) -> Written:
        expected = work.options.expected_version
        if expected != current.metadata.version:
            raise VersionConflict(expected, current)
        try:
            return await self._write(work, current)
        except VersionConflict as conflict:
            raise await _with_current(conflict, expected, work.resource, work.options.deadline) from None

    async def _change_until_done(self, work: _Work, current: SessionContext | None) -> Written:
        """Change the current state, whatever it is; `current` has just been read, unless it is None."""
        deadline = work.options.deadline
        while True:
            current = current or await work.resource.read(deadline)
            try:
                return await self._write(work, current)
            except VersionConflict as conflict:
                if work.tally.attempts >= self._max_attempts:
                    raise await _with_current(conflict, None, work.resource, deadline) from None
            await backoff(work.tally.attempts, deadline)
            current = None  # what the conflict came with is old by now

    async def _write(self, work: _Work, current: SessionContext) -> Written:
        """Replace what was read by what the change makes of it."""
        document = work.change.render(current)
        self._check_size(document)
        insists = work.options.expected_version is not None
        write = VersionedWrite(
            work.resource,
            partial(work.change.send, document),
            partial(_is_evidence_in, work.change.is_in, current) if insists else work.change.is_in,
            place=_place(work.tenant, current),
            entrant=work.entrant,
            insists=insists,
        )
        return await self._carry_out(write, work.tally, work.options)

    async def add_attribute(self, resource: Resource, name: str, value: JSON, options: WriteOptions) -> Written:
        """Set an attribute by upstream's own endpoint, which checks no version. Doing it twice has the same result.

        Raises SessionNotFound, WriteOutcomeUnknown; InvalidArgument if the value is too large.
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
            current = await write.run(options.deadline, max_attempts=self._max_attempts - tally.attempts)
        finally:
            tally.attempts += write.attempts
            tally.answers_lost += len(write.lost)
        if current is None and options.read_back:
            current = await _read_back(write, options.deadline)
        if current is not None and isinstance(write, VersionedWrite):
            write.entrant.left(current)
        return Written(current if options.read_back else None, tally.attempts)

    def _check_size(self, document: bytes) -> None:
        if len(document) > self._max_document:
            raise InvalidArgument.of(
                "session_context", f"makes {len(document)} bytes of JSON, of which {self._max_document} are allowed"
            )

    @contextmanager
    def _observed(self, operation: str) -> Iterator[_Tally]:
        """Report the write however it ends, also if the caller goes away."""
        tally, outcome = _Tally(), "cancelled"
        try:
            yield tally
            outcome = "applied"
        except GatewayError as error:
            outcome = error.reason
            raise
        finally:
            self._observer.write_finished(WriteFinished(operation, outcome, tally.attempts, tally.answers_lost))


def _place(tenant: str, current: SessionContext) -> Place:
    """The place of what was read."""
    return tenant, current.session_id, current.metadata.version


async def _with_current(
    conflict: VersionConflict, expected: int | None, resource: Readable, deadline: Deadline
) -> VersionConflict:
    """The conflict as the caller gets it, with the current session context if it can be read.

    Raises SessionNotFound if the 404 that was taken for a conflict meant that after all.
    """
    current = conflict.current
    if current is None:
        try:
            current = await resource.read(deadline)
        except SessionNotFound:
            raise
        except GatewayError:
            pass  # the conflict is certain all the same
    return VersionConflict(expected, current)


def _is_evidence_in(is_in: Callable[[SessionContext], bool], before: SessionContext, after: SessionContext) -> bool:
    """Whether what was read after the write shows that the change was made to what was read before it.

    A change that changes nothing is there whoever wrote last: then everything has to be as it was.
    """
    return is_same(before, after) if is_in(before) else is_in(after)


async def _read_back(write: VersionedWrite | UnversionedWrite, deadline: Deadline) -> SessionContext | None:
    """Read after a write that was acknowledged. If that fails, the write has succeeded all the same.

    Raises WriteDiscarded if the version did not change and what was written is not there (seen in live use).
    """
    version = write.version if isinstance(write, VersionedWrite) else None
    try:
        current = await write.resource.read(deadline)
    except SessionNotFound:
        if isinstance(write, VersionedWrite) and version is None:
            raise WriteDiscarded from None
        return None
    except GatewayError:
        return None
    if current.metadata.version == version and not write.is_in(current):
        raise WriteDiscarded
    return current
