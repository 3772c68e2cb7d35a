"""Other machines reach no door of a gateway that does not tell callers apart, unless its operator insists.

And one that tells them apart in one way alone lets nobody in by another, or by none.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest
from access.certificates import HERE, Authority, Files
from click.testing import CliRunner
from processes import run, running
from pydantic import SecretStr

from gateway import cli, sandbox
from gateway.access.guard import Authenticator
from gateway.access.keys import new_key
from gateway.configuration import load_settings
from gateway.credentials import CallerCredentials
from gateway.deadline import Deadline
from gateway.errors import CallerUnauthenticated
from gateway.sandbox import Sandbox
from gateway.settings import Listener
from gateway.wiring.access import open_authenticator

if TYPE_CHECKING:
    from pathlib import Path

ANYWHERE = {f"SESSION_GATEWAY_{each}__PORT": "0" for each in ("GRAPHQL", "GRPC", "ADMIN")}
TENANT = {
    "SESSION_GATEWAY_TENANTS__ACME__CLIENT_ID": "acme-client",
    "SESSION_GATEWAY_TENANTS__ACME__CLIENT_SECRET": "acme-secret",
}
PROBLEM = "whoever reaches this address may read and write every session, as nothing is configured under [access]"
REMEDY = "add a caller (`session-gateway keys new NAME` prints one), listen on 127.0.0.1, or start with --insecure"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.255.255.254", "::1", "::ffff:127.0.0.1", "localhost", "LocalHost"])
def test_loopback(host: str) -> None:
    assert Listener(host=host).on_loopback


@pytest.mark.parametrize(
    "host",
    [
        "",
        "0.0.0.0",
        "::",
        "::ffff:0.0.0.0",
        "::ffff:10.0.0.1",
        "10.0.0.1",
        "128.0.0.1",
        "fe80::1",
        "127.1",
        "0",
        "localhost.example.com",
        "127.0.0.1.example.com",
        "gateway.internal",
    ],
)
def test_what_is_not_loopback_or_might_not_be(host: str) -> None:
    assert not Listener(host=host).on_loopback


@pytest.mark.parametrize(
    ("graphql", "grpc", "named"),
    [
        ("0.0.0.0", "127.0.0.1", "graphql.host"),
        ("127.0.0.1", "::", "grpc.host"),
        ("10.0.0.1", "gateway.internal", "graphql.host and grpc.host"),
    ],
)
def test_serve_says_which_settings_and_what_to_do_and_listens_nowhere(graphql: str, grpc: str, named: str) -> None:
    """That it ends at all shows the last: it serves until it is told to stop."""
    hosts = {"SESSION_GATEWAY_GRAPHQL__HOST": graphql, "SESSION_GATEWAY_GRPC__HOST": grpc}
    result = CliRunner().invoke(cli.main, ["serve"], env={**ANYWHERE, **TENANT, **hosts})

    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr == f"session-gateway: {named}: {PROBLEM}: {REMEDY}\n"


@pytest.mark.parametrize(
    ("way", "taken"),
    [
        ("keys", "`x-api-key`"),
        ("issuers", "a JWT in `authorization`"),
        ("certificates", "a client certificate"),
    ],
)
async def test_one_way_of_telling_callers_apart_lets_nobody_in_by_another_or_by_none(
    tmp_path: Path, way: str, taken: str
) -> None:
    authority, files, ca = Authority(), Files.of(tmp_path, Authority().issue(*HERE)), tmp_path / "ca.crt"
    ca.write_bytes(authority.pem)
    grant = {"permissions": ["sessions:read"], "tenants": ["*"]}
    callers: dict[str, dict[str, object]] = {
        "keys": {"shop": {**grant, "hash": new_key("shop")[1]}},
        "issuers": {
            "corp": {"issuer": "corp", "audience": "a", "tenants": ["*"], "jwks_url": "http://127.0.0.1:1/keys"}
        },
        "certificates": {"shop.example": grant},
    }
    settings = load_settings(
        None,
        {
            "tenants": {"acme": {"client_id": "acme-client", "client_secret": "acme-secret"}},
            "access": {way: callers[way]},
            "grpc": files.section(client_ca_file=str(ca)),
        },
    )
    async with open_authenticator(settings) as told:
        reloaded = Authenticator(None, None, {})
        reloaded.become(told)
        for authenticator in (told, reloaded):
            with pytest.raises(CallerUnauthenticated, match=f"send {taken}$"):
                await authenticator.principal(CallerCredentials(), Deadline.after(5))
            for shown in (
                CallerCredentials(api_key=SecretStr("nobody-0")),
                CallerCredentials(access_token=SecretStr("a.b.c")),
                CallerCredentials(certificate_names=("nobody.example",)),
            ):
                with pytest.raises(CallerUnauthenticated):
                    await authenticator.principal(shown, Deadline.after(5))


async def test_serve_starts_where_callers_are_told_apart_and_being_told_to_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    entry = CliRunner().invoke(cli.main, ["keys", "new", "shop"]).stdout.partition("\n\n")[2]
    file.write_text(f'{entry}\n[grpc]\nhost = "0.0.0.0"')
    async with running("serve", "--insecure", "--config", str(file), **ANYWHERE, **TENANT) as process:
        await process.says('"listening"')

    assert "insecure" not in process.said


async def test_serve_starts_when_told_and_says_loudly_what_that_means() -> None:
    """Whatever the level of the log."""
    variables = {**ANYWHERE, **TENANT, "SESSION_GATEWAY_GRPC__HOST": "0.0.0.0", "SESSION_GATEWAY_LOG__LEVEL": "error"}
    async with running("serve", "--insecure", **variables) as process:
        line = json.loads(await process.says(r"(.*insecure.*)"))

    assert line["level"] == "critical"
    assert line["problem"] == f"grpc.host: {PROBLEM}"


async def test_check_reports_it_with_whatever_else_is_wrong() -> None:
    hosts = {"SESSION_GATEWAY_GRAPHQL__HOST": "0.0.0.0"}
    async with sandbox.serve(Sandbox()) as upstream:
        here = {**TENANT, **hosts, "SESSION_GATEWAY_UPSTREAM__BASE_URL": upstream.url}
        wrong = {**here, "SESSION_GATEWAY_TENANTS__ACME__CLIENT_SECRET": "wrong"}
        plain, insecure, both = await asyncio.gather(
            run("check", **here), run("check", "--insecure", **here), run("check", **wrong)
        )

    status, process = plain
    assert status == 1
    assert process.out == [f"access: graphql.host: {PROBLEM}: {REMEDY}", "tenant acme: ok"]
    assert process.err == ["Error: serve will not start"]

    status, process = insecure
    assert status == 0
    assert process.out == [f"INSECURE: graphql.host: {PROBLEM}", "tenant acme: ok"]
    assert process.err == []

    status, process = both
    assert status == 1
    assert process.err[-1] == "Error: serve will not start, and 1 of the tenants cannot be served"
