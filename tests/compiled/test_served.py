"""The endpoint follows plans, where there are some: over real sockets."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from compiled.outcomes import Script, guard_of
from defaults import LIMITS, MEMORY

from gateway.access.guard import Authenticator
from gateway.graphql.compiled import Compiler
from gateway.graphql.documents import Documents
from gateway.graphql.http import GraphQLEndpoint
from gateway.graphql.schema import make_schema
from gateway.graphql.server import serve_graphql
from gateway.sandbox import Sandbox, seed
from gateway.shutdown import Shutdown
from gateway.telemetry.requests import Requests
from stage import opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from strawberry.types import ExecutionResult

    from gateway.graphql.schema import GatewaySchema

READ = "query Read($t: String!, $s: ID!) { sessionContext(tenant: $t, sessionId: $s) { kind: __typename sessionId } }"
WHOSE = {"t": "acme", "s": "s-1"}


class Counting:
    """Stands before Strawberry's execution, and counts."""

    def __init__(self, schema: GatewaySchema) -> None:
        self._schema = schema
        self.executed = 0

    async def execute(self, *arguments: Any, **named: Any) -> ExecutionResult:
        self.executed += 1
        return await self._schema.execute(*arguments, **named)


@asynccontextmanager
async def served() -> AsyncIterator[tuple[str, Counting, Documents]]:
    """The endpoint's URL, what Strawberry gets to do, and the documents."""
    schema = make_schema()
    strawberrys: Any = Counting(schema)
    documents = Documents(schema.core, LIMITS, memory=MEMORY, compiler=Compiler(schema), introspection=True)
    guard = guard_of(Script(0, failures=0), Authenticator(None, None, {}))
    endpoint = GraphQLEndpoint(strawberrys, documents, guard, Requests(), budget=5, max_body=10_000, max_answer=10_000)
    async with serve_graphql(
        endpoint,
        None,
        host="127.0.0.1",
        port=0,
        grace=1,
        max_connections=100,
        certificates=None,
        origins=(),
        shutdown=Shutdown(),
        shared=False,
    ) as url:
        yield url, strawberrys, documents


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({"query": READ, "variables": WHOSE}, {"sessionContext": {"kind": "SessionContext", "sessionId": "s-1"}}),
        ({"query": "{ __typename }"}, {"__typename": "Query"}),
        (
            {
                "query": 'mutation { removeMySessionContextAttribute(input: {tenant: "acme", name: "n"}) '
                "{ ... on Failure { code } } }"
            },
            {"removeMySessionContextAttribute": {"code": "UNAUTHENTICATED"}},
        ),
    ],
)
async def test_a_plan_answers_without_strawberry(request_: dict[str, object], expected: dict[str, object]) -> None:
    async with served() as (url, strawberrys, _), httpx.AsyncClient() as client:
        for _ in range(3):
            response = await client.post(url, json=request_)
            assert response.json() == {"data": expected}
        assert strawberrys.executed == 0


async def test_what_has_no_plan_is_executed_by_strawberry() -> None:
    async with served() as (url, strawberrys, _), httpx.AsyncClient() as client:
        response = await client.post(url, json={"query": "{ __schema { queryType { name } } }"})

        assert response.json() == {"data": {"__schema": {"queryType": {"name": "Query"}}}}
        assert strawberrys.executed == 1


async def test_the_operation_that_is_named_is_the_one_whose_plan_is_followed() -> None:
    text = "query A { a: __typename } query B { b: __typename } query C { __schema { queryType { name } } }"
    async with served() as (url, strawberrys, documents), httpx.AsyncClient() as client:
        for name, data in (("A", {"a": "Query"}), ("B", {"b": "Query"})):
            response = await client.post(url, json={"query": text, "operationName": name})
            assert response.json() == {"data": data}
        assert strawberrys.executed == 0
        await client.post(url, json={"query": text, "operationName": "C"})
        assert strawberrys.executed == 1
        plans = [each.plan is not None for each in documents.by_text(text).operations]
        assert plans == [True, True, False]


async def test_the_gateway_answers_alike_by_a_plan_and_without_one() -> None:
    """A field of introspection beside the others is enough to have no plan."""
    async with opened() as dev, httpx.AsyncClient(headers={"x-api-key": "dev-key"}) as client:
        fields = "sessionId customerId currency context additionalProperties metadata { version createdAt modifiedAt }"
        both = " ".join(
            f'{key}: sessionContext(tenant: "acme", sessionId: "{session}") {{ {fields} }}'
            for key, session in (("a", seed.CUSTOMER_SESSION), ("b", "nobodys"))
        )
        planned = await client.post(dev.graphql_url, json={"query": f"{{ {both} }}"})
        other = await client.post(dev.graphql_url, json={"query": f"{{ {both} __schema {{ __typename }} }}"})

        assert isinstance(dev.sandbox, Sandbox)
        assert planned.json()["data"]["a"]["sessionId"] == seed.CUSTOMER_SESSION
        assert planned.json()["data"]["b"] is None
        ending = b',"__schema":{"__typename":"__Schema"}}}'
        assert other.content == planned.content.removesuffix(b"}}") + ending
        assert planned.headers["cache-status"] == other.headers["cache-status"]
