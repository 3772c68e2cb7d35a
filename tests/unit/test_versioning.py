"""What is known of a versioned write whose answer was lost: the whole table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.unit_strategies import session_context

from gateway.model import MAX_VERSION, SessionContext
from gateway.sessions.versioning import Rival, Verdict, settle

VERSIONS = st.integers(0, MAX_VERSION)


def at(version: int) -> SessionContext:
    return session_context({"sessionId": "s", "metadata": {"version": version}})


@pytest.mark.parametrize(
    ("expected", "found", "is_there", "verdict"),
    [
        (None, None, False, Verdict.NOT_APPLIED),
        (None, 0, True, Verdict.APPLIED),
        (None, 1, True, Verdict.APPLIED),
        (None, 9, True, Verdict.APPLIED),
        (None, 0, False, Verdict.UNKNOWN),
        (None, 1, False, Verdict.UNKNOWN),
        (None, 9, False, Verdict.UNKNOWN),
        (7, None, False, Verdict.NOT_APPLIED),
        (7, 7, False, Verdict.NOT_APPLIED),
        (7, 7, True, Verdict.NOT_APPLIED),
        (7, 8, True, Verdict.APPLIED),
        (7, 8, False, Verdict.REFUSED),
        (7, 9, True, Verdict.APPLIED),
        (7, 9, False, Verdict.UNKNOWN),
        (7, 99, True, Verdict.APPLIED),
        (7, 99, False, Verdict.UNKNOWN),
        (7, 6, True, Verdict.REFUSED),
        (7, 6, False, Verdict.REFUSED),
        (7, 0, True, Verdict.REFUSED),
        (7, 0, False, Verdict.REFUSED),
        (0, 0, False, Verdict.NOT_APPLIED),
        (0, 1, True, Verdict.APPLIED),
        (0, 1, False, Verdict.REFUSED),
        (0, 2, False, Verdict.UNKNOWN),
        (0, None, False, Verdict.NOT_APPLIED),
    ],
)
def test_a_lost_answer_is_settled_by_what_is_there(
    expected: int | None, found: int | None, is_there: bool, verdict: Verdict
) -> None:
    assert settle(expected, None if found is None else at(found), is_there=is_there) is verdict


@given(VERSIONS, VERSIONS, st.booleans())
def test_a_write_counts_as_applied_only_when_it_is_there_and_the_version_has_risen(
    expected: int, found: int, is_there: bool
) -> None:
    verdict = settle(expected, at(found), is_there=is_there)
    assert (verdict is Verdict.APPLIED) == (is_there and found > expected)


@given(VERSIONS, VERSIONS, st.booleans())
def test_a_write_is_repeated_only_while_its_version_is_the_current_one(
    expected: int, found: int, is_there: bool
) -> None:
    verdict = settle(expected, at(found), is_there=is_there)
    assert (verdict is Verdict.NOT_APPLIED) == (found == expected)


@given(VERSIONS, VERSIONS)
def test_a_write_that_may_have_been_overwritten_since_is_never_called_a_conflict(expected: int, found: int) -> None:
    verdict = settle(expected, at(found), is_there=False)
    assert (verdict is Verdict.UNKNOWN) == (found > expected + 1)


@pytest.mark.parametrize(
    ("expected", "found", "is_there", "rival", "verdict"),
    [
        (7, None, False, Rival.CERTAIN, Verdict.NOT_APPLIED),
        (7, 7, True, Rival.CERTAIN, Verdict.NOT_APPLIED),
        (7, 7, False, Rival.POSSIBLE, Verdict.NOT_APPLIED),
        (7, 8, True, Rival.CERTAIN, Verdict.REFUSED),
        (7, 8, False, Rival.CERTAIN, Verdict.REFUSED),
        (7, 9, True, Rival.CERTAIN, Verdict.REFUSED),
        (7, 9, False, Rival.CERTAIN, Verdict.REFUSED),
        (7, 8, True, Rival.POSSIBLE, Verdict.UNKNOWN),
        (7, 8, False, Rival.POSSIBLE, Verdict.REFUSED),
        (7, 9, True, Rival.POSSIBLE, Verdict.UNKNOWN),
        (7, 9, False, Rival.POSSIBLE, Verdict.UNKNOWN),
        (7, 6, True, Rival.POSSIBLE, Verdict.REFUSED),
        (None, None, False, Rival.POSSIBLE, Verdict.NOT_APPLIED),
        (None, 1, True, Rival.POSSIBLE, Verdict.UNKNOWN),
        (None, 1, False, Rival.POSSIBLE, Verdict.UNKNOWN),
        (None, 1, True, Rival.CERTAIN, Verdict.REFUSED),
        (None, 1, False, Rival.CERTAIN, Verdict.REFUSED),
    ],
)
def test_a_rival_for_the_same_version_may_have_written_what_is_there(
    expected: int | None, found: int | None, is_there: bool, rival: Rival, verdict: Verdict
) -> None:
    current = None if found is None else at(found)
    assert settle(expected, current, is_there=is_there, rival=rival) is verdict


@given(st.none() | VERSIONS, st.none() | VERSIONS, st.booleans(), st.sampled_from(Rival))
def test_a_write_is_never_called_applied_while_it_has_a_rival(
    expected: int | None, found: int | None, is_there: bool, rival: Rival
) -> None:
    current = None if found is None else at(found)
    verdict = settle(expected, current, is_there=is_there and current is not None, rival=rival)
    assert verdict is not Verdict.APPLIED or rival is Rival.NONE
