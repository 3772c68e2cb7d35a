"""From upstream's JSON to the model and to both doors: nothing lost, nothing invented."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Value
from hypothesis import assume, example, given
from hypothesis import strategies as st
from unit.unit_strategies import OPTIONAL, VALUES, Document, documents, same, session_context, sources, written

from gateway.errors import InvalidArgument, NotRepresentable
from gateway.gen.emporix.sessioncontext.v1 import session_context_pb2 as pb
from gateway.graphql import scalars
from gateway.model import MAX_VERSION, UPSTREAM_NAMES, SessionContext, decode_session_context
from gateway.rpc.convert import json_from_value, replacement_from_message, session_context_message

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.message import Message

    from gateway.model import JSON

OURS = {theirs: ours for ours, theirs in UPSTREAM_NAMES.items()}
MINIMAL: Document = {"sessionId": "s", "metadata": {"version": 1}}


def unknown(document: Document) -> Document:
    return {name: value for name, value in document.items() if name not in OURS}


def as_doubles(value: JSON) -> JSON:
    """What is left of a JSON value where every number is a double. Raises OverflowError."""
    match value:
        case dict():
            return {name: as_doubles(inner) for name, inner in value.items()}
        case list():
            return [as_doubles(each) for each in value]
        case bool():
            return value
        case int():
            return float(value)
        case _:
            return value


def time(value: str | None) -> datetime | None:
    return None if value is None else datetime.fromisoformat(value).astimezone(UTC)


def message_of(context: SessionContext) -> pb.SessionContext:
    """The message, over the wire; what a Struct cannot carry is another test's."""
    try:
        message = session_context_message(context)
    except NotRepresentable:
        assume(False)
        raise
    return pb.SessionContext.FromString(message.SerializeToString())


class TestTheModel:
    @given(sources())
    def test_has_everything_that_upstream_sent_and_nothing_else(self, source: bytes) -> None:
        document = json.loads(source)
        context = decode_session_context(source)
        assert context.source == source
        assert context.session_id == document["sessionId"]
        for name in OPTIONAL:
            assert getattr(context, OURS[name]) == document.get(name)
        assert same(context.context, document.get("context"))
        assert same(context.additional_properties, unknown(document) or None)
        assert context.metadata.version == document["metadata"]["version"]
        assert context.metadata.created_at == time(document["metadata"].get("createdAt"))
        assert context.metadata.modified_at == time(document["metadata"].get("modifiedAt"))

    def test_tells_an_empty_string_from_an_absent_field(self) -> None:
        context = session_context({**MINIMAL, "currency": "", "siteCode": None})
        assert (context.currency, context.site_code, context.cart_id) == ("", None, None)

    @pytest.mark.parametrize("number", [2**53 + 1, -(2**53) - 1, 2**64, 10**30, -(10**300)])
    def test_keeps_integers_of_any_size(self, number: int) -> None:
        context = session_context({**MINIMAL, "context": {"a": [number]}, "loyalty": number})
        assert context.context == {"a": [number]}
        assert context.additional_properties == {"loyalty": number}

    def test_can_not_be_changed(self) -> None:
        with pytest.raises(AttributeError):
            session_context(MINIMAL).currency = "CHF"  # type: ignore[misc]

    @pytest.mark.parametrize("version", [0, 1, MAX_VERSION])
    def test_takes_any_version_that_can_be(self, version: int) -> None:
        assert session_context({"sessionId": "s", "metadata": {"version": version}}).metadata.version == version


class TestAMalformedDocument:
    @given(st.binary())
    @example(b"[" * 100_000)
    @example(b'{"sessionId":' * 5_000)
    @example(written(MINIMAL) + b"x")
    @example(b"\xff" + written(MINIMAL))
    @example(b'{"sessionId":"s","metadata":{"version":1},"\xff":1}')
    @example(b'{"sessionId":"s","metadata":{"version":1},"x":"\\ud800"}')
    @example(b'{"sessionId":"s","metadata":{"version":1},"x":1e999}')
    @example(b'{"sessionId":"s","metadata":{"version":1},"x":' + b"9" * 5000 + b"}")
    def test_of_any_bytes_is_refused_by_the_errors_that_are_promised(self, source: bytes) -> None:
        with pytest.raises((ValueError, RecursionError)):
            decode_session_context(source)

    @given(VALUES)
    def test_of_any_json_is_refused_by_the_errors_that_are_promised(self, document: JSON) -> None:
        with pytest.raises((ValueError, RecursionError)):
            session_context(document)

    @given(sources(), st.data())
    def test_is_refused_wherever_it_ends_too_soon(self, source: bytes, data: st.DataObject) -> None:
        end = data.draw(st.integers(0, len(source.rstrip()) - 1))
        with pytest.raises((ValueError, RecursionError)):
            decode_session_context(source[:end])

    @given(documents(), st.sampled_from(list(UPSTREAM_NAMES.values())), VALUES)
    def test_is_refused_or_taken_as_it_is_when_a_field_is_of_another_type(
        self, document: Document, name: str, value: JSON
    ) -> None:
        changed = {**document, name: value}
        try:
            context = session_context(changed)
        except (ValueError, RecursionError):
            return
        assert name != "metadata" or isinstance(value, dict)
        if name in OPTIONAL:
            assert value is None or isinstance(value, str)
            assert getattr(context, OURS[name]) == value
        elif name == "context":
            assert same(context.context, value)

    @pytest.mark.parametrize(
        "change",
        [
            {"sessionId": None},
            {"sessionId": 7},
            {"currency": 7},
            {"currency": ["EUR"]},
            {"context": []},
            {"context": "text"},
            {"metadata": None},
            {"metadata": {}},
            {"metadata": {"version": None}},
            {"metadata": {"version": "1"}},
            {"metadata": {"version": 1.5}},
            {"metadata": {"version": True}},
            {"metadata": {"version": -1}},
            {"metadata": {"version": 2**63}},
            {"metadata": {"version": 1, "createdAt": "yesterday"}},
            {"metadata": {"version": 1, "createdAt": "2026-02-04T16:36:44"}},
            {"metadata": {"version": 1, "modifiedAt": 1}},
        ],
    )
    def test_is_refused_when_a_field_is_not_what_the_reference_says(self, change: Document) -> None:
        with pytest.raises(ValueError, match=r"\$"):
            session_context({**MINIMAL, **change})

    @pytest.mark.parametrize("name", ["sessionId", "metadata"])
    def test_is_refused_without_what_must_be_there(self, name: str) -> None:
        with pytest.raises(ValueError, match=name):
            session_context({each: value for each, value in MINIMAL.items() if each != name})


class TestTheMessage:
    @given(documents())
    def test_has_everything_of_the_model_and_nothing_else(self, document: Document) -> None:
        message = message_of(session_context(document))
        assert message.session_id == document["sessionId"]
        for name in OPTIONAL:
            value = document.get(name)
            assert message.HasField(OURS[name]) == (value is not None)
            assert getattr(message, OURS[name]) == (value or "")
        assert same(MessageToDict(message.context), as_doubles(document.get("context") or {}))
        assert same(MessageToDict(message.additional_properties), as_doubles(unknown(document)))
        metadata = document["metadata"]
        assert message.metadata.version == metadata["version"]
        for field in ("createdAt", "modifiedAt"):
            at = getattr(message.metadata, "created_at" if field == "createdAt" else "modified_at")
            there = message.metadata.HasField("created_at" if field == "createdAt" else "modified_at")
            assert (at.ToDatetime(UTC) if there else None) == time(metadata.get(field))

    @given(documents())
    def test_names_the_attributes_that_arrive_rounded(self, document: Document) -> None:
        message = message_of(session_context(document))
        attributes = [*(document.get("context") or {}).items(), *unknown(document).items()]
        assert list(message.rounded_attributes) == [
            name for name, value in attributes if not same(value, as_doubles(value))
        ]

    @given(documents())
    def test_comes_back_as_the_state_that_was_read(self, document: Document) -> None:
        replacement = replacement_from_message(message_of(session_context(document)))
        assert replacement.session_id == (document["sessionId"] or None)
        assert replacement.version == document["metadata"]["version"]
        for name in OPTIONAL:
            assert getattr(replacement, OURS[name]) == document.get(name)
        assert same(replacement.context, as_doubles(document.get("context") or {}))
        assert same(replacement.additional_properties, as_doubles(unknown(document)))
        assert bool(replacement.rounded_attributes) == any(
            not same(value, as_doubles(value)) for value in (document.get("context") or {}, unknown(document))
        )

    @pytest.mark.parametrize("number", [0, 1, -1, 2**53, -(2**53), 42.0])
    def test_gives_whole_numbers_back_as_integers(self, number: float) -> None:
        message = session_context_message(session_context({**MINIMAL, "context": {"a": number}}))
        back = (replacement_from_message(message).context or {})["a"]
        assert back == number
        assert isinstance(back, int)

    @pytest.mark.parametrize("number", [10**400, -(10**400)])
    def test_is_refused_for_a_number_beyond_a_double(self, number: int) -> None:
        changed: list[Document] = [{"context": {"a": [number]}}, {"loyalty": number}]
        for document in changed:
            with pytest.raises(NotRepresentable):
                session_context_message(session_context({**MINIMAL, **document}))

    def test_has_no_context_where_there_are_no_attributes(self) -> None:
        for fields in ('"context":null,', '"context":{},', ""):
            source = f'{{"sessionId":"s",{fields}"metadata":{{"version":1}}}}'.encode()
            message = session_context_message(decode_session_context(source))
            assert not message.HasField("context")
            assert not message.HasField("additional_properties")

    @pytest.mark.parametrize("objects", [0, 1, 2, 40])
    @pytest.mark.parametrize(
        "wrap",
        [
            lambda message: pb.GetSessionContextResponse(session_context=message),
            lambda message: pb.PatchSessionContextResponse(session_context=message),
            lambda message: pb.VersionConflict(current=message),
            lambda message: pb.BatchGetSessionContextsResponse(
                entries=[pb.BatchGetSessionContextsEntry(session_context=message)]
            ),
        ],
    )
    def test_is_readable_however_deep_it_may_be(
        self, wrap: Callable[[pb.SessionContext], Message], objects: int
    ) -> None:
        answer = wrap(_deepest(objects))
        assert type(answer).FromString(answer.SerializeToString()) == answer

    def test_is_refused_when_it_would_be_deeper(self) -> None:
        for value in (b"[" * 60 + b"]" * 60, b'{"a":' * 40 + b"1" + b"}" * 40):
            source = b'{"sessionId":"s","metadata":{"version":1},"context":{"a":' + value + b"}}"
            with pytest.raises(NotRepresentable):
                session_context_message(decode_session_context(source))

    @pytest.mark.parametrize("objects", [0, 1, 2, 40])
    def test_takes_no_value_that_none_could_carry_back(self, objects: int) -> None:
        """A request to set an attribute has two messages around its value, and an answer four."""
        deepest = _deepest(objects).context.fields["a"]
        assert json_from_value(deepest, "value") is not None
        deeper = Value()
        deeper.struct_value.fields["a"].CopyFrom(deepest)
        request = pb.AddAttributeRequest(value=deeper)
        assert pb.AddAttributeRequest.FromString(request.SerializeToString()) == request
        with pytest.raises(InvalidArgument) as caught:
            json_from_value(deeper, "value")
        assert [each.field for each in caught.value.violations] == ["value"]

    @pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
    def test_with_a_number_that_json_lacks_is_refused(self, number: float) -> None:
        message = pb.SessionContext()
        message.context.fields["a"].list_value.values.add().number_value = number
        with pytest.raises(InvalidArgument) as caught:
            replacement_from_message(message)
        assert [each.field for each in caught.value.violations] == ["session_context.context"]

    def test_with_a_value_of_no_kind_is_refused(self) -> None:
        message = pb.SessionContext()
        message.additional_properties.fields["a"].SetInParent()
        with pytest.raises(InvalidArgument) as caught:
            replacement_from_message(message)
        assert [each.field for each in caught.value.violations] == ["session_context.additional_properties"]
        with pytest.raises(InvalidArgument):
            json_from_value(message.context.fields["b"], "value")

    def test_without_metadata_names_no_version(self) -> None:
        assert replacement_from_message(pb.SessionContext()).version is None
        assert replacement_from_message(pb.SessionContext(metadata=pb.Metadata())).version == 0


def _deepest(objects: int) -> pb.SessionContext:
    """The deepest attribute that is let through, of arrays inside of so many objects, or of objects alone."""
    for depth in range(120, 0, -1):
        outer = min(objects, depth)
        value = b'{"a":' * outer + b"[" * (depth - outer) + b"1" + b"]" * (depth - outer) + b"}" * outer
        source = b'{"sessionId":"s","metadata":{"version":1},"context":{"a":' + value + b"}}"
        try:
            return session_context_message(decode_session_context(source))
        except NotRepresentable:
            continue
    pytest.fail("nothing is let through")


class TestTheGraphQLType:
    @given(documents())
    def test_has_everything_of_the_model_exactly(self, document: Document) -> None:
        context = session_context(document)
        assert context.session_id == document["sessionId"]
        for name in OPTIONAL:
            assert getattr(context, OURS[name]) == document.get(name)
        assert same(_json(context.context), document.get("context"))
        assert same(_json(context.additional_properties), unknown(document) or None)
        assert context.metadata.version == document["metadata"]["version"]
        for ours, theirs in (("created_at", "createdAt"), ("modified_at", "modifiedAt")):
            assert getattr(context.metadata, ours) == time(document["metadata"].get(theirs))

    @given(documents())
    def test_is_written_out_without_a_loss(self, document: Document) -> None:
        context = session_context(document)
        for value, expected in (
            (context.context, document.get("context")),
            (context.additional_properties, unknown(document) or None),
        ):
            assert same(json.loads(msgspec.json.encode(value)), expected)

    @pytest.mark.parametrize(
        ("upstream", "graphql"),
        [
            ("2026-02-04T16:36:44.047Z", "2026-02-04T16:36:44.047Z"),
            ("2026-02-04T16:36:44Z", "2026-02-04T16:36:44.000Z"),
            ("2026-02-04T18:36:44.047+02:00", "2026-02-04T16:36:44.047Z"),
            ("2026-02-04T16:36:44.047001Z", "2026-02-04T16:36:44.047001Z"),
        ],
    )
    def test_writes_times_as_upstream_does(self, upstream: str, graphql: str) -> None:
        context = session_context({"sessionId": "s", "metadata": {"version": 1, "createdAt": upstream}})
        assert _serialized(context.metadata.created_at) == graphql


@pytest.mark.parametrize("at", ["9999-12-31T23:59:59-01:00", "0001-01-01T00:00:00+01:00"])
def test_a_time_that_is_let_in_can_be_shown_at_both_doors(at: str) -> None:
    try:
        context = session_context({"sessionId": "s", "metadata": {"version": 1, "modifiedAt": at}})
    except ValueError:
        return
    session_context_message(context)
    assert _serialized(context.metadata.modified_at)


def _serialized(value: datetime | None) -> str:
    serialize = scalars.SCALARS[datetime].serialize
    assert serialize is not None
    text: str = serialize(value)
    return text


def _json(value: object) -> JSON:
    plain: JSON = msgspec.json.decode(msgspec.json.encode(value))
    return plain
