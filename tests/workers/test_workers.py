"""Several processes for one gateway, as an operator sees them: by their ports, log, metrics and end."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import re
import resource
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import httpx
import pytest
import pytest_asyncio
from cache.redis_server import free_port
from processes import ROOT, SCRIPT, run, running
from workers_stage import ANYWHERE, APART, TENANT, Served, ended, is_running, served

from doors import Caller, GraphQLDoor, GrpcDoor
from gateway.sandbox import seed
from waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from doors import Door
    from gateway import sandbox


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def two(upstream: sandbox.SandboxServer) -> AsyncIterator[Served]:
    """A gateway of two workers, whose workers tests may end, but not the gateway."""
    async with served("--workers", "2", upstream=upstream) as gateway:
        yield gateway
        gateway.process.process.terminate()
        assert await gateway.process.end(within=10) == 0
        assert gateway.process.out == []


async def read(gateway: Served, door: str) -> None:
    """One read, by a connection of its own."""
    async with httpx.AsyncClient() as client, grpc.aio.insecure_channel(gateway.grpc, APART) as channel:
        entered: Door = GraphQLDoor(client, gateway.graphql) if door == "graphql" else GrpcDoor(channel)
        found = await entered.get("acme", seed.CUSTOMER_SESSION)
    assert found is not None
    assert found.fields["currency"] == "EUR"


async def under_way(gateway: Served) -> asyncio.Future[list[None]]:
    """Four reads by both doors that upstream takes a second to answer, and has not yet."""
    upstream = gateway.sandbox
    upstream.faults.arm("latency=1000ms", "get", times=4)
    await eventually(lambda: upstream.under_way == 0)  # workers ask for tokens as they come up
    calls = asyncio.gather(*(read(gateway, door) for door in ("graphql", "grpc") for _ in range(2)))
    await eventually(lambda: upstream.under_way == 4)
    return calls


_CALLER = Caller()


async def whole(gateway: Served) -> set[int]:
    """Wait until both workers are ready; returns them."""

    async def ready() -> bool:
        checks: dict[str, str] = (await gateway.ready())["checks"]
        return checks["workers"] == "2 of 2 ready"

    async with asyncio.timeout(40):
        while not await ready():
            await asyncio.sleep(0.05)
    return gateway.workers()


# Serving


async def test_all_workers_serve_by_both_doors_on_one_pair_of_ports(two: Served) -> None:
    workers = await whole(two)
    assert len(workers) == 2
    assert two.pid not in workers
    busy = {pid: cpu(pid) for pid in workers}

    async def all_have_worked() -> bool:
        await asyncio.gather(*(read(two, door) for door in ("graphql", "grpc") for _ in range(8)))
        return all(cpu(pid) > busy[pid] for pid in workers)

    async with asyncio.timeout(30):
        while not await all_have_worked():
            pass
    assert all(listens(pid, two) for pid in workers)


async def test_workers_give_no_id_to_two_requests(two: Served) -> None:
    """As they might, being forks of one process, by what was random before."""
    await whole(two)
    found: list[str] = []

    async with asyncio.timeout(30):
        while len({each.partition("-")[0] for each in found}) < 2:
            async with httpx.AsyncClient() as client:
                answer = await client.post(two.graphql, json={"query": "{ __typename }"})
            found.append(answer.headers["x-request-id"])

    assert len(found) == len(set(found))


def cpu(pid: int) -> int:
    """Ticks that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return int(fields[11]) + int(fields[12])


async def work(gateway: Served, workers: set[int]) -> None:
    """Have each worker use so much CPU that it would be missed."""
    async with asyncio.timeout(40):
        while min(map(cpu, workers)) < 0.3 * os.sysconf("SC_CLK_TCK"):
            await asyncio.gather(*(read(gateway, "grpc") for _ in range(8)))


def listens(pid: int, gateway: Served) -> bool:
    """Whether a process listens on both doors' ports."""
    inodes = set()
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            target = str(each.readlink())
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    ports = {httpx.URL(gateway.graphql).port, int(gateway.grpc.rpartition(":")[2])}
    listening = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == "0A" and inode in inodes:
                listening.add(int(local.rpartition(":")[2], 16))
    return ports <= listening


async def test_metrics_are_those_of_all_workers(two: Served) -> None:
    await whole(two)
    before = await two.metric("session_gateway_writes_total")

    async with httpx.AsyncClient() as client:
        door = GraphQLDoor(client, two.graphql)
        for value in range(3):
            await door.add_attribute("acme", seed.ODD_SESSION, "number", value, _CALLER)
    for value in range(9):
        async with httpx.AsyncClient() as client:  # a connection each, so that both workers get some
            await GraphQLDoor(client, two.graphql).add_attribute("acme", seed.ODD_SESSION, "n", value, _CALLER)

    assert await two.metric("session_gateway_writes_total") == before + 12


async def test_the_operator_learns_what_all_processes_use(two: Served) -> None:
    everyone = (two.pid, *two.fork_servers(), *await whole(two))
    assert len(everyone) == 4
    memory = sum(kilobytes(pid, "Pss") for pid in everyone) * 1024

    told = await two.metric("process_resident_memory_bytes")
    assert told == pytest.approx(memory, rel=0.2)
    assert told < 0.8 * sum(kilobytes(pid, "Rss") for pid in everyone) * 1024  # which counts again what they share
    assert await two.metric("process_cpu_seconds_total") > 0


async def test_files_are_those_of_the_process_that_is_nearest_to_its_limit(two: Served) -> None:
    """Added up, those that have few would hide one that has no more to come."""
    everyone = (two.pid, *two.fork_servers(), *await whole(two))
    url = httpx.URL(two.graphql)
    with contextlib.ExitStack() as connections:
        for _ in range(60):
            connections.enter_context(socket.create_connection((url.host, url.port)))

        async with asyncio.timeout(10):
            while (told := await two.metric("process_open_fds")) < 40:
                await asyncio.sleep(0.05)

        most = max(map(files, everyone))
        assert told == pytest.approx(most, abs=3)  # this test's own requests come and go
    assert await two.metric("process_max_fds") == resource.prlimit(two.pid, resource.RLIMIT_NOFILE)[0]


def files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def kilobytes(pid: int, kind: str) -> int:
    found = re.search(rf"^{kind}:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


# Ends that were not meant


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
async def test_a_worker_that_ends_is_replaced_and_what_it_counted_stays(two: Served, how: signal.Signals) -> None:
    before = await whole(two)
    await work(two, before)
    async with httpx.AsyncClient() as client:
        await GraphQLDoor(client, two.graphql).add_attribute("acme", seed.ODD_SESSION, "a", how, _CALLER)
    writes = await two.metric("session_gateway_writes_total")
    attempts = await two.metric("session_gateway_write_attempts_count")
    spent = await two.metric("process_cpu_seconds_total")
    restarts = await two.metric("session_gateway_worker_restarts_total")

    for pid in before:
        os.kill(pid, how)
        await ended(pid)
        await eventually(lambda: len(two.workers()) == 2, within=40)
    after = await whole(two)

    assert not before & after
    assert await two.metric("session_gateway_writes_total") == writes
    assert await two.metric("session_gateway_write_attempts_count") == attempts
    anew = sum(map(cpu, after)) / os.sysconf("SC_CLK_TCK")
    assert await two.metric("process_cpu_seconds_total") >= spent + anew - 0.1
    assert await two.metric("session_gateway_worker_restarts_total") == restarts + 2
    assert await two.metric("session_gateway_cache_entries") == 0
    for door in ("graphql", "grpc"):
        await read(two, door)
    assert {each["status"] for each in two.events("worker_ended")[-2:]} == {0 if how == signal.SIGTERM else -how}


async def test_one_that_crashes_again_and_again_is_given_more_and_more_time(two: Served) -> None:
    await whole(two)
    seen = len(two.events("worker_ended"))

    async def killed_in_turn() -> None:
        while len(two.events("worker_ended")) < seen + 8:
            for pid in two.workers():
                os.kill(pid, signal.SIGKILL)
            await asyncio.sleep(0.05)

    async with asyncio.timeout(30):
        await killed_in_turn()

    waits = [each["next_in"] for each in two.events("worker_ended")[seen:]]
    assert waits[0] <= max(waits)
    assert max(waits) >= 0.5
    await whole(two)  # and it recovers


IMPATIENT = """
from gateway.workers import supervisor
supervisor._SILENCE = 3
from gateway.cli import main
main()
"""
"""Takes a worker to hang much sooner."""


async def test_a_worker_that_hangs_is_replaced_but_none_that_was_paused_with_all_others(
    upstream: sandbox.SandboxServer,
) -> None:
    """As `docker pause` does, or a machine that is moved: time has passed, and nobody is to blame."""
    program = (sys.executable, "-c", IMPATIENT)
    async with served("--workers", "2", upstream=upstream, program=program) as gateway:
        workers = await whole(gateway)
        everybody = (gateway.pid, *gateway.fork_servers(), *workers)

        for pid in everybody:
            os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(4)
        for pid in everybody:
            os.kill(pid, signal.SIGCONT)
        await asyncio.sleep(2)
        assert gateway.workers() == workers

        hanging, other = workers
        os.kill(hanging, signal.SIGSTOP)
        await ended(hanging)
        await eventually(lambda: len(gateway.workers()) == 2, within=40)
        assert other in await whole(gateway)
    (told,) = gateway.events("worker_hangs")
    assert told["silent_for"] == 3
    assert [each["status"] for each in gateway.events("worker_ended")] == [-signal.SIGKILL]


async def test_workers_end_when_their_supervisor_is_killed_and_leave_nothing_behind(
    upstream: sandbox.SandboxServer, tmp_path: Path
) -> None:
    async with served("--workers", "2", upstream=upstream, TMPDIR=str(tmp_path)) as gateway:
        workers = gateway.workers()
        (server,) = gateway.fork_servers()
        assert len(workers) == 2
        assert names_in(tmp_path)

        gateway.process.process.kill()

        await ended(*workers, server)
        assert names_in(tmp_path) == []
        port = int(gateway.grpc.rpartition(":")[2])
        with socket.create_server(("127.0.0.1", port)):
            pass  # nobody has it any more


def names_in(folder: Path) -> list[str]:
    return [each.name for each in folder.iterdir()]


async def test_without_the_process_that_forks_it_stops_in_good_order_and_says_why(
    upstream: sandbox.SandboxServer,
) -> None:
    async with served("--workers", "2", upstream=upstream) as gateway:
        workers = gateway.workers()
        (server,) = gateway.fork_servers()
        calls = await under_way(gateway)

        os.kill(server, signal.SIGKILL)

        await calls
        assert await gateway.process.end(within=10) == 1
        await ended(*workers)
    assert len(gateway.events("fork_server_ended")) == 1
    assert gateway.process.err[-1] == "session-gateway: the fork server, which starts workers, has ended"


async def test_the_process_that_forks_leaves_signals_to_the_supervisor(two: Served) -> None:
    """A terminal sends them to all."""
    (server,) = two.fork_servers()

    for each in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        os.kill(server, each)
    await asyncio.sleep(0.3)

    assert is_running(server)
    await whole(two)


async def test_a_worker_has_no_file_of_another(two: Served) -> None:
    """An end of a link or a connection that another process has too would seem open when it is not."""
    workers = await whole(two)
    (server,) = two.fork_servers()

    inherited = sockets(os.getpid())  # from whoever runs the tests
    held = {pid: sockets(pid) - inherited for pid in (two.pid, server, *workers)}

    assert all(held.values())
    for one, other in itertools.combinations(held.values(), 2):
        assert not one & other


def sockets(pid: int) -> set[str]:
    """And pipes, but for those that are standard output and error."""
    held: dict[int, str] = {}
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            held[int(each.name)] = str(each.readlink())
    standard = {held[descriptor] for descriptor in range(3)}
    return {each for each in held.values() if each.startswith(("socket:", "pipe:"))} - standard


# A disk that is full

FULL = """
set -e
mount -t tmpfs -o size=64k full "$TMPDIR"
dd if=/dev/zero of="$TMPDIR/fill" bs=4k count=15 status=none
exec "$@"
"""
"""Runs a command whose temporary files have no room but for one page: it can make a folder, and hardly write there."""


def in_little_room(folder: Path) -> tuple[str, ...]:
    """The program, with temporary files in a folder of a filesystem that is all but full."""
    command = ("unshare", "--map-root-user", "--mount", "env", f"TMPDIR={folder}", "sh", "-c", FULL, "sh")
    if subprocess.run([*command, "true"], check=False).returncode:
        pytest.skip("needs to be allowed to mount a filesystem")
    return (*command, str(SCRIPT))


async def test_a_full_disk_costs_metrics_and_no_call(upstream: sandbox.SandboxServer, tmp_path: Path) -> None:
    async with served("--workers", "2", upstream=upstream, program=in_little_room(tmp_path)) as gateway:
        workers = await whole(gateway)
        for _ in range(4):
            await asyncio.gather(*(read(gateway, door) for door in ("graphql", "grpc")))
        assert await gateway.metric("process_resident_memory_bytes") > 0
        os.kill(min(workers), signal.SIGKILL)
        await ended(min(workers))
        await eventually(lambda: len(gateway.workers()) == 2, within=40)
        assert max(workers) in await whole(gateway)
        for door in ("graphql", "grpc"):
            await read(gateway, door)
        assert await gateway.metric("session_gateway_worker_restarts_total") == 1

        gateway.process.process.terminate()
        assert await gateway.process.end(within=10) == 0
    assert {each["error"] for each in gateway.events("metrics_not_written")} == {"No space left on device"}


NO_FOLDER = """
import tempfile


def full(*_):
    raise OSError(28, "No space left on device")


tempfile.mkdtemp = full
from gateway.cli import main
main()
"""


async def test_without_a_folder_for_metrics_it_serves_all_the_same(upstream: sandbox.SandboxServer) -> None:
    program = (sys.executable, "-c", NO_FOLDER)
    async with served("--workers", "2", upstream=upstream, program=program) as gateway:
        await whole(gateway)
        for door in ("graphql", "grpc"):
            await read(gateway, door)
        assert await gateway.metric("session_gateway_requests_total") == 0
        assert await gateway.metric("process_resident_memory_bytes") > 0
    assert [each["error"] for each in gateway.events("metrics_have_no_folder")] == ["No space left on device"]


# Being told to stop


async def test_told_to_stop_it_lets_calls_under_way_finish(upstream: sandbox.SandboxServer) -> None:
    async with served("--workers", "2", upstream=upstream) as gateway:
        workers = gateway.workers()
        calls = await under_way(gateway)

        gateway.process.process.terminate()

        await calls
        assert await gateway.process.end(within=10) == 0
        assert not any(map(is_running, workers))
    assert [each["event"] for each in gateway.events("workers_killed")] == []


async def test_a_signal_to_all_processes_at_once_is_as_one_to_the_supervisor(upstream: sandbox.SandboxServer) -> None:
    """As systemd sends SIGTERM, unless told otherwise."""
    async with served("--workers", "2", upstream=upstream) as gateway:
        workers = gateway.workers()
        calls = await under_way(gateway)

        for pid in (*gateway.fork_servers(), *workers, gateway.pid):
            os.kill(pid, signal.SIGTERM)

        await calls
        assert await gateway.process.end(within=10) == 0
        assert not any(map(is_running, workers))
    assert [gateway.events(each) for each in ("fork_server_ended", "workers_killed")] == [[], []]


async def test_a_worker_that_does_not_stop_in_time_is_killed(upstream: sandbox.SandboxServer) -> None:
    async with served("--workers", "2", upstream=upstream, SESSION_GATEWAY_SHUTDOWN__GRACE="0.1") as gateway:
        workers = gateway.workers()
        os.kill(min(workers), signal.SIGSTOP)

        gateway.process.process.terminate()

        assert await gateway.process.end(within=20) == 0
        await ended(*workers)
    (told,) = gateway.events("workers_killed")
    assert len(told["workers"]) == 1


async def test_told_to_stop_before_workers_are_there_it_does_not_wait_for_them_to_serve(
    upstream: sandbox.SandboxServer,
) -> None:
    port = str(free_port())
    variables = {"SESSION_GATEWAY_UPSTREAM__BASE_URL": upstream.url, "SESSION_GATEWAY_ADMIN__PORT": port}
    async with running("serve", "--workers", "2", **{**ANYWHERE, **TENANT, **variables}) as process:
        gateway = Served(process, "", "", f"http://127.0.0.1:{port}", upstream.sandbox)
        await eventually(lambda: len(gateway.fork_servers()) == 1, within=20)
        (server,) = gateway.fork_servers()
        os.kill(server, signal.SIGSTOP)
        await until_workers_are(gateway, "starting")

        process.process.terminate()
        await until_workers_are(gateway, "stopping")
        os.kill(server, signal.SIGCONT)

        assert await process.end(within=20) == 0


async def until_workers_are(gateway: Served, state: str) -> None:
    """Wait until `/readyz` tells this of the workers."""
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(httpx.TransportError):  # it does not listen yet
                if (await gateway.ready())["checks"]["workers"] == state:
                    return
            await asyncio.sleep(0.05)


async def test_told_again_it_does_not_wait(upstream: sandbox.SandboxServer) -> None:
    async with served("--workers", "2", upstream=upstream, SESSION_GATEWAY_SHUTDOWN__GRACE="600") as gateway:
        upstream.sandbox.faults.arm("hang", "get", times=2)
        await eventually(lambda: upstream.sandbox.under_way == 0)  # workers ask for tokens as they come up
        calls = asyncio.gather(*(read(gateway, door) for door in ("graphql", "grpc")), return_exceptions=True)
        await eventually(lambda: upstream.sandbox.under_way == 2)

        gateway.process.process.terminate()
        await gateway.process.says('"stopping"')
        gateway.process.process.send_signal(signal.SIGINT)

        assert await gateway.process.end(within=10) == 0
        assert all(isinstance(each, Exception) for each in await calls)
    upstream.sandbox.faults.clear()


# How many


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [(("--workers", "2"), {}), ((), {"SESSION_GATEWAY_WORKERS": "2"})],
    ids=["flag", "setting"],
)
async def test_memory_that_workers_cannot_share_is_refused(
    arguments: tuple[str, ...], variables: dict[str, str]
) -> None:
    memory = {"SESSION_GATEWAY_CACHE__BACKEND": "memory"}

    status, process = await run("serve", *arguments, **{**ANYWHERE, **TENANT, **memory, **variables})

    assert status == 2
    (line,) = process.err
    assert line.startswith("session-gateway: workers: must be 1 with cache.backend memory")
    assert "Redis" in line


async def test_a_flag_wins_over_the_setting(upstream: sandbox.SandboxServer) -> None:
    variables = {"SESSION_GATEWAY_WORKERS": "2", "SESSION_GATEWAY_CACHE__BACKEND": "memory"}
    async with served("--workers", "1", upstream=upstream, **variables) as gateway:
        assert gateway.workers() == set()
        await read(gateway, "graphql")


# Trouble at the start


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_port_in_use_is_told_once_by_whichever_process_finds_it(workers: str) -> None:
    async def refused(listener: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            ports = {**ANYWHERE, f"SESSION_GATEWAY_{listener}__PORT": str(port)}
            status, process = await run("serve", "--workers", workers, **{**ports, **TENANT})
        assert status == 1
        where = f"{listener.lower()}: cannot listen on 127.0.0.1:{port}"
        remedy = f"set another {listener.lower()}.port, or SESSION_GATEWAY_{listener}__PORT in the environment"
        assert process.err == [f"session-gateway: {where}: Address already in use: {remedy}"]

    async with asyncio.TaskGroup() as tasks:
        for each in ("GRAPHQL", "GRPC", "ADMIN"):
            tasks.create_task(refused(each))


async def test_what_keeps_workers_from_coming_up_is_told_once_and_ends_it(tmp_path: Path) -> None:
    manifest = tmp_path / "documents.json"
    manifest.write_text("[]")
    variables = {"SESSION_GATEWAY_GRAPHQL__DOCUMENTS_FILE": str(manifest)}

    status, process = await run("serve", "--workers", "2", **{**ANYWHERE, **TENANT, **variables})

    assert status == 2
    (line,) = process.err
    assert line.startswith("session-gateway: graphql.documents_file: ")


BOTH_AT_ONCE = """
import asyncio, time
from gateway.workers.forkserver import Process
wait, both = Process.wait, asyncio.Barrier(2)

async def wait_for_both(self, seconds):
    await both.wait()
    time.sleep(0.5)
    await wait(self, seconds)

Process.wait = wait_for_both
from gateway.cli import main
main()
"""
"""Stands still until both workers are gone, so that it hears of both together."""


async def test_what_two_workers_say_at_once_is_told_once(tmp_path: Path) -> None:
    manifest = tmp_path / "documents.json"
    manifest.write_text("[]")
    variables = {**ANYWHERE, **TENANT, "SESSION_GATEWAY_GRAPHQL__DOCUMENTS_FILE": str(manifest)}
    program = (sys.executable, "-c", BOTH_AT_ONCE)

    async with running("serve", "--workers", "2", program=program, **variables) as process:
        assert await process.end(within=20) == 2

    (line,) = process.err
    assert line.startswith("session-gateway: graphql.documents_file: ")


async def test_a_machine_that_has_no_room_for_a_worker_is_told_of() -> None:
    """The fork server's own fork is made, and none after it."""
    program = f"""
import errno, os
fork, made = os.fork, []

def full():
    made.append(True)
    if len(made) > 1:
        raise OSError(errno.EAGAIN, "")
    return fork()

os.fork = full
os.environ.update({ANYWHERE | TENANT!r})
from gateway.cli import main
main(["serve", "--workers", "2"])
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stderr=asyncio.subprocess.PIPE, cwd=ROOT
    )
    _, said = await process.communicate()

    assert process.returncode == 1
    assert said.decode().splitlines()[-1] == (
        "session-gateway: a worker cannot be started: Resource temporarily unavailable"
    )


async def test_another_gateway_on_the_same_ports_is_told_of(two: Served, upstream: sandbox.SandboxServer) -> None:
    await whole(two)
    ports = {
        "SESSION_GATEWAY_GRAPHQL__PORT": str(httpx.URL(two.graphql).port),
        "SESSION_GATEWAY_GRPC__PORT": two.grpc.rpartition(":")[2],
    }
    async with served("--workers", "1", upstream=upstream, **ports) as second:
        shared = second.events("port_shared")
        assert [each["listener"] for each in shared] == ["graphql", "grpc"]
        assert shared[1]["address"] == two.grpc
        assert second.graphql == two.graphql
    assert two.events("port_shared") == []


# What a supervisor is made of


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        (
            "gateway.cli, gateway.workers.supervisor",
            ("grpc", "strawberry", "graphql", "httpx", "redis", "joserfc", "gateway.sandbox"),
        ),
        (
            "gateway.workers.worker",
            ("joserfc", "cryptography.hazmat", "grpc_reflection.v1alpha", "redis", "gateway.cli", "gateway.sandbox"),
        ),
    ],
    ids=["supervisor", "worker"],
)
async def test_nothing_is_imported_that_is_of_no_use(module: str, unwanted: tuple[str, ...]) -> None:
    program = f"import {module}, sys; print(*set({unwanted!r}).intersection(sys.modules))"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    out, _ = await process.communicate()

    assert process.returncode == 0
    assert out.decode().split() == []
