"""Runs `session-gateway` as users do: as a process."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

ROOT = Path(__file__).parents[1]
SCRIPT = Path(sys.executable).parent / "session-gateway"
BYTECODE = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(ROOT / ".pytest_cache" / "bytecode")}
"""Keeps compiled byte code even if that is turned off: a start then takes a third of the time."""

ONE_WORKER = {"SESSION_GATEWAY_WORKERS": "1"}
"""For all tests that are not about workers: one process is simplest."""


@dataclass
class Process:
    """A running `session-gateway`, and its output so far."""

    process: asyncio.subprocess.Process
    out: list[str] = field(default_factory=list)
    err: list[str] = field(default_factory=list)

    @property
    def said(self) -> str:
        return "\n".join(self.out + self.err)

    async def says(self, pattern: str) -> str:
        """Wait for output that matches; returns the first group."""
        found: list[str] = []

        def has_said() -> bool:
            found.extend(re.findall(pattern, self.said))
            return bool(found) or self.process.returncode is not None

        await eventually(has_said, within=40)
        assert found, f"it ended with {self.process.returncode}, and said:\n{self.said}"
        return found[0]

    async def end(self, *, within: float) -> int:
        """Wait for its end; returns its exit status."""
        async with asyncio.timeout(within):
            return await self.process.wait()


@asynccontextmanager
async def running(*arguments: str, program: Sequence[str] = (str(SCRIPT),), **variables: str) -> AsyncIterator[Process]:
    """A process, while the block runs, with only these variables as settings."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SESSION_GATEWAY_")}
    environment = {**inherited, **BYTECODE, **ONE_WORKER, **variables}
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*program, *arguments, env=environment, stdout=pipe, stderr=pipe)
    assert process.stdout is not None
    assert process.stderr is not None
    running = Process(process)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_collect(process.stdout, running.out))
        tasks.create_task(_collect(process.stderr, running.err))
        try:
            yield running
        finally:
            await _stop(process)


async def _collect(stream: asyncio.StreamReader, lines: list[str]) -> None:
    while line := await stream.readline():
        lines.append(line.decode().rstrip("\n"))


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(5):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


async def run(*arguments: str, **variables: str) -> tuple[int, Process]:
    """Run a command that ends by itself; returns its exit status and the process with its output."""
    async with running(*arguments, **variables) as process:
        status = await process.end(within=20)
    return status, process
