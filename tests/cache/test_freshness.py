"""Whether an entry may answer, case by case; what callers ask for, in HTTP's words; and what they are told."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.cache.freshness import CacheStatus, Policy, ReadOptions, Use, combined, parse_cache_control, use_of

FRESH, STALE, IF_ERROR, NONE = Use.FRESH, Use.STALE, Use.IF_ERROR, Use.NONE

WINDOWS = Policy(ttl=10, stale_while_revalidate=5, stale_if_error=20, missing_ttl=3)
NO_WINDOWS = Policy(ttl=10)
ONLY_REVALIDATE = Policy(ttl=10, stale_while_revalidate=5)
ONLY_IF_ERROR = Policy(ttl=10, stale_if_error=20)
LONGER_REVALIDATE = Policy(ttl=10, stale_while_revalidate=20, stale_if_error=5)

AGES = (0.0, 9.9, 10.0, 14.9, 15.0, 29.9, 30.0)
BY_AGE = [
    # policy, largest age asked for      0      9.9    10        14.9      15        29.9      30
    (WINDOWS, None, (FRESH, FRESH, STALE, STALE, IF_ERROR, IF_ERROR, NONE)),
    (NO_WINDOWS, None, (FRESH, FRESH, NONE, NONE, NONE, NONE, NONE)),
    (ONLY_REVALIDATE, None, (FRESH, FRESH, STALE, STALE, NONE, NONE, NONE)),
    (ONLY_IF_ERROR, None, (FRESH, FRESH, IF_ERROR, IF_ERROR, IF_ERROR, IF_ERROR, NONE)),
    (LONGER_REVALIDATE, None, (FRESH, FRESH, STALE, STALE, STALE, STALE, NONE)),
    (WINDOWS, 0.0, (NONE, NONE, NONE, NONE, NONE, NONE, NONE)),
    (WINDOWS, 9.9, (FRESH, NONE, NONE, NONE, NONE, NONE, NONE)),
    (WINDOWS, 12.0, (FRESH, FRESH, NONE, NONE, NONE, NONE, NONE)),
    (WINDOWS, 1e9, (FRESH, FRESH, NONE, NONE, NONE, NONE, NONE)),
]
CELLS = [
    pytest.param(
        policy, max_age, age, use, id=f"{policy.stale_while_revalidate}-{policy.stale_if_error}-{max_age}-{age}"
    )
    for policy, max_age, uses in BY_AGE
    for age, use in zip(AGES, uses, strict=True)
]


@pytest.mark.parametrize(("policy", "max_age", "age", "use"), CELLS)
@pytest.mark.parametrize("min_version", [None, 0, 6, 7])
def test_a_version_that_is_high_enough_leaves_it_to_the_age(
    policy: Policy, max_age: float | None, age: float, use: Use, min_version: int | None
) -> None:
    assert use_of(age, 7, policy, ReadOptions(max_age, min_version)) is use


@pytest.mark.parametrize(("policy", "max_age", "age", "use"), CELLS)
def test_a_version_that_is_too_low_is_good_for_nothing_at_any_age(
    policy: Policy, max_age: float | None, age: float, use: Use
) -> None:
    assert use_of(age, 7, policy, ReadOptions(max_age, 8)) is NONE


@pytest.mark.parametrize(
    ("age", "max_age", "use"),
    [
        (0.0, None, FRESH),
        (2.9, None, FRESH),
        (3.0, None, NONE),
        (12.0, None, NONE),
        (25.0, None, NONE),
        (0.0, 0.0, NONE),
        (1.0, 1.0, NONE),
        (1.0, 2.0, FRESH),
        (3.0, 60.0, NONE),
    ],
)
def test_that_there_is_none_is_good_for_its_own_time_and_never_stale(
    age: float, max_age: float | None, use: Use
) -> None:
    assert use_of(age, None, WINDOWS, ReadOptions(max_age)) is use


@pytest.mark.parametrize("min_version", [0, 1])
def test_that_there_is_none_is_no_answer_to_who_has_seen_a_version(min_version: int) -> None:
    assert use_of(0, None, WINDOWS, ReadOptions(min_version=min_version)) is NONE


def test_that_there_is_none_is_good_for_nothing_unless_set() -> None:
    assert use_of(0, None, NO_WINDOWS, ReadOptions()) is NONE


def test_version_zero_is_a_version() -> None:
    assert use_of(0, 0, NO_WINDOWS, ReadOptions(min_version=0)) is FRESH
    assert use_of(0, 0, NO_WINDOWS, ReadOptions(min_version=1)) is NONE


seconds = st.floats(0, 100)


@given(
    seconds, st.none() | st.integers(0, 9), st.builds(Policy, seconds, seconds, seconds, seconds), st.none() | seconds
)
def test_nothing_older_than_its_lifetime_or_than_asked_for_is_ever_served(
    age: float, version: int | None, policy: Policy, max_age: float | None
) -> None:
    if use_of(age, version, policy, ReadOptions(max_age)) is not NONE:
        assert age < policy.lifetime
        assert max_age is None or age < max_age


@pytest.mark.parametrize(
    ("first", "second", "both"),
    [(None, None, None), (None, 3.0, 3.0), (3.0, None, 3.0), (3.0, 2.0, 2.0), (2.0, 3.0, 2.0)],
)
def test_the_smaller_of_two_largest_ages_counts(first: float | None, second: float | None, both: float | None) -> None:
    assert ReadOptions(first, 7).stricter(second) == ReadOptions(both, 7)


@pytest.mark.parametrize(
    ("value", "largest"),
    [
        (None, None),
        ("", None),
        ("no-cache", 0),
        ("no-store", 0),
        ("No-Cache", 0),
        ("max-age=5", 5),
        ("MAX-AGE=5", 5),
        ('max-age="5"', 5),
        ("max-age=0", 0),
        ("max-age=05", 5),
        ("max-age = 5", 5),
        (" max-age=5 ", 5),
        ("max-age=5,max-age=3", 3),
        ("max-age=5, no-cache", 0),
        ("private,,max-age=5,", 5),
        ("max-stale=60, max-age=5, only-if-cached", 5),
        ("max-age=99999999999999999999", 1e20),
        ("max-age=" + "9" * 400, math.inf),
        ("max-age", None),
        ("max-age=", None),
        ("max-age=-1", None),
        ("max-age=1.5", None),
        ("max-age=1e3", None),
        ("max-age=soon", None),
        ("max-age=5;", None),
        ("max-age=٣", None),
        ("max-age=\u00b2", None),
        ("x-max-age=5", None),
        ("x_max-age=5", None),
        ("xno-cache", None),
        ("no_cache, nocache, no-cache-at-all", None),
        ('no-cache="set-cookie"', None),
    ],
)
def test_a_cache_control_header_says(value: str | None, largest: float | None) -> None:
    assert parse_cache_control(value) == largest


@given(st.text() | st.text(alphabet='max-age=no,che0123 "store'))
@example('foo="a, no-cache"')
def test_no_garbage_in_a_header_fails_or_loosens_what_the_rest_of_it_says(garbage: str) -> None:
    alone = parse_cache_control(garbage)
    assert alone is None or alone >= 0
    for value in (f"max-age=5, {garbage}", f"{garbage}, max-age=5"):
        together = parse_cache_control(value)
        assert together is not None
        assert together <= 5


@pytest.mark.parametrize("piece", ["a", " ", "\t", "-", "max-age=", "max-age=5", "no-cache ", '"', "a=", "="])
def test_a_header_of_any_length_costs_little(piece: str) -> None:
    """Time grows with the length, not with its square, which would be minutes here. The bound is generous."""
    value = piece * (400_000 // len(piece)) + "!"
    began = time.perf_counter()
    parse_cache_control(value)
    assert time.perf_counter() - began < 2


@pytest.mark.parametrize(
    ("status", "header"),
    [
        (CacheStatus(hit=True, ttl=4.2), "session-gateway; hit; ttl=4"),
        (CacheStatus(hit=True, ttl=0.0), "session-gateway; hit; ttl=0"),
        (CacheStatus(hit=True, ttl=-0.5), "session-gateway; hit; ttl=-1"),
        (
            CacheStatus(hit=True, ttl=-30.0, detail="UPSTREAM_FAULT"),
            "session-gateway; hit; ttl=-30; detail=UPSTREAM_FAULT",
        ),
        (CacheStatus(fwd="bypass"), "session-gateway; fwd=bypass"),
        (CacheStatus(fwd="request"), "session-gateway; fwd=request"),
        (CacheStatus(fwd="miss", stored=True, ttl=30), "session-gateway; fwd=miss; ttl=30; stored"),
        (CacheStatus(fwd="stale", collapsed=True), "session-gateway; fwd=stale; collapsed"),
        (
            CacheStatus(fwd="miss", stored=True, collapsed=True, ttl=29.99),
            "session-gateway; fwd=miss; ttl=29; stored; collapsed",
        ),
    ],
)
def test_where_an_answer_came_from_is_told_in_the_words_of_rfc_9211(status: CacheStatus, header: str) -> None:
    assert status.header() == header


HIT, OLD_HIT = CacheStatus(hit=True, ttl=20.0, age=10.0), CacheStatus(hit=True, ttl=5.0, age=25.0)
MISS, JOINED = CacheStatus(fwd="miss", stored=True, ttl=30.0), CacheStatus(fwd="miss", collapsed=True)


@pytest.mark.parametrize(
    ("statuses", "of_all"),
    [
        ([], CacheStatus()),
        ([HIT, OLD_HIT], CacheStatus(hit=True, ttl=5.0, age=25.0)),
        ([HIT, MISS], CacheStatus(fwd="miss", stored=True, ttl=20.0, age=10.0)),
        ([MISS, JOINED], CacheStatus(fwd="miss", collapsed=True, ttl=30.0)),
        (
            [OLD_HIT, CacheStatus(fwd="stale", ttl=-5.0, age=35.0, detail="UPSTREAM_FAULT")],
            CacheStatus(fwd="stale", ttl=-5.0, age=35.0, detail="UPSTREAM_FAULT"),
        ),
    ],
    ids=["none", "hits", "one of them is stored", "one of them is not", "one of them is stale"],
)
def test_an_answer_of_several_reads_is_as_good_as_the_worst(statuses: list[CacheStatus], of_all: CacheStatus) -> None:
    assert combined(statuses) == of_all
