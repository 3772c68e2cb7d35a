"""How large an answer is: never told to be larger than it is, and never far from it."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from gateway.graphql.sizes import exceeds

ANSWERS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | inner.map(msgspec.json.encode).map(msgspec.Raw),
)


@given(ANSWERS)
def test_what_fits_never_exceeds(answer: object) -> None:
    assert not exceeds(answer, len(msgspec.json.encode(answer)))


def test_what_is_far_larger_exceeds() -> None:
    numbers: dict[str, object] = {f"{n}": 1 for n in range(200)}
    answers: list[object] = ["x" * 1000, ["x"] * 400, numbers, [[]] * 400, msgspec.Raw(b"1" * 1000)]
    for answer in answers:
        assert exceeds(answer, 800)
        assert exceeds({"data": [answer]}, 800)


def test_counting_ends_where_it_exceeds() -> None:
    """Or what is refused would cost as much as what is sent."""
    circle: list[object] = []
    circle.append(circle)

    assert exceeds(circle, 1000)
