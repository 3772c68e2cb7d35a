"""GraphQL over HTTP (https://graphql.github.io/graphql-over-http/draft/), through the real server."""

from __future__ import annotations

import asyncio
import gzip
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import httpx
import pytest
import structlog.testing
from defaults import LIMITS, MEMORY
from graphql import get_named_type, is_input_object_type

from gateway.errors import InvalidArgument
from gateway.graphql.documents import Documents
from gateway.graphql.headers import BrowserHeaders
from gateway.graphql.http import GraphQLEndpoint
from gateway.graphql.resolvers import RESOLVERS
from gateway.graphql.schema import make_schema
from gateway.graphql.types import in_terms_of_inputs
from gateway.listener import listening
from gateway.sandbox import seed
from gateway.telemetry.requests import Requests
from stage import opened
from waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from doors import JSON
    from gateway.request import Request
    from gateway.sandbox import Sandbox
    from gateway.telemetry.requests import RequestWatcher
    from stage import Dev

LEGACY = "application/json"
MODERN = "application/graphql-response+json"
QUERY = f'{{ sessionContext(tenant: "acme", sessionId: "{seed.CUSTOMER_SESSION}") {{ currency }} }}'
DATA = {"data": {"sessionContext": {"currency": "EUR"}}}
MUTATION = (
    f'mutation Write {{ addSessionContextAttribute(input: {{tenant: "acme", sessionId: "{seed.CUSTOMER_SESSION}", '
    'name: "written", value: true}) { __typename } }'
)
MAX_BODY = 1_048_576
ASKED = {"graphql-require-preflight": "1"}
"""Shows that a GET is no link's: tests/access/test_csrf_cors.py."""


async def post(client: httpx.AsyncClient, dev: Dev, document: JSON, **headers: str) -> httpx.Response:
    return await client.post(dev.graphql_url, json=document, headers=headers)


def message_of(response: httpx.Response) -> str:
    (error,) = response.json()["errors"]
    return str(error["message"])


def media_type_of(response: httpx.Response) -> str:
    return response.headers["content-type"].partition(";")[0]


# Media types


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (MODERN, MODERN),
        (LEGACY, LEGACY),
        ("*/*", LEGACY),
        ("application/*", LEGACY),
        ("", LEGACY),
        (f"{MODERN}, {LEGACY}", MODERN),
        (f"{LEGACY}, {MODERN}", LEGACY),
        (f"{MODERN}, {LEGACY};q=0.9", MODERN),
        (f"{LEGACY};q=0.9, {MODERN}", MODERN),
        (f"{MODERN};q=0.1, {LEGACY}; q=0.2", LEGACY),
        (f"{MODERN};q=0, */*", LEGACY),
        (f"{LEGACY};q=0, */*", MODERN),
        (f"{LEGACY};Q=0, application/*;q=0.5", MODERN),
        (f"{MODERN}; charset=utf-8, text/html", MODERN),
        ("Application/GraphQL-Response+JSON", MODERN),
        ("text/html;q=0.9, */*;q=0.1", LEGACY),
    ],
)
async def test_the_media_type_is_the_one_that_the_client_prefers(
    dev: Dev, upstream: Sandbox, client: httpx.AsyncClient, accept: str, expected: str
) -> None:
    response = await post(client, dev, {"query": QUERY}, accept=accept)

    assert response.status_code == 200
    assert response.headers["content-type"] == f"{expected}; charset=utf-8"
    assert response.json() == DATA


async def test_who_does_not_say_what_to_accept_gets_json(dev: Dev, upstream: Sandbox) -> None:
    document = json.dumps({"query": QUERY}).encode()
    async with connected(dev) as connection:
        answer = await connection.ask(request("POST", document, {"content-type": LEGACY}))

    assert answer.headers["content-type"] == f"{LEGACY}; charset=utf-8"
    assert answer.json() == DATA


async def test_accept_may_come_in_several_lines(dev: Dev, upstream: Sandbox, client: httpx.AsyncClient) -> None:
    headers = [("accept", "text/html"), ("accept", MODERN)]
    response = await client.post(dev.graphql_url, json={"query": QUERY}, headers=headers)

    assert media_type_of(response) == MODERN


@pytest.mark.parametrize("accept", ["text/html", f"{LEGACY};q=0", "*/*;q=0", "application/xml, text/*", "nonsense"])
async def test_who_accepts_neither_is_refused_and_nothing_is_done(
    dev: Dev, upstream: Sandbox, client: httpx.AsyncClient, accept: str
) -> None:
    response = await post(client, dev, {"query": MUTATION}, accept=accept)

    assert response.status_code == 406
    assert MODERN in message_of(response)
    assert not upstream.requests


# Status codes

NOT_EXECUTABLE: list[tuple[str, JSON, str]] = [
    ("not GraphQL", {"query": "{ sessionContext( }"}, "Syntax Error"),
    ("empty", {"query": ""}, "Syntax Error"),
    ("no such field", {"query": "{ nothing }"}, "'nothing'"),
    ("no operation", {"query": "fragment F on Query { __typename }"}, "'F'"),
    ("a type", {"query": "type A { a: Int }"}, "'A' definition is not executable"),
    ("unknown operationName", {"query": "query A { __typename }", "operationName": "B"}, "'B'"),
    ("an empty operationName", {"query": "query A { __typename }", "operationName": ""}, "operationName ''"),
    (
        "a long operationName",
        {"query": "query A { __typename }", "operationName": "B" * 100_000},
        f" operationName '{'B' * 64}…'",
    ),
    ("several, none named", {"query": "query A { __typename } query B { __typename }"}, "operationName"),
    ("a subscription", {"query": "subscription { sessionContext }"}, "subscription"),
    ("a variable is missing", {"query": "query($t: String!) { mySessionContext(tenant: $t) { cartId } }"}, "'$t'"),
    (
        "a variable of another type",
        {"query": "query($t: String!) { mySessionContext(tenant: $t) { cartId } }", "variables": {"t": ["acme"]}},
        "'$t'",
    ),
]


@pytest.mark.parametrize(
    ("document", "words"), [row[1:] for row in NOT_EXECUTABLE], ids=[row[0] for row in NOT_EXECUTABLE]
)
@pytest.mark.parametrize(("accept", "status"), [(MODERN, 400), (LEGACY, 200)])
async def test_a_request_that_cannot_be_executed(
    dev: Dev,
    upstream: Sandbox,
    client: httpx.AsyncClient,
    *,
    accept: str,
    status: int,
    document: JSON,
    words: str,
) -> None:
    response = await post(client, dev, document, accept=accept)

    assert response.status_code == status
    assert media_type_of(response) == accept
    assert "data" not in response.json()
    assert words in message_of(response)
    assert response.json()["errors"][0]["extensions"]["code"] == "GRAPHQL_VALIDATION_FAILED"
    assert not upstream.requests


@pytest.mark.parametrize("accept", [MODERN, LEGACY])
async def test_an_error_of_the_execution_is_a_request_that_succeeded(
    dev: Dev, upstream: Sandbox, client: httpx.AsyncClient, accept: str
) -> None:
    query = f'{{ good: {QUERY[1:-1]} bad: sessionContext(tenant: "BAD", sessionId: "x") {{ currency }} }}'
    response = await post(client, dev, {"query": query}, accept=accept)

    assert response.status_code == 200
    assert response.json()["data"] == {"good": {"currency": "EUR"}, "bad": None}
    (error,) = response.json()["errors"]
    assert error["path"] == ["bad"]
    assert error["extensions"]["code"] == "INVALID_ARGUMENT"


async def test_an_execution_whose_every_field_fails_is_still_one(
    dev: Dev, upstream: Sandbox, client: httpx.AsyncClient
) -> None:
    query = '{ sessionContexts(tenant: "BAD", sessionIds: []) { currency } }'
    response = await post(client, dev, {"query": query}, accept=MODERN)

    assert response.status_code == 200
    assert response.json()["data"] == {"sessionContexts": None}


async def test_a_write_that_fails_leaves_what_the_others_came_to(
    dev: Dev, upstream: Sandbox, client: httpx.AsyncClient
) -> None:
    upstream.faults.arm("status=500", "remove-attribute", times=None)
    given = f'tenant: "acme", sessionId: "{seed.CUSTOMER_SESSION}", name: "customProperty"'
    query = f"""mutation {{
      first: addSessionContextAttribute(input: {{{given}, value: 1}}) {{
        ... on AddSessionContextAttributePayload {{ sessionContext {{ metadata {{ version }} }} }}
      }}
      second: removeSessionContextAttribute(input: {{{given}}}) {{ __typename }}
    }}"""
    response = await post(client, dev, {"query": query})

    first = {"sessionContext": {"metadata": {"version": 11}}}
    assert response.json()["data"] == {"first": first, "second": None}
    (error,) = response.json()["errors"]
    assert (error["path"], error["extensions"]["code"]) == (["second"], "UPSTREAM_FAULT")


async def test_the_named_operation_is_the_one_that_is_executed(
    dev: Dev, upstream: Sandbox, client: httpx.AsyncClient
) -> None:
    query = f"{MUTATION} query Read {QUERY}"
    response = await post(client, dev, {"query": query, "operationName": "Read"})

    assert response.json() == DATA
    assert not upstream.count("add-attribute")


async def test_a_mutation_beside_a_query_is_not_executed_unless_named(
    dev: Dev, upstream: Sandbox, client: httpx.AsyncClient
) -> None:
    response = await post(client, dev, {"query": f"{MUTATION} query Read {QUERY}"}, accept=MODERN)

    assert response.status_code == 400
    assert not upstream.requests


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (429, "RATE_LIMITED"),
        (500, "UPSTREAM_FAULT"),
        (502, "UPSTREAM_UNAVAILABLE"),
        (503, "UPSTREAM_UNAVAILABLE"),
    ],
)
async def test_upstreams_status_is_never_ours(
    dev: Dev, upstream: Sandbox, client: httpx.AsyncClient, status: int, code: str
) -> None:
    upstream.faults.arm(f"status={status}", "get")
    response = await post(client, dev, {"query": QUERY}, accept=MODERN)

    assert response.status_code == 200
    assert response.json()["data"] == {"sessionContext": None}
    assert [each["extensions"]["code"] for each in response.json()["errors"]] == [code]


@pytest.mark.parametrize("status", [401, 403])
async def test_upstreams_refusal_of_our_own_token_is_never_our_status(client: httpx.AsyncClient, status: int) -> None:
    async with opened() as dev:
        dev.sandbox.faults.arm(f"status={status}", "get", times=None)
        response = await post(client, dev, {"query": QUERY}, accept=MODERN)

    assert response.status_code == 200
    assert response.json()["errors"][0]["extensions"]["code"] == "GATEWAY_CREDENTIALS_REFUSED"


async def test_a_session_that_is_not_there_is_null_and_no_error(
    dev: Dev, upstream: Sandbox, client: httpx.AsyncClient
) -> None:
    upstream.faults.arm("status=404", "get")
    response = await post(client, dev, {"query": QUERY}, accept=MODERN)

    assert response.status_code == 200
    assert response.json() == {"data": {"sessionContext": None}}


# Violations

OF_ANY = 'tenant: "BAD", sessionId: ""'
PATCHED = '{currency: "CHFF", context: {_: 1, long: 1}}'.replace("long", "a" * 257)
WRONG: list[tuple[str, set[str]]] = [
    (f"sessionContext({OF_ANY}, maxAge: -1)", {"tenant", "sessionId", "maxAge"}),
    ('sessionContexts(tenant: "BAD", sessionIds: ["good", ""], maxAge: -1)', {"tenant", "sessionIds[1]", "maxAge"}),
    (f'sessionContexts(tenant: "acme", sessionIds: {json.dumps(["s"] * 101)})', {"sessionIds"}),
    ('mySessionContext(tenant: "BAD", maxAge: -1)', {"tenant", "maxAge"}),
    (
        (
            f"replaceSessionContext(input: {{{OF_ANY}, sessionContext: {{"
            f'{PATCHED[1:-1]}, additionalProperties: {{currency: "EUR"}}}}}})'
        ),
        {
            "tenant",
            "sessionId",
            "expectedVersion",
            "sessionContext.currency",
            "sessionContext.context",
            "sessionContext.additionalProperties",
            "saas-token",
        },
    ),
    (f"replaceSessionContext(input: {{{OF_ANY}, sessionContext: {{context: 1}}}})", {"sessionContext.context"}),
    (
        f"patchSessionContext(input: {{{OF_ANY}, patch: {PATCHED}}})",
        {"tenant", "sessionId", "patch.currency", "patch.context", "saas-token"},
    ),
    (f"patchSessionContext(input: {{{OF_ANY}, patch: {{}}}})", {"tenant", "sessionId", "patch", "saas-token"}),
    (f"patchSessionContext(input: {{{OF_ANY}, patch: {{context: 1}}}})", {"patch.context"}),
    (f'addSessionContextAttribute(input: {{{OF_ANY}, name: "", value: 1}})', {"tenant", "sessionId", "name"}),
    (f'addSessionContextAttribute(input: {{{OF_ANY}, name: ""}})', {"value"}),
    (
        f'addSessionContextAttribute(input: {{{OF_ANY}, name: "", value: 1, expectedVersion: 1}})',
        {"tenant", "sessionId", "name", "saas-token"},
    ),
    (f'removeSessionContextAttribute(input: {{{OF_ANY}, name: ".."}})', {"tenant", "sessionId", "name"}),
    (
        f'updateMySessionContext(input: {{tenant: "BAD", patch: {PATCHED}}})',
        {"tenant", "patch.currency", "patch.context"},
    ),
    ('updateMySessionContext(input: {tenant: "BAD", patch: {}})', {"tenant", "patch"}),
    ('addMySessionContextAttribute(input: {tenant: "BAD", name: "", value: 1})', {"tenant", "name"}),
    ('removeMySessionContextAttribute(input: {tenant: "BAD", name: "."})', {"tenant", "name"}),
]


@pytest.mark.parametrize(("field", "expected"), WRONG)
async def test_what_is_wrong_is_told_in_the_words_of_the_schema(
    dev: Dev, upstream: Sandbox, client: httpx.AsyncClient, field: str, expected: set[str]
) -> None:
    name = field.partition("(")[0]
    if "input:" not in field:
        query = f"{{ {field} {{ currency }} }}"
    else:
        query = f"mutation {{ {field} {{ ... on InvalidInput {{ code message violations {{ field message }} }} }} }}"
    token = {"authorization": f"Bearer {seed.CUSTOMER_TOKEN}"} if "my" in name.lower() else {}
    answer = (await post(client, dev, {"query": query}, **token)).json()

    failure = answer["data"][name]
    if failure is None:
        (error,) = answer["errors"]
        failure = {"message": error["message"], **error["extensions"]}
    assert failure["code"] == "INVALID_ARGUMENT"
    told = failure["violations"]
    assert {each["field"] for each in told} == expected
    assert failure["message"] == "; ".join(f"{each['field']}: {each['message']}" for each in told)
    for each in expected - {"saas-token"}:
        assert is_in_schema(name, each)
    assert not upstream.requests


@pytest.mark.parametrize("name", sorted(RESOLVERS.keys() - {"sessionContext", "sessionContexts", "mySessionContext"}))
@pytest.mark.parametrize("field", ["session_context", "session_context.currency", "update_mask", "expected_version"])
def test_what_comes_up_later_is_told_so_too(name: str, field: str) -> None:
    """Upstream refuses it, it is too large, or an attribute leads into what is no object."""
    if (name, field) == ("replaceSessionContext", "update_mask"):
        return
    (violation,) = in_terms_of_inputs(InvalidArgument.of(field, "is refused by upstream"), name).violations

    assert is_in_schema(name, violation.field)


def is_in_schema(root_field: str, path: str) -> bool:
    """Whether an argument, or a field of an input, stands at this path."""
    core = make_schema().core
    assert core.query_type
    assert core.mutation_type
    fields = {**core.query_type.fields, **core.mutation_type.fields}
    given: Any = {name: each.type for name, each in fields[root_field].args.items()}
    if "input" in given:
        given = {name: each.type for name, each in get_named_type(given["input"]).fields.items()}
    for name in path.partition("[")[0].split("."):
        if name not in given:
            return False
        inner = get_named_type(given[name])
        given = {key: each.type for key, each in inner.fields.items()} if is_input_object_type(inner) else {}
    return True


# Requests by POST

MALFORMED: list[tuple[str, bytes, str]] = [
    ("nothing", b"", "the body: is empty"),
    ("nothing but space", b" \n", "the body: is empty"),
    ("not JSON", b"{query: 1}", "the body: JSON is malformed"),
    ("cut off", b'{"query": "{', "the body: Input data was truncated"),
    ("more than one", b'{"query": "{ __typename }"} {}', "the body: JSON is malformed"),
    ("not UTF-8", b'{"query": "{ \xff }"}', "the body: Invalid UTF-8"),
    ("half a character", b'{"query": "{ __typename }", "variables": {"a": "\\ud800"}}', "utf-16 surrogate pair"),
    ("half a character at the end", b'{"query": "\\ud800"}', "utf-16 surrogate pair"),
    ("a number", b"1", "Expected `object`, got `int`"),
    ("null", b"null", "Expected `object`, got `null`"),
    ("a batch", b'[{"query": "{ __typename }"}]', "batches are not supported"),
    ("a batch of none", b" []", "batches are not supported"),
    ("no query", b"{}", "`query`"),
    ("a query that is null", b'{"query": null}', "`query`"),
    ("a query that is no string", b'{"query": 1}', "`$.query`"),
    ("variables that are no object", b'{"query": "{ __typename }", "variables": [1]}', "`$.variables`"),
    ("variables in a string", b'{"query": "{ __typename }", "variables": "{}"}', "`$.variables`"),
    ("a name that is no string", b'{"query": "{ __typename }", "operationName": 1}', "`$.operationName`"),
    ("extensions that are no object", b'{"query": "{ __typename }", "extensions": 1}', "`$.extensions`"),
    ("nested too deeply", b'{"query": "{ __typename }", "variables": {"a": ' + b"[" * 100_000, "nested too deeply"),
]


@pytest.mark.parametrize("accept", [MODERN, LEGACY])
@pytest.mark.parametrize(("body", "words"), [row[1:] for row in MALFORMED], ids=[row[0] for row in MALFORMED])
async def test_a_body_that_is_no_request_of_graphql(
    dev: Dev, upstream: Sandbox, client: httpx.AsyncClient, *, body: bytes, words: str, accept: str
) -> None:
    headers = {"content-type": LEGACY, "accept": accept}
    response = await client.post(dev.graphql_url, content=body, headers=headers)

    assert response.status_code == 400
    assert media_type_of(response) == accept
    assert words in message_of(response)
    assert response.json()["errors"][0]["extensions"]["code"] == "BAD_REQUEST"


async def test_parameters_may_be_null_and_unknown_ones_are_passed_over(
    dev: Dev, upstream: Sandbox, client: httpx.AsyncClient
) -> None:
    document = {"query": QUERY, "variables": None, "operationName": None, "extensions": None, "id": 7}

    assert (await post(client, dev, document)).json() == DATA


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "text/plain",
        "application/graphql",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/json; charset=utf-16",
        'application/json; x="a;b"; charset=latin1',
        'application/json; charset="latin1"; charset=utf-8',
        "application/json; charset=",
        'application/json; charset="utf-8',
        "application/jsonx",
    ],
)
async def test_a_body_of_another_media_type(
    dev: Dev, upstream: Sandbox, client: httpx.AsyncClient, content_type: str | None
) -> None:
    """None of those that a browser's form can send is let in: no page may write on its visitor's behalf."""
    headers = {} if content_type is None else {"content-type": content_type}
    response = await client.post(dev.graphql_url, content=json.dumps({"query": MUTATION}), headers=headers)

    assert response.status_code == 415
    assert "application/json" in message_of(response)
    assert not upstream.requests


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "application/json; charset=utf-8",
        'Application/JSON;charset="UTF-8"',
        "application/json; charset=utf-8;",
        "application/json ;; charset=utf-8; x=y",
        'application/json; x="charset=latin1; charset=latin1"; charset="ut\\f-8"',
        "application/json; x=charset=latin1",
    ],
)
async def test_json_in_utf_8(dev: Dev, upstream: Sandbox, client: httpx.AsyncClient, content_type: str) -> None:
    body = json.dumps({"query": QUERY}).encode()
    response = await client.post(dev.graphql_url, content=body, headers={"content-type": content_type})

    assert response.json() == DATA


@pytest.mark.parametrize("coding", ["gzip", "br", "GZIP, identity"])
async def test_a_body_that_is_compressed(dev: Dev, upstream: Sandbox, client: httpx.AsyncClient, coding: str) -> None:
    body = gzip.compress(json.dumps({"query": QUERY}).encode())
    headers = {"content-type": LEGACY, "content-encoding": coding}
    response = await client.post(dev.graphql_url, content=body, headers=headers)

    assert response.status_code == 415
    assert response.headers["accept-encoding"] == "identity"
    assert f"content-encoding {coding.lower()!r} is not supported" in message_of(response)
    assert (await post(client, dev, {"query": QUERY}, **{"content-encoding": "identity"})).json() == DATA


def _padded(size: int) -> bytes:
    body = json.dumps({"query": QUERY}).encode()
    return body + b" " * (size - len(body))


async def _in_chunks(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 100_000):
        yield body[start : start + 100_000]


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(("size", "status"), [(MAX_BODY, 200), (MAX_BODY + 1, 413), (4 * MAX_BODY, 413)])
async def test_the_largest_body(
    dev: Dev, upstream: Sandbox, client: httpx.AsyncClient, *, size: int, status: int, chunked: bool
) -> None:
    body = _padded(size)
    content: Any = _in_chunks(body) if chunked else body
    response = await client.post(dev.graphql_url, content=content, headers={"content-type": LEGACY})

    assert response.status_code == status
    assert status == 200 or str(MAX_BODY) in message_of(response)
    assert (await post(client, dev, {"query": QUERY})).json() == DATA


async def test_a_body_that_is_announced_to_be_too_large_need_not_be_sent(dev: Dev) -> None:
    """A client that waits for 100 (Continue) is told instead (RFC 9110, 10.1.1)."""
    headers = {"content-type": LEGACY, "content-length": str(MAX_BODY + 1), "expect": "100-continue"}
    async with connected(dev) as connection:
        refused = await connection.ask(request("POST", b"", headers))

    assert refused.status == 413
    assert str(MAX_BODY) in refused.json()["errors"][0]["message"]


@pytest.mark.parametrize("accept", [MODERN, LEGACY])
async def test_a_query_that_is_nested_too_deeply(
    dev: Dev, upstream: Sandbox, client: httpx.AsyncClient, accept: str
) -> None:
    response = await post(client, dev, {"query": "{a" * 5_000 + "}" * 5_000}, accept=accept)

    assert response.status_code == (400 if accept == MODERN else 200)
    assert "the limit of depth is 16" in message_of(response)


async def test_values_that_are_nested_too_deeply(dev: Dev, upstream: Sandbox, client: httpx.AsyncClient) -> None:
    """Not for JSON's decoder, but for what comes after it."""
    value: JSON = 1
    for _ in range(800):
        value = [value]
    with structlog.testing.capture_logs() as log:
        response = await add_attribute(client, dev, "deep", value)

    assert log == []
    assert "nested" in message_of(response)
    assert not upstream.requests


@pytest.mark.parametrize(("levels", "innermost"), [(100, "x"), (100, []), (101, "x"), (101, []), (101, {})])
async def test_the_deepest_value(
    dev: Dev, upstream: Sandbox, client: httpx.AsyncClient, levels: int, innermost: JSON
) -> None:
    value = innermost
    for _ in range(levels - (innermost != "x")):
        value = {"a": value}
    response = await add_attribute(client, dev, "deep", value)

    assert ("not be nested deeper than 100 levels" in response.text) is (levels > 100)
    assert upstream.count("add-attribute") == (levels <= 100)


# Requests by GET, and by other methods


async def test_a_query_by_get(dev: Dev, upstream: Sandbox, client: httpx.AsyncClient) -> None:
    query = (
        'query Other { __typename } query Read($s: ID!) { sessionContext(tenant: "acme", sessionId: $s) { currency } }'
    )
    variables = {"s": seed.CUSTOMER_SESSION}
    parameters = {"query": query, "variables": json.dumps(variables), "operationName": "Read"}

    assert (await client.get(dev.graphql_url, params=parameters, headers=ASKED)).json() == DATA


@pytest.mark.parametrize("given", ["null", "{}", ""])
async def test_parameters_that_hold_nothing(dev: Dev, upstream: Sandbox, client: httpx.AsyncClient, given: str) -> None:
    parameters = {"query": QUERY, "variables": given, "extensions": given}

    assert (await client.get(dev.graphql_url, params=parameters, headers=ASKED)).json() == DATA


async def test_any_unicode_in_a_url(dev: Dev, upstream: Sandbox, client: httpx.AsyncClient) -> None:
    session = "ü+ 🛒 &=%"
    document = seed.SESSIONS["acme", seed.CUSTOMER_SESSION]
    upstream.store.seed("acme", session, document.replace(seed.CUSTOMER_SESSION.encode(), session.encode()))
    query = 'query($s: ID!) { sessionContext(tenant: "acme", sessionId: $s) { currency } }'
    parameters = {"query": query, "variables": json.dumps({"s": session}, ensure_ascii=False)}

    assert (await client.get(dev.graphql_url, params=parameters, headers=ASKED)).json() == DATA


@pytest.mark.parametrize("accept", [MODERN, LEGACY])
@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ("", "`query`"),
        ("query=%7B__typename%7D&variables=%7B", "variables: "),
        ("query=%7B__typename%7D&variables=[1]", "`$.variables`"),
        ("query=%7B__typename%7D&variables=1%2C%22query%22%3A%22%7Ba%7D%22", "variables: JSON is malformed"),
        ("query=%7B__typename%7D&extensions=x", "extensions: JSON is malformed"),
        ("query=%7B__typename%7D&variables=" + "[" * 50_000, "variables: JSON is nested too deeply"),
        ("query=%7B__typename%7D&variables=%7B%22a%22:%22%FF%22%7D", "not UTF-8"),
        ("query=%7B__typename%7D&operationName=%C3", "not UTF-8"),
    ],
)
async def test_a_url_that_is_no_request_of_graphql(
    dev: Dev, client: httpx.AsyncClient, parameters: str, words: str, accept: str
) -> None:
    response = await client.get(f"{dev.graphql_url}?{parameters}", headers={"accept": accept, **ASKED})

    assert response.status_code == 400
    assert media_type_of(response) == accept
    assert words in message_of(response)


@pytest.mark.parametrize("accept", [MODERN, LEGACY])
@pytest.mark.parametrize(
    "parameters",
    [
        {"query": MUTATION},
        {"query": f"{MUTATION} query Read {QUERY}", "operationName": "Write"},
        {"query": f"query Read {QUERY} {MUTATION}", "operationName": "Write"},
        {"query": MUTATION, "operationName": ""},
    ],
)
async def test_a_mutation_by_get_is_refused_and_nothing_is_done(
    dev: Dev, upstream: Sandbox, client: httpx.AsyncClient, parameters: dict[str, str], accept: str
) -> None:
    response = await client.get(dev.graphql_url, params=parameters, headers={"accept": accept, **ASKED})

    assert response.status_code == 405
    assert response.headers["allow"] == "POST"
    assert "mutation" in message_of(response)
    assert not upstream.requests


@pytest.mark.parametrize(
    "parameters",
    [
        {"query": f"{MUTATION} query Read {QUERY}"},
        {"query": f"query Read {QUERY} {MUTATION}"},
        {"query": f"{MUTATION} query Read {QUERY}", "operationName": ""},
        {"query": MUTATION, "operationName": "Other"},
    ],
)
async def test_no_mutation_slips_through_by_get_for_want_of_a_name(
    dev: Dev, upstream: Sandbox, client: httpx.AsyncClient, parameters: dict[str, str]
) -> None:
    response = await client.get(dev.graphql_url, params=parameters, headers={"accept": MODERN, **ASKED})

    assert response.status_code == 400
    assert not upstream.requests


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"])
async def test_other_methods(dev: Dev, upstream: Sandbox, client: httpx.AsyncClient, method: str) -> None:
    response = await client.request(method, dev.graphql_url, params={"query": QUERY}, json={"query": QUERY})

    assert response.status_code == 405
    assert response.headers["allow"] == "GET, POST"
    assert not upstream.requests
    if method == "HEAD":
        assert response.content == b""
    else:
        assert method in message_of(response)


async def test_who_asks_for_a_websocket_is_told_that_there_is_none(dev: Dev) -> None:
    handshake = {
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
        "sec-websocket-version": "13",
        "sec-websocket-protocol": "graphql-transport-ws",
    }
    async with connected(dev) as connection:
        refused = await connection.ask(request("GET", b"", handshake))

    assert refused.status == 400
    assert "no WebSockets" in refused.json()["errors"][0]["message"]


# Every answer


@pytest.mark.parametrize(
    ("method", "headers", "body", "status"),
    [
        ("GET", {}, b"", 400),
        ("GET", ASKED, b"", 400),
        ("POST", {"content-type": LEGACY}, json.dumps({"query": QUERY}).encode(), 200),
        ("POST", {"content-type": LEGACY, "accept": MODERN}, b'{"query": "{"}', 400),
        ("POST", {"content-type": LEGACY}, b"{", 400),
        ("POST", {"content-type": LEGACY, "accept": "text/plain"}, b"{}", 406),
        ("POST", {}, b"{}", 415),
        ("POST", {"content-type": LEGACY}, b" " * (MAX_BODY + 1), 413),
        ("PUT", {}, b"", 405),
        ("HEAD", {}, b"", 405),
    ],
)
async def test_no_answer_may_be_stored_nor_guessed_at(
    dev: Dev,
    upstream: Sandbox,
    client: httpx.AsyncClient,
    *,
    method: str,
    headers: Mapping[str, str],
    body: bytes,
    status: int,
) -> None:
    response = await client.request(method, dev.graphql_url, headers=headers, content=body)

    assert response.status_code == status
    assert response.headers["cache-control"] == "private, no-store"
    assert response.headers["x-content-type-options"] == "nosniff"


async def test_numbers_come_through_digit_by_digit(dev: Dev, upstream: Sandbox, client: httpx.AsyncClient) -> None:
    query = f'{{ sessionContext(tenant: "acme", sessionId: "{seed.ODD_SESSION}") {{ context additionalProperties }} }}'
    response = await post(client, dev, {"query": query})

    assert b'"big":9007199254740993,' in response.content
    assert b'"additionalProperties":{"loyalty":{"tier":"gold","points":12345678901234567890}}' in response.content


@pytest.mark.parametrize("number", [2**53 + 1, -(2**63), 2**64 - 1, 10**30 + 1, -(10**30) - 1])
async def test_numbers_go_out_and_come_back_digit_by_digit(
    dev: Dev, upstream: Sandbox, client: httpx.AsyncClient, number: int
) -> None:
    answer = await add_attribute(client, dev, "number", {"of any size": [number]})

    assert f'"number":{{"of any size":[{number}]}}' in answer.text
    assert f'"of any size":[{number}]'.encode() in (upstream.store.get("acme", seed.CUSTOMER_SESSION) or b"")


@pytest.mark.parametrize(
    "name",
    [
        "Größe.in cm",
        "🛒",
        "a/b",
        "..%2F",
        "٣ \u202e right to left",
        '"quoted"\\',
        "\U0001f469\u200d\U0001f4bb",
        "\x7f\t",
    ],
)
async def test_names_of_any_unicode(dev: Dev, upstream: Sandbox, client: httpx.AsyncClient, name: str) -> None:
    answer = (await add_attribute(client, dev, name, name)).json()

    assert answer["data"]["addSessionContextAttribute"]["sessionContext"]["context"][name] == name


async def add_attribute(client: httpx.AsyncClient, dev: Dev, name: str, value: JSON) -> httpx.Response:
    query = """mutation($input: AddSessionContextAttributeInput!) {
      addSessionContextAttribute(input: $input) {
        ... on AddSessionContextAttributePayload { sessionContext { context } }
        ... on Failure { code message }
      }
    }"""
    given = {"tenant": "acme", "sessionId": seed.CUSTOMER_SESSION, "name": name, "value": value}
    return await post(client, dev, {"query": query, "variables": {"input": given}})


# Connections


class Answer(NamedTuple):
    """One HTTP response."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> JSON:
        return json.loads(self.body)


class Connection:
    """A client that says byte by byte what it sends."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def ask(self, source: bytes) -> Answer:
        self.writer.write(source)
        return await self.read()

    async def read(self) -> Answer:
        async with asyncio.timeout(5):
            status, *lines = (await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in lines)}
            body = await self._reader.readexactly(int(headers["content-length"]))
        return Answer(int(status.split()[1]), headers, body)


@asynccontextmanager
async def connected(dev: Dev) -> AsyncIterator[Connection]:
    url = urlsplit(dev.graphql_url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    try:
        yield Connection(reader, writer)
    finally:
        writer.transport.abort()


def request(method: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    fields = {"host": "gateway", "x-api-key": "dev-key", "content-length": str(len(body)), **headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{method} /graphql HTTP/1.1\r\n{head}\r\n".encode() + body


def posted(query: str) -> bytes:
    return request("POST", json.dumps({"query": query}).encode(), {"content-type": LEGACY})


async def test_a_connection_serves_one_request_after_another(dev: Dev, upstream: Sandbox) -> None:
    async with connected(dev) as connection:
        for number in range(3):
            answer = await connection.ask(posted(f"{{ a{number}: __typename }}"))
            assert answer.json() == {"data": {f"a{number}": "Query"}}


async def test_a_connection_outlives_a_body_that_was_refused(dev: Dev, upstream: Sandbox) -> None:
    async with connected(dev) as connection:
        refused = await connection.ask(request("POST", b" " * (2 * MAX_BODY), {"content-type": LEGACY}))
        answer = await connection.ask(posted(QUERY))

    assert refused.status == 413
    assert answer.json() == DATA


async def test_pipelined_requests_are_answered_in_their_order(dev: Dev, upstream: Sandbox) -> None:
    upstream.faults.arm("latency=50ms", "get")
    async with connected(dev) as connection:
        connection.writer.write(posted(QUERY) + posted("{ second: __typename }") + posted("{"))
        first, second, third = [await connection.read() for _ in range(3)]

    assert first.json() == DATA
    assert second.json() == {"data": {"second": "Query"}}
    assert "errors" in third.json()


@pytest.mark.parametrize("leave", [asyncio.StreamWriter.close, lambda writer: writer.transport.abort()])
@pytest.mark.parametrize("at_once", [True, False], ids=["come at once", "come in two pieces"])
async def test_a_client_that_goes_away_ends_the_upstream_call(
    dev: Dev, upstream: Sandbox, client: httpx.AsyncClient, at_once: bool, leave: Callable[[asyncio.StreamWriter], None]
) -> None:
    await post(client, dev, {"query": QUERY})  # a token is there, so that the read is what hangs
    upstream.faults.arm("hang", "get")
    async with connected(dev) as connection:
        asked = posted(QUERY)
        if not at_once:  # then it is answered through ASGI
            connection.writer.write(asked[:-10])
            await asyncio.sleep(0.05)  # so that it arrives by itself
            asked = asked[-10:]
        connection.writer.write(asked)
        await eventually(lambda: upstream.under_way == 1)

        with structlog.testing.capture_logs() as log:
            leave(connection.writer)
            await eventually(lambda: upstream.under_way == 0, within=0.8)  # sooner than any timeout of the gateway

    assert log == []


@pytest.mark.parametrize("padding", [b"", b" " * 10], ids=["cut", "that could be taken for the whole"])
async def test_a_client_that_goes_away_in_the_middle_of_its_request_is_no_defect(
    dev: Dev, upstream: Sandbox, padding: bytes
) -> None:
    """Nor is anything done: it is not known what it would have asked for."""
    body = json.dumps({"query": QUERY}).encode() + padding
    with structlog.testing.capture_logs() as log:
        async with connected(dev) as connection:
            connection.writer.write(request("POST", body, {"content-type": LEGACY})[:-10])
            await connection.writer.drain()
        async with connected(dev) as connection:
            assert (await connection.ask(posted(QUERY))).json() == DATA

    assert log == []
    assert upstream.count("get") == 1


# Defects


class Broken:
    """Use cases with a defect in each of them, and a schema likewise."""

    def sessions(self, _: object) -> Broken:
        return self

    def own(self, _: object) -> Broken:
        return self

    def __getattr__(self, name: str) -> Callable[..., Any]:
        async def fail(*_: object, **__: object) -> None:
            raise RuntimeError("secret")

        return fail


class Codes(list[str]):
    """Of the requests that have ended."""

    def requests_finished(self, requests: Sequence[Request]) -> None:
        self.extend(each.code for each in requests)


@asynccontextmanager
async def broken(schema: Any, *watchers: RequestWatcher) -> AsyncIterator[httpx.AsyncClient]:
    fake: Any = Broken()
    requests = Requests(*watchers)
    documents = Documents(make_schema().core, LIMITS, memory=MEMORY)
    endpoint = BrowserHeaders(
        GraphQLEndpoint(schema, documents, fake, requests, budget=5, max_body=MAX_BODY, max_answer=MAX_BODY)
    )
    async with (
        listening(endpoint, host="127.0.0.1", port=0, grace=1) as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        yield client
    requests.tell()


@pytest.mark.parametrize(
    ("schema", "status"),
    [(make_schema(), 200), (Broken(), 500)],
    ids=["while a field is resolved", "while the request is answered"],
)
@pytest.mark.parametrize("accept", [MODERN, LEGACY])
async def test_a_defect_is_told_by_its_id_alone(schema: Any, status: int, accept: str) -> None:
    codes = Codes()
    with structlog.testing.capture_logs() as log:
        async with broken(schema, codes) as client:
            response = await client.post("/graphql", json={"query": QUERY}, headers={"accept": accept})

    (line,) = log
    assert line["event"] == "defect"
    assert line["log_level"] == "error"
    assert line["exc_info"]
    assert response.status_code == status
    assert message_of(response) == f"internal error; its id in the log is {line['incident']}"
    assert response.json()["errors"][0]["extensions"] == {"code": "INTERNAL"}
    assert codes == ["INTERNAL"]
    assert "secret" not in response.text
    assert response.headers["cache-control"] == "private, no-store"
    assert response.headers["x-content-type-options"] == "nosniff"


async def test_a_defect_of_a_mutation_is_told_by_its_id_alone() -> None:
    with structlog.testing.capture_logs() as log:
        async with broken(make_schema()) as client:
            response = await client.post("/graphql", json={"query": MUTATION})

    assert response.status_code == 200
    assert log[0]["incident"] in message_of(response)
    assert "secret" not in response.text
