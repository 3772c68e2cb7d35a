"""Settings: where they come from, and what is said of bad ones."""

from __future__ import annotations

import os
import re
from itertools import pairwise
from typing import TYPE_CHECKING, get_args, get_origin

import pytest
from click.testing import CliRunner
from pydantic import BaseModel

from gateway import cli
from gateway.configuration import CONFIG_VARIABLE, load_settings
from gateway.development import DEV_DEFAULTS
from gateway.reference import settings_reference
from gateway.settings import ConfigurationError, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

CANARY = "canary-of-a-secret"
TENANT = f'[tenants.mytenant]\nclient_id = "id"\nclient_secret = "{CANARY}"\n'
MINE = "SESSION_GATEWAY_TENANTS__MYTENANT__CLIENT_SECRET"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without settings of whoever runs the tests."""
    for name in os.environ:
        if name.startswith("SESSION_GATEWAY_"):
            monkeypatch.delenv(name)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "gateway.toml"
    path.write_text(TENANT)
    return path


def set_all(monkeypatch: pytest.MonkeyPatch, variables: Mapping[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


# Where they come from


def test_what_is_set_nowhere_has_its_default(file: Path) -> None:
    settings = load_settings(file)

    assert settings.grpc.port == 50051
    assert settings.grpc.host == "127.0.0.1"
    assert str(settings.upstream.base_url) == "https://api.emporix.io/"
    assert not settings.graphql.playground


def test_the_environment_goes_before_the_file_and_that_before_the_defaults(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text(f'{TENANT}[grpc]\nport = 2\nhost = "::1"\nbudget = 2')
    monkeypatch.setenv("SESSION_GATEWAY_GRPC__PORT", "3")

    settings = load_settings(file, {"grpc": {"port": 1, "host": "0.0.0.0", "max_message": 2048}})

    assert settings.grpc.port == 3
    assert settings.grpc.host == "::1"
    assert settings.grpc.budget == 2
    assert settings.grpc.max_message == 2048


def test_a_tenant_may_come_from_the_environment_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {
        "SESSION_GATEWAY_TENANTS__MYTENANT__CLIENT_ID": "id",
        "SESSION_GATEWAY_TENANTS__MYTENANT__CLIENT_SECRET": CANARY,
    }
    set_all(monkeypatch, variables)

    tenant = load_settings().tenants["mytenant"]

    assert tenant.client_id == "id"
    assert tenant.client_secret.get_secret_value() == CANARY


def test_a_secret_may_come_from_the_environment_and_the_rest_from_the_file(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text('[tenants.mytenant]\nclient_id = "id"')
    monkeypatch.setenv("SESSION_GATEWAY_TENANTS__MYTENANT__CLIENT_SECRET", CANARY)

    tenant = load_settings(file).tenants["mytenant"]

    assert (tenant.client_id, tenant.client_secret.get_secret_value()) == ("id", CANARY)


def test_a_secret_may_come_from_a_file_of_its_own(tmp_path: Path, file: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(f"\n  {CANARY}\n")
    file.write_text(f'[tenants.mytenant]\nclient_id = "id"\nclient_secret_file = "{secret}"')

    assert load_settings(file).tenants["mytenant"].client_secret.get_secret_value() == CANARY


def test_white_space_around_a_tenants_id_and_secret_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Secret of Kubernetes that was made with `echo` ends with a line's end."""
    variables = {
        "SESSION_GATEWAY_TENANTS__MYTENANT__CLIENT_ID": "id\n",
        "SESSION_GATEWAY_TENANTS__MYTENANT__CLIENT_SECRET": f" {CANARY}\r\n",
    }
    set_all(monkeypatch, variables)

    tenant = load_settings().tenants["mytenant"]

    assert (tenant.client_id, tenant.client_secret.get_secret_value()) == ("id", CANARY)


@pytest.mark.parametrize("host", ["", "localhost", "my_host-1.example", "bücher.example", "::", "fe80::1%eth0"])
def test_hosts_to_listen_on(file: Path, host: str) -> None:
    file.write_text(f'{TENANT}[grpc]\nhost = "{host}"')

    assert load_settings(file).grpc.host == host


def test_a_tenant_of_dev_may_be_changed_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SESSION_GATEWAY_TENANTS__ACME__CLIENT_ID", "other")

    settings = load_settings(None, DEV_DEFAULTS)

    assert settings.tenants["acme"].client_id == "other"
    assert settings.tenants["acme"].client_secret.get_secret_value() == "acme-secret"
    assert "globex" in settings.tenants


def test_settings_show_no_secret(file: Path) -> None:
    settings = load_settings(file)

    assert CANARY not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"


# Their reference


def _names(model: type[BaseModel], path: str = "") -> Iterator[str]:
    """All settings, as the reference names them."""
    for name, field in model.model_fields.items():
        by_name = ".NAME" if get_origin(field.annotation) is dict else ""
        kinds = [each for each in (field.annotation, *get_args(field.annotation)) if isinstance(each, type)]
        sections = [each for each in kinds if issubclass(each, BaseModel)]
        for each in sections:
            yield from _names(each, f"{path}{name}{by_name}.")
        if not sections:
            yield f"{path}{name}"


def test_the_reference_says_of_every_setting_what_it_is_for() -> None:
    lines = settings_reference().splitlines()
    found, section = [], ""
    for before, line in pairwise(lines):
        if line.removeprefix("#").startswith("["):
            section = line.strip("#[]") + "."
        elif re.match(r"#\w+ = ", line):
            found.append(section + line[1:].partition(" ")[0])
        else:
            continue
        assert before.startswith("# "), f"nothing is said of {line}"

    assert "tenants.NAME.client_secret_file" in found
    assert "workers" in found
    assert sorted(found) == sorted(_names(Settings))


def test_the_reference_is_a_file_of_the_defaults(tmp_path: Path, file: Path) -> None:
    written = tmp_path / "all.toml"
    # All that has a default, in the sections that are there anyhow.
    sections = re.sub(r"^#\[.*?(?=^\[|\Z)", "", settings_reference(), flags=re.MULTILINE | re.DOTALL)
    settings = [re.sub(r'^#(?=\w+ = (?!\.\.\.|"\.\.\."))', "", line) for line in sections.splitlines()]
    written.write_text("\n".join([*settings, TENANT]))

    assert sum(not line.startswith(("#", "[")) for line in settings if line) > 80
    assert load_settings(written).model_dump() == load_settings(file).model_dump()


def test_the_reference_tells_what_a_value_may_be() -> None:
    lines = settings_reference().splitlines()

    assert "#port = 50051  # at least 0, at most 65535" in lines
    assert "#timeout = 5.0  # more than 0, at most 3600" in lines
    assert "#workers = ...  # at least 1, at most 256" in lines
    assert '#client_id = "..."  # required' in lines
    assert '#documents_mode = "open"  # one of open, trusted' in lines
    assert '#permissions = ["..."]  # required, any of sessions:read, sessions:write' in lines


# What is said of bad ones


def told(file: Path | str, monkeypatch: pytest.MonkeyPatch, command: str = "serve") -> list[str]:
    """The lines that the command line has for bad settings."""
    monkeypatch.setattr(cli, "_run", lambda _: pytest.fail("it runs"))

    result = CliRunner().invoke(cli.main, [command, "--config", str(file)])

    assert result.exit_code == 2, result.output
    assert CANARY not in result.output
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert all(each.startswith("session-gateway: ") for each in lines)
    return [each.removeprefix("session-gateway: ") for each in lines]


IN_THE_FILE = [
    (f"{TENANT}[grcp]\nport = 1", "grcp", "is not a setting: did you mean grpc?"),
    (f"{TENANT}[graphql.tsl]\nkey_file = '/k'", "graphql.tsl", "did you mean tls?"),
    (
        f"{TENANT}[grpc.tls]\nkey_file = '/k'\ncertificate_file = '/c'\nclient_ca = '/d'",
        "grpc.tls.client_ca",
        "did you mean client_ca_file?",
    ),
    (f"{TENANT}[grpc]\nprot = 1", "grpc.prot", "is not a setting: did you mean port?"),
    (f'top = "{CANARY}"\n{TENANT}', "top", "is not a setting"),
    (f'{TENANT}client_sekret = "{CANARY}"', "tenants.mytenant.client_sekret", "did you mean client_secret?"),
    (f"{TENANT}[grpc]\nport = 70000", "grpc.port", "65535"),
    (f"{TENANT}[grpc]\nport = -1", "grpc.port", "greater than or equal to 0"),
    (f'{TENANT}[grpc]\nport = "{CANARY}"', "grpc.port", "must be a whole number"),
    (f"{TENANT}[grpc]\nport = 1.5", "grpc.port", "must be a whole number"),
    (f"grpc = 1\n{TENANT}", "grpc", "must be a section"),
    (f"{TENANT}[grpc]\nhost = 'gate..way'", "grpc.host", "or the name of a host"),
    (f"{TENANT}[grpc]\nhost = 'http://0.0.0.0'", "grpc.host", "without scheme"),
    (f"{TENANT}[grpc]\nhost = '0.0.0.0:50051'", "grpc.host", "port"),
    (f"{TENANT}[graphql]\nhost = '[::]'", "graphql.host", "brackets"),
    (f"{TENANT}[admin]\nhost = ' 127.0.0.1'", "admin.host", "or the name of a host"),
    (f"{TENANT}[admin]\nhost = '*'", "admin.host", "or the name of a host"),
    (f'{TENANT}[upstream]\ntimeout = "5s"', "upstream.timeout", "must be a number"),
    (f"{TENANT}[upstream]\ntimeout = 0", "upstream.timeout", "greater than 0"),
    (f"{TENANT}[upstream]\ntimeout = nan", "upstream.timeout", "3600"),
    (f'{TENANT}[upstream]\nbase_url = "{CANARY}"', "upstream.base_url", "URL"),
    (f'{TENANT}[upstream]\nbase_url = "ftp://{CANARY}"', "upstream.base_url", "URL"),
    (f'{TENANT}[upstream]\nbase_url = "api.emporix.io"', "upstream.base_url", "begins with http:// or https://"),
    (f'{TENANT}[upstream]\nbase_url = "https://user:{CANARY}@127.0.0.1"', "upstream.base_url", "nothing else"),
    (f'{TENANT}[upstream]\nbase_url = "https://127.0.0.1/?key={CANARY}"', "upstream.base_url", "nothing else"),
    (f'{TENANT}[upstream]\nca_file = "/a\\u0000b"', "upstream.ca_file", "NUL"),
    (f'{TENANT}[graphql]\ndocuments_file = "/a\\u0000b"', "graphql.documents_file", "NUL"),
    (f'{TENANT}[graphql]\ncors_origins = "https://shop.example"', "graphql.cors_origins", "must be a list"),
    (f'{TENANT}[grpc.tls]\ncertificate_file = "/a\\u0000b"\nkey_file = "/k"', "grpc.tls.certificate_file", "NUL"),
    (f"{TENANT}[shutdown]\ngrace = -1", "shutdown.grace", "greater than or equal to 0"),
    (f"{TENANT}[writes]\nmax_attempts = 0", "writes.max_attempts", "greater than or equal to 1"),
    (f'{TENANT}[log]\nlevel = "{CANARY}"', "log.level", "'debug', 'info', 'warning' or 'error'"),
    (f'{TENANT}[graphql]\nplayground = "{CANARY}"', "graphql.playground", "must be true or false"),
    ("", "tenants", "is missing: configure at least one"),
    ("[tenants]", "tenants", "configure at least one"),
    (f'tenants = "{CANARY}"', "tenants", "must be a section"),
    (f'tenants.mytenant = "{CANARY}"', "tenants.mytenant", "must be a section"),
    (f'[tenants.mytenant]\nclient_secret = "{CANARY}"', "tenants.mytenant.client_id", "is missing"),
    (f'[tenants.mytenant]\nclient_id = ""\nclient_secret = "{CANARY}"', "tenants.mytenant.client_id", "is empty"),
    (f'[tenants.mytenant]\nclient_id = 12\nclient_secret = "{CANARY}"', "tenants.mytenant.client_id", "in quotes"),
    (
        '[tenants.mytenant]\nclient_id = "id"',
        "tenants.mytenant.client_secret",
        "SESSION_GATEWAY_TENANTS__MYTENANT__CLIENT_SECRET",
    ),
    ('[tenants.mytenant]\nclient_id = "id"\nclient_secret = ""', "tenants.mytenant.client_secret", "is empty"),
    ('[tenants.mytenant]\nclient_id = "id"\nclient_secret = " \\n"', "tenants.mytenant.client_secret", "is empty"),
    (f"{TENANT}client_secret_file = '/dev/null'", "tenants.mytenant", "not both"),
    (
        '[tenants.mytenant]\nclient_id = "id"\nclient_secret_file = "/a\\u0000b"',
        "tenants.mytenant",
        "client_secret_file holds a NUL",
    ),
    (f"graphql.port = 1\ngrpc.port = 1\n{TENANT}", "grpc.port", "graphql.port"),
    (f"graphql.port = 9000\n{TENANT}", "admin.port", "graphql.port"),
    (f"grpc = {{port = 1, host = '0.0.0.0'}}\nadmin.port = 1\n{TENANT}", "admin.port", "grpc.port"),
    (f"grpc = {{port = 1, host = '::1'}}\nadmin = {{port = 1, host = '::'}}\n{TENANT}", "admin.port", "grpc.port"),
    (f"graphql = {{port = 1, host = 'localhost'}}\ngrpc.port = 1\n{TENANT}", "grpc.port", "graphql.port"),
    (f"writes.max_document = 3_000_000\n{TENANT}", "writes.max_document", "upstream.max_answer"),
    (f"{TENANT}[cache]\nmemory_tier = true", "cache", "need a backend of Redis"),
    (f"{TENANT}[cache]\ncluster = true\nbackend = 'redis://h/1'", "cache", "without a number"),
    (f'[tenants.My-Tenant]\nclient_id = "id"\nclient_secret = "{CANARY}"', "tenants.My-Tenant", "lowercase"),
    (
        f'{TENANT}[access.keys.shop]\nhash = "sha256:{"0" * 32}:{"0" * 64}"\npermissions = ["read"]\ntenants = ["*"]',
        "access.keys.shop.permissions.0",
        "must be 'sessions:read' or 'sessions:write'",
    ),
]


@pytest.mark.parametrize(("text", "key", "words"), IN_THE_FILE, ids=[f"{row[1]} {row[2]}" for row in IN_THE_FILE])
def test_a_bad_setting_in_the_file_is_told_in_one_line_by_its_name(
    file: Path, monkeypatch: pytest.MonkeyPatch, text: str, key: str, words: str
) -> None:
    file.write_text(text)

    (line,) = told(file, monkeypatch)

    assert line.startswith(f"{key}: ")
    assert words in line


@pytest.mark.parametrize(
    "ports",
    [
        "graphql.port = 0\ngrpc.port = 0\nadmin.port = 0",
        "graphql.port = 1\ngrpc = {port = 1, host = '127.0.0.2'}",
        "graphql.port = 1\ngrpc = {port = 1, host = '::'}",
        "graphql.port = 8001",
    ],
)
def test_ports_that_are_free_at_another_address_or_of_the_sandbox_alone_are_no_mistake(file: Path, ports: str) -> None:
    file.write_text(f"{ports}\n{TENANT}")

    load_settings(file)


def test_dev_has_the_sandbox_beside_the_doors(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text(f"graphql.port = 8001\n{TENANT}")

    assert told(file, monkeypatch, "dev") == [
        "sandbox.port: must differ from graphql.port, as both listen at the same address"
    ]


@pytest.mark.parametrize(
    "backend",
    [
        f"redis://default:{CANARY}/abc+def=@127.0.0.1:6379/0",
        f"redis://:p@ss/{CANARY}#ord@127.0.0.1",
        f"redis://:12/{CANARY}@127.0.0.1",
        f"redis://user:12?{CANARY}@127.0.0.1",
        f"redis://127.0.0.1:{CANARY}/0",
        f"redis://127.0.0.1/{CANARY}",
        f"redis://{CANARY}:99999",
        f"redis://{CANARY}:0",
        f"redis://[::1{CANARY}",
        f"redis://:{CANARY} @127.0.0.1",
        f"redis://:{CANARY}@",
        f"http://{CANARY}",
        CANARY,
    ],
)
def test_a_url_of_redis_that_cannot_be_read_is_told_how_to_write_it(
    file: Path, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    monkeypatch.setenv("SESSION_GATEWAY_CACHE__BACKEND", backend)

    (line,) = told(file, monkeypatch)

    assert line.startswith("cache.backend: ")
    assert "%3F" in line


@pytest.mark.parametrize(
    ("backend", "words"),
    [
        (f"rediss://127.0.0.1?socket_timeout={CANARY}", "nothing else"),
        (f"rediss://127.0.0.1?{CANARY}", "nothing else"),
        ("redis://127.0.0.1?protocol=3", "nothing else"),
        ("redis://127.0.0.1?ssl_ca_certs=/dev/null", "needs rediss:// or valkeys://"),
        (f"rediss://127.0.0.1?ssl_ca_certs=/{CANARY}", "names no file"),
    ],
)
def test_a_url_of_redis_may_name_files_for_tls_and_nothing_else(
    file: Path, monkeypatch: pytest.MonkeyPatch, backend: str, words: str
) -> None:
    monkeypatch.setenv("SESSION_GATEWAY_CACHE__BACKEND", backend)

    (line,) = told(file, monkeypatch)

    assert line.startswith("cache.backend: ")
    assert words in line


@pytest.mark.parametrize(
    "backend",
    [
        "redis://localhost",
        "redis://my_redis:6379/",
        "valkey://default:a%2Fb%3Fc%23d%40e@[::1]:6379/15",
        "valkeys://:p@ss@cache.example/0?ssl_ca_certs={file}&ssl_certfile={file}&ssl_keyfile={file}",
    ],
)
def test_urls_of_redis(file: Path, monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    monkeypatch.setenv("SESSION_GATEWAY_CACHE__BACKEND", backend.format(file=file))

    cache = load_settings(file).cache

    assert cache.in_redis
    assert not cache.in_memory


@pytest.mark.parametrize(
    ("name", "value", "key", "words"),
    [
        ("SESSION_GATEWAY_GRCP__PORT", CANARY, "SESSION_GATEWAY_GRCP__PORT", "mean SESSION_GATEWAY_GRPC__PORT?"),
        ("SESSION_GATEWAY_PORT", CANARY, "SESSION_GATEWAY_PORT", "is not a setting"),
        ("SESSION_GATEWAY_GRPC_PORT", "1", "SESSION_GATEWAY_GRPC_PORT", "mean SESSION_GATEWAY_GRPC__PORT?"),
        (
            "SESSION_GATEWAY_TENANT__OTHER__CLIENT_ID",
            CANARY,
            "SESSION_GATEWAY_TENANT__OTHER__CLIENT_ID",
            "mean SESSION_GATEWAY_TENANTS__OTHER__CLIENT_ID?",
        ),
        ("SESSION_GATEWAY_GRPC__PROT", CANARY, "grpc.prot", "is not a setting: did you mean port?"),
        ("session_gateway_grcp__port", CANARY, "session_gateway_grcp__port", "mean SESSION_GATEWAY_GRPC__PORT?"),
        ("SESSION_GATEWAY_GRPC__PORT", CANARY, "grpc.port", "must be a whole number"),
        ("SESSION_GATEWAY_GRPC__PORT", "", "grpc.port", "must be a whole number"),
        ("SESSION_GATEWAY_GRPC", CANARY, "SESSION_GATEWAY_GRPC", "JSON"),
        ("SESSION_GATEWAY_GRPC__PORT__X", "1", "grpc.port", "must be a whole number"),
        ("SESSION_GATEWAY_TENANTS__OTHER__CLIENT_SECRET", CANARY, "tenants.other.client_id", "is missing"),
        ("SESSION_GATEWAY_TENANTS__OTHER", CANARY, "tenants.other", "must be a section"),
        ("SESSION_GATEWAY_ACCESS__KEYS__DEV__TENANTS", CANARY, "SESSION_GATEWAY_ACCESS__KEYS__DEV__TENANTS", '["acme"'),
        ("SESSION_GATEWAY_GRAPHQL__CORS_ORIGINS", CANARY, "SESSION_GATEWAY_GRAPHQL__CORS_ORIGINS", "is not JSON"),
        ("SESSION_GATEWAY_GRPC", "[" * 200_000, "SESSION_GATEWAY_GRPC", "nested too deeply"),
        ("AIOCACHE_DISABLE", "1", "AIOCACHE_DISABLE", "must not be set"),
        (MINE, os.fsdecode(CANARY.encode() + b"\xff"), MINE, "is not UTF-8"),
    ],
)
def test_a_bad_variable_is_told_in_one_line_by_its_name(
    file: Path, monkeypatch: pytest.MonkeyPatch, *, name: str, value: str, key: str, words: str
) -> None:
    monkeypatch.setenv(name, value)

    (line,) = told(file, monkeypatch)

    assert line.startswith(f"{key}: ")
    assert words in line


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "No such file"), (b"\xff\xfe", "not UTF-8"), (b"  \n", "is empty")],
    ids=["missing", "not UTF-8", "empty"],
)
def test_a_secrets_file_that_cannot_be_used(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, words: str
) -> None:
    secret = tmp_path / "secret"
    if content is not None:
        secret.write_bytes(content)
    file.write_text(f'[tenants.mytenant]\nclient_id = "id"\nclient_secret_file = "{secret}"')

    (line,) = told(file, monkeypatch)

    assert line.startswith("tenants.mytenant")
    assert "client_secret" in line
    assert words in line


def test_an_empty_secrets_file_is_told_by_its_setting_and_its_path(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_bytes(b"")
    file.write_text(f'[tenants.mytenant]\nclient_id = "id"\nclient_secret_file = "{tmp_path}/secret"')

    assert told(file, monkeypatch) == [f"tenants.mytenant: client_secret_file is empty: {tmp_path}/secret"]


def test_a_mark_of_the_byte_order_is_part_of_neither_file(tmp_path: Path, file: Path) -> None:
    (tmp_path / "secret").write_text(f"{CANARY}\n", "utf-8-sig")
    text = f'[tenants.mytenant]\nclient_id = "id"\nclient_secret_file = "{tmp_path}/secret"'
    file.write_text(text, "utf-8-sig")

    assert load_settings(file).tenants["mytenant"].client_secret.get_secret_value() == CANARY


def test_a_secrets_file_that_is_a_directory(tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text(f'[tenants.mytenant]\nclient_id = "id"\nclient_secret_file = "{tmp_path}"')

    assert told(file, monkeypatch) == ["tenants.mytenant: client_secret_file cannot be read: Is a directory"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (f"{TENANT} {CANARY}".encode(), "is not TOML"),
        (b"\xff\xfe", "is not UTF-8"),
        (b"[grpc]\x00", "is not TOML"),
        (b"a = " + b"1" * 5000, "holds what cannot be read"),
        (b"a = " + b"[" * 100_000, "is nested too deeply"),
    ],
)
def test_a_configuration_file_that_is_none(
    file: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, words: str
) -> None:
    file.write_bytes(content)

    (line,) = told(file, monkeypatch)

    assert line.startswith(f"{file}: ")
    assert words in line


def test_a_configuration_file_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = told(tmp_path / "missing.toml", monkeypatch)

    assert line == f"{tmp_path}/missing.toml: cannot be read: No such file or directory"


def test_a_configuration_file_that_is_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = told(tmp_path, monkeypatch)

    assert line == f"{tmp_path}: cannot be read: Is a directory"


def test_the_variable_names_the_file_where_the_command_line_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CONFIG_VARIABLE, str(tmp_path / "named.toml"))
    monkeypatch.setattr(cli, "_run", lambda _: pytest.fail("it runs"))

    result = CliRunner().invoke(cli.main, ["check"])

    assert result.exit_code == 2
    assert "named.toml: cannot be read" in result.stderr
    assert "other.toml: cannot be read" in told(tmp_path / "other.toml", monkeypatch)[0]


def test_all_problems_are_told_at_once_those_of_the_file_and_of_the_environment(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text(f'{TENANT}[grpc]\nport = 70000\nprot = 1\n[tenants.other]\nclient_id = "id"')
    set_all(
        monkeypatch, {"SESSION_GATEWAY_GRCP": CANARY, "AIOCACHE_DISABLE": "1", "SESSION_GATEWAY_LOG__LEVEL": CANARY}
    )

    assert {each.partition(":")[0] for each in told(file, monkeypatch)} == {
        "SESSION_GATEWAY_GRCP",
        "AIOCACHE_DISABLE",
        "grpc.port",
        "grpc.prot",
        "log.level",
        "tenants.other.client_secret",
    }


@pytest.mark.parametrize("command", ["serve", "dev", "check"])
def test_every_command_that_reads_settings_refuses_bad_ones(
    file: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    file.write_text(f"{TENANT}[grpc]\nprot = 1")

    assert told(file, monkeypatch, command) == ["grpc.prot: is not a setting: did you mean port?"]


def test_the_error_itself_holds_no_value(file: Path) -> None:
    file.write_text(f'{TENANT}[grpc]\nport = "{CANARY}"')

    with pytest.raises(ConfigurationError) as refused:
        load_settings(file)

    assert CANARY not in f"{refused.value} {refused.value!r}"
    assert refused.value.__suppress_context__, "a traceback must not show what was refused"
