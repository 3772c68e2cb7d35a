"""What session contexts may hold, for Hypothesis."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from hypothesis import strategies as st

from gateway.model import MAX_VERSION, UPSTREAM_NAMES, SessionContext, decode_session_context

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

    from gateway.model import JSON

Document: TypeAlias = dict[str, Any]

OPTIONAL: Final = ("customerId", "siteCode", "currency", "cartId", "targetLocation", "language")

NAMES: Final = st.sampled_from(
    ["a", "b", "color", "shoe size", "Größe.in cm", "emoji 🛒", "a/b", "`", "``", "*", "", "null", "\x00", "context"]
) | st.text(max_size=8)
"""Names of attributes: some that are odd, few enough to meet again."""

NUMBERS: Final = (
    st.integers(-10, 10)
    | st.integers(2**53 - 2, 2**53 + 2)
    | st.integers(-(10**40), 10**40)
    | st.floats(allow_nan=False, allow_infinity=False)
)
SCALARS: Final = st.none() | st.booleans() | NUMBERS | st.text(max_size=12)
VALUES: Final[SearchStrategy[JSON]] = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
ATTRIBUTES: Final[SearchStrategy[dict[str, JSON]]] = st.dictionaries(NAMES, VALUES, max_size=4)

_TIMES = st.sampled_from(
    [
        None,
        "2026-02-04T16:36:44.047Z",
        "1970-01-01T00:00:00Z",
        "2026-02-04T18:36:44.000001+02:00",
        "9999-12-31T23:59:59Z",
    ]
)
_UNKNOWN = st.dictionaries(
    NAMES.filter(lambda name: name not in UPSTREAM_NAMES.values()) | st.just("loyalty"), VALUES, max_size=3
)


@st.composite
def documents(draw: st.DrawFn) -> Document:
    """A session context as upstream may send it, the order of its members included."""
    metadata = {
        "version": draw(st.integers(0, 20) | st.integers(0, MAX_VERSION)),
        **draw(st.fixed_dictionaries({}, optional={"createdAt": _TIMES, "modifiedAt": _TIMES, "yrn": st.just("x")})),
    }
    fields = draw(
        st.fixed_dictionaries(
            {},
            optional={
                **{name: st.none() | st.text(max_size=8) for name in OPTIONAL},
                "context": st.none() | ATTRIBUTES,
            },
        )
    )
    whole = {"sessionId": draw(st.text(max_size=12)), "metadata": metadata, **fields, **draw(_UNKNOWN)}
    return {name: whole[name] for name in draw(st.permutations(list(whole)))}


@st.composite
def sources(draw: st.DrawFn) -> bytes:
    """The same, as one of the texts that it may be written by."""
    return written(draw(documents()), ascii_only=draw(st.booleans()), indent=draw(st.sampled_from([None, 0, 3])))


def written(document: JSON, *, ascii_only: bool = False, indent: int | None = None) -> bytes:
    return json.dumps(document, ensure_ascii=ascii_only, indent=indent).encode()


def session_context(document: JSON) -> SessionContext:
    return decode_session_context(written(document))


def same(one: JSON, other: JSON) -> bool:
    """Whether two JSON values are the same, numbers by their value, and true not being one."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and one == other
