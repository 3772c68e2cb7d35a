"""How large a document may be, what is told about the schema, and that each document is prepared once."""

from __future__ import annotations

import gc
import json
import sys
import tracemalloc
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import pytest_asyncio
import structlog.testing
from defaults import LIMITS, MEMORY
from graphql import get_introspection_query, parse

from gateway import contracts
from gateway.graphql import limits
from gateway.graphql.compiled import Compiler
from gateway.graphql.documents import Documents, NotExecutable, Prepared
from gateway.graphql.limits import Circular
from gateway.graphql.schema import make_schema
from gateway.sandbox import seed
from stage import opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from doors import JSON
    from gateway.sandbox import Sandbox
    from stage import Dev

CORE = make_schema().core
READ = f'sessionContext(tenant: "acme", sessionId: "{seed.CUSTOMER_SESSION}")'
INTROSPECTION = get_introspection_query(
    descriptions=True, specified_by_url=True, input_value_deprecation=True, one_of=True, directive_is_repeatable=True
)


def fragments(number: int, body: str) -> str:
    """Fragments F0, F1, ...; in the body, {0} stands for the number of its own and {1} for the next one's."""
    return " ".join(f"fragment F{each} on Query {{ {body.format(each, each + 1)} }}" for each in range(number))


def bomb(number: int) -> str:
    """Each fragment spreads the next one twice."""
    return f"{{ ...F0 }} {fragments(number, '...F{1} ...F{1}')} fragment F{number} on Query {{ __typename }}"


def circle(number: int) -> str:
    return f"{{ ...F0 }} {fragments(number - 1, '...F{1}')} fragment F{number - 1} on Query {{ ...F0 }}"


def prepared(text: str, **options: Any) -> Prepared:
    return Documents(CORE, options.pop("limits", LIMITS), memory=MEMORY, **options).by_text(text)


def refusal(text: str, variables: Mapping[str, object] | None = None, **options: Any) -> tuple[str, int, int]:
    """What limit a document is refused for, its value, and the bound."""
    documents = Documents(CORE, options.pop("limits", LIMITS), memory=MEMORY, **options)
    with pytest.raises(NotExecutable) as refused:
        execute(documents, text, variables)
    (error,) = refused.value.errors
    assert error.extensions is not None
    assert error.extensions["code"] == "GRAPHQL_LIMIT_EXCEEDED", error.message
    assert str(error.extensions["value"]) in error.message
    assert str(error.extensions["bound"]) in error.message
    return error.extensions["limit"], error.extensions["value"], error.extensions["bound"]


def execute(documents: Documents, text: str, variables: Mapping[str, object] | None = None) -> None:
    """Do what comes before the execution."""
    document = documents.by_text(text)
    operation = document.operation(None)
    document.valid()
    documents.check_cost(document, operation, variables or {})


# Documents that are too large

HOSTILE = {
    "length, deep": ("{a" * 10_000 + "}" * 10_000, ("length", 30_000, 16_384)),
    "length, aliased": ("{" + " ".join(f"a{n}: __typename" for n in range(10_000)) + "}", ("length", 178_891, 16_384)),
    "length, in one string": ('{ a(b: "' + "x" * 1_000_000 + '") }', ("length", 1_000_012, 16_384)),
    "tokens": ("{" + "a " * 7_000 + "}", ("tokens", 1001, 1000)),
    "comments": ("#\n" * 8_000 + "{ a }", ("tokens", 1001, 1000)),
    "depth, beyond the parser's": ("{a" * 5_000 + "}" * 5_000, ("depth", 201, 16)),
    "depth": ("{a" * 17 + "}" * 17, ("depth", 17, 16)),
    "depth, by fragments": (
        "{ a { ...F0 } } " + " ".join(f"fragment F{n} on Query {{ a {{ ...F{n + 1} }} }}" for n in range(16)),
        ("depth", 17, 16),
    ),
    "root fields": ("{" + "a " * 21 + "}", ("root_fields", 21, 20)),
    "root fields, by fragments": ("{ ...F0 ...F0 ...F0 } " + fragments(1, "a b c d e f g"), ("root_fields", 21, 20)),
    "aliases": ("{ a {" + " ".join(f"a{n}: b" for n in range(31)) + "} }", ("aliases", 31, 30)),
    "aliases, by fragments": (
        "{ a { ...F0 ...F0 ...F0 ...F0 } } " + fragments(1, "a: a b: b c: c d: d e: e f: f g: g h: h"),
        ("aliases", 32, 30),
    ),
    "directives": ("{ a " + "@b " * 33 + "}", ("directives", 33, 32)),
    "directives, of all places": (
        "query ($a: ID " + "@b " * 12 + ") " + "@b " * 11 + "{ a @b ...F0 @b ... @b { a } } "
        "fragment F0 on Query " + "@b " * 6 + "{ a @b }",
        ("directives", 33, 32),
    ),
    "selections": ("{ a {" + " ".join(f"a{n}" for n in range(300)) + "} }", ("selections", 301, 300)),
    "selections, of all operations": (
        " ".join(f"query Q{n} {{ a {{ {' '.join(f'a{m}' for m in range(59))} }} }}" for n in range(6)),
        ("selections", 360, 300),
    ),
    "selections, of fragments that no operation spreads": (
        "{ a } fragment F on Query {" + " ".join(f"a{n}" for n in range(300)) + "}",
        ("selections", 301, 300),
    ),
    "selections, doubled and doubled": ("{ a { ...F0 } } " + bomb(80)[10:], ("selections", 2**31 - 1, 300)),
    "selections, doubled and empty": (
        "{ a { ...F0 } } " + fragments(80, "...F{1} ...F{1}") + " fragment F80 on Query { }",
        ("selections", 2**31 - 1, 300),
    ),
    "values of a list": (f"{{ a(b: [{'1 ' * 201}]) }}", ("values", 201, 200)),
    "values of an object": ("{ a(b: {" + " ".join(f"c{n}: 1" for n in range(201)) + "}) }", ("values", 201, 200)),
    "values within values": ("{ a @b(c: [" + "[1 {d: 2}] " * 51 + "]) }", ("values", 204, 200)),
    "values, of all operations": (
        " ".join(f"query Q{n} {{ ...F0 }}" for n in range(5)) + " " + fragments(1, "a(b: [" + "1 " * 41 + "])"),
        ("values", 205, 200),
    ),
    "values of a default": (f"query ($a: JSON = [{'1 ' * 201}]) {{ a }}", ("values", 201, 200)),
    "values of a default, each a list in lists": (
        f"query ($a: {'[' * 51}Int!{']' * 51} = [1, [2, 3]]) {{ a }}",
        ("values", 204, 200),
    ),
    "repeats, of one field": ("{ a {" + "b " * 46 + "} }", ("repeats", 1035, 1000)),
    "repeats, of fields in fields": ("{" + ("a {" + "b " * 4 + "} ") * 12 + "}", ("repeats", 1194, 1000)),
    "repeats, of fragments": ("{ a {" + "... { b } " * 33 + "} }", ("repeats", 1056, 1000)),
    "repeats, of fragments in fragments": ("{ ...F0 } " + fragments(46, "...F{1}"), ("repeats", 1081, 1000)),
}


@pytest.mark.parametrize(("text", "told"), HOSTILE.values(), ids=HOSTILE)
def test_a_document_that_is_too_large_is_refused_for_the_limit_that_it_passes(
    text: str, told: tuple[str, int, int]
) -> None:
    with pytest.raises(NotExecutable) as refused:
        prepared_or_refused(text)

    extensions = refused.value.errors[0].extensions or {}
    assert (extensions["limit"], extensions["value"], extensions["bound"]) == told
    assert extensions["code"] == "GRAPHQL_LIMIT_EXCEEDED"


def prepared_or_refused(text: str) -> None:
    document = prepared(text)
    raise NotExecutable(*document.errors)


@pytest.mark.parametrize("number", [1, 2, 100])
def test_fragments_in_a_circle_are_refused_before_they_are_validated(number: int) -> None:
    (error,) = prepared(circle(number)).errors

    assert error.message.startswith("Cannot spread fragment 'F")
    assert error.extensions is None or "code" not in error.extensions


@pytest.mark.parametrize("text", [bomb(80), circle(100), *(text for text, _ in HOSTILE.values())])
def test_no_document_beyond_a_limit_is_validated(text: str) -> None:
    assert "validate" not in called(lambda: outcome(text))
    assert "validate" in called(lambda: outcome("{ __typename }"))


@pytest.mark.parametrize("make", [bomb, circle, lambda n: "{ ...F0 } " + fragments(n, "...F{1}")])
def test_measuring_is_linear_in_what_is_written(make: Callable[[int], str]) -> None:
    """Whatever it comes to spread out: 2^400 fields, in one case."""
    small, large = (parse(make(number)) for number in (100, 400))

    def measure(document: Any) -> None:
        with suppress(Circular):
            limits.measure(document, limits.prices(CORE), LIMITS)

    assert sum(called(lambda: measure(large)).values()) < 4.5 * sum(called(lambda: measure(small)).values())


def test_an_input_costs_no_more_for_each_field_that_it_should_not_have() -> None:
    """Where a literal holds a variable, all of them are looked at together."""
    text = (
        "mutation ($t: String!, $i: RemoveSessionContextAttributeInput!) { "
        "one: removeSessionContextAttribute(input: $i) { __typename } "
        'other: removeSessionContextAttribute(input: {tenant: $t, sessionId: "1", name: "a"}) { __typename } }'
    )
    (operation,) = prepared(text, compiler=Compiler(make_schema())).operations
    plan = operation.plan
    assert plan is not None

    def calls(unknown: int) -> int:
        variables = {"t": "acme", "i": {f"a{each}": 1 for each in range(unknown)}}
        return sum(called(lambda: plan.bound(variables)).values())

    assert plan.bound({"t": "acme", "i": {"tenant": "acme", "sessionId": "1", "name": "a"}})
    assert calls(2000) < 2 * calls(20)


def outcome(text: str) -> None:
    with suppress(NotExecutable):
        prepared(text)


def called(work: Callable[[], object]) -> dict[str, int]:
    """Calls by the name of what is called."""
    counts: dict[str, int] = {}

    def count(frame: Any, event: str, _: object) -> None:
        if event == "call":
            counts[frame.f_code.co_name] = counts.get(frame.f_code.co_name, 0) + 1

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return counts


@pytest.mark.parametrize("limit", ["depth", "root_fields", "aliases", "directives", "selections", "values", "repeats"])
def test_each_limit_may_be_set(limit: str) -> None:
    text = (
        'query { a: sessionContext(tenant: "acme", sessionId: "1") @include(if: true) { currency currency } '
        '... { b: sessionContexts(tenant: "acme", sessionIds: ["1", "2"]) { currency } } }'
    )
    values = {"depth": 2, "root_fields": 2, "aliases": 2, "directives": 1, "selections": 6, "values": 2, "repeats": 1}
    assert not prepared(text, limits=replace(LIMITS, **values)).errors

    tight = replace(LIMITS, **{**values, limit: values[limit] - 1})
    (error,) = prepared(text, limits=tight).errors
    assert (error.extensions or {})["limit"] == limit


def test_every_example_and_graphiqls_own_query_are_far_from_the_limits() -> None:
    documents = Documents(CORE, LIMITS, memory=MEMORY, introspection=True)
    for text in contracts.example_operations().values():
        execute(documents, text)
    execute(documents, INTROSPECTION)
    execute(documents, f"{{ {' '.join(f'a{n}: {READ} {{ {FIELDS} }}' for n in range(19))} }}")


FIELDS = "sessionId customerId siteCode currency cartId targetLocation language context metadata { version }"


# Cost

LIST = (
    'query ($ids: [ID!]! = [{default}]) {{ sessionContexts(tenant: "acme", sessionIds: $ids) {{ currency siteCode }} }}'
)

WRITE = (
    'mutation { removeSessionContextAttribute(input: {tenant: "acme", sessionId: "1", name: "a"}) '
    "{ ... on RemoveSessionContextAttributePayload { sessionContext { currency } } } }"
)

ADD_LIST = (
    'mutation ($a: {}) {{ addMySessionContextAttribute(input: {{tenant: "acme", name: "a", value: {{a: $a}}}}) '
    "{{ __typename }} }}"
)


@pytest.mark.parametrize(
    ("text", "variables", "cost"),
    [
        ("{ __typename }", {}, 1),
        (f"{{ {READ} {{ currency metadata {{ version }} }} }}", {}, 1 + 10 + 3),
        (f"{{ a: {READ} {{ currency }} ...F }} fragment F on Query {{ b: {READ} {{ currency }} }}", {}, 2 * 12),
        ('{ sessionContexts(tenant: "acme", sessionIds: ["1", "2"]) { currency } }', {}, 1 + 2 * (10 + 1)),
        ('{ sessionContexts(tenant: "acme", sessionIds: "1") { currency } }', {}, 1 + 10 + 1),
        (LIST.format(default=""), {"ids": ["1"] * 50}, 1 + 50 * 12),
        (LIST.format(default=""), {"ids": "1"}, 1 + 12),
        (LIST.format(default=""), {"ids": None}, 1 + 12),
        (LIST.format(default='"1", "2", "3"'), {}, 1 + 3 * 12),
        (LIST.format(default=""), {"ids": []}, 1),
        (
            "query ($ids: [ID!]!) { ...F ...F } fragment F on Query " + LIST.format(default="").partition(") ")[2],
            {"ids": ["1", "2"]},
            2 * (1 + 2 * 12),
        ),
        (WRITE, {}, 1 + 50 + 2),
        (ADD_LIST.format("[Int]"), {"a": [1] * 50}, 1 + 50 + 1 + 50),
        (ADD_LIST.format("[Int] = [1, 2]"), {}, 1 + 50 + 1 + 2),
        (ADD_LIST.format("[Int]"), {}, 1 + 50 + 1),
        (ADD_LIST.format("[[[Int!]]!]!"), {"a": [1, [], [2, [3]]]}, 1 + 50 + 1 + 3 + 3 + 3),
        (ADD_LIST.format("JSON"), {"a": [1] * 50}, 1 + 50 + 1),
    ],
)
def test_what_an_operation_costs(text: str, variables: Mapping[str, object], cost: int) -> None:
    assert prepared(text).operation(None).cost.of(variables, cost) == cost
    assert refusal(text, variables, limits=replace(LIMITS, cost=cost - 1)) == ("cost", cost, cost - 1)
    execute(Documents(CORE, replace(LIMITS, cost=cost), memory=MEMORY), text, variables)


def test_the_cost_is_of_the_operation_that_is_executed() -> None:
    document = prepared(f"query A {{ __typename }} query B {{ {READ} {{ currency }} }}")

    assert [document.operation(name).cost.of({}, 5000) for name in ("A", "B")] == [1, 12]


def test_lists_in_lists_are_counted_no_further_than_to_the_limit() -> None:
    """Of each entry a list is made for each level of the type: a small body would take gigabytes."""
    operation = prepared(ADD_LIST.format("[" * 100 + "SessionContextPatch" + "]" * 100)).operation(None)
    costs: list[int] = []

    calls = called(lambda: costs.append(operation.cost.of({"a": [{}] * 1000}, 5000)))

    assert 5000 < costs[0] <= 5000 + 1000 + 52
    assert sum(calls.values()) < 100


# Once


def test_a_document_is_prepared_once_whether_it_is_good_or_bad() -> None:
    documents = Documents(CORE, LIMITS, memory=MEMORY)
    for text in ("{ __typename }", "{ nothing }", "{", bomb(80)):
        first = documents.by_text(text)
        again: list[Prepared] = []

        assert not {"parse", "measure", "validate"} & called(lambda: again.append(documents.by_text(text))).keys()  # noqa: B023
        assert again == [first]


def test_an_error_keeps_no_syntax_tree() -> None:
    (error, *_) = prepared("{ nothing }").errors

    assert error.nodes is None
    assert error.__traceback__ is None
    assert [each.formatted for each in error.locations or ()] == [{"line": 1, "column": 3}]


def test_documents_are_kept_up_to_a_bound_and_those_used_last_stay() -> None:
    documents = Documents(CORE, LIMITS, memory=50_000)
    kept = documents.by_text("{ __typename }")
    for number in range(1000):
        documents.by_text(f"{{ a{number}: __typename }}")
        assert documents.by_text("{ __typename }") is kept

    assert 5 < len(documents) < 25


ADD = (
    'mutation {{ addSessionContextAttribute(input: {{tenant: "a", sessionId: "{0}", name: "a", value: {1}}}) '
    "{{ __typename }} }}"
)

KEPT: dict[str, Callable[[int], str]] = {
    "fields": lambda n: f"{{ a{n}: {READ} {{ {FIELDS} }} ...F{n} }} fragment F{n} on Query {{ __typename }}",
    "objects": lambda n: ADD.format(n, "[" + "{a:1}" * 66 + "]"),
    "lists": lambda n: ADD.format(n, "[" + "[[]]" * 66 + "]"),
    "operations": lambda n: "".join(f"query A{m}{{a{n}:__typename}}" for m in range(20)),
    "errors": lambda n: f"{{ a{n} b{n} c{n} d{n} }}",
    "errors that are longer than the document": lambda n: (
        f'{{ sessionContext(tenant: {"[" * 60} {"1 " * 60} "🛒" {"]" * 60}, sessionId: "{n}") {{ currency }} }}'
    ),
    "text": lambda n: f"{{ {READ} {{ a{n}: currency }} }} #{'🛒' * 9_000}",
}


@pytest.mark.parametrize("text", KEPT.values(), ids=KEPT)
def test_what_is_kept_takes_no_more_memory_than_is_allowed(text: Callable[[int], str]) -> None:
    documents = Documents(CORE, LIMITS, memory=(allowed := 1_000_000), compiler=Compiler(make_schema()))
    documents.by_text(text(-1))  # what is made but once
    gc.collect()
    tracemalloc.start()
    try:
        kept = number = 0
        while len(documents) > kept:
            kept = len(documents)
            documents.by_text(text(number := number + 1))
        gc.collect()
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert kept > 2
    assert taken < allowed


def test_a_document_that_is_larger_than_the_bound_is_not_kept() -> None:
    documents = Documents(CORE, LIMITS, memory=4_000)
    documents.by_text("{ " + "__typename " * 4 + "}")

    assert len(documents) == 0


# Over HTTP


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def served() -> AsyncIterator[Dev]:
    """As `serve` has it unless told otherwise."""
    async with opened(graphql={"playground": False, "introspection": False}) as dev:
        yield dev


async def post(client: httpx.AsyncClient, dev: Dev, document: JSON, **headers: str) -> httpx.Response:
    return await client.post(dev.graphql_url, json=document, headers=headers)


@pytest.mark.parametrize(("accept", "status"), [("application/graphql-response+json", 400), ("application/json", 200)])
async def test_a_refusal_names_the_limit_the_value_and_the_bound(
    dev: Dev, upstream: Sandbox, client: httpx.AsyncClient, accept: str, status: int
) -> None:
    variables = {"ids": [f"session-{number}" for number in range(500)]}
    response = await post(client, dev, {"query": LIST.format(default=""), "variables": variables}, accept=accept)

    assert response.status_code == status
    assert response.json() == {
        "errors": [
            {
                "message": "the limit of cost is 5000, and the document has 6001",
                "extensions": {"code": "GRAPHQL_LIMIT_EXCEEDED", "limit": "cost", "value": 6001, "bound": 5000},
            }
        ]
    }
    assert not upstream.requests


async def test_variables_are_measured_before_they_are_coerced(served: Dev, client: httpx.AsyncClient) -> None:
    """A list is made of each entry, at each level: 60 KB of this kept a gateway busy for seconds, whoever sent it."""
    query = ADD_LIST.format("[" * 100 + "Int" + "]" * 100)
    response = await post(client, served, {"query": query, "variables": {"a": [1] * 6000}})

    (error,) = response.json()["errors"]
    assert error["extensions"] == {"code": "GRAPHQL_LIMIT_EXCEEDED", "limit": "cost", "value": 6052, "bound": 5000}


async def test_where_limits_are_measured_documents_beyond_them_are_logged_and_answered(
    client: httpx.AsyncClient,
) -> None:
    bounds: dict[str, object] = {
        "limits": "measure",
        "max_length": 256,
        "max_tokens": 10,
        "max_depth": 1,
        "max_cost": 1,
    }
    query = f"{{ {READ} {{ currency }} {'# a comment ' * 30}\n}}"
    async with opened(graphql=bounds) as dev:
        with structlog.testing.capture_logs() as log:
            response = await post(client, dev, {"query": query})

    assert response.json() == {"data": {"sessionContext": {"currency": "EUR"}}}
    told = [(each["limit"], each["value"], each["bound"]) for each in log if each["event"] == "limit_exceeded"]
    assert told == [("length", len(query), 256), ("tokens", 11, 10), ("depth", 2, 1), ("cost", 12, 1)]
    assert "currency" not in json.dumps([each for each in log if each["event"] == "limit_exceeded"])


async def test_introspection_in_dev_answers_graphiqls_own_query(dev: Dev, client: httpx.AsyncClient) -> None:
    answer = (await post(client, dev, {"query": INTROSPECTION})).json()

    assert "errors" not in answer
    assert answer["data"]["__schema"]["queryType"]["name"] == "Query"


@pytest.mark.parametrize(
    "query",
    [
        INTROSPECTION,
        '{ __type(name: "Query") { name } }',
        "{ ...F } fragment F on Query { s: __schema { __typename } }",
    ],
)
async def test_there_is_no_introspection_unless_set(served: Dev, client: httpx.AsyncClient, query: str) -> None:
    response = await post(client, served, {"query": query})

    assert "data" not in response.json()
    assert "introspection has been disabled" in response.json()["errors"][0]["message"]


async def test_typename_is_no_introspection(served: Dev, client: httpx.AsyncClient) -> None:
    assert (await post(client, served, {"query": "{ __typename }"})).json() == {"data": {"__typename": "Query"}}


MISSPELT: list[tuple[JSON, str]] = [
    ({"query": "{ sessionContex }"}, "Cannot query field"),
    ({"query": '{ sessionContext(tenan: "acme") { currency } }'}, "Unknown argument"),
    ({"query": '{ mySessionContext(tenant: "acme") { curency } }'}, "Cannot query field"),
    ({"query": "query($a: Versio) { __typename }"}, "Unknown type"),
    ({"query": "{ ... on Quer { __typename } }"}, "Unknown type"),
    (
        {"query": "mutation { removeMySessionContextAttribute(input: {tenant: 1, name: 1, tenan: 1}) { __typename } }"},
        "unknown field 'tenan'",
    ),
    (
        {
            "query": "mutation($i: AddSessionContextAttributeInput!) "
            "{ addSessionContextAttribute(input: $i) { __typename } }",
            "variables": {"i": {"tenant": "acme", "sessionId": "1", "name": "a", "valu": 1}},
        },
        "unknown field",
    ),
]


@pytest.mark.parametrize(("document", "words"), MISSPELT)
async def test_no_names_are_suggested_where_there_is_no_introspection(
    dev: Dev, served: Dev, client: httpx.AsyncClient, document: JSON, words: str
) -> None:
    here, there = [(await post(client, each, document)).text for each in (dev, served)]

    assert words in here
    assert words in there
    assert "Did you mean" in here
    assert "Did you mean" not in there


async def test_a_small_question_gets_no_large_answer(served: Dev, client: httpx.AsyncClient) -> None:
    """Each error repeats the whole value that is wrong; there are few of them."""
    fields = " ".join(f"a{number}: 1" for number in range(190))
    query = f"mutation {{ addSessionContextAttribute(input: {{{fields}}}) {{ __typename }} }}"
    response = await post(client, served, {"query": query})

    assert len(response.json()["errors"]) == 4
    assert len(response.content) < 4 * len(query) + 2000


@pytest.mark.parametrize("introspection", [False, True])
async def test_of_many_things_that_are_wrong_with_variables_few_are_told(
    dev: Dev, served: Dev, client: httpx.AsyncClient, *, introspection: bool
) -> None:
    """For each the whole value is looked through: 1 MB took most of a second."""
    query = "mutation($i: AddSessionContextAttributeInput!) { addSessionContextAttribute(input: $i) { __typename } }"
    variables = {"i": {f"a{number}": 1 for number in range(60)}}
    response = await post(client, dev if introspection else served, {"query": query, "variables": variables})

    errors = response.json()["errors"]
    assert len(errors) == 4
    assert "Too many errors" in errors[-1]["message"]


@pytest.mark.parametrize("backend", ["none", "memory"])
@pytest.mark.parametrize("beside", ["", "__schema { queryType { name } }"], ids=["by plan", "by Strawberry"])
async def test_an_answer_has_so_many_bytes(beside: str, backend: str) -> None:
    async with opened(graphql={"max_answer": 20_000}, cache={"backend": backend}) as dev, httpx.AsyncClient() as client:
        document = seed.SESSIONS["acme", seed.CUSTOMER_SESSION].replace(b"customValue", b"x" * 15_000)
        dev.sandbox.store.seed("acme", seed.CUSTOMER_SESSION, document)

        for _ in range(3):
            query = {"query": f"{{ {beside} {READ} {{ a: context b: context }} }}"}
            response = await post(client, dev, query, **{"x-api-key": "dev-key"})
            assert response.status_code == 200
            assert response.json()["data"] is None
            (error,) = response.json()["errors"]
            assert error["extensions"] == {"code": "ANSWER_TOO_LARGE"}
            assert "20000 bytes" in error["message"]

            query = {"query": f"{{ {beside} {READ} {{ context }} }}"}
            response = await post(client, dev, query, **{"x-api-key": "dev-key"})
            assert "errors" not in response.json()
            assert len(response.content) > 15_000


async def test_names_count_in_the_size_of_an_answer() -> None:
    names = [f"{letter * 3_000}: currency" for letter in "abcde"]
    async with opened(graphql={"max_answer": 10_000}) as dev, httpx.AsyncClient() as client:
        for number, fits in ((3, True), (5, False)):
            query = {"query": f"{{ {READ} {{ {' '.join(names[:number])} }} }}"}
            response = await post(client, dev, query, **{"x-api-key": "dev-key"})
            assert ("errors" not in response.json()) is fits


async def test_numbers_count_as_they_are_written_out() -> None:
    """Upstream may have written them with an exponent, `1E15`, as Java does."""
    async with opened(graphql={"max_answer": 20_000}) as dev, httpx.AsyncClient() as client:
        numbers = ",".join(["1E15"] * 1_500).encode()
        document = seed.SESSIONS["acme", seed.CUSTOMER_SESSION].replace(b'"customValue"', b"[%b]" % numbers)
        dev.sandbox.store.seed("acme", seed.CUSTOMER_SESSION, document)

        query = {"query": f"{{ {READ} {{ context }} }}"}
        response = await post(client, dev, query, **{"x-api-key": "dev-key"})

        assert [each["extensions"]["code"] for each in response.json()["errors"]] == ["ANSWER_TOO_LARGE"]
