"""What a body asks for is found out once, and is the same ever after."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from defaults import LIMITS, MEMORY

from gateway.deadline import Deadline
from gateway.graphql import executable as module
from gateway.graphql.compiled import Compiler
from gateway.graphql.documents import Documents, NotExecutable, digest_of
from gateway.graphql.executable import Executables
from gateway.graphql.head import Head, Refused
from gateway.graphql.requests import HttpRequest
from gateway.graphql.schema import make_schema

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.graphql.documents import Prepared
    from gateway.graphql.executable import Executable

READ = "query Read($t: String!, $s: ID!) { sessionContext(tenant: $t, sessionId: $s) { currency } }"
WRITE = 'mutation { removeMySessionContextAttribute(input: {tenant: "acme", name: "n"}) { ... on Failure { code } } }'
ALL = "{ sessionId customerId siteCode currency cartId targetLocation language context metadata { version createdAt } }"
WHOSE = {"t": "acme", "s": "s-1"}
HEAD = Head([(b"content-type", b"application/json")])


class Counting(Documents):
    """Counts how often it is looked at."""

    looked = 0

    def by_text(self, text: str) -> Prepared:
        self.looked += 1
        return super().by_text(text)


def executables(**options: Any) -> tuple[Executables, Counting]:
    schema = make_schema()
    documents = Counting(schema.core, LIMITS, memory=MEMORY, compiler=Compiler(schema), introspection=True, **options)
    return Executables(documents, max_body=10_000), documents


class Patient:
    """A client that does not go away."""

    def when_gone(self, act: Callable[[], object] | None) -> None:
        raise AssertionError("nothing here takes so long")


async def ask(executables: Executables, *, method: str = "POST", head: Head = HEAD, **parameters: object) -> Executable:
    request = HttpRequest(method, b"", head, json.dumps(parameters).encode(), Patient())
    return await executables.of(request, Deadline.after(5))


async def test_a_query_that_was_asked_before_is_not_looked_at_again() -> None:
    these, documents = executables()
    first = await ask(these, query=READ, variables=WHOSE)
    second = await ask(these, query=READ, variables=WHOSE)

    assert second is first
    assert documents.looked == 1
    assert (first.kind, first.variables, first.wants_cache_told) == ("query", WHOSE, False)
    assert first.bound is not None
    other = await ask(these, query=READ, variables={**WHOSE, "s": "s-2"})
    assert other.variables == {**WHOSE, "s": "s-2"}
    assert documents.looked == 2


@pytest.mark.parametrize(
    ("extensions", "wants_cache_told"),
    [({"cache": True}, True), ({"clientLibrary": {"name": "@apollo/client", "version": "4.1.0"}}, False)],
    ids=["ours", "as Apollo's client sends them with every request"],
)
async def test_extensions_do_not_stand_in_the_way(extensions: dict[str, Any], *, wants_cache_told: bool) -> None:
    these, documents = executables()
    first = await ask(these, query=READ, variables=WHOSE, extensions=extensions)
    second = await ask(these, query=READ, variables=WHOSE, extensions=extensions)
    plain = await ask(these, query=READ, variables=WHOSE)

    assert second is first
    assert (first.wants_cache_told, plain.wants_cache_told) == (wants_cache_told, False)
    assert documents.looked == 2


@pytest.mark.parametrize(
    "parameters",
    [
        {"query": WRITE},
        {
            "query": READ,
            "variables": WHOSE,
            "extensions": {"persistedQuery": {"version": 1, "sha256Hash": digest_of(READ)}},
        },
        {"query": "{ __schema { queryType { name } } }"},
        {"query": READ, "variables": WHOSE, "more": "x" * 5000},
        {
            "query": "{ "
            + " ".join(f'a{n}: sessionContext(tenant: "acme", sessionId: "s") {ALL}' for n in range(6))
            + " }"
        },
        {"query": READ + "".join(f"query A{n}{{__typename}}" for n in range(60)), "operationName": "A1"},
    ],
    ids=["mutation", "a hash", "no plan", "long", "a large plan", "a large document"],
)
async def test_all_else_is(parameters: dict[str, Any]) -> None:
    these, documents = executables()
    for n in range(1, 3):
        await ask(these, **parameters)
        assert documents.looked == n


async def test_where_limits_are_only_measured_each_request_is() -> None:
    these, documents = executables(measure_only=True)
    for n in range(1, 3):
        await ask(these, query=READ, variables=WHOSE)
        assert documents.looked == n


async def test_a_known_body_is_held_to_what_its_head_says() -> None:
    these, _ = executables()
    await ask(these, query=READ, variables=WHOSE)

    for head in (Head([]), Head([(b"content-type", b"text/plain")])):
        with pytest.raises(Refused, match="content-type"):
            await ask(these, head=head, query=READ, variables=WHOSE)
    with pytest.raises(Refused, match="PUT is not supported"):
        await ask(these, method="PUT", query=READ, variables=WHOSE)


async def test_what_is_refused_is_refused_again() -> None:
    these, documents = executables()
    for n in range(1, 3):
        with pytest.raises(NotExecutable):
            await ask(these, query="{ nothing }")
        assert documents.looked == n


async def test_old_bodies_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST", 2)
    these, documents = executables()
    for name in ("a", "b", "a", "c", "b", "a"):
        await ask(these, query=READ, variables={**WHOSE, "s": name})
    assert documents.looked == 4  # a, b, c, and a, which was the oldest when c came
