"""Each thing that an operation is made of, and each way it fails: planned, it is as Strawberry's own execution is."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any

import pytest
from compiled.outcomes import CONTEXTS, FAILURES, FULL, STATUS, Script, context_of
from compiled.ways import Ways
from defaults import LIMITS, MEMORY
from graphql import GraphQLError, OperationDefinitionNode, parse, parse_value
from msgspec import structs

from gateway import errors
from gateway.cache.readthrough import Found
from gateway.graphql.answers import encode, exceeds
from gateway.graphql.compiled import Compiler
from gateway.graphql.documents import Documents, NotExecutable
from gateway.graphql.resolvers import RESOLVERS, FieldRead
from gateway.graphql.scalars import JSON, SCALARS
from gateway.sessions.writer import Written

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.model import SessionContext

ALL = (
    "sessionId customerId siteCode currency cartId targetLocation language context additionalProperties "
    "metadata { version createdAt modifiedAt }"
)
AT = "2026-02-04T16:36:44.047Z"
ONE = '(tenant: "acme", sessionId: "s-1")'
READ = f"{{ sessionContext{ONE} {{ {ALL} }} }}"
PATCH = (
    'mutation { patchSessionContext(input: {tenant: "acme", sessionId: "s-1", patch: {currency: "EUR"}}) '
    "{ __typename ... on PatchSessionContextPayload { attempts sessionContext { currency metadata { version } } } "
    "... on Failure { code message } ... on VersionConflict { expectedVersion currentVersion current { language } } "
    "... on SessionNotFound { sessionId } ... on InvalidInput { violations { field message } } } }"
)
TWO_WRITES = (
    f'{PATCH[:-2]} again: removeMySessionContextAttribute(input: {{tenant: "acme", name: "n"}}) '
    "{ ... on InvalidInput { violations { field } } ... on Failure { code } } }"
)
THREE_READS = (
    f"{{ a: sessionContext{ONE} {{ currency }} b: sessionContext{ONE} {{ currency }} "
    'mySessionContext(tenant: "acme") { currency } }'
)


@pytest.fixture(scope="module")
def ways() -> Ways:
    return Ways()


@pytest.fixture(scope="module")
def discreet() -> Ways:
    return Ways(introspection=False)


class Certain(Script):
    """Always comes to the same."""

    def __init__(self, outcome: SessionContext | Exception) -> None:
        super().__init__(0)
        self.outcome = outcome

    async def found(self, *call: object) -> Found:
        self.calls.append(call)
        return Found(self._come_of_it(), STATUS)

    async def written(self, *call: object, options: object) -> Written:
        self.calls.append((*call, options))
        return Written(self._come_of_it(), 2)

    def _come_of_it(self) -> Any:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


async def data_of(ways: Ways, text: str, variables: Mapping[str, Any] | None = None) -> Any:
    told = await ways.by_plan(text, variables, Certain(FULL))
    assert told == await ways.by_strawberry(text, variables, Certain(FULL))
    assert not told.errors
    return json.loads(told.data)


async def test_all_fields_come_in_the_order_of_the_selection(ways: Ways) -> None:
    found = (await data_of(ways, READ))["sessionContext"]

    assert [*found] == [each for each in ALL.split() if each[0].islower() and each not in found["metadata"]]
    assert found["metadata"] == {
        "version": 2**53 + 1,
        "createdAt": AT,
        "modifiedAt": "2026-02-04T16:36:44.047003Z",
    }
    assert found["context"] == FULL.context
    assert found["additionalProperties"] == {"brandNew": True}


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ("a: currency b: currency", {"a": "EUR", "b": "EUR"}),
        ("currency language currency", {"currency": "EUR", "language": "de"}),
        ("__typename currency", {"__typename": "SessionContext", "currency": "EUR"}),
        ("kind: __typename", {"kind": "SessionContext"}),
        (
            "metadata { version } metadata { __typename }",
            {"metadata": {"version": 2**53 + 1, "__typename": "Metadata"}},
        ),
        ("... { currency }", {"currency": "EUR"}),
        ("... on SessionContext { currency } language", {"currency": "EUR", "language": "de"}),
        ("...Part language", {"currency": "EUR", "siteCode": "main", "language": "de"}),
        ("language ...Part currency", {"language": "de", "currency": "EUR", "siteCode": "main"}),
        ("currency @skip(if: true) language", {"language": "de"}),
        ("currency @include(if: false)", {}),
        ("currency @skip(if: false) @include(if: true)", {"currency": "EUR"}),
        ("...Part @include(if: false) language", {"language": "de"}),
        ("currency @skip(if: true) currency", {"currency": "EUR"}),
        ("a: context currency b: context", {"a": FULL.context, "currency": "EUR", "b": FULL.context}),
        ("a: additionalProperties b: context", {"a": {"brandNew": True}, "b": FULL.context}),
    ],
)
async def test_selections(ways: Ways, selection: str, expected: object) -> None:
    part = " fragment Part on SessionContext { currency siteCode }" if "Part" in selection else ""
    data = await data_of(ways, f"{{ sessionContext{ONE} {{ {selection} }} }}{part}")

    assert json.dumps(data["sessionContext"]) == json.dumps(expected)


@pytest.mark.parametrize("planned", [True, False])
async def test_an_answer_is_measured_without_a_look_at_each_value_of_its_json(ways: Ways, *, planned: bool) -> None:
    """To look at all in four megabytes of them took a third of a second, and to encode them takes a hundredth."""

    async def calls(entries: int) -> int:
        script = Certain(structs.replace(FULL, context={"empty": [[]] * entries}))
        context = context_of(ways.documents.by_text(READ).valid(), script, "writer")
        plan = ways.plan(READ)
        bound = None if plan is None else plan.bound(None)
        assert bound is not None
        result = await (bound.execute(context) if planned else ways.schema.execute(None, context_value=context))
        assert len(encode(result.data)) > 3 * entries
        counts: list[str] = []
        sys.setprofile(lambda _frame, event, _argument: counts.append(event))
        try:
            assert not exceeds(result.data, 100_000)
        finally:
            sys.setprofile(None)
        return len(counts)

    assert await calls(10_000) == await calls(10)


@pytest.mark.parametrize("yes", [True, False])
@pytest.mark.parametrize("also", [True, False])
async def test_conditions_by_variables(ways: Ways, *, yes: bool, also: bool) -> None:
    text = (
        "query ($yes: Boolean!, $also: Boolean = true) { "
        f"sessionContext{ONE} {{ language currency @include(if: $yes) ... @skip(if: $also) {{ siteCode }} }} "
        f"other: sessionContext{ONE} @include(if: $also) {{ language }} }}"
    )

    data = await data_of(ways, text, {"yes": yes, "also": also})

    assert ("currency" in data["sessionContext"]) is yes
    assert ("siteCode" in data["sessionContext"]) is not also
    assert ("other" in data) is also
    assert ("other" in await data_of(ways, text, {"yes": yes})) is True


async def test_a_plan_keeps_but_a_few_selections(ways: Ways) -> None:
    names = [f"v{number}" for number in range(5)]
    fields = ["currency", "language", "siteCode", "cartId", "customerId"]
    conditions = " ".join(f"{field} @skip(if: ${name})" for field, name in zip(fields, names, strict=True))
    definitions = " ".join(f"${name}: Boolean!" for name in names)
    text = f"query ({definitions}) {{ sessionContext{ONE} {{ __typename {conditions} }} }}"
    for number in [*range(32), *range(32)]:
        values = {name: bool(number >> place & 1) for place, name in enumerate(names)}
        data = await data_of(ways, text, values)
        assert len(data["sessionContext"]) == 1 + 5 - number.bit_count()

    plan = ways.plan(text)
    assert plan is not None
    assert len(plan._selections) == 8


async def test_nothing_at_all_may_be_selected(ways: Ways) -> None:
    assert await data_of(ways, f"{{ sessionContext{ONE} @skip(if: true) {{ currency }} }}") == {}
    assert await data_of(ways, "{ __typename }") == {"__typename": "Query"}
    assert await data_of(ways, f"{{ a: __typename sessionContext{ONE} {{ currency }} b: __typename }}") == {
        "a": "Query",
        "sessionContext": {"currency": "EUR"},
        "b": "Query",
    }


ARGUMENTS: list[tuple[str, str, dict[str, Any] | None]] = [
    ("$t: String!, $s: ID!", "tenant: $t, sessionId: $s", {"t": "acme", "s": "s-1"}),
    ("$t: String!, $s: ID!", "tenant: $t, sessionId: $s", {"t": "acme", "s": 7, "more": 1}),
    ('$t: String = "acme", $s: ID! = 9', "tenant: $t, sessionId: $s", None),
    ('$t: String! = "acme"', 'tenant: $t, sessionId: "s"', {"t": "other"}),
    ("$a: Float", 'tenant: "acme", sessionId: "s", maxAge: $a', {"a": 3}),
    ("$a: Float", 'tenant: "acme", sessionId: "s", maxAge: $a', {"a": None}),
    ("$a: Float", 'tenant: "acme", sessionId: "s", maxAge: $a', {}),
    ("$a: Float = 1.5", 'tenant: "acme", sessionId: "s", maxAge: $a', {}),
    ("$v: Version", 'tenant: "acme", sessionId: "s", minVersion: $v', {"v": 2**63 - 1}),
    ("$v: Version = 3", 'tenant: "acme", sessionId: "s", minVersion: $v', {}),
]


@pytest.mark.parametrize(("definitions", "arguments", "variables"), ARGUMENTS)
async def test_variables_and_their_defaults(
    ways: Ways, definitions: str, arguments: str, variables: dict[str, Any] | None
) -> None:
    await data_of(ways, f"query ({definitions}) {{ sessionContext({arguments}) {{ currency }} }}", variables)


BAD_VARIABLES: list[dict[str, Any] | None] = [
    None,
    {},
    {"t": "acme"},
    {"t": None, "s": "s"},
    {"t": 7, "s": "s"},
    {"t": "acme", "s": True},
    {"t": "acme", "s": 1.5},
    {"t": "acme", "s": ["s"]},
    {"t": "acme", "s": "s", "n": None},
    {"t": "acme", "s": "s", "a": "soon"},
    {"t": "acme", "s": "s", "v": 2**63},
    {"t": "acme", "s": "s", "v": True},
    {"t": [], "s": {}, "n": 7, "a": [], "v": "x"},
]


@pytest.mark.parametrize("variables", BAD_VARIABLES)
@pytest.mark.parametrize("introspection", [True, False])
async def test_bad_variables_are_refused_in_the_same_words(
    ways: Ways, discreet: Ways, variables: dict[str, Any] | None, *, introspection: bool
) -> None:
    text = (
        'query ($t: String!, $s: ID!, $n: String = "acme", $a: Float, $v: Version) '
        "{ sessionContext(tenant: $t, sessionId: $s, maxAge: $a, minVersion: $v) { currency } "
        "mySessionContext(tenant: $n) { currency } }"
    )

    told = await (ways if introspection else discreet).alike(text, variables)

    assert told.errors


@pytest.mark.parametrize("introspection", [True, False])
async def test_no_names_are_suggested_to_those_who_guess(ways: Ways, discreet: Ways, *, introspection: bool) -> None:
    text = "mutation ($i: PatchSessionContextInput!) { patchSessionContext(input: $i) { __typename } }"
    variables = {"i": {"tenant": "acme", "sessionId": "s", "patch": {"curency": "EUR"}}}

    told = await (ways if introspection else discreet).alike(text, variables)

    assert ("currency" in str(told.errors)) is introspection


@pytest.mark.parametrize(
    ("text", "variables"),
    [
        ('query ($s: [ID!]!) { sessionContexts(tenant: "acme", sessionIds: $s) { currency } }', {"s": ["a", 7, "b"]}),
        ('query ($s: [ID!]!) { sessionContexts(tenant: "acme", sessionIds: $s) { currency } }', {"s": "alone"}),
        ('query ($s: ID!) { sessionContexts(tenant: "acme", sessionIds: ["a", $s]) { currency } }', {"s": "b"}),
        ('{ sessionContexts(tenant: "acme", sessionIds: "alone") { currency } }', None),
        ('{ sessionContexts(tenant: "acme", sessionIds: []) { currency } }', None),
    ],
)
@pytest.mark.parametrize("failures", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("seed", range(5))
async def test_lists_have_an_entry_or_an_error_for_each_id(
    ways: Ways, text: str, variables: dict[str, Any] | None, failures: float, seed: int
) -> None:
    await ways.alike(text, variables, failures=failures, seed=seed)


@pytest.mark.parametrize(
    "value", ["1", "null", '"x"', "{a: $x, b: [$x, 1]}", "[$x, {y: $y}]", "$x", "{}", "1e400", "$missing"]
)
async def test_literals_that_are_made_with_variables(ways: Ways, value: str) -> None:
    definitions = " ".join(f"${name}: JSON" for name in ("x", "y", "missing") if f"${name}" in value)
    text = (f"mutation Write({definitions}) " if definitions else "mutation Write ") + (
        f'{{ addSessionContextAttribute(input: {{tenant: "acme", sessionId: "s", name: "n", value: {value}}}) '
        "{ __typename ... on InvalidInput { violations { field message } } } }"
    )
    try:
        ways.plan(text)
    except Exception:  # noqa: BLE001 - graphql-core refuses the literal itself
        assert value == "1e400"
        return
    await ways.alike(text, {"x": [1, {"z": None}], "y": "Y"})


@pytest.mark.parametrize(
    ("literal", "written"),
    [("{a: $missing, b: 1}", {"b": 1}), ("[$missing, 1]", [None, 1]), ("{a: [{b: $missing}]}", {"a": [{}]})],
)
async def test_in_a_literal_a_variable_that_is_not_given_is_no_field_of_an_object_and_null_in_a_list(
    ways: Ways, literal: str, written: object
) -> None:
    text = (
        'mutation ($missing: JSON) { addSessionContextAttribute(input: {tenant: "acme", sessionId: "s", name: "n", '
        f"value: {literal}}}) {{ __typename }} }}"
    )

    for way in (ways.by_plan, ways.by_strawberry):
        script = Certain(FULL)
        assert not (await way(text, {}, script)).errors
        assert str(written) in script.calls[0]


@pytest.mark.parametrize(
    ("kind", "value", "why"),
    [
        ("DateTime", "x", "a time of ISO 8601"),
        ("DateTime", 7, "a time of ISO 8601"),
        ("Version", -1, "an integer from 0 to"),
        ("JSON", [[[]] * 1], ""),
    ],
)
async def test_what_is_no_value_of_a_scalar_is_the_callers_error_and_no_defect(
    ways: Ways, kind: str, value: object, why: str
) -> None:
    text = (
        f'mutation ($v: {kind}) {{ addSessionContextAttribute(input: {{tenant: "acme", sessionId: "s", name: "n", '
        "value: {a: $v}}) { __typename } }"
    )

    told = await ways.alike(text, {"v": value})

    shown: Any = [each[0] for each in told.errors if isinstance(each, tuple)]
    assert bool(shown) is bool(why)
    for each in shown:
        assert each["extensions"] == {"code": "GRAPHQL_VALIDATION_FAILED"}
        assert why in each["message"]
        assert each["locations"]


def nested(levels: int) -> Any:
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value


@pytest.mark.parametrize("levels", [100, 101])
async def test_json_has_a_hundred_levels(ways: Ways, levels: int) -> None:
    text = (
        'mutation ($v: JSON) {{ addSessionContextAttribute(input: {{tenant: "acme", sessionId: "s", name: "n", '
        "value: {}}}) {{ __typename }} }}"
    )
    literal = json.dumps(nested(levels))

    told = await ways.alike(text.format("$v"), {"v": nested(levels)})
    assert bool(told.errors) is (levels > 100)

    prepared = ways.documents.by_text(text.format(literal).replace("($v: JSON)", ""))
    assert bool(prepared.errors) is (levels > 100)


def test_a_variable_goes_into_a_literal_as_it_is() -> None:
    """Who spells out a large one ten times sends it once, and so has it looked at once."""
    parse_literal = SCALARS[JSON].parse_literal
    assert parse_literal is not None
    large: list[object] = [[]]

    spelt_out = parse_literal(parse_value("[$v, {a: $v}]"), {"v": large})

    assert spelt_out[0] is spelt_out[1]["a"] is large


def test_a_literal_holds_so_many_variables(ways: Ways) -> None:
    text = (
        'mutation ($v: JSON) { addSessionContextAttribute(input: {tenant: "acme", sessionId: "s", name: "n", '
        f"value: [{'{a: [$v]}, ' * 11}]}}) {{ __typename }} }}"
    )

    with pytest.raises(NotExecutable, match="more than 10 variables"):
        ways.documents.by_text(text).valid()


async def test_a_time_in_json_stays_as_it_came(ways: Ways) -> None:
    text = (
        'mutation ($at: DateTime) { addSessionContextAttribute(input: {tenant: "acme", sessionId: "s", name: "n", '
        "value: {at: $at}}) { __typename } }"
    )
    script = Certain(FULL)

    assert not (await ways.by_plan(text, {"at": AT}, script)).errors

    assert str({"at": AT}) in script.calls[0]


@pytest.mark.parametrize("literal", ["minVersion: -1", "minVersion: 1.5", "maxAge: true"])
def test_errors_of_literals_tell_where_they_are(ways: Ways, literal: str) -> None:
    text = f'{{ sessionContext(tenant: "acme", sessionId: "s", {literal}) {{ currency }} }}'

    with pytest.raises(NotExecutable) as refused:
        ways.documents.by_text(text).valid()

    assert all(each.locations for each in refused.value.errors)


@pytest.mark.parametrize("failure", FAILURES, ids=lambda each: f"{type(each).__name__}{FAILURES.index(each)}")
@pytest.mark.parametrize(
    "text",
    [
        READ,
        f'{{ sessionContext{ONE} {{ currency }} a: __typename mySessionContext(tenant: "acme") {{ currency }} }}',
        '{ sessionContexts(tenant: "acme", sessionIds: ["a", "b"]) { currency } }',
        PATCH,
        TWO_WRITES,
    ],
    ids=["one", "two", "list", "mutation", "mutations"],
)
async def test_failures(ways: Ways, text: str, failure: Exception) -> None:
    told = await ways.by_plan(text, None, Certain(failure))

    assert told == await ways.by_strawberry(text, None, Certain(failure))


@pytest.mark.parametrize("context", CONTEXTS[2:], ids=["nameless", "unversioned", "hollow", "timeless"])
@pytest.mark.parametrize(
    "text",
    [
        READ,
        f"{{ sessionContext{ONE} {{ metadata {{ createdAt version }} }} b: sessionContext{ONE} {{ currency }} }}",
        '{ sessionContexts(tenant: "acme", sessionIds: ["a", "b"]) { sessionId metadata { createdAt version } } }',
        PATCH,
    ],
    ids=["one", "two", "list", "mutation"],
)
async def test_a_null_where_none_may_be_takes_the_place_around_with_it(
    ways: Ways, text: str, context: SessionContext
) -> None:
    told = await ways.by_plan(text, None, Certain(context))

    assert told.errors or text == PATCH or "b:" in text
    assert told == await ways.by_strawberry(text, None, Certain(context))


@pytest.mark.parametrize("caller", ["writer", "reader", "hasty", "nobody"])
@pytest.mark.parametrize(
    "text",
    [
        READ,
        PATCH,
        THREE_READS,
    ],
)
async def test_callers_are_held_to_what_they_may_do(ways: Ways, text: str, caller: str) -> None:
    told = await ways.alike(text, caller=caller)

    refused = caller == "nobody" or (caller == "reader" and text == PATCH) or (caller == "hasty" and "b:" in text)
    assert refused is (bool(told.errors) or b"CALLER_" in told.data)


@pytest.mark.parametrize(
    ("selection", "reads_back"),
    [
        ("__typename", False),
        ("... on PatchSessionContextPayload { attempts }", False),
        ("... on PatchSessionContextPayload { sessionContext { currency } }", True),
        ("...P", True),
        ("... on PatchSessionContextPayload { sessionContext @skip(if: $no) { currency } }", True),
        ("... on PatchSessionContextPayload { sessionContext @include(if: $no) { currency } } __typename", False),
    ],
)
async def test_what_is_not_selected_is_not_read_back(ways: Ways, selection: str, *, reads_back: bool) -> None:
    part = "fragment P on PatchSessionContextPayload { after: sessionContext { currency } }"
    text = (
        "mutation Write($no: Boolean = false) { "
        'patchSessionContext(input: {tenant: "acme", sessionId: "s", patch: {}}) '
        f"{{ {selection} ... @include(if: $no) {{ kind: __typename }} }} }} {part if selection == '...P' else ''}"
    )

    told = await ways.by_plan(text, {}, script := Certain(FULL))

    assert told == await ways.by_strawberry(text, {}, Certain(FULL))
    options: Any = script.calls[0][-1]
    assert options.read_back is reads_back


async def test_reads_say_which_field_they_were_for(ways: Ways) -> None:
    text = f"{{ a: sessionContext{ONE} {{ currency }} b: sessionContext{ONE} {{ language }} }}"
    told = await ways.by_plan(text, None, Certain(FULL))

    assert told.reads == [FieldRead([each], STATUS, len(FULL.source)) for each in ("a", "b")]
    assert told == await ways.by_strawberry(text, None, Certain(FULL))
    lists = await ways.alike('{ a: sessionContexts(tenant: "acme", sessionIds: ["x", "y"]) { currency } }')
    assert [(each.path, each.status) for each in lists.reads] == [(["a"], STATUS)] * 2


class Slow(Certain):
    """Reads that wait for each other, or for ever."""

    def __init__(self) -> None:
        super().__init__(FULL)
        self.begun = 0
        self.cancelled = 0
        self.all_begun = asyncio.Event()

    async def found(self, *call: object) -> Found:
        self.begun += 1
        if self.begun == 2:
            self.all_begun.set()
        await asyncio.wait_for(self.all_begun.wait(), 5)
        if "forever" in call:
            try:
                await asyncio.Event().wait()
            finally:
                self.cancelled += 1
        return await super().found(*call)

    async def entries(self, call: tuple[object, ...], ids: object) -> Any:
        await self.found(*call)
        raise errors.UpstreamFault("500")


async def test_root_fields_are_read_side_by_side(ways: Ways) -> None:
    text = f"{{ a: sessionContext{ONE} {{ currency }} b: sessionContext{ONE} {{ currency }} }}"

    told = await ways.by_plan(text, None, Slow())

    assert json.loads(told.data) == {"a": {"currency": "EUR"}, "b": {"currency": "EUR"}}


async def test_a_failure_of_one_read_leaves_the_others(ways: Ways) -> None:
    text = (
        f'{{ a: sessionContext{ONE} {{ currency }} sessionContexts(tenant: "acme", sessionIds: ["x"]) {{ currency }} }}'
    )

    told = await ways.by_plan(text, None, Slow())

    assert json.loads(told.data) == {"a": {"currency": "EUR"}, "sessionContexts": None}
    assert len(told.errors) == 1
    assert told == await ways.by_strawberry(text, None, Slow())


async def test_who_goes_away_leaves_nothing_behind(ways: Ways) -> None:
    text = (
        '{ a: sessionContext(tenant: "forever", sessionId: "s") { currency } '
        'b: sessionContext(tenant: "forever", sessionId: "s") { currency } }'
    )
    plan = ways.plan(text)
    bound = None if plan is None else plan.bound(None)
    assert bound is not None
    script = Slow()
    context = context_of(ways.documents.by_text(text).valid(), script, "writer")
    running = asyncio.create_task(bound.execute(context))
    await asyncio.wait_for(script.all_begun.wait(), 5)
    await asyncio.sleep(0)

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert script.cancelled == 2


async def test_writes_come_one_after_another_and_one_that_fails_leaves_the_others(ways: Ways) -> None:
    one = 'removeMySessionContextAttribute(input: {tenant: "acme", name: "n"}) { __typename }'
    text = f"mutation {{ a: {one} b: {one} c: {one} }}"

    class FailsSecond(Certain):
        async def written(self, *call: object, options: object) -> Written:
            written = await super().written(*call, options=options)
            if len(self.calls) == 2:
                raise errors.UpstreamFault("500")
            return written

    told = await ways.by_plan(text, None, FailsSecond(FULL))

    kind = {"__typename": "RemoveMySessionContextAttributePayload"}
    assert (json.loads(told.data), len(told.calls)) == ({"a": kind, "b": None, "c": kind}, 3)
    assert len(told.errors) == 1
    assert told == await ways.by_strawberry(text, None, FailsSecond(FULL))


@pytest.mark.parametrize(
    "text",
    [
        "{ __schema { queryType { name } } }",
        '{ __type(name: "Query") { name } }',
        f"{{ sessionContext{ONE} {{ currency }} __schema {{ queryType {{ name }} }} }}",
        "{ ...F } fragment F on Query { __schema { queryType { name } } }",
    ],
)
def test_introspection_is_left_to_strawberry(ways: Ways, text: str) -> None:
    assert ways.plan(text) is None


@pytest.mark.parametrize(
    "text",
    [
        f"{{ ... @defer {{ sessionContext{ONE} {{ currency }} }} }}",
        '{ sessionContexts(tenant: "acme", sessionIds: []) @stream { currency } }',
        f"query @live {{ sessionContext{ONE} {{ currency }} }}",
        f"query ($a: Float @mine) {{ sessionContext{ONE} {{ currency }} }}",
        f"{{ sessionContext{ONE} {{ ...F }} }} fragment F on SessionContext @mine {{ currency }}",
        "subscription { changes { currency } }",
    ],
)
def test_what_is_not_known_is_left_to_strawberry(ways: Ways, text: str) -> None:
    document = parse(text)
    operation = document.definitions[0]
    assert isinstance(operation, OperationDefinitionNode)

    assert Compiler(ways.schema).plan(document, operation) is None


def test_what_would_be_a_very_large_plan_is_left_to_strawberry(ways: Ways) -> None:
    fields = " ".join(f"f{number}: currency" for number in range(60))
    text = f"{{ {' '.join(f's{number}: sessionContext{ONE} {{ ...F }}' for number in range(20))} }}"
    document = parse(f"{text} fragment F on SessionContext {{ {fields} }}")
    operation = document.definitions[0]
    assert isinstance(operation, OperationDefinitionNode)

    assert Compiler(ways.schema).plan(document, operation) is None


def test_every_root_field_has_a_resolver(ways: Ways) -> None:
    core = ways.schema.core
    assert core.query_type
    assert core.mutation_type
    assert RESOLVERS.keys() == core.query_type.fields.keys() | core.mutation_type.fields.keys()


def test_trusted_documents_are_compiled_at_the_start(ways: Ways) -> None:
    documents = Documents(
        ways.schema.core,
        LIMITS,
        memory=MEMORY,
        compiler=Compiler(ways.schema),
        trusted={"read": READ, "bad": "{ nothing }"},
    )

    assert documents._trusted["read"].operations[0].plan is not None
    assert documents._trusted["bad"].operations[0].plan is None


def test_plans_count_in_the_memory_of_documents(ways: Ways) -> None:
    with_plans = Documents(ways.schema.core, LIMITS, memory=MEMORY, compiler=Compiler(ways.schema))
    without = Documents(ways.schema.core, LIMITS, memory=MEMORY)
    for each in (with_plans, without):
        each.by_text(READ)

    plan = with_plans.by_text(READ).operation(None).plan
    assert plan is not None
    assert with_plans._kept.currsize == without._kept.currsize + plan.size


def test_errors_of_documents_are_as_they_were(ways: Ways) -> None:
    with pytest.raises(Exception, match="Cannot query field") as raised:
        ways.plan("{ nothing }")
    assert all(isinstance(each, GraphQLError) for each in raised.value.errors)  # type: ignore[attr-defined]
