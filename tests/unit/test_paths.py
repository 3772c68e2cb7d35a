"""No session id and no attribute name can reach another path than its own, nor arrive as another value."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.errors import InvalidArgument
from gateway.sandbox.request import split_path
from gateway.upstream import paths
from gateway.validation import MAX_SEGMENT

if TYPE_CHECKING:
    from collections.abc import Callable

HOSTILE = st.text(alphabet=["/", "\\", ".", "?", "#", "%", " ", "+", "&", "=", ";", ":", "@", "2", "e", "E", "f", "5"])
ANYTHING = st.text(alphabet=st.characters(exclude_categories=()), max_size=20)
"""Surrogates and control characters included."""
VALUES = (
    HOSTILE
    | ANYTHING
    | st.text(min_size=MAX_SEGMENT - 1, max_size=MAX_SEGMENT + 1)
    | st.text(alphabet="🛒ß", min_size=MAX_SEGMENT, max_size=MAX_SEGMENT)
)

BASE = "https://api.emporix.io"


def over_the_wire(path: str) -> tuple[str, ...]:
    """The segments that a server sees of a path; what httpx makes of it on the way must be nothing."""
    url = httpx.Request("GET", BASE + path).url
    assert url.raw_path == path.encode("ascii")
    assert (url.scheme, url.host, url.query, url.fragment) == ("https", "api.emporix.io", b"", "")
    return split_path(url.raw_path)


def path_or_none(build: Callable[[], str]) -> str | None:
    try:
        return build()
    except InvalidArgument:
        return None


def must_be_refused(value: str) -> bool:
    return (
        value in {"", ".", ".."}
        or len(value) > MAX_SEGMENT
        or "\x00" in value
        or any(0xD800 <= ord(char) <= 0xDFFF for char in value)
    )


@given(VALUES, VALUES)
@example("..", "a")
@example("%2e%2e", "%2E")
@example("../../me/context", "..\\..")
@example("a/attributes/b", "?upsert=true")
@example("x#y", "\x7f\x01\r\n")
def test_any_session_id_and_attribute_name_arrive_as_they_are_or_are_refused(session_id: str, name: str) -> None:
    path = path_or_none(lambda: paths.attribute("acme", session_id, name))
    assert (path is None) == (must_be_refused(session_id) or must_be_refused(name))
    if path is not None:
        assert over_the_wire(path) == ("session-context", "acme", "context", session_id, "attributes", name)


@given(VALUES)
def test_any_session_id_arrives_as_it_is_or_is_refused(session_id: str) -> None:
    path = path_or_none(lambda: paths.session("acme", session_id))
    assert (path is None) == must_be_refused(session_id)
    if path is not None:
        assert over_the_wire(path) == ("session-context", "acme", "context", session_id)
        assert paths.attributes("acme", session_id) == f"{path}/attributes"


@given(VALUES)
def test_any_name_of_an_own_attribute_arrives_as_it_is_or_is_refused(name: str) -> None:
    path = path_or_none(lambda: paths.own_attribute("acme", name))
    assert (path is None) == must_be_refused(name)
    if path is not None:
        assert over_the_wire(path) == ("session-context", "acme", "me", "context", "attributes", name)


def test_the_own_paths_have_no_session_id() -> None:
    assert paths.own_session("acme") == "/session-context/acme/me/context"
    assert paths.own_attributes("acme") == "/session-context/acme/me/context/attributes"


@pytest.mark.parametrize(
    "value", ["%2e%2e", "%2E", "%2f", "%", "%%", "%zz", "...", ".a", "a.", "..a", " ", "~", "+", "*"]
)
def test_what_looks_encoded_or_odd_is_taken_literally(value: str) -> None:
    assert over_the_wire(paths.session("acme", value))[-1] == value
    assert over_the_wire(paths.attribute("acme", value, value))[3::2] == (value, value)


@pytest.mark.parametrize("value", ["", ".", "..", "a\x00b", "\ud800", "a" * 257])
def test_what_can_not_stand_in_a_path_is_refused_under_its_name(value: str) -> None:
    builds: list[tuple[Callable[[], str], str]] = [
        (lambda: paths.session("acme", value), "session_id"),
        (lambda: paths.attributes("acme", value), "session_id"),
        (lambda: paths.attribute("acme", value, "a"), "session_id"),
        (lambda: paths.attribute("acme", "s", value), "attribute_name"),
        (lambda: paths.own_attribute("acme", value), "attribute_name"),
    ]
    for build, field in builds:
        with pytest.raises(InvalidArgument) as caught:
            build()
        assert [each.field for each in caught.value.violations] == [field]


TENANTS = (
    st.from_regex(r"[a-z][a-z0-9]{0,18}", fullmatch=True)
    | st.text(max_size=18)
    | st.text(alphabet="ab0_-/.A\n", max_size=18)
)


@given(TENANTS)
@example("acme\n")
@example("ab")
@example("abc")
@example("a" * 16)
@example("a" * 17)
@example("Acme")
@example("acmé")
@example("a\u0661\u0662")
def test_only_tenants_by_the_reference_pass(tenant: str) -> None:
    good = re.compile(r"[a-z][a-z0-9]+").fullmatch(tenant) is not None and 3 <= len(tenant) <= 16
    builds: list[Callable[[], str]] = [
        lambda: paths.session(tenant, "s"),
        lambda: paths.attributes(tenant, "s"),
        lambda: paths.attribute(tenant, "s", "a"),
        lambda: paths.own_session(tenant),
        lambda: paths.own_attributes(tenant),
        lambda: paths.own_attribute(tenant, "a"),
    ]
    for build in builds:
        path = path_or_none(build)
        assert (path is not None) == good
        if path is not None:
            assert over_the_wire(path)[1] == tenant
