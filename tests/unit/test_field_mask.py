"""From an update mask to a patch (AIP-134), with attributes of any name (AIP-161)."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.json_format import ParseDict
from hypothesis import example, given
from hypothesis import strategies as st
from unit.unit_strategies import ATTRIBUTES, NAMES, same

from gateway.errors import InvalidArgument
from gateway.gen.emporix.sessioncontext.v1 import session_context_pb2 as pb
from gateway.rpc.convert import json_from_attribute, json_from_struct
from gateway.rpc.field_mask import parse_path, patch_from_message
from gateway.sessions.changes import CLEAR, Assignment, Clear
from gateway.sessions.service import OWN_WRITABLE, WRITABLE

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.model import JSON
    from gateway.sessions.changes import Path

SCALARS = ("customer_id", "site_code", "currency", "cart_id", "target_location", "language")


def message(context: dict[str, JSON] | None = None, **fields: Any) -> pb.SessionContext:
    made = pb.SessionContext(**fields)
    if context is not None:
        ParseDict(context, made.context)
    return made


def assignments(made: pb.SessionContext, *paths: str) -> list[tuple[Path, JSON | Clear]]:
    return [(each.path, each.value) for each in patch_from_message(made, paths, writable=sorted(WRITABLE)).assignments]


def quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


class TestAPath:
    @pytest.mark.parametrize(
        ("path", "segments"),
        [
            ("currency", ("currency",)),
            ("context", ("context",)),
            ("context.color", ("context", "color")),
            ("context.a.b.c", ("context", "a", "b", "c")),
            ("context.`shoe size`", ("context", "shoe size")),
            ("context.`a.b`", ("context", "a.b")),
            ("context.`a.b`.c", ("context", "a.b", "c")),
            ("context.`a``b`", ("context", "a`b")),
            ("context.````", ("context", "`")),
            ("context.``````", ("context", "``")),
            ("context.``", ("context", "")),
            ("context.`*`", ("context", "*")),
            ("context.größe", ("context", "größe")),
            ("context.`emoji 🛒`", ("context", "emoji 🛒")),
            ("context.`a\nb`", ("context", "a\nb")),
            ("context.0", ("context", "0")),
            ("`currency`", ("currency",)),
        ],
    )
    def test_is_split_at_the_dots_outside_of_backticks(self, path: str, segments: Path) -> None:
        assert parse_path(path) == segments

    @pytest.mark.parametrize(
        "path",
        [
            "",
            ".",
            "..",
            ".currency",
            "currency.",
            "context..a",
            "context.shoe size",
            "context.a-b",
            "context.`a",
            "context.a`",
            "context.`a`b",
            "context.a`b`",
            "context.```",
            "context.`a``",
            "context,currency",
            " currency",
            "currency ",
            "currency\n",
            "context.`a` ",
            "context.{a}",
        ],
    )
    def test_that_is_none_is_refused(self, path: str) -> None:
        with pytest.raises(InvalidArgument) as caught:
            parse_path(path)
        assert [each.field for each in caught.value.violations] == ["update_mask"]

    @given(st.lists(st.text(max_size=8) | NAMES, min_size=1, max_size=5))
    @example(["`"])
    @example([".", "``", ""])
    def test_of_quoted_names_gives_them_back(self, names: list[str]) -> None:
        assert parse_path(".".join(map(quoted, names))) == tuple(names)

    @given(st.lists(st.from_regex(r"\w+", fullmatch=True), min_size=1, max_size=5))
    def test_of_plain_names_needs_no_backticks(self, names: list[str]) -> None:
        assert parse_path(".".join(names)) == tuple(names)

    @given(st.text(alphabet="ab`.* \n", max_size=12))
    def test_means_one_thing_or_is_refused(self, path: str) -> None:
        try:
            segments = parse_path(path)
        except InvalidArgument:
            return
        again = ".".join(name if re.fullmatch(r"\w+", name) else quoted(name) for name in segments)
        assert parse_path(again) == segments

    def test_that_is_long_and_hopeless_is_refused_at_once(self) -> None:
        with pytest.raises(InvalidArgument):
            parse_path("context." + "`" * 100_001)


class TestNoMask:
    def test_means_the_fields_that_are_set_an_attribute_at_a_time(self) -> None:
        made = message({"a": {"b": 1}, "c": None}, currency="EUR", language="")
        assert sorted(assignments(made), key=str) == [
            (("context", "a"), {"b": 1}),
            (("context", "c"), None),
            (("currency",), "EUR"),
            (("language",), ""),
        ]

    def test_means_nothing_for_a_message_with_nothing_set(self) -> None:
        assert assignments(pb.SessionContext()) == []
        assert assignments(message({})) == []

    def test_leaves_what_upstream_keeps_alone(self) -> None:
        made = message(session_id="s", metadata=pb.Metadata(version=3), rounded_attributes=["big"], currency="EUR")
        made.additional_properties.fields["loyalty"].number_value = 1
        assert assignments(made) == [(("currency",), "EUR")]

    def test_keeps_what_the_message_was_made_from_to_be_checked(self) -> None:
        made = message(session_id="s", metadata=pb.Metadata(version=3), currency="EUR")
        patch = patch_from_message(made, [], writable=WRITABLE)
        assert (patch.session_id, patch.version) == ("s", 3)

        patch = patch_from_message(message(currency="EUR"), [], writable=WRITABLE)
        assert (patch.session_id, patch.version) == (None, None)

    @given(ATTRIBUTES)
    def test_takes_every_attribute_as_it_is(self, attributes: dict[str, JSON]) -> None:
        small = {name: value for name, value in attributes.items() if _has_no_number(value)}
        found = assignments(message(small))
        assert len(found) == len(small)
        for path, value in found:
            assert path[0] == "context"
            assert value is not CLEAR
            assert same(value, small[path[1]])


class TestAStar:
    def test_means_everything_that_may_be_changed(self) -> None:
        found = dict(assignments(message({"a": 1}, currency="EUR"), "*"))
        assert found == {
            **{(name,): CLEAR for name in SCALARS},
            ("currency",): "EUR",
            ("context",): {"a": 1},
        }

    def test_means_no_more_than_the_door_allows(self) -> None:
        patch = patch_from_message(message(cart_id="c"), ["*"], writable=sorted(OWN_WRITABLE))
        assert {each.path for each in patch.assignments} == {(name,) for name in OWN_WRITABLE}

    def test_takes_in_all_other_paths(self) -> None:
        assert assignments(message(currency="EUR"), "currency", "*") == assignments(message(currency="EUR"), "*")

    def test_in_backticks_is_a_name(self) -> None:
        assert assignments(message(currency="EUR"), "`*`") == [(("*",), CLEAR)]

    @pytest.mark.parametrize("path", ["context.*", "context.a.*", "*.a", "context.*.b"])
    def test_inside_of_a_path_is_refused_rather_than_taken_for_a_name(self, path: str) -> None:
        with pytest.raises(InvalidArgument):
            assignments(message({"a": 1}), path)


class TestANumberThatArrivedRounded:
    """What a Get has answered, sent back with a change."""

    @pytest.fixture
    def made(self) -> pb.SessionContext:
        made = message({"big": 2**53, "color": "red", "loyalty": 1}, currency="EUR", rounded_attributes=["big", "more"])
        made.additional_properties.fields["more"].number_value = 2**53
        return made

    @pytest.mark.parametrize(
        "paths", [[], ["*"], ["context"], ["context.big"], ["currency", "context.big"], ["context.big", "context"]]
    )
    def test_is_not_written(self, made: pb.SessionContext, paths: list[str]) -> None:
        with pytest.raises(InvalidArgument) as caught:
            assignments(made, *paths)
        (violation,) = caught.value.violations
        assert violation.field == "session_context.rounded_attributes"
        assert violation.message.startswith("big: ")
        assert "update_mask" in violation.message

    def test_is_not_written_below_its_attribute(self) -> None:
        made = message({"big": {"er": [2**53]}}, rounded_attributes=["big"])
        with pytest.raises(InvalidArgument):
            assignments(made, "context.big.er")

    def test_does_not_stand_in_the_way_of_other_changes(self, made: pb.SessionContext) -> None:
        assert assignments(made, "currency", "context.color") == [
            (("currency",), "EUR"),
            (("context", "color"), "red"),
        ]

    def test_does_not_stand_in_the_way_of_its_removal(self, made: pb.SessionContext) -> None:
        del made.context.fields["big"]
        assert assignments(made, "context.big") == [(("context", "big"), CLEAR)]
        assert assignments(made, "context") == [(("context",), {"color": "red", "loyalty": 1})]
        assert assignments(pb.SessionContext(rounded_attributes=["big"]), "context") == [(("context",), CLEAR)]

    def test_is_written_once_the_caller_has_given_it_another_value(self, made: pb.SessionContext) -> None:
        made.context["big"] = 7
        made.rounded_attributes.remove("big")
        assert assignments(made, "context.big") == [(("context", "big"), 7)]


class TestAMask:
    @pytest.mark.parametrize("field", SCALARS)
    def test_sets_a_field_that_has_a_value_and_clears_one_that_has_none(self, field: str) -> None:
        for value in ("x", ""):
            fields: dict[str, Any] = {field: value}
            assert assignments(message(**fields), field) == [((field,), value)]
        assert assignments(pb.SessionContext(), field) == [((field,), CLEAR)]

    def test_leaves_fields_alone_that_it_does_not_name(self) -> None:
        assert assignments(message({"a": 1}, currency="EUR", language="de"), "language") == [(("language",), "de")]

    def test_sets_or_clears_all_attributes_at_once(self) -> None:
        assert assignments(message({"a": 1, "b": None}), "context") == [(("context",), {"a": 1, "b": None})]
        assert assignments(pb.SessionContext(), "context") == [(("context",), CLEAR)]
        assert assignments(message({}), "context") == [(("context",), CLEAR)]

    def test_reaches_one_attribute_at_any_depth(self) -> None:
        made = message({"a": {"shoe size": {"c": [1, True]}}, "d": 2})
        assert assignments(made, "context.a.`shoe size`.c") == [(("context", "a", "shoe size", "c"), [1, True])]
        assert assignments(made, "context.a") == [(("context", "a"), {"shoe size": {"c": [1, True]}})]

    def test_clears_an_attribute_that_has_no_value(self) -> None:
        made = message({"a": {"b": 1}, "s": "text", "n": None})
        for path in ("context.x", "context.a.x", "context.x.y.z", "context.s.x", "context.n.x"):
            assert assignments(made, path) == [(parse_path(path), CLEAR)]

    def test_sets_an_attribute_to_null_that_is_null(self) -> None:
        assert assignments(message({"n": None}), "context.n") == [(("context", "n"), None)]

    def test_keeps_the_order_of_its_paths(self) -> None:
        made = message({"a": 1}, currency="EUR")
        assert [path for path, _ in assignments(made, "context.a", "currency", "language")] == [
            ("context", "a"),
            ("currency",),
            ("language",),
        ]

    def test_leaves_the_message_as_it_was(self) -> None:
        made = message({"a": 1})
        before = made.SerializeToString(deterministic=True)
        assignments(made, "context.x", "context.a.b", "context.y.z", "currency", "*")
        assert made.SerializeToString(deterministic=True) == before
        assert not pb.SessionContext().HasField("context")

    @pytest.mark.parametrize("path", ["currency.x", "language.`a b`", "customer_id.id"])
    def test_that_leads_into_a_field_without_fields_is_refused(self, path: str) -> None:
        with pytest.raises(InvalidArgument) as caught:
            assignments(message(currency="EUR"), path)
        assert [each.field for each in caught.value.violations] == ["update_mask"]

    @pytest.mark.parametrize("path", ["metadata", "metadata.version", "session_id", "unknown", "rounded_attributes"])
    def test_that_names_what_may_not_be_changed_is_left_for_the_use_case_to_refuse(self, path: str) -> None:
        assert assignments(message(session_id="s"), path) == [(parse_path(path), CLEAR)]

    def test_with_a_value_that_json_lacks_is_refused(self) -> None:
        made = pb.SessionContext()
        made.context.fields["a"].number_value = float("nan")
        made.context.fields["b"].SetInParent()
        for path in ("context", "context.a", "context.b"):
            with pytest.raises(InvalidArgument):
                assignments(made, path)
        assert assignments(made, "context.c") == [(("context", "c"), CLEAR)]

    def test_gives_whole_numbers_as_integers(self) -> None:
        ((_, value),) = assignments(message({"a": 42.0}), "context.a")
        assert isinstance(value, int)

    def test_that_names_a_path_several_times_names_it_once(self) -> None:
        made = message({"a": 1}, currency="EUR")
        assert assignments(made, "currency", "context.a", "context.`a`", "`currency`", "currency") == [
            (("currency",), "EUR"),
            (("context", "a"), 1),
        ]

    @pytest.mark.parametrize("paths", [["context", "context.a.b", "context.x"], ["context.x", "context.a", "context"]])
    def test_means_the_union_of_its_paths(self, paths: list[str]) -> None:
        made = message({"a": {"b": 1, "c": 2}})
        assert assignments(made, *paths) == [(("context",), {"a": {"b": 1, "c": 2}})]

    def test_leaves_out_no_path_that_another_merely_begins_like(self) -> None:
        made = message({"a": {"b": 1}, "ab": 2})
        assert assignments(made, "context.a.b", "context.ab", "context.a.bc") == [
            (("context", "a", "b"), 1),
            (("context", "ab"), 2),
            (("context", "a", "bc"), CLEAR),
        ]

    @pytest.mark.parametrize("path", ["currency.x", "a b"])
    def test_refuses_a_path_that_is_none_beside_one_that_leads_to_all_of_it(self, path: str) -> None:
        with pytest.raises(InvalidArgument):
            assignments(message(currency="EUR"), "currency", "*", path)

    @pytest.mark.parametrize(
        "paths",
        [
            ["context"] * 1_000,
            ["context", *(f"context.a{number}" for number in range(500))],
            ["context.deep" + ".deeper" * depth for depth in range(30)],
        ],
    )
    def test_has_every_value_converted_once(self, paths: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        """It was done once for each path, and a request of a hundred kilobytes kept the process for half a minute."""
        converted: list[str] = []

        def counted(convert: Callable[..., JSON], *given: Any, **further: Any) -> JSON:
            converted.append(convert.__name__)
            return convert(*given, **further)

        for convert in (json_from_struct, json_from_attribute):
            monkeypatch.setattr(f"gateway.rpc.field_mask.{convert.__name__}", partial(counted, convert))
        assignments(message({"deep": {"deeper": {}}, "a1": 1}), *paths)
        assert len(converted) == 1

    def test_of_more_paths_than_there_can_be_fields_is_refused(self) -> None:
        made = pb.SessionContext()
        assert len(assignments(made, *(f"context.a{number}" for number in range(1_000)))) == 1_000
        with pytest.raises(InvalidArgument) as caught:
            assignments(made, *(f"context.a{number}" for number in range(1_001)))
        assert [each.field for each in caught.value.violations] == ["update_mask"]

    def test_reaches_as_deep_as_a_message_can_and_no_deeper(self) -> None:
        made, names = pb.SessionContext(), ["a"] * 32
        struct = made.context
        for name in names[:-1]:
            struct = struct.fields[name].struct_value
        struct.fields["a"].bool_value = True
        request = pb.PatchSessionContextRequest(session_context=made)
        assert pb.PatchSessionContextRequest.FromString(request.SerializeToString()) == request
        assert assignments(made, ".".join(["context", *names])) == [(("context", *names), True)]
        for path in ("context" + ".a" * 33, "context" + ".a" * 500_000):
            with pytest.raises(InvalidArgument) as caught:
                assignments(made, path)
            assert [each.field for each in caught.value.violations] == ["update_mask"]

    def test_makes_a_patch(self) -> None:
        patch = patch_from_message(message(currency="EUR"), ["currency"], writable=WRITABLE)
        assert patch.assignments == (Assignment(("currency",), "EUR"),)


def _has_no_number(value: JSON) -> bool:
    if isinstance(value, dict):
        return all(map(_has_no_number, value.values()))
    if isinstance(value, list):
        return all(map(_has_no_number, value))
    return isinstance(value, bool | str | None)
