"""What the writes of one process know of each other."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from unit.unit_strategies import session_context

from gateway.sessions.contest import Contest
from gateway.sessions.versioning import Rival

if TYPE_CHECKING:
    from gateway.model import SessionContext
    from gateway.sessions.contest import Place

NOON = datetime(2026, 2, 4, 12, tzinfo=UTC)


def place(version: int) -> Place:
    return "acme", "s", version


def state(version: int, modified: datetime | None = NOON) -> SessionContext:
    times = {} if modified is None else {"modifiedAt": modified.isoformat()}
    return session_context({"sessionId": "s", "metadata": {"version": version, **times}})


def replaced(contest: Contest, version: int, left: SessionContext | None) -> None:
    """A write has had the place of that version, and has ended."""
    with contest.entered() as one, one.going_for(place(version), lambda _: True):
        one.won()
        if left is not None:
            one.left(left)


def seen_by_another(contest: Contest, version: int, found: SessionContext) -> Rival:
    """What one knows that begins now, and has read that after its answer was lost."""
    with contest.entered() as other, other.going_for(place(version), lambda _: True):
        return other.rival(found)


@pytest.mark.parametrize(
    ("left", "found", "rival"),
    [
        (state(8), state(8), Rival.CERTAIN),
        (state(9), state(9), Rival.CERTAIN),
        (state(8), state(9), Rival.NONE),
        (state(8), state(8, NOON + timedelta(milliseconds=1)), Rival.NONE),
        (state(8, None), state(8, None), Rival.NONE),
        (None, state(8), Rival.NONE),
    ],
)
def test_one_that_has_ended_counts_if_just_what_it_read_is_there(
    left: SessionContext | None, found: SessionContext, rival: Rival
) -> None:
    contest = Contest()
    replaced(contest, 7, left)
    assert seen_by_another(contest, 7, found) is rival


def test_one_that_has_had_another_version_does_not_count() -> None:
    contest = Contest()
    replaced(contest, 6, state(8))
    assert seen_by_another(contest, 7, state(8)) is Rival.NONE


def test_no_more_than_so_many_are_remembered() -> None:
    contest = Contest(max_taken=2)
    for version in (7, 8, 9):
        replaced(contest, version, state(version + 1))
    assert [seen_by_another(contest, each, state(each + 1)) for each in (7, 8, 9)] == [
        Rival.NONE,
        Rival.CERTAIN,
        Rival.CERTAIN,
    ]
