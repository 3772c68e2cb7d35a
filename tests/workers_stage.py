"""`serve` with workers, as processes, in front of a sandbox."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from processes import SCRIPT, Process, running

from waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from gateway import sandbox
    from gateway.sandbox import Sandbox

ANYWHERE = {f"SESSION_GATEWAY_{each}__PORT": "0" for each in ("GRAPHQL", "GRPC", "ADMIN")}
TENANT = {
    "SESSION_GATEWAY_TENANTS__ACME__CLIENT_ID": "acme-client",
    "SESSION_GATEWAY_TENANTS__ACME__CLIENT_SECRET": "acme-secret",
}


APART = [("grpc.use_local_subchannel_pool", 1)]
"""Otherwise channels of one process share connections."""


@dataclass(frozen=True)
class Served:
    """A gateway that listens, and the sandbox behind it."""

    process: Process
    graphql: str
    grpc: str
    admin: str
    sandbox: Sandbox

    @property
    def pid(self) -> int:
        return self.process.process.pid

    def fork_servers(self) -> set[int]:
        """The process id of the fork server, the parent of workers, if it runs."""
        return {pid for pid in _children(self.pid) if is_running(pid)}

    def workers(self) -> set[int]:
        """The process ids of running workers."""
        return {pid for server in self.fork_servers() for pid in _children(server) if is_running(pid)}

    def events(self, name: str) -> list[dict[str, Any]]:
        """Lines of its log with this event."""
        lines = [json.loads(each) for each in self.process.err if each.startswith("{")]
        return [each for each in lines if each["event"] == name]

    async def ready(self) -> dict[str, Any]:
        """What `/readyz` says, and with which status."""
        async with httpx.AsyncClient() as client:
            response = await client.get(f"{self.admin}/readyz")
        return {"status": response.status_code, **response.json()}

    async def becomes_ready(self) -> None:
        """Wait until `/readyz` says yes."""
        async with asyncio.timeout(40):
            while (await self.ready())["status"] != 200:
                await asyncio.sleep(0.05)

    async def metric(self, name: str) -> float:
        """The sum of all samples of that name."""
        async with httpx.AsyncClient() as client:
            text = (await client.get(f"{self.admin}/metrics")).text
        lines = [each.rpartition(" ") for each in text.splitlines() if not each.startswith("#")]
        return sum(float(value) for sample, _, value in lines if sample.partition("{")[0] == name)


@asynccontextmanager
async def served(
    *arguments: str, upstream: sandbox.SandboxServer, program: Sequence[str] = (str(SCRIPT),), **variables: str
) -> AsyncIterator[Served]:
    """A gateway, once it listens."""
    base = {"SESSION_GATEWAY_UPSTREAM__BASE_URL": upstream.url}
    async with running("serve", *arguments, program=program, **{**ANYWHERE, **TENANT, **base, **variables}) as process:
        line = json.loads(await process.says(r'(.*"listening".*)'))
        yield Served(process, line["graphql"], line["grpc"], line["admin"], upstream.sandbox)


def is_running(pid: int) -> bool:
    """Whether there is such a process that has not ended, and does not merely wait to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


async def ended(*pids: int, within: float = 15) -> None:
    """Wait until these processes run no more."""
    await eventually(lambda: not any(map(is_running, pids)), within=within)


def _children(pid: int) -> set[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").glob("*/children"))
        return {int(child) for task in tasks for child in task.read_text().split()}
    except OSError:  # it has ended meanwhile
        return set()
