"""What a write makes of a document, and how it is told afterwards whether it was made."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from msgspec import Raw
from unit.unit_strategies import ATTRIBUTES, NAMES, VALUES, documents, same, session_context, sources

from gateway.errors import InvalidArgument
from gateway.model import UPSTREAM_NAMES, Replacement, decode_session_context
from gateway.sessions.changes import CLEAR, Assignment, Clear, Patch, Replace

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.model import JSON, SessionContext
    from gateway.sessions.changes import Path

SOURCE = rb"""{
    "sessionId" : "s1", "siteCode": "ma\u0069n", "currency": "EUR", "language": null,
    "loyalty": {"points": 12345678901234567890,  "rate": 1.50E+2, "caf\u00e9": "\u00e9"},
    "context": {
        "shoe size": 42.0, "big": 9007199254740993, "nothing": null,
        "deep": {"one": {"two": 1e2,  "three": "\u0033"}, "text": "t"}, "list": [1,  2]
    },
    "metadata": {"version": 7, "createdAt": "2026-02-04T16:36:44.047Z", "etag": "\u0065"}
}"""
CURRENT = decode_session_context(SOURCE)
NO_ATTRIBUTES = session_context({"sessionId": "s", "context": None, "metadata": {"version": 1}})


def patch(*assignments: tuple[Path, JSON | Clear]) -> Patch:
    return Patch(tuple(Assignment(path, value) for path, value in assignments))


def members(source: bytes | Raw, *path: str) -> dict[str, bytes]:
    """The members of an object in a document, each as it is written."""
    found = msgspec.json.decode(source, type=dict[str, Raw])
    for name in path:
        found = msgspec.json.decode(found[name], type=dict[str, Raw])
    return {name: bytes(raw) for name, raw in found.items()}


def without(names: dict[str, bytes], *left_out: str) -> dict[str, bytes]:
    return {name: raw for name, raw in names.items() if name not in left_out}


class TestTheWholeDocument:
    def test_keeps_what_is_not_named_to_the_byte(self) -> None:
        after = patch((("currency",), "CHF"), (("context", "deep", "one", "two"), [1])).whole(CURRENT)
        assert without(members(after), "currency", "context") == without(members(SOURCE), "currency", "context")
        assert members(after)["currency"] == b'"CHF"'
        assert without(members(after, "context"), "deep") == without(members(SOURCE, "context"), "deep")
        assert without(members(after, "context", "deep"), "one") == without(members(SOURCE, "context", "deep"), "one")
        assert members(after, "context", "deep", "one") == {"two": b"[1]", "three": rb'"\u0033"'}

    def test_keeps_the_order_of_the_members(self) -> None:
        after = patch((("currency",), "CHF"), (("cart_id",), "c"), (("context", "big"), 1)).whole(CURRENT)
        assert list(members(after)) == [*members(SOURCE), "cartId"]
        assert list(members(after, "context")) == list(members(SOURCE, "context"))

    @pytest.mark.parametrize(("ours", "theirs"), [each for each in UPSTREAM_NAMES.items() if each[0] != "metadata"])
    def test_names_fields_as_upstream_does(self, ours: str, theirs: str) -> None:
        assert members(patch(((ours,), "x")).whole(CURRENT))[theirs] == b'"x"'

    def test_has_the_version_that_it_was_made_from(self) -> None:
        after = patch((("context", "color"), "red")).whole(CURRENT)
        assert members(after)["metadata"] == members(SOURCE)["metadata"]

    def test_has_new_attributes_where_there_were_none(self) -> None:
        young = session_context({"sessionId": "s", "metadata": {"version": 0}})
        after = patch((("context", "a", "b"), 1), (("context", "a", "c"), None)).whole(young)
        assert json.loads(after)["context"] == {"a": {"b": 1, "c": None}}

    def test_has_the_last_word_of_several_on_one_field(self) -> None:
        after = patch((("currency",), "CHF"), (("currency",), "USD"), (("context",), {}), (("context", "a"), 1))
        assert members(after.whole(CURRENT))["currency"] == b'"USD"'
        assert members(after.whole(CURRENT))["context"] == b'{"a":1}'

    @pytest.mark.parametrize("value", [None, True, 0, -(2**70), 2**53 + 1, 1.5, "", "é\x00", [], {}, [{"a": [None]}]])
    def test_holds_any_json_value_as_it_was_given(self, value: JSON) -> None:
        after = json.loads(patch((("context", "deep", "new"), value)).whole(CURRENT))
        assert same(after["context"]["deep"]["new"], value)


class TestClearing:
    def test_a_field_makes_it_null_so_that_a_merge_forgets_it_too(self) -> None:
        assert members(patch((("currency",), CLEAR)).whole(CURRENT))["currency"] == b"null"

    def test_a_field_that_is_not_there_changes_nothing(self) -> None:
        assert members(patch((("cart_id",), CLEAR)).whole(CURRENT)) == members(SOURCE)

    def test_all_attributes_leaves_an_empty_object(self) -> None:
        assert members(patch((("context",), CLEAR)).whole(CURRENT))["context"] == b"{}"

    def test_an_attribute_takes_it_away(self) -> None:
        after = members(patch((("context", "shoe size"), CLEAR)).whole(CURRENT), "context")
        assert after == without(members(SOURCE, "context"), "shoe size")

    def test_an_attribute_that_is_null_takes_it_away(self) -> None:
        after = members(patch((("context", "nothing"), CLEAR)).whole(CURRENT), "context")
        assert after == without(members(SOURCE, "context"), "nothing")

    def test_a_nested_attribute_leaves_its_neighbours(self) -> None:
        after = members(patch((("context", "deep", "one", "two"), CLEAR)).whole(CURRENT), "context", "deep", "one")
        assert after == {"three": rb'"\u0033"'}

    @pytest.mark.parametrize(
        "path",
        [("context", "missing"), ("context", "missing", "deeper"), ("context", "deep", "missing", "deeper")],
    )
    def test_an_attribute_that_is_not_there_changes_nothing(self, path: Path) -> None:
        assert json.loads(patch((path, CLEAR)).whole(CURRENT)) == json.loads(SOURCE)

    def test_below_an_attribute_that_is_null_changes_nothing(self) -> None:
        assert json.loads(patch((("context", "nothing", "x"), CLEAR)).whole(CURRENT)) == json.loads(SOURCE)

    def test_is_not_the_same_as_null_for_an_attribute(self) -> None:
        after = members(patch((("context", "shoe size"), None)).whole(CURRENT), "context")
        assert after["shoe size"] == b"null"


class TestALeadIntoWhatIsNoObject:
    @pytest.mark.parametrize(
        "path",
        [
            ("context", "shoe size", "x"),
            ("context", "list", "0"),
            ("context", "deep", "text", "x"),
            ("context", "deep", "one", "two", "x", "y"),
        ],
    )
    @pytest.mark.parametrize("value", [1, {}, CLEAR])
    def test_is_refused_naming_the_attribute(self, path: Path, value: JSON | Clear) -> None:
        for render in (patch((path, value)).whole, patch((path, value)).partial):
            with pytest.raises(InvalidArgument) as caught:
                render(CURRENT)
            (violation,) = caught.value.violations
            assert violation.field == "update_mask"
            assert repr(path[-2]) in violation.message or repr(path[-3]) in violation.message

    def test_is_possible_when_it_is_null(self) -> None:
        after = patch((("context", "nothing", "x"), 1)).whole(CURRENT)
        assert members(after, "context")["nothing"] == b'{"x":1}'


class TestThePartialDocument:
    def test_has_the_version_and_what_changes_and_nothing_else(self) -> None:
        after = patch((("site_code",), "us"), (("language",), CLEAR)).partial(CURRENT)
        assert members(after) == {
            "siteCode": b'"us"',
            "language": b"null",
            "metadata": members(SOURCE)["metadata"],
        }

    def test_has_all_attributes_when_one_changes_since_upstream_replaces_the_map(self) -> None:
        after = patch((("context", "big"), 1)).partial(CURRENT)
        assert members(after).keys() == {"context", "metadata"}
        assert members(after, "context") == {**members(SOURCE, "context"), "big": b"1"}


ATTRIBUTE_PATHS = st.lists(NAMES, min_size=1, max_size=3).map(lambda names: ("context", *names))
FIELDS = ("customer_id", "site_code", "currency", "cart_id", "target_location", "language")


@st.composite
def patches(draw: st.DrawFn, current: JSON) -> Patch:
    """Changes that do not get into one another's way; some of them to attributes that are there."""
    there = [("context", *path) for path in _paths_in(current)]
    paths = ATTRIBUTE_PATHS if not there else st.sampled_from(there) | ATTRIBUTE_PATHS
    assignments = draw(
        st.lists(
            st.tuples(st.sampled_from(FIELDS).map(lambda name: (name,)), st.text(max_size=5) | st.just(CLEAR))
            | st.tuples(st.just(("context",)), ATTRIBUTES | st.just(CLEAR))
            | st.tuples(paths, VALUES | st.just(CLEAR)),
            max_size=4,
        )
    )
    chosen: list[tuple[Path, Any]] = []
    for path, value in assignments:
        if not any(path[: len(other)] == other or other[: len(path)] == path for other, _ in chosen):
            chosen.append((path, value))
    return patch(*chosen)


def _paths_in(document: JSON) -> list[tuple[str, ...]]:
    attributes = document.get("context") if isinstance(document, dict) else None
    return list(_below(attributes))


def _below(value: JSON) -> list[tuple[str, ...]]:
    if not isinstance(value, dict):
        return []
    return [path for name, inner in value.items() for path in ((name,), *((name, *rest) for rest in _below(inner)))]


@st.composite
def currents_and_patches(draw: st.DrawFn) -> tuple[SessionContext, Patch]:
    current = decode_session_context(draw(sources()))
    return current, draw(patches(json.loads(current.source)))


def applied(current: SessionContext, change: Patch) -> bytes:
    """The whole document after the change; leads into what is no object are another test's."""
    try:
        return change.whole(current)
    except InvalidArgument:
        assume(False)
        raise


def as_upstream_keeps(document: dict[str, JSON]) -> dict[str, JSON]:
    """Without what upstream leaves out: null fields, and an empty map of attributes."""
    return {
        name: value for name, value in document.items() if value is not None and not (name == "context" and value == {})
    }


@st.composite
def currents_and_changes_in_a_row(draw: st.DrawFn) -> tuple[SessionContext, Patch]:
    """Changes that do get into one another's way: to the same attributes, above and below one another."""
    current = decode_session_context(draw(sources()))
    names = st.sampled_from(["a", "b", "deep"])
    few = st.lists(names, min_size=1, max_size=3).map(lambda inner: ("context", *inner))
    there = [("context", *path) for path in _paths_in(json.loads(current.source))]
    changes = st.lists(
        st.tuples(st.sampled_from(FIELDS).map(lambda name: (name,)), st.text(max_size=5) | st.just(CLEAR))
        | st.tuples(st.just(("context",)), st.dictionaries(names, VALUES, max_size=2) | st.just(CLEAR))
        | st.tuples(
            few if not there else few | st.sampled_from(there),
            st.dictionaries(names, VALUES, max_size=2) | VALUES | st.just(CLEAR),
        ),
        max_size=6,
    )
    return current, patch(*draw(changes))


def one_after_another(current: SessionContext, change: Patch) -> bytes:
    """The document where each change is made to what the one before it has left, all of it written out in between."""
    document = msgspec.json.encode(msgspec.json.decode(current.source, type=dict[str, Raw]))
    for each in change.assignments:
        document = Patch((each,)).whole(decode_session_context(document))
    return document


def outcome(make: Callable[[], bytes]) -> bytes | str:
    try:
        return make()
    except InvalidArgument as error:
        return error.message


class TestSeveralChanges:
    @given(currents_and_changes_in_a_row())
    @example((CURRENT, patch((("context", "a", "b"), 1), (("context", "a"), CLEAR), (("context", "a", "c"), 2))))
    @example((CURRENT, patch((("context",), {"a": 1}), (("context", "a", "b"), 2))))
    @example((CURRENT, patch((("context", "deep", "one"), CLEAR), (("context",), CLEAR), (("context", "a"), None))))
    @example((NO_ATTRIBUTES, patch((("context", "a"), CLEAR), (("context",), CLEAR), (("context", "a", "b"), CLEAR))))
    def test_come_to_the_same_bytes_as_one_after_another(self, given_: tuple[SessionContext, Patch]) -> None:
        current, change = given_
        assert outcome(lambda: change.whole(current)) == outcome(lambda: one_after_another(current, change))

    @pytest.mark.parametrize("render", [Patch.whole, Patch.partial])
    @pytest.mark.parametrize("above", [(), ("deep",), ("deep", "one")])
    def test_to_one_object_take_it_apart_and_put_it_together_once(
        self, render: Callable[[Patch, SessionContext], bytes], above: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Or else a patch of a few thousand attributes stands still for seconds, and the process with it."""
        work = Work(monkeypatch)

        def of(changes: int) -> tuple[int, int]:
            change = patch(*((("context", *above, f"attribute {number}"), "x" * 20) for number in range(changes)))
            work.decoded, work.encoded = 0, 0
            size = len(render(change, CURRENT))
            return work.decoded, work.encoded - 2 * size

        assert of(100)[0] == of(1)[0]
        assert of(100)[1] <= 0, "what is encoded is each value, and then the whole"


class Work:
    """How many documents have been decoded, and how many bytes encoded."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.decoded = 0
        self.encoded = 0
        decode, encode = msgspec.json.decode, msgspec.json.encode

        def decoding(*args: Any, **kwargs: Any) -> Any:
            self.decoded += 1
            return decode(*args, **kwargs)

        def encoding(*args: Any, **kwargs: Any) -> bytes:
            encoded = encode(*args, **kwargs)
            self.encoded += len(encoded)
            return encoded

        monkeypatch.setattr(msgspec.json, "decode", decoding)
        monkeypatch.setattr(msgspec.json, "encode", encoding)


class TestAnyPatchOfAnyDocument:
    @given(currents_and_patches())
    def test_is_in_the_document_that_it_makes(self, given_: tuple[SessionContext, Patch]) -> None:
        current, change = given_
        assert change.is_in(decode_session_context(applied(current, change)))

    @given(currents_and_patches())
    def test_is_still_in_it_when_upstream_has_left_out_what_is_empty(
        self, given_: tuple[SessionContext, Patch]
    ) -> None:
        current, change = given_
        assert change.is_in(session_context(as_upstream_keeps(json.loads(applied(current, change)))))

    @given(currents_and_patches())
    @example((CURRENT, patch((("context", "missing"), {}))))
    @example((CURRENT, patch((("context", "deep", "missing"), {}))))
    @example((CURRENT, patch((("context", "nothing"), CLEAR))))
    @example((NO_ATTRIBUTES, patch((("context",), {}))))
    def test_is_in_no_document_that_it_would_change(self, given_: tuple[SessionContext, Patch]) -> None:
        current, change = given_
        before, after = json.loads(current.source), json.loads(applied(current, change))
        assert change.is_in(current) == same(as_upstream_keeps(before), as_upstream_keeps(after))

    @given(currents_and_patches())
    def test_leaves_all_else_to_the_byte(self, given_: tuple[SessionContext, Patch]) -> None:
        current, change = given_
        after = members(applied(current, change))
        before = members(current.source)
        touched = {UPSTREAM_NAMES[each.path[0]] for each in change.assignments}
        assert without(after, *touched) == without(before, *touched)
        attributes = {each.path[1] for each in change.assignments if len(each.path) > 1}
        if attributes and isinstance(json.loads(before.get("context", b"null")), dict):
            was, is_ = members(current.source, "context"), members(applied(current, change), "context")
            assert without(is_, *attributes) == without(was, *attributes)

    @given(currents_and_patches())
    def test_has_a_partial_document_that_is_the_part_of_the_whole_that_it_touches(
        self, given_: tuple[SessionContext, Patch]
    ) -> None:
        current, change = given_
        whole = members(applied(current, change))
        touched = {UPSTREAM_NAMES[each.path[0]] for each in change.assignments} | {"metadata"}
        assert members(change.partial(current)) == {name: raw for name, raw in whole.items() if name in touched}

    @given(currents_and_patches())
    def test_changes_nothing_more_the_second_time(self, given_: tuple[SessionContext, Patch]) -> None:
        current, change = given_
        once = applied(current, change)
        assert json.loads(change.whole(decode_session_context(once))) == json.loads(once)


class TestWhetherAPatchIsThere:
    @pytest.mark.parametrize(
        ("path", "value", "expected"),
        [
            (("currency",), "EUR", True),
            (("currency",), "CHF", False),
            (("currency",), CLEAR, False),
            (("language",), CLEAR, True),
            (("cart_id",), CLEAR, True),
            (("cart_id",), "", False),
            (("context",), CLEAR, False),
            (("context", "shoe size"), 42, True),
            (("context", "shoe size"), "42", False),
            (("context", "list"), [1, 2], True),
            (("context", "list"), [1, 2, 3], False),
            (("context", "list"), [True, 2], False),
            (("context", "big"), 9007199254740993, True),
            (("context", "big"), 9007199254740992, False),
            (("context", "big"), float(2**53), False),
            (("context", "nothing"), None, True),
            (("context", "nothing"), False, False),
            (("context", "missing"), None, False),
            (("context", "missing"), CLEAR, True),
            (("context", "deep", "one", "two"), 100, True),
            (("context", "deep", "one"), {"two": 100}, False),
            (("context", "deep", "text", "x"), CLEAR, True),
            (("context", "deep", "text", "x"), "t", False),
        ],
    )
    def test_is_told_by_its_value(self, path: Path, value: JSON | Clear, expected: bool) -> None:
        assert patch((path, value)).is_in(CURRENT) is expected

    def test_needs_all_of_its_changes(self) -> None:
        assert not patch((("currency",), "EUR"), (("site_code",), "us")).is_in(CURRENT)
        assert patch((("currency",), "EUR"), (("site_code",), "main")).is_in(CURRENT)

    def test_is_denied_for_an_empty_object_that_is_not_there(self) -> None:
        assert not patch((("context", "missing"), {})).is_in(CURRENT)

    @pytest.mark.parametrize("value", [{}, None])
    def test_is_denied_for_a_removal_while_the_attribute_is_there(self, value: JSON) -> None:
        current = session_context({"sessionId": "s", "context": {"a": value}, "metadata": {"version": 1}})
        assert not patch((("context", "a"), CLEAR)).is_in(current)

    @pytest.mark.parametrize("attributes", [{}, None])
    def test_is_confirmed_for_no_attributes_however_upstream_says_so(self, attributes: JSON) -> None:
        document: JSON = {"sessionId": "s", "context": attributes, "metadata": {"version": 1}}
        for change in (patch((("context",), CLEAR)), patch((("context",), {}))):
            assert change.is_in(session_context(document))
            assert change.is_in(session_context({"sessionId": "s", "metadata": {"version": 1}}))

    def test_is_told_for_attributes_as_deep_as_upstream_may_send(self) -> None:
        deep = b'{"a":' * 700 + b"1" + b"}" * 700
        current = decode_session_context(b'{"sessionId":"s","metadata":{"version":1},"context":' + deep + b"}")
        assert patch((("context",), msgspec.json.decode(deep))).is_in(current)


REPLACEMENTS = st.builds(
    Replacement,
    **{name: st.none() | st.text(max_size=5) for name in FIELDS},
    context=st.none() | ATTRIBUTES,
    additional_properties=st.none()
    | st.dictionaries(NAMES.filter(lambda name: name not in UPSTREAM_NAMES.values()), VALUES, max_size=3),
)


class TestAReplacement:
    def test_says_of_every_known_field_what_becomes_of_it(self) -> None:
        document = json.loads(Replace("s1", Replacement(currency="EUR"), 7).document())
        assert document == {
            "sessionId": "s1",
            "customerId": None,
            "siteCode": None,
            "currency": "EUR",
            "cartId": None,
            "targetLocation": None,
            "language": None,
            "context": {},
            "metadata": {"version": 7},
        }

    def test_has_no_version_when_it_creates(self) -> None:
        assert "metadata" not in json.loads(Replace("s1", Replacement(), None).document())

    def test_has_the_version_zero_like_any_other(self) -> None:
        assert json.loads(Replace("s1", Replacement(), 0).document())["metadata"] == {"version": 0}

    def test_writes_the_session_and_version_of_the_request_and_not_those_of_the_message(self) -> None:
        replacement = Replacement(session_id="other", version=3, rounded_attributes=("big",))
        document = json.loads(Replace("s1", replacement, 7).document())
        assert document["sessionId"] == "s1"
        assert document["metadata"] == {"version": 7}
        assert document.keys() <= set(UPSTREAM_NAMES.values())

    @given(documents(), REPLACEMENTS)
    def test_is_in_what_upstream_keeps_of_it(self, before: dict[str, Any], replacement: Replacement) -> None:
        change = Replace("s1", replacement, 7)
        after = json.loads(change.document())
        after["metadata"] = {"version": 8}
        assert change.is_in(session_context(after))
        assert change.is_in(session_context(as_upstream_keeps(after)))
        assert change.is_in(session_context({**before, **after}))

    @pytest.mark.parametrize(
        "change",
        [
            {"currency": "CHF"},
            {"currency": None},
            {"cartId": "c"},
            {"context": {"a": 1, "b": 2}},
            {"context": {"a": True}},
            {"context": {}},
            {"loyalty": None},
            {"loyalty": {}},
        ],
    )
    def test_is_not_in_a_document_that_differs(self, change: dict[str, JSON]) -> None:
        replacement = Replacement(currency="EUR", context={"a": 1}, additional_properties={"loyalty": [1]})
        there: dict[str, Any] = json.loads(Replace("s1", replacement, 7).document())
        assert Replace("s1", replacement, 7).is_in(session_context(there))
        assert not Replace("s1", replacement, 7).is_in(session_context({**there, **change}))

    @given(REPLACEMENTS)
    def test_holds_everything_of_the_new_state(self, replacement: Replacement) -> None:
        document = json.loads(Replace("s1", replacement, 7).document())
        for name in FIELDS:
            assert document.pop(UPSTREAM_NAMES[name]) == getattr(replacement, name)
        assert same(document.pop("context"), replacement.context or {})
        assert (document.pop("sessionId"), document.pop("metadata")) == ("s1", {"version": 7})
        assert same(document, replacement.additional_properties or {})
