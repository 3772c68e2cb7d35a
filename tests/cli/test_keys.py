"""`session-gateway keys new`."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from click.testing import CliRunner
from processes import SCRIPT, running

from gateway import cli
from gateway.configuration import load_settings
from gateway.sandbox import seed
from stage import opened

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result


def new(*arguments: str) -> Result:
    return CliRunner().invoke(cli.main, ["keys", "new", *arguments])


def printed(result: Result) -> tuple[str, dict[str, Any]]:
    """The key, and what the configuration holds of it."""
    assert result.exit_code == 0
    key, _, entry = result.stdout.partition("\n\n")
    return key, tomllib.loads(entry)["access"]["keys"]


def query(tenant: str) -> dict[str, str]:
    return {"query": f'{{ sessionContext(tenant: "{tenant}", sessionId: "{seed.CUSTOMER_SESSION}") {{ currency }} }}'}


async def test_what_it_prints_is_a_key_and_the_entry_that_lets_it_in(tmp_path: Path) -> None:
    result = new("web-shop", "--permission", "sessions:read", "--tenant", "acme")
    key, keys = printed(result)
    file = tmp_path / "gateway.toml"
    file.write_text(f'[tenants.acme]\nclient_id = "a"\nclient_secret = "b"\n{result.stdout.partition(chr(10) * 2)[2]}')
    assert load_settings(file).access.configured

    async with opened(access={"keys": keys}) as dev, httpx.AsyncClient() as client:

        async def answer(key: str, tenant: str) -> str:
            response = await client.post(dev.doors.graphql, json=query(tenant), headers={"x-api-key": key})
            return response.text

        assert '"EUR"' in await answer(key, "acme")
        assert "CALLER_NOT_PERMITTED" in await answer(key, "globex")
        assert "CALLER_UNAUTHENTICATED" in await answer(f"{key[:-1]}{'0' if key[-1] != '0' else '1'}", "acme")


def test_it_tells_the_key_once_and_keeps_it_out_of_the_entry() -> None:
    result = new("shop")
    key, keys = printed(result)

    assert key.startswith("shop-")
    assert len(key) == len("shop-") + 48
    assert result.output.count(key) == 1
    assert key not in str(keys)
    assert key not in result.stderr
    assert "shown once" in result.stderr


def test_what_is_printed_as_a_whole_is_no_configuration() -> None:
    """Whoever appends all of it to the file is told so, and does not keep the key there."""
    with pytest.raises(tomllib.TOMLDecodeError):
        tomllib.loads(new("shop").stdout)


def test_by_default_it_may_read_all_tenants() -> None:
    _, keys = printed(new("shop"))

    assert set(keys) == {"shop"}
    assert keys["shop"]["permissions"] == ["sessions:read"]
    assert keys["shop"]["tenants"] == ["*"]


def test_permissions_and_tenants_may_be_several() -> None:
    _, keys = printed(
        new(
            "shop",
            *("--permission", "sessions:read"),
            *("--permission", "sessions:write"),
            *("--tenant", "acme"),
            *("--tenant", "globex"),
        )
    )

    assert keys["shop"]["permissions"] == ["sessions:read", "sessions:write"]
    assert keys["shop"]["tenants"] == ["acme", "globex"]


def test_no_two_keys_are_alike() -> None:
    assert len({printed(new("shop"))[0] for _ in range(20)}) == 20


@pytest.mark.parametrize(
    ("arguments", "about"),
    [
        (["Shop"], "NAME"),
        (["-shop"], "-s"),
        (["a" * 64], "NAME"),
        (["a.b"], "NAME"),
        ([""], "NAME"),
        (["shop", "--permission", "sessions:delete"], "--permission"),
        (["shop", "--tenant", 'acme"]\n[x]'], "--tenant"),
        (["shop", "--tenant", "Acme"], "--tenant"),
        (["shop", "--tenant", ""], "--tenant"),
        ([], "NAME"),
    ],
)
def test_what_cannot_stand_in_the_configuration_is_refused(arguments: list[str], about: str) -> None:
    result = new(*arguments)

    assert result.exit_code == 2
    assert result.stdout == ""
    assert about in result.stderr.splitlines()[-1]


async def test_where_it_cannot_be_printed_that_is_told_in_one_line() -> None:
    """As when it is written to a disk that is full."""
    program = ("sh", "-c", 'exec "$0" "$@" >/dev/full', str(SCRIPT))
    async with running("keys", "new", "shop", program=program) as process:
        assert await process.end(within=20) == 1

    assert process.err[1:] == ["session-gateway: cannot write to standard output: No space left on device"]
