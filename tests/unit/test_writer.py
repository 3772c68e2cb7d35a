"""Writes of one process that meet each other, with an upstream that does as it is told."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec
import pytest

from gateway.deadline import Deadline
from gateway.errors import SessionNotFound, UpstreamTimeout, VersionConflict, WriteOutcomeUnknown
from gateway.model import Replacement, decode_session_context
from gateway.sessions.changes import Replace
from gateway.sessions.contest import Contest
from gateway.sessions.locks import SessionLocks
from gateway.sessions.versioning import Rival
from gateway.sessions.writer import Change, WriteOptions, Writer, Written
from gateway.telemetry import Unobserved

if TYPE_CHECKING:
    from gateway.model import JSON, SessionContext


def context_of(version: int) -> SessionContext:
    return decode_session_context(msgspec.json.encode({"sessionId": "s", "metadata": {"version": version}}))


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
        return context_of(version)

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


@pytest.mark.parametrize("replaces", [False, True])
@pytest.mark.parametrize(
    ("tenant", "same", "told"),
    [("acme", True, "unknown"), ("globex", True, "applied"), ("acme", False, "applied")],
    ids=["who wrote the very same", "to another place", "something else"],
)
async def test_whose_answer_is_on_its_way_counts_where_it_may_be_what_another_reads_back(
    tenant: str, same: bool, told: str, replaces: bool
) -> None:
    """Else both are told of success, once the answer is there, and one of them is wrong."""
    upstream, applied, answers = Upstream(), asyncio.Event(), asyncio.Event()
    writer = Writer(max_attempts=5, max_document=1000, observer=Unobserved())
    options = WriteOptions(Deadline.after(10), expected_version=10)

    def render(before: SessionContext) -> bytes:
        return msgspec.json.encode(before.metadata.version)

    async def applied_at_once(document: bytes, deadline: Deadline) -> None:
        await upstream.write(document, deadline)
        applied.set()
        await answers.wait()

    async def lost(_: bytes, __: Deadline) -> None:
        await applied.wait()
        raise UpstreamTimeout("lost")

    another = Change(render, applied_at_once, lambda after: same and after.metadata.version > 10)
    acknowledged = asyncio.create_task(writer.change(tenant, upstream, another, options))
    if replaces:
        own = writer.replace("acme", upstream, Replace("s", Replacement(), 10), lost, options, upsert=False)
    else:
        change = Change(render, lost, lambda after: after.metadata.version > 10)
        own = writer.change("acme", upstream, change, options)
    try:
        outcome = "applied" if (await own).attempts == 1 else "repeated"
    except WriteOutcomeUnknown:
        outcome = "unknown"
    answers.set()

    assert outcome == told
    assert (await acknowledged).attempts == 1


async def test_what_is_gone_as_it_is_read_back_was_no_discarded_write_unless_it_was_to_be_created() -> None:
    class Gone(Upstream):
        async def read(self, _: Deadline) -> SessionContext:
            raise SessionNotFound("s")

        async def write(self, document: bytes, _: Deadline) -> None:
            self.writes += 1

        async def add_attribute(self, name: str, value: JSON, _: Deadline) -> None:
            self.writes += 1

        async def remove_attribute(self, name: str, _: Deadline) -> bool:
            return True

    gone, replaced = Gone(), Replace("s", Replacement(), 10)
    writer, options = Writer(max_attempts=5, max_document=1000, observer=Unobserved()), WriteOptions(Deadline.after(10))
    assert await writer.add_attribute(gone, "color", 1, options) == Written(None, attempts=1)
    assert await writer.replace("acme", gone, replaced, gone.write, options, upsert=True) == Written(None, attempts=1)


async def test_attempts_are_counted_over_all_rounds() -> None:
    upstream = Upstream()
    failures = iter([VersionConflict(10, None), *[UpstreamTimeout("lost")] * 10])
    writer = Writer(max_attempts=3, max_document=1000, observer=Unobserved())

    async def fail(_: bytes, __: Deadline) -> None:
        upstream.writes += 1
        raise next(failures)

    change = Change(lambda _: b"", fail, lambda _: False)
    with pytest.raises(WriteOutcomeUnknown):
        await writer.change("acme", upstream, change, WriteOptions(Deadline.after(10)))
    assert upstream.writes == 3


async def test_of_writes_that_have_ended_none_counts_as_under_way() -> None:
    upstream = Upstream()
    writer = Writer(max_attempts=5, max_document=1000, observer=Unobserved())
    change = Change(lambda before: msgspec.json.encode(before.metadata.version), upstream.write, lambda _: True)
    for version in (10, 11, 10):
        with contextlib.suppress(VersionConflict):
            await writer.change("acme", upstream, change, WriteOptions(Deadline.after(10), expected_version=version))
    assert upstream.writes == 2
    assert writer._contest._entrants == {}


def test_who_no_longer_goes_for_a_place_is_nobodys_rival_there() -> None:
    contest, place, after = Contest(), ("acme", "s", 10), context_of(11)
    with contest.entered() as one, contest.entered() as other, other.going_for(place, lambda _: True):
        with one.going_for(place, lambda _: True):
            assert other.rival(after) is Rival.POSSIBLE
        assert other.rival(after) is Rival.NONE


def test_a_place_is_not_lost_to_who_had_it_before() -> None:
    """As of sessions that are created, deleted behind the gateway's back and created anew."""
    contest, place = Contest(), ("acme", "s", None)
    with contest.entered() as under_way:
        with contest.entered() as before, before.going_for(place, lambda _: True):
            before.won()
        with contest.entered() as after:
            assert (under_way.has_lost(place), after.has_lost(place)) == (True, False)


async def test_who_has_waited_half_of_its_time_goes_ahead_and_leaves_the_lock_to_who_has_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    locks, timeout = SessionLocks(), asyncio.timeout
    patience: list[float | None] = []
    gone_ahead: list[str] = []

    def over_at_once(seconds: float | None) -> asyncio.Timeout:
        patience.append(seconds)
        return timeout(None if seconds is None else 0)

    async def take(name: str, deadline: Deadline) -> None:
        async with locks.held("acme", "s", deadline):
            gone_ahead.append(name)

    monkeypatch.setattr(asyncio, "timeout", over_at_once)
    async with locks.held("acme", "s", Deadline.never()):
        await take("impatient", Deadline.after(100))
        patient = asyncio.create_task(take("patient", Deadline.never()))
        await take("another", Deadline.after(100))
        assert gone_ahead == ["impatient", "another"]
    await patient

    assert gone_ahead == ["impatient", "another", "patient"]
    assert patience == [None, pytest.approx(50, abs=5), pytest.approx(50, abs=5), None]
