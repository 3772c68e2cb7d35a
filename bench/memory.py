"""What a gateway keeps in memory: resident bytes and open files while it answers cached reads of many sessions.

    .venv/bin/python -m bench.memory --requests 1000000

A sandbox, a gateway and `wrk` (which must be on the PATH), each in processes of its own; with more than one worker, a
`redis-server` too, with memory in front of it, since workers share no memory. Prints a line for each slice of requests:
how many are done, and of each worker the resident megabytes, open files and CPU seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final

import httpx

from bench.cache import redis, started

if TYPE_CHECKING:
    from collections.abc import Iterator

SCRIPT: Final = Path(__file__).with_name("many_sessions.lua")
SLICE: Final = 10
"""Seconds."""
TICKS: Final = os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def gateway(workers: int, sessions: int) -> Iterator[tuple[str, str]]:
    """A gateway in front of a sandbox that has so many sessions; yields its GraphQL and admin URLs."""
    with contextlib.ExitStack() as stack:
        backend = {"BACKEND": "memory"}
        if workers > 1:
            backend = {"BACKEND": stack.enter_context(redis()), "MEMORY_TIER": "true"}
        (sandbox,) = stack.enter_context(started("sandbox --port 0", r"(http://\S+)"))
        fill(sandbox, sessions)
        environment = {f"SESSION_GATEWAY_{each}__PORT": "0" for each in ("GRAPHQL", "GRPC", "ADMIN")}
        environment |= {f"SESSION_GATEWAY_CACHE__{name}": value for name, value in backend.items()}
        environment |= {
            "SESSION_GATEWAY_CACHE__TTL": "3600",
            "SESSION_GATEWAY_CACHE__MAX_ENTRIES": str(sessions),
            "SESSION_GATEWAY_TENANTS__ACME__CLIENT_ID": "acme-client",
            "SESSION_GATEWAY_TENANTS__ACME__CLIENT_SECRET": "acme-secret",
            "SESSION_GATEWAY_UPSTREAM__BASE_URL": sandbox,
            "SESSION_GATEWAY_LOG__FORMAT": "json",
        }
        (line,) = stack.enter_context(started(f"serve --workers {workers}", r'(.*"listening".*)', **environment))
        listening = json.loads(line)
        yield listening["graphql"], listening["admin"]


def fill(sandbox: str, sessions: int) -> None:
    """Put so many session contexts into the sandbox."""

    def put(number: int) -> None:
        session_id = f"bench-{number:05d}"
        document = {
            "sessionId": session_id,
            "customerId": f"C{number}",
            "siteCode": "main",
            "currency": "EUR",
            "cartId": f"cart-{number}",
            "targetLocation": "DE",
            "language": "de",
            "metadata": {
                "version": 1,
                "createdAt": "2026-03-01T08:00:00.000Z",
                "modifiedAt": "2026-03-01T08:00:00.000Z",
            },
            "context": {"loyalty": {"tier": "gold", "points": number}, "segment": "returning", "beta": True},
        }
        client.put(f"{sandbox}/_sandbox/sessions/acme/{session_id}", json=document).raise_for_status()

    with httpx.Client() as client, ThreadPoolExecutor(8) as pool:
        list(pool.map(put, range(sessions)))


def workers_of(admin: str) -> list[int]:
    """The processes that take calls, of the gateway whose admin listener this is."""
    port = f"{httpx.URL(admin).port:04X}"
    table = Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]
    inode = next(each.split()[9] for each in table if each.split()[1].endswith(f":{port}") and each.split()[3] == "0A")
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if any(str(each.readlink()) == f"socket:[{inode}]" for each in (folder / "fd").iterdir()):
                pid = int(folder.name)
                return [worker for server in children(pid) for worker in children(server)] or [pid]
    raise LookupError(admin)


def children(pid: int) -> list[int]:
    """The processes that a process has forked and that run."""
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()]


def state(pid: int) -> str:
    """Resident megabytes, open files and CPU seconds of a process."""
    status = Path(f"/proc/{pid}/status").read_text("ascii")
    resident = int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024
    return f"{resident:6.1f} MB {len(list(Path(f'/proc/{pid}/fd').iterdir())):4d} files {cpu(pid):7.2f} s"


def cpu(pid: int) -> float:
    """CPU seconds of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def load(graphql: str, seconds: int, connections: int, sessions: int) -> int:
    """Read for so long; returns how many reads there were. Any that fails ends it."""
    found = shutil.which("wrk")
    if found is None:
        sys.exit("wrk is not on the PATH")
    command = [found, "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout=60s", "-s", str(SCRIPT), graphql]
    result = subprocess.run(
        command, check=True, capture_output=True, text=True, env={**os.environ, "SESSIONS": str(sessions)}
    )
    requests, errors = map(int, re.findall(r"requests (\d+) errors (\d+)", result.stdout)[0])
    if errors:
        sys.exit(f"{errors} of {requests} reads failed:\n{result.stdout}")
    return requests


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--sessions", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--slice", type=int, default=SLICE, help="seconds between two lines")
    options = parser.parse_args()
    with gateway(options.workers, options.sessions) as (graphql, admin):
        pids = workers_of(admin)
        done, began = 0, sum(map(cpu, pids))
        print(f"{done:>9}  " + "   ".join(map(state, pids)), flush=True)
        while done < options.requests:
            done += load(graphql, options.slice, options.connections, options.sessions)
            print(f"{done:>9}  " + "   ".join(map(state, pids)), flush=True)
        print(f"{(sum(map(cpu, pids)) - began) / done * 1000:.3f} CPU seconds per 1,000 reads")


if __name__ == "__main__":
    main()
