"""What `docs/frontends.md` says is so: its lists are complete, and its operations are valid."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import pytest
from graphql import GraphQLScalarType, build_schema, is_specified_scalar_type, parse, validate
from processes import ROOT

from gateway.graphql.schema import make_schema
from stage import opened

if TYPE_CHECKING:
    import httpx

    from doors import Caller
    from stage import Dev

PAGE = (ROOT / "docs/frontends.md").read_text("utf-8")
SCHEMA = build_schema(make_schema().as_str())
OPERATIONS = re.findall(r"graphql\(`\n(.*?)`\)", PAGE, re.DOTALL)
FAILURES = re.findall(r"^\| (.+) \| `(curl [^`]+)` \|$", PAGE, re.MULTILINE)
SAFE = {"accept", "accept-language", "content-language", "content-type"}
"""Headers that browsers always allow, if the content type is a form's (Fetch, 2.2.2)."""


async def test_it_lists_the_headers_that_scripts_may_send(client: httpx.AsyncClient) -> None:
    (sentence,) = re.findall(r"Scripts may send these headers(.*?)\. With any other", PAGE, re.DOTALL)
    listed = set(re.findall(r"`([a-z-]+)`", sentence))
    origin = "https://shop.example"
    headers = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": ",".join(listed),
    }

    async with opened(graphql={"cors_origins": (origin,)}) as dev:
        answer = await client.options(dev.graphql_url, headers=headers)

    assert answer.status_code == 200
    allowed = {each.strip().lower() for each in answer.headers["access-control-allow-headers"].split(",")}
    assert listed | SAFE == allowed | SAFE


def test_it_gives_every_scalar_a_type() -> None:
    (scalars,) = re.findall(r"scalars: \{ (.*?) \}", PAGE)
    ours = {
        name
        for name, kind in SCHEMA.type_map.items()
        if isinstance(kind, GraphQLScalarType) and not is_specified_scalar_type(kind)
    }

    assert set(re.findall(r"(\w+):", scalars)) == ours


@pytest.mark.parametrize("operation", OPERATIONS)
def test_its_operations_are_valid(operation: str) -> None:
    assert validate(SCHEMA, parse(operation)) == []


def test_its_codes_are_those_of_the_readme() -> None:
    codes = set(re.findall(r"`([A-Z_]+)`", "".join(re.findall(r"^\| .* \|$", PAGE, re.MULTILINE))))

    assert codes
    assert codes <= set(re.findall(r"`([A-Z_]+)`", (ROOT / "README.md").read_text("utf-8")))


@pytest.mark.parametrize(("seen", "command"), FAILURES)
async def test_its_commands_bring_failures_about(
    dev: Dev, client: httpx.AsyncClient, customer: Caller, seen: str, command: str
) -> None:
    """`customer` has reset the sandbox."""

    async def run(line: str) -> None:
        shell = f"S={dev.sandbox_url}/_sandbox; {line}"
        process = await asyncio.create_subprocess_shell(shell, stdout=asyncio.subprocess.DEVNULL)
        assert await process.wait() == 0

    async def answers() -> str:
        attribute = '{tenant: "acme", name: "x", value: 1}'
        read = '{ mySessionContext(tenant: "acme") { currency } }'
        write = f"mutation {{ addMySessionContextAttribute(input: {attribute}) {{ __typename }} }}"
        requests = [
            client.post(dev.graphql_url, json={"query": each}, headers=customer.headers()) for each in (read, write)
        ]
        return " ".join([(await each).text for each in requests])

    names = re.findall(r"`(\w+)`", seen)
    await run(f"{command} --fail --silent --show-error")
    failed = await answers()
    assert names == [each for each in names if f'"{each}"' in failed]

    await run("curl -X POST $S/reset --fail --silent --show-error")
    assert "errors" not in (restored := await answers())
    assert "AddMySessionContextAttributePayload" in restored
