"""compose.yaml: its gateway runs, with the very environment that it gives it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import tomllib
from typing import TYPE_CHECKING

import httpx
import pytest
from cache.redis_server import find_redis_server
from cache.redis_server import running as running_redis
from processes import run, running
from shipping.shipped import ROOT, addresses, currencies, instruction, load

from gateway.sandbox import seed
from gateway.settings import Admin, GraphQL, Grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from processes import Process

COMPOSE = load("compose.yaml")
SERVICES = COMPOSE["services"]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_can_do_no_more_than_it_needs(name: str) -> None:
    service = SERVICES[name]

    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "network_mode", "pid", "volumes"} & service.keys()
    assert service["healthcheck"]["test"][0] == "CMD"
    assert service["mem_limit"]


@pytest.mark.parametrize("name", SERVICES)
def test_an_image_is_of_a_version(name: str) -> None:
    image, _, tag = SERVICES[name]["image"].partition(":")

    assert re.match(r"\d+\.\d+", tag)
    assert tag == VERSION or image != "session-gateway"


def test_no_port_is_published_to_other_machines() -> None:
    assert {port for service in SERVICES.values() for port in service.get("ports", ())} == {
        f"127.0.0.1:{port}:{port}" for port in (GraphQL().port, Grpc().port, Admin().port)
    }


def test_the_gateway_has_time_to_stop() -> None:
    assert int(SERVICES["gateway"]["stop_grace_period"].removesuffix("s")) >= 30


@pytest.fixture(scope="module")
async def sandbox() -> AsyncIterator[str]:
    """Its port on loopback; run as Compose runs it."""
    command = ["127.0.0.1" if each == "0.0.0.0" else each for each in SERVICES["sandbox"]["command"]]
    command[command.index("--port") + 1] = "0"
    async with running(*command) as process:
        yield await process.says(r"http://127\.0\.0\.1:(\d+)")


@pytest.fixture(scope="module")
async def redis_port() -> AsyncIterator[str]:
    """Where a Redis listens on loopback."""
    program = find_redis_server()
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("there is no redis-server on the PATH")
        pytest.skip("needs redis-server")
    with running_redis(program) as server:
        yield str(server.port)


@pytest.fixture(scope="module")
def environment(sandbox: str, redis_port: str) -> dict[str, str]:
    """What Compose gives the gateway, but on loopback, and with ports that are free."""
    here = {
        "//sandbox:8001": f"//127.0.0.1:{sandbox}",
        "//cache:6379": f"//127.0.0.1:{redis_port}",
        "0.0.0.0": "127.0.0.1",
        **{f"/run/secrets/{name}": str(ROOT / secret["file"]) for name, secret in COMPOSE["secrets"].items()},
    }
    given: Mapping[str, str] = SERVICES["gateway"]["environment"]
    there = re.compile("|".join(map(re.escape, here)))
    environment = {name: there.sub(lambda found: here[found[0]], value) for name, value in given.items()}
    ours = {f"SESSION_GATEWAY_{each}__PORT": "0" for each in ("GRAPHQL", "GRPC", "ADMIN")}
    ours["SESSION_GATEWAY_CACHE__BUDGET"] = "5"  # where Redis fails here, it is not for a machine that stood still
    assert not ours.keys() & given.keys()
    return {**environment, **ours}


@pytest.fixture(scope="module")
async def gateway(environment: dict[str, str]) -> AsyncIterator[Process]:
    async with running(*SERVICES["gateway"]["command"], **environment) as process:
        await process.says("listening")
        yield process


async def test_the_settings_are_good(environment: dict[str, str]) -> None:
    status, process = await run("check", **environment)

    assert (status, process.out) == (0, ["tenant acme: ok", "cache: ok"])


async def test_processes_are_few_whatever_the_machine_has(environment: dict[str, str]) -> None:
    """A worker has 35 MiB and some 12 threads at its start, beside what all have in common."""
    gateway = SERVICES["gateway"]

    workers = int(environment["SESSION_GATEWAY_WORKERS"])
    assert 64 + 64 * workers < int(gateway["mem_limit"].removesuffix("m"))
    assert 16 + 32 * workers < gateway["pids_limit"]


async def test_both_doors_answer_and_the_cache_is_used(gateway: Process) -> None:
    doors = await addresses(gateway)

    assert await currencies(doors) == ["EUR", "EUR"]
    async with httpx.AsyncClient() as client, asyncio.timeout(10):
        metrics = ""
        while not re.search(r'cache_reads_total\{.*outcome="hit".*\} 1\.0', metrics):  # workers tell every second
            metrics = (await client.get(f"{doors.admin}/metrics")).text
        page = (await client.get(doors.graphql, headers={"accept": "text/html"})).text
    assert not re.search(r"cache_failures_total\{.*\} [1-9]", metrics)
    assert page.startswith("<!doctype html>")


async def test_whoever_has_no_key_is_refused(gateway: Process) -> None:
    query = f'{{ sessionContext(tenant: "acme", sessionId: "{seed.CUSTOMER_SESSION}") {{ currency }} }}'
    async with httpx.AsyncClient() as client:
        answer = await client.post((await addresses(gateway)).graphql, json={"query": query})

    assert answer.json()["errors"][0]["extensions"]["code"] == "CALLER_UNAUTHENTICATED"


async def test_health_is_what_the_checks_say(gateway: Process, sandbox: str) -> None:
    admin = (await addresses(gateway)).admin.removeprefix("http://")
    checks = {
        "compose, gateway": (SERVICES["gateway"]["healthcheck"]["test"], "127.0.0.1:9000", admin),
        "compose, sandbox": (SERVICES["sandbox"]["healthcheck"]["test"], "127.0.0.1:8001", f"127.0.0.1:{sandbox}"),
    }
    for name, (test, there, here) in checks.items():
        assert test[1] == "python"
        assert there in test[-1]
        assert await _exit_status(test[2:-1], test[-1].replace(there, here)) == 0, name
        assert await _exit_status(test[2:-1], test[-1].replace(there, "127.0.0.1:1")) != 0, name

    command = json.loads(instruction("HEALTHCHECK").partition("CMD ")[2])
    port = admin.rpartition(":")[2]
    assert await _exit_status(command[1:-1], command[-1], SESSION_GATEWAY_ADMIN__PORT=port) == 0
    assert await _exit_status(command[1:-1], command[-1], SESSION_GATEWAY_ADMIN__PORT="1") != 0


async def _exit_status(options: list[str], code: str, **variables: str) -> int:
    """Where the environment names a proxy, as it does in containers if Docker's own configuration has one."""
    environment = {**os.environ, "http_proxy": "http://127.0.0.1:1", "no_proxy": "", **variables}
    process = await asyncio.create_subprocess_exec(
        sys.executable, *options, code, env=environment, stderr=asyncio.subprocess.DEVNULL
    )
    return await process.wait()
