"""Documents by their hashes: the manifest of trusted ones, the persisted-documents form, and Apollo's."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from gateway.configuration import load_settings
from gateway.development import DEV_DEFAULTS
from gateway.graphql.manifest import BadManifest, parse_manifest
from gateway.graphql.schema import make_schema
from gateway.sandbox import seed
from gateway.settings import ConfigurationError
from gateway.wiring.documents import prepare_documents
from stage import opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    import httpx

    from doors import JSON
    from gateway.sandbox import Sandbox
    from stage import Dev

READ = 'query Read($s: ID!) { sessionContext(tenant: "acme", sessionId: $s) { currency } }'
WRITE = (
    "mutation Write($s: ID!) { addSessionContextAttribute(input: "
    '{tenant: "acme", sessionId: $s, name: "written", value: true}) { __typename } }'
)
BOTH = f"{READ} {WRITE}"
OTHER = "{ __typename }"
VARIABLES = {"s": seed.CUSTOMER_SESSION}
DATA = {"data": {"sessionContext": {"currency": "EUR"}}}
ASKED = {"graphql-require-preflight": "1"}
MODERN = "application/graphql-response+json"


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def persisted(digest: str, version: int = 1) -> dict[str, JSON]:
    """Apollo's form."""
    return {"extensions": {"persistedQuery": {"version": version, "sha256Hash": digest}}}


def manifest(*texts: str) -> bytes:
    return json.dumps({sha(each): each for each in texts}).encode()


def apollo_manifest(**bodies: str) -> bytes:
    operations = [{"id": name, "name": "Read", "type": "query", "body": body} for name, body in bodies.items()]
    return json.dumps({"format": "apollo-persisted-query-manifest", "version": 1, "operations": operations}).encode()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def trusting(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Dev]:
    """A gateway that knows a manifest, and executes others as well."""
    async with _opened(tmp_path_factory.mktemp("open"), manifest(READ, WRITE, BOTH)) as dev:
        yield dev


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def strict(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Dev]:
    """A gateway that executes what is in its manifest alone."""
    source = apollo_manifest(**{"read-it": READ, sha(WRITE): WRITE})
    async with _opened(tmp_path_factory.mktemp("strict"), source, documents_mode="trusted", max_tokens=10) as dev:
        yield dev


def _opened(folder: Path, source: bytes, **options: object) -> Any:
    file = folder / "documents.json"
    file.write_bytes(source)
    return opened(graphql={"documents_file": str(file), **options})


async def post(client: httpx.AsyncClient, dev: Dev, **document: JSON) -> httpx.Response:
    return await client.post(dev.graphql_url, json={"variables": VARIABLES, **document}, headers={"accept": MODERN})


def error_of(response: httpx.Response) -> tuple[int, str, str]:
    (error,) = response.json()["errors"]
    assert "data" not in response.json()
    return response.status_code, error["extensions"]["code"], error["message"]


# Known documents


@pytest.mark.parametrize(
    "document", [{"documentId": f"sha256:{sha(READ)}"}, persisted(sha(READ)), {"documentId": sha(READ)}]
)
async def test_a_document_of_the_manifest_is_executed_by_its_hash(
    trusting: Dev, client: httpx.AsyncClient, document: dict[str, JSON]
) -> None:
    assert (await post(client, trusting, **document)).json() == DATA


@pytest.mark.parametrize(
    "parameters",
    [
        {"documentId": f"sha256:{sha(READ)}"},
        {"extensions": json.dumps(persisted(sha(READ))["extensions"])},
        {"documentId": f"sha256:{sha(BOTH)}", "operationName": "Read"},
    ],
)
async def test_a_document_of_the_manifest_is_executed_by_get(
    trusting: Dev, client: httpx.AsyncClient, parameters: dict[str, str]
) -> None:
    sent = {**parameters, "variables": json.dumps(VARIABLES)}

    assert (await client.get(trusting.graphql_url, params=sent, headers=ASKED)).json() == DATA


@pytest.mark.parametrize(
    "parameters",
    [{"documentId": f"sha256:{sha(WRITE)}"}, {"documentId": f"sha256:{sha(BOTH)}", "operationName": "Write"}],
)
async def test_a_trusted_mutation_needs_post_as_any_other(
    trusting: Dev, client: httpx.AsyncClient, parameters: dict[str, str]
) -> None:
    response = await client.get(trusting.graphql_url, params=parameters, headers=ASKED)

    assert response.status_code == 405
    assert not trusting.sandbox.count("add-attribute")


async def test_the_operation_of_a_document_is_chosen_by_name(trusting: Dev, client: httpx.AsyncClient) -> None:
    by_name = await post(client, trusting, documentId=sha(BOTH), operationName="Read")
    without = await post(client, trusting, documentId=sha(BOTH))

    assert by_name.json() == DATA
    assert error_of(without)[0] == 400


# Unknown documents


@pytest.mark.parametrize("document", [{"documentId": f"sha256:{sha('x')}"}, {"documentId": "x"}, persisted(sha("x"))])
async def test_a_hash_that_is_not_known_is_told_as_apollos_clients_expect_it(
    dev: Dev, client: httpx.AsyncClient, document: dict[str, JSON]
) -> None:
    assert error_of(await post(client, dev, **document)) == (400, "PERSISTED_QUERY_NOT_FOUND", "PersistedQueryNotFound")


async def test_a_query_that_is_sent_with_its_hash_is_known_by_it_afterwards(
    dev: Dev, upstream: Sandbox, client: httpx.AsyncClient
) -> None:
    text = f"# of this test\n{READ}"
    before = await post(client, dev, **persisted(sha(text)))
    first = await post(client, dev, query=text, **persisted(sha(text)))
    again = await post(client, dev, **persisted(sha(text)))
    by_id = await post(client, dev, documentId=f"sha256:{sha(text)}")

    assert error_of(before)[1] == "PERSISTED_QUERY_NOT_FOUND"
    assert [each.json() for each in (first, again, by_id)] == [DATA] * 3


@pytest.mark.parametrize("form", [persisted(sha(OTHER)), {"documentId": f"sha256:{sha(OTHER)}"}])
async def test_a_query_is_not_known_by_another_ones_hash(
    dev: Dev, upstream: Sandbox, client: httpx.AsyncClient, form: dict[str, JSON]
) -> None:
    response = await post(client, dev, query=READ, **form)

    assert error_of(response) == (400, "BAD_REQUEST", "the hash that was sent is not the SHA-256 of the query")
    assert not upstream.requests


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"extensions": {"persistedQuery": 1}}, "extensions.persistedQuery is not right"),
        ({"extensions": {"persistedQuery": {"version": 1}}}, "sha256Hash"),
        ({"extensions": {"persistedQuery": {"version": 1, "sha256Hash": 1}}}, "sha256Hash"),
        (persisted(sha(READ), version=2), "version 2 is not supported"),
        ({"documentId": 7}, "`$.documentId`"),
        ({}, "`query`"),
    ],
)
async def test_what_is_no_hash_is_refused(
    dev: Dev, client: httpx.AsyncClient, form: dict[str, JSON], words: str
) -> None:
    status, code, message = error_of(await post(client, dev, **form))

    assert (status, code) == (400, "BAD_REQUEST")
    assert words in message


# Trusted documents alone


@pytest.mark.parametrize(
    "document",
    [
        {"documentId": "read-it"},
        {"documentId": f"sha256:{sha(READ)}"},
        persisted("read-it"),
        persisted(sha(READ)),
        {"query": READ},
        {"query": READ, **persisted(sha(READ))},
    ],
)
async def test_what_is_in_the_manifest_is_executed_by_its_id_its_hash_or_its_text(
    strict: Dev, client: httpx.AsyncClient, document: dict[str, JSON]
) -> None:
    """Although it is larger than this gateway's limits, which its operator has set aside for it."""
    assert (await post(client, strict, **document)).json() == DATA


@pytest.mark.parametrize("query", [OTHER, f"{READ} ", READ.replace("currency", "siteCode"), "{ not GraphQL", ""])
async def test_what_is_not_in_the_manifest_is_refused_unread(
    strict: Dev, client: httpx.AsyncClient, query: str
) -> None:
    strict.sandbox.reset()
    for document in ({"query": query}, {"query": query, **persisted(sha(query))}):
        status, code, message = error_of(await post(client, strict, **document))
        assert (status, code) == (400, "QUERY_NOT_IN_SAFELIST")
        assert "Syntax" not in message
    status, code, _ = error_of(await post(client, strict, **persisted(sha(query))))
    assert (status, code) == (400, "PERSISTED_QUERY_NOT_IN_LIST")
    assert not strict.sandbox.requests


# The manifest


def test_both_forms_of_a_manifest_say_the_same() -> None:
    assert parse_manifest(manifest(READ, OTHER)) == {sha(READ): READ, sha(OTHER): OTHER}
    assert parse_manifest(apollo_manifest(**{sha(READ): READ})) == {sha(READ): READ}
    assert parse_manifest(json.dumps({f"sha256:{sha(READ)}": READ}).encode()) == {sha(READ): READ}
    assert parse_manifest(apollo_manifest(**{"read-it": READ})) == {"read-it": READ}
    assert parse_manifest(b"{}") == {}


@pytest.mark.parametrize(
    ("source", "problems"),
    [
        (b"", ["is no manifest: Input data was truncated"]),
        (b"\xff", ["is no manifest: "]),
        (b"[" * 100_000, ["is no manifest: "]),
        (b"[]", ["is no manifest: Expected `object`, got `array`"]),
        (b'{"a": 1}', ["is no manifest: Expected `str`, got `int`"]),
        (b'{"a": "{ a }"}', ["a: is no SHA-256 in hex"]),
        (
            json.dumps({sha(READ): OTHER}).encode(),
            [f"{sha(READ)}: is not the SHA-256 of its document, which is {sha(OTHER)}"],
        ),
        (json.dumps({sha(READ).upper(): READ}).encode(), [f"{sha(READ).upper()}: is not the SHA-256"]),
        (apollo_manifest(**{sha(READ): OTHER}), [f"{sha(READ)}: is not the SHA-256"]),
        (apollo_manifest().replace(b": 1", b": 2"), ["is no manifest: "]),
        (apollo_manifest(a=READ).replace(b'"id"', b'"no"'), ["is no manifest: "]),
        (apollo_manifest(a=READ, b=OTHER).replace(b'"b"', b'"a"'), ["a: stands for two documents"]),
    ],
)
def test_what_is_wrong_with_a_manifest_is_told(source: bytes, problems: list[str]) -> None:
    with pytest.raises(BadManifest) as refused:
        parse_manifest(source)

    assert len(refused.value.problems) == len(problems)
    for told, expected in zip(refused.value.problems, problems, strict=True):
        assert told.startswith(expected)


@pytest.mark.parametrize(
    ("texts", "problems"),
    [
        ([READ, "{ nothing }"], {"{ nothing }": "Cannot query field 'nothing' on type 'Query'."}),
        (["{"], {"{": "Syntax Error: Expected Name, found <EOF>."}),
        (["{ a }", READ, "{ b }"], {"{ a }": "Cannot query field 'a'", "{ b }": "Cannot query field 'b'"}),
    ],
)
@pytest.mark.parametrize("name", [sha, "the one with {}".format])
def test_a_manifest_with_a_bad_document_ends_the_start_with_a_line_for_each(
    tmp_path: Path, texts: list[str], problems: Mapping[str, str], name: Callable[[str], str]
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        started(tmp_path, apollo_manifest(**{name(text): text for text in texts}))

    assert len(refused.value.problems) == len(problems)
    for told, (text, problem) in zip(refused.value.problems, problems.items(), strict=True):
        assert told.startswith(f"graphql.documents_file: {name(text)}: {problem}")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"documents_file": "/nowhere/documents.json"}, "graphql.documents_file: cannot be read: No such file"),
        ({"documents_file": None, "documents_mode": "trusted"}, "documents_mode trusted needs documents_file"),
    ],
)
def test_a_manifest_that_is_not_there_ends_the_start(tmp_path: Path, options: dict[str, object], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        started(tmp_path, b"", **options)


def started(folder: Path, source: bytes, **options: object) -> None:
    """What comes before anything listens."""
    file = folder / "documents.json"
    file.write_bytes(source)
    settings = load_settings(None, {**DEV_DEFAULTS, "graphql": {"documents_file": str(file), **options}})
    prepare_documents(settings, make_schema(introspection=False))


def test_the_command_line_tells_what_is_wrong_with_a_manifest(tmp_path: Path) -> None:
    file = tmp_path / "documents.json"
    file.write_bytes(manifest("{ nothing }"))
    ports = {f"SESSION_GATEWAY_{each}__PORT": "0" for each in ("GRAPHQL", "GRPC", "ADMIN", "SANDBOX")}
    result = subprocess.run(
        [Path(sys.executable).parent / "session-gateway", "dev"],
        env={**os.environ, **ports, "SESSION_GATEWAY_GRAPHQL__DOCUMENTS_FILE": str(file)},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )

    assert result.returncode != 0
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"session-gateway: graphql.documents_file: {sha('{ nothing }')}: Cannot query field")
