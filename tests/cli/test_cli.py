"""The command line, as a process of its own."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import sys
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import httpx
import pytest
import pytest_asyncio
from cache.redis_server import free_port
from click.testing import CliRunner
from processes import Process, run, running

from doors import Caller, GraphQLDoor, GrpcDoor, Refused, Seen
from gateway import cli, sandbox
from gateway.sandbox import Sandbox, seed
from waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

ROOT = Path(__file__).parents[2]
SCRIPT = Path(sys.executable).parent / "session-gateway"
LISTENERS = ("GRAPHQL", "GRPC", "ADMIN", "SANDBOX")
ANYWHERE = {f"SESSION_GATEWAY_{each}__PORT": "0" for each in LISTENERS}
CANARY = "canary-of-a-secret"


@asynccontextmanager
async def entered(graphql: str, address: str) -> AsyncIterator[tuple[GraphQLDoor, GrpcDoor]]:
    async with httpx.AsyncClient() as client, grpc.aio.insecure_channel(address) as channel:
        yield GraphQLDoor(client, graphql), GrpcDoor(channel)


MAIN = "from gateway.__main__ import main; main()"


def signalled(signal: signal.Signals, *, importing: str) -> tuple[str, ...]:
    """The command line, with a signal that comes as it imports a module for the first time."""
    source = f"""
import os, sys

class Signal:
    def find_spec(name, *_):
        if name == "{importing}":
            sys.meta_path.remove(Signal)
            os.kill(os.getpid(), {signal:d})

sys.meta_path.insert(0, Signal)
{MAIN}
"""
    return (sys.executable, "-c", source)


# dev


@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGINT])
async def test_dev_says_where_it_listens_serves_by_both_doors_and_stops_when_told(told: signal.Signals) -> None:
    async with running("dev", **ANYWHERE) as process:
        graphql = await process.says(r"GraphQL +(http://\S+/graphql) ")
        address = await process.says(r"gRPC +(127\.0\.0\.1:\d+)")
        admin = await process.says(r"admin +(http://\S+) ")
        upstream = await process.says(r"sandbox +(http://\S+) ")
        await process.says("Ctrl-C")

        async with entered(graphql, address) as (by_graphql, by_grpc), httpx.AsyncClient() as client:
            for door in (by_graphql, by_grpc):
                found = await door.get("acme", seed.CUSTOMER_SESSION)
                assert found is not None
                assert found.fields["currency"] == "EUR"
            assert (await client.get(f"{admin}/readyz")).status_code == 200
            requests = (await client.get(f"{upstream}/_sandbox/requests")).json()
            assert "get" in {each["operation"] for each in requests}

            process.process.send_signal(told)  # while its clients' connections are open
            assert await process.end(within=3) == 0

    assert [json.loads(each)["event"] for each in process.err] == ["request"] * 2
    assert "Traceback" not in process.said


@pytest.mark.parametrize("arguments", [(), ("check",), ("keys", "new", "serve")], ids=" ".join)
async def test_ctrl_c_before_it_has_come_up_leaves_no_trace_of_the_inside(arguments: tuple[str, ...]) -> None:
    program = signalled(signal.SIGINT, importing="click")
    async with running(*arguments, program=program) as process:
        assert await process.end(within=20) == 1
    assert process.said == "Aborted!"


@pytest.mark.parametrize(
    ("arguments", "module", "told"),
    [
        (("serve",), "click", signal.SIGTERM),
        (("serve",), "click", signal.SIGINT),
        (("serve", "--workers", "1"), "gateway.app", signal.SIGTERM),
        (("serve", "--workers", "2"), "gateway.workers.supervisor", signal.SIGTERM),
        (("serve", "--workers", "2"), "gateway.workers.supervisor", signal.SIGINT),
        (("dev",), "gateway.development", signal.SIGINT),
        (("sandbox", "--port", "0"), "gateway.sandbox", signal.SIGTERM),
    ],
)
async def test_told_to_stop_before_it_has_come_up_it_stops_and_leaves_nothing_behind(
    tmp_path: Path, arguments: tuple[str, ...], module: str, told: signal.Signals
) -> None:
    variables = {
        "SESSION_GATEWAY_TENANTS__ACME__CLIENT_ID": "acme-client",
        "SESSION_GATEWAY_TENANTS__ACME__CLIENT_SECRET": "acme-secret",
        "SESSION_GATEWAY_UPSTREAM__BASE_URL": "http://127.0.0.1:1",
        "TMPDIR": str(tmp_path),
    }
    async with running(*arguments, program=signalled(told, importing=module), **ANYWHERE, **variables) as process:
        assert await process.end(within=30) == 0
    assert process.out == []
    assert "Traceback" not in process.said
    assert "listening" not in process.said
    assert names_in(tmp_path) == []


def names_in(folder: Path) -> list[str]:
    return [each.name for each in folder.iterdir()]


async def test_sighup_before_it_has_come_up_ends_nothing() -> None:
    program = signalled(signal.SIGHUP, importing="click")
    async with running("sandbox", "--port", "0", program=program) as process:
        await process.says(r"^sandbox +(http://\S+)$")
        process.process.terminate()
        assert await process.end(within=10) == 0


async def test_calls_that_never_end_do_not_keep_it_from_stopping() -> None:
    async with sandbox.serve(Sandbox()) as upstream:
        variables = {
            "SESSION_GATEWAY_UPSTREAM__BASE_URL": upstream.url,
            "SESSION_GATEWAY_TENANTS__ACME__CLIENT_ID": "acme-client",
            "SESSION_GATEWAY_TENANTS__ACME__CLIENT_SECRET": "acme-secret",
            "SESSION_GATEWAY_SHUTDOWN__GRACE": "0.3",
        }
        upstream.sandbox.faults.arm("hang", "get", times=None)
        async with running("serve", **ANYWHERE, **variables) as process:
            line = json.loads(await process.says(r'(.*"listening".*)'))
            async with entered(line["graphql"], line["grpc"]) as (by_graphql, by_grpc):
                calls = (by_graphql.get("acme", seed.CUSTOMER_SESSION), by_grpc.get("acme", seed.ODD_SESSION))
                ended = asyncio.gather(*calls, return_exceptions=True)
                await eventually(lambda: upstream.sandbox.under_way == 2)

                process.process.terminate()

                assert await process.end(within=3) == 0
                assert not any(each is None or isinstance(each, Seen) for each in await ended)
        await eventually(lambda: upstream.sandbox.under_way == 0)

    assert "Traceback" not in process.said
    assert all(json.loads(each) for each in process.err)


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
async def test_it_needs_none_of_the_standard_streams(upstream_url: str, closed: str, workers: str) -> None:
    variables = {
        **ANYWHERE,
        "SESSION_GATEWAY_UPSTREAM__BASE_URL": upstream_url,
        "SESSION_GATEWAY_TENANTS__ACME__CLIENT_ID": "acme-client",
        "SESSION_GATEWAY_TENANTS__ACME__CLIENT_SECRET": "acme-secret",
        "SESSION_GATEWAY_ADMIN__PORT": str(free_port()),
    }
    admin = f"http://127.0.0.1:{variables['SESSION_GATEWAY_ADMIN__PORT']}"
    program = ("sh", "-c", f'exec "$0" "$@" {closed}', str(SCRIPT))
    async with (
        running("serve", "--workers", workers, program=program, **variables) as process,
        httpx.AsyncClient() as client,
        asyncio.timeout(40),
    ):
        status = 0
        while status != 200:
            await asyncio.sleep(0.05)
            assert process.process.returncode is None
            with suppress(httpx.TransportError):
                status = (await client.get(f"{admin}/readyz")).status_code

        process.process.terminate()

        assert await process.end(within=30) == 0


# Open files


def serving_with_files(limit: int, upstream_url: str) -> AbstractAsyncContextManager[Process]:
    """A gateway that may have so many files open."""
    variables = {
        **ANYWHERE,
        "SESSION_GATEWAY_UPSTREAM__BASE_URL": upstream_url,
        "SESSION_GATEWAY_TENANTS__ACME__CLIENT_ID": "acme-client",
        "SESSION_GATEWAY_TENANTS__ACME__CLIENT_SECRET": "acme-secret",
    }
    program = ("sh", "-c", f'ulimit -n {limit}; exec "$0" "$@"', str(SCRIPT))
    return running("serve", program=program, **variables)


@pytest.mark.parametrize(("hard", "told"), [(2383, True), (2384, False)])
async def test_it_warns_where_it_may_not_have_as_many_files_as_connections(
    upstream_url: str, *, hard: int, told: bool
) -> None:
    async with serving_with_files(hard, upstream_url) as process:
        await process.says("listening")

    warnings = [each for each in map(json.loads, process.err) if each["event"] == "files_short"]
    assert [(each["allowed"], each["needed"], each["level"]) for each in warnings] == [(hard, 2384, "warning")] * told


async def test_it_says_so_when_it_has_no_file_left(upstream_url: str) -> None:
    """It cannot look into /proc then. Whoever reads metrics is connected already."""
    async with serving_with_files(100, upstream_url) as process, httpx.AsyncClient() as operator:
        listening = json.loads(await process.says(r'(.*"listening".*)'))
        metrics = f"{listening['admin']}/metrics"
        assert metric_of(await operator.get(metrics), "process_open_fds") < 100
        url = httpx.URL(listening["graphql"])
        with ExitStack() as connections:
            for _ in range(100):
                connections.enter_context(socket.create_connection((url.host, url.port)))
            found = Path(f"/proc/{process.process.pid}/fd")
            await eventually(lambda: len([*found.iterdir()]) >= 100)
            told = await operator.get(metrics)

        assert metric_of(told, "process_open_fds") == metric_of(told, "process_max_fds") == 100


def metric_of(told: httpx.Response, name: str) -> float:
    """The value of a metric without labels."""
    return next(float(each.split()[1]) for each in told.text.splitlines() if each.startswith(f"{name} "))


# A port in use


async def test_a_port_in_use_is_told_in_one_line_with_its_address() -> None:
    async def refused(listener: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            status, process = await run("dev", **{**ANYWHERE, f"SESSION_GATEWAY_{listener}__PORT": str(port)})
        (line,) = process.err
        assert status == 1, listener
        assert process.out == [], listener
        assert line.startswith("session-gateway: "), listener
        assert "Address already in use" in line, listener
        assert f"SESSION_GATEWAY_{listener}__PORT" in line, listener
        assert re.search(rf"127\.0\.0\.1\W+{port}\b", line), line

    async with asyncio.TaskGroup() as tasks:
        for each in LISTENERS:
            tasks.create_task(refused(each))


# sandbox and serve


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def upstream_url() -> AsyncIterator[str]:
    """A sandbox that runs alone."""
    async with running("sandbox", "--port", "0") as process:
        yield await process.says(r"^sandbox +(http://\S+)$")
        process.process.send_signal(signal.SIGINT)
        assert await process.end(within=3) == 0
        assert process.err == []


@dataclass
class Served:
    """`serve` in front of that sandbox."""

    process: Process
    graphql: str
    grpc: str
    admin: str


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def served(upstream_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    folder = tmp_path_factory.mktemp("serve")
    (folder / "secret").write_text("acme-secret\n")
    (folder / "gateway.toml").write_text(
        f"""
        [upstream]
        base_url = "{upstream_url}"
        lazy_tokens = true
        [tenants.acme]
        client_id = "acme-client"
        client_secret_file = "{folder / "secret"}"
        [tenants.globex]
        client_id = "globex-client"
        client_secret = "{CANARY}"
        [graphql]
        port = 0
        [grpc]
        port = 0
        [admin]
        port = 0
        [log]
        level = "debug"
        """
    )
    async with running("serve", SESSION_GATEWAY_CONFIG=str(folder / "gateway.toml")) as process:
        line = json.loads(await process.says(r'(.*"listening".*)'))
        yield Served(process, line["graphql"], line["grpc"], line["admin"])
        process.process.terminate()
        assert await process.end(within=3) == 0
        assert process.out == []
        assert any('"stopping"' in each for each in process.err)


async def test_serve_serves_by_both_doors(served: Served) -> None:
    async with entered(served.graphql, served.grpc) as doors:
        for door in doors:
            found = await door.get("acme", seed.CUSTOMER_SESSION)
            assert found is not None
            assert found.fields["currency"] == "EUR"


@pytest.mark.parametrize(
    ("path", "content"),
    [("/livez", "ok\n"), ("/readyz", '{"ready":true,"checks":{"doors":"open"'), ("/metrics", "# HELP ")],
)
async def test_the_operators_listener(served: Served, path: str, content: str) -> None:
    async with httpx.AsyncClient() as client:
        response = await client.get(f"{served.admin}{path}")

    assert response.status_code == 200
    assert response.text.startswith(content)


async def test_the_operators_listener_is_not_a_door(served: Served) -> None:
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"{served.admin}/graphql")).status_code == 404
        for path in ("/livez", "/readyz", "/metrics"):
            assert (await client.get(served.graphql.replace("/graphql", path))).status_code == 404


async def test_serve_has_no_playground_unless_told(served: Served) -> None:
    async with httpx.AsyncClient() as client:
        response = await client.get(served.graphql, headers={"accept": "text/html"})

    assert response.status_code == 406


async def test_the_log_is_json_line_by_line_and_holds_no_secret(served: Served, upstream_url: str) -> None:
    """At the level that says most, with failures of every kind."""
    shopper = Caller(token=f"{CANARY}-token", saas_token=f"{CANARY}-saas")
    async with entered(served.graphql, served.grpc) as doors, httpx.AsyncClient() as client:
        for door in doors:
            await door.add_attribute("acme", seed.CUSTOMER_SESSION, "canary", f"{CANARY}-value", shopper)
            for call in (
                door.get_own("acme", shopper),
                door.patch("acme", seed.CUSTOMER_SESSION, {"context": {"a": f"{CANARY}-value"}}, shopper),
                door.get("globex", seed.CUSTOMER_SESSION),  # by a client whose secret is wrong
            ):
                with pytest.raises(Refused):
                    await call
            for fault in ("status=500", "wrong-json", "drop"):
                armed = {"fault": fault, "operation": "get", "times": None}
                await client.post(f"{upstream_url}/_sandbox/faults", json=armed)
                with pytest.raises(Refused):
                    await door.get("acme", seed.CUSTOMER_SESSION)
                await client.delete(f"{upstream_url}/_sandbox/faults")
        document = {"query": f'{{ "{CANARY}-query" }}', "variables": {"a": f"{CANARY}-variable"}}
        await client.post(served.graphql, json=document, headers={"authorization": f"Bearer {CANARY}-token"})
        await client.request("BREW", served.graphql, content=CANARY)

    lines = [json.loads(each) for each in served.process.err]
    assert {"event", "level", "timestamp", "logger"} <= set.intersection(*map(set, lines))
    assert {each["level"] for each in lines} >= {"info", "warning"}
    assert CANARY not in served.process.said
    assert "acme-secret" not in served.process.said


# check


async def check(tmp_path: Path, url: str, *, secret: str = "acme-secret") -> tuple[int, Process]:
    file = tmp_path / f"{secret}-{url.rpartition(':')[2]}.toml"
    file.write_text(
        f"""
        [upstream]
        base_url = "{url}"
        [tenants.acme]
        client_id = "acme-client"
        client_secret = "{secret}"
        [tenants.globex]
        client_id = "globex-client"
        client_secret = "globex-secret"
        """
    )
    return await run("check", "--config", str(file))


async def test_check_says_what_is_wrong_with_each_tenant(tmp_path: Path) -> None:
    async with sandbox.serve(Sandbox()) as good, sandbox.serve(Sandbox()) as scopeless:
        async with httpx.AsyncClient() as client:
            switches = {"granted_scopes": ["product.product_read"]}
            response = await client.patch(f"{scopeless.url}/_sandbox/switches", json=switches)
            assert response.status_code == 200

        fine, wrong, lacking, down = await asyncio.gather(
            check(tmp_path, good.url),
            check(tmp_path, good.url, secret=CANARY),
            check(tmp_path, scopeless.url),
            check(tmp_path, "http://127.0.0.1:1"),
        )

    assert fine[0] == 0
    assert fine[1].out == ["tenant acme: ok", "tenant globex: ok"]
    assert fine[1].err == []

    assert wrong[0] == 1
    assert wrong[1].out[0].startswith("tenant acme: ")
    assert "client" in wrong[1].out[0]
    assert wrong[1].out[1] == "tenant globex: ok"
    assert wrong[1].err[-1] == "Error: 1 of the tenants cannot be served"
    assert CANARY not in wrong[1].said

    assert lacking[0] == 1
    assert all("lacks the scope sessioncontext.context_manage" in each for each in lacking[1].out)
    assert lacking[1].err[-1] == "Error: 2 of the tenants cannot be served"

    assert down[0] == 1
    assert all("no connection to upstream" in each for each in down[1].out)
    assert all("Connect call failed ('127.0.0.1', 1)" in each for each in down[1].out)
    assert [len(each[1].out) for each in (wrong, lacking, down)] == [2, 2, 2]


async def test_check_tries_every_tenant_though_upstream_hangs_and_some_at_a_time(tmp_path: Path) -> None:
    tenants = [f"shop{number}" for number in range(6)]
    file = tmp_path / "gateway.toml"
    async with sandbox.serve(Sandbox()) as upstream:
        upstream.sandbox.faults.arm("hang", "token", times=None)
        file.write_text(
            f'[upstream]\nbase_url = "{upstream.url}"\ntimeout = 1\nmax_concurrent = 3\n'
            + "".join(f'[tenants.{each}]\nclient_id = "a"\nclient_secret = "b"\n' for each in tenants)
        )
        status, process = await run("check", "--config", str(file))

    late = "no token could be obtained: asking upstream took longer than the time allowed"
    assert process.out == [f"tenant {each}: {late}" for each in tenants]
    assert status == 1
    assert upstream.sandbox.peak == 3


# All the rest


async def test_bad_settings_end_it_before_anything_listens(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(
        f'[tenants.acme]\nclient_id = "id"\nclient_secret = "{CANARY}"\n[grpc]\nport = "{CANARY}"\nprot = 1'
    )

    status, process = await run("serve", "--config", str(file))

    assert status == 2
    assert process.out == []
    assert [each.partition(": ")[2].partition(":")[0] for each in process.err] == ["grpc.port", "grpc.prot"]
    assert CANARY not in process.said


@pytest.mark.parametrize(
    ("contract", "file"),
    [
        ("graphql", "schema/session_context.graphql"),
        ("proto", "proto/emporix/sessioncontext/v1/session_context.proto"),
        ("service-config", "proto/emporix/sessioncontext/v1/session_context_grpc_service_config.json"),
    ],
)
def test_schema_prints_the_published_contract_to_the_byte(contract: str, file: str) -> None:
    result = CliRunner().invoke(cli.main, ["schema", contract])

    assert result.exit_code == 0
    assert result.stdout_bytes == (ROOT / file).read_bytes()


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_has_a_line_for_every_command(flag: str) -> None:
    result = CliRunner().invoke(cli.main, [flag])

    assert result.exit_code == 0
    for command in ("serve", "dev", "sandbox", "check", "schema"):
        assert re.search(rf"^  {command}  +[A-Z].+", result.stdout, re.MULTILINE), command


@pytest.mark.parametrize("command", ["serve", "dev", "sandbox", "check", "schema"])
def test_every_command_has_help(command: str) -> None:
    result = CliRunner().invoke(cli.main, [command, "--help"])

    assert result.exit_code == 0
    assert f" {command} " in result.stdout


def test_the_version() -> None:
    result = CliRunner().invoke(cli.main, ["--version"])

    assert result.exit_code == 0
    assert re.fullmatch(r".*\b\d+\.\d+\.\d+\n", result.stdout)


@pytest.mark.parametrize(
    "arguments",
    [
        ["serv"],
        ["serve", "--port", "1"],
        ["schema", "openapi"],
        ["schema"],
        ["sandbox", "--port", "99999"],
        ["sandbox", "--port", "x"],
    ],
)
def test_what_is_not_understood_is_refused_in_words(arguments: list[str]) -> None:
    result = CliRunner().invoke(cli.main, arguments)

    assert result.exit_code == 2
    assert result.stderr.startswith("Usage: ")
    assert "Error: " in result.stderr
