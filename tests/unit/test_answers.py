"""How large an answer is: never told to be larger than it is, and never far from it. And how it is encoded."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.graphql.answers import Json, encode, exceeds

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
ANSWERS = st.recursive(
    SCALARS,
    lambda inner: (
        JSON.map(Json) | st.lists(inner) | st.dictionaries(st.text(), inner) | inner.map(encode).map(msgspec.Raw)
    ),
)


@given(ANSWERS)
def test_what_fits_never_exceeds(answer: object) -> None:
    assert not exceeds(answer, len(encode(answer)))


def test_what_is_far_larger_exceeds() -> None:
    numbers: dict[str, object] = {f"{n}": 1 for n in range(200)}
    answers: list[object] = ["x" * 1000, ["x"] * 400, numbers, [[]] * 400, msgspec.Raw(b"1" * 1000), Json([[]] * 400)]
    for answer in answers:
        assert exceeds(answer, 800)
        assert exceeds({"data": [answer]}, 800)


def test_counting_ends_where_it_exceeds() -> None:
    """Or what is refused would cost as much as what is sent."""
    circle: list[object] = []
    circle.append(circle)

    assert exceeds(circle, 1000)


@given(JSON)
def test_json_is_encoded_as_it_is(value: object) -> None:
    assert encode([Json(value), {"a": Json(value)}]) == msgspec.json.encode([value, {"a": value}])


def test_json_is_encoded_once() -> None:
    value = ["a"]
    json = Json(value)
    assert not exceeds(json, 5)
    value[0] = "b"

    assert encode({"a": json, "b": json}) == b'{"a":["a"],"b":["a"]}'


def test_what_is_no_answer_is_not_encoded() -> None:
    with pytest.raises(TypeError, match="object is nothing to answer"):
        encode({"a": object()})
