"""Writes whose answers are lost, sent to an upstream that answers as it is told."""

from __future__ import annotations

import random
from contextlib import nullcontext
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING

import msgspec
import pytest

from gateway.deadline import Deadline
from gateway.errors import (
    GatewayError,
    PermissionDenied,
    SessionNotFound,
    UpstreamNotAsked,
    UpstreamTimeout,
    UpstreamUnreachable,
    VersionConflict,
    WriteOutcomeUnknown,
)
from gateway.model import decode_session_context
from gateway.sessions.contest import Contest
from gateway.sessions.delivery import UnversionedWrite, VersionedWrite, backoff

if TYPE_CHECKING:
    from gateway.model import SessionContext

LOST = UpstreamTimeout("the answer is lost")
REFUSED = PermissionDenied("no")
SOON = Deadline.after(3_600)
PLACE = ("acme", "s", 10)


@dataclass
class Upstream:
    """Fails each write and each read as told, in turn, and no longer. A read that does not fail finds `version`."""

    writes_fail: list[GatewayError] = field(default_factory=list)
    reads_fail: list[GatewayError] = field(default_factory=list)
    version: int = 10
    writes: int = 0
    reads: list[Deadline] = field(default_factory=list)

    async def write(self, _: Deadline) -> None:
        self.writes += 1
        if self.writes_fail:
            raise self.writes_fail.pop(0)

    async def read(self, deadline: Deadline) -> SessionContext:
        self.reads.append(deadline)
        if self.reads_fail:
            raise self.reads_fail.pop(0)
        return decode_session_context(msgspec.json.encode({"sessionId": "s", "metadata": {"version": self.version}}))


def is_there(current: SessionContext) -> bool:
    return current.metadata.version == 11


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Waits for a moment later, as long as they can be, and over at once."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(random, "uniform", lambda low, high: high - low)
    monkeypatch.setattr("gateway.sessions.delivery.asyncio", SimpleNamespace(sleep=sleep))
    return waits


async def deliver(upstream: Upstream) -> SessionContext | None:
    """A write to the place of version 10, which is there if the version is 11."""
    with Contest().entered() as entrant:
        write = VersionedWrite(upstream, upstream.write, is_there, place=PLACE, entrant=entrant, insists=True)
        return await write.run(SOON, max_attempts=4)


async def deliver_unversioned(upstream: Upstream) -> SessionContext | None:
    return await UnversionedWrite(upstream, upstream.write, is_there).run(SOON, max_attempts=4)


async def test_is_over_when_there_is_nothing_left_to_write_to() -> None:
    upstream = Upstream([LOST, SessionNotFound("s")], [SessionNotFound("s")])
    with pytest.raises(SessionNotFound):
        await deliver(upstream)
    assert upstream.writes == 2


@pytest.mark.parametrize("versioned", [True, False])
@pytest.mark.parametrize(
    ("writes_fail", "reads_fail"), [([LOST, REFUSED], []), ([LOST], [REFUSED])], ids=["the write", "the read"]
)
async def test_is_not_repeated_after_a_refusal_that_a_repetition_would_meet(
    versioned: bool, writes_fail: list[GatewayError], reads_fail: list[GatewayError]
) -> None:
    upstream = Upstream([*writes_fail], [*reads_fail])
    with pytest.raises(WriteOutcomeUnknown):
        await (deliver(upstream) if versioned else deliver_unversioned(upstream))
    assert (upstream.writes, len(upstream.reads)) == (len(writes_fail), len(writes_fail))


async def test_is_not_repeated_after_a_refusal_where_there_is_nothing_to_write_to() -> None:
    upstream = Upstream([LOST, REFUSED], [SessionNotFound("s"), SessionNotFound("s")])
    with pytest.raises(WriteOutcomeUnknown):
        await deliver(upstream)
    assert upstream.writes == 2


@pytest.mark.parametrize(
    "failure", [LOST, UpstreamUnreachable("down"), UpstreamNotAsked("late"), VersionConflict(10, None)]
)
async def test_is_repeated_when_it_may_succeed_a_moment_later(failure: GatewayError, waits: list[float]) -> None:
    upstream = Upstream([LOST, failure])
    assert await deliver(upstream) is None
    assert (upstream.writes, len(waits)) == (3, 2)


async def test_is_read_back_until_the_last_of_the_time(waits: list[float]) -> None:
    upstream = Upstream([LOST], [LOST, UpstreamUnreachable("down")], version=11)
    found = await deliver(upstream)
    assert found is not None
    assert found.metadata.version == 11
    assert [each is SOON for each in upstream.reads] == [False, False, True]
    assert len(waits) == 2


async def test_without_a_version_brings_what_was_read_back() -> None:
    upstream = Upstream([LOST], version=11)
    assert await deliver_unversioned(upstream) is not None
    assert (upstream.writes, len(upstream.reads)) == (1, 1)


async def test_waits_grow_and_never_last_beyond_the_deadline(waits: list[float]) -> None:
    for attempt in range(7):
        await backoff(attempt, SOON)
    assert waits == pytest.approx([0.04, 0.08, 0.16, 0.32, 0.5, 0.5])
    await backoff(6, Deadline.after(0.2))
    await backoff(6, Deadline.after(-1))
    assert 0.1 < waits[-2] <= 0.2
    assert waits[-1] == 0


@pytest.mark.parametrize(
    ("version", "rival_too", "verdict", "taken"),
    [(11, False, None, True), (11, True, None, False), (12, False, WriteOutcomeUnknown, False)],
    ids=["its own", "maybe", "unknown"],
)
async def test_takes_a_place_that_no_other_may_have_had(
    version: int, rival_too: bool, verdict: type[GatewayError] | None, taken: bool
) -> None:
    contest = Contest()
    with contest.entered() as content, contest.entered() as rival, rival.going_for(PLACE, lambda _: rival_too):
        upstream = Upstream([LOST], version=version)
        write = VersionedWrite(upstream, upstream.write, is_there, place=PLACE, entrant=content, insists=False)
        with pytest.raises(verdict) if verdict else nullcontext():
            assert await write.run(SOON, max_attempts=4) is not None
        assert rival.has_lost(PLACE) is taken


async def test_that_another_has_had_the_place_is_certain_also_when_more_has_been_written_since() -> None:
    """So it may be done anew, and need not be called unknown."""
    contest, upstream = Contest(), Upstream([LOST], version=12)
    with contest.entered() as content, contest.entered() as rival:
        with rival.going_for(PLACE, is_there):
            rival.won()
        write = VersionedWrite(upstream, upstream.write, is_there, place=PLACE, entrant=content, insists=False)
        with pytest.raises(VersionConflict):
            await write.run(SOON, max_attempts=4)
