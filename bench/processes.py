"""Processes that are measured: each on one core, with a log of its own, and ended however the benchmark ends."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["LOAD_CORE", "SERVER_CORE", "Failed", "Running", "free_port", "on_core", "outside", "running"]

_CORES: Final = sorted(os.sched_getaffinity(0))
SERVER_CORE: Final = _CORES[0]
"""What is measured has this one for itself."""
LOAD_CORE: Final = _CORES[-1]
"""Load and the stub upstream share this one."""

_START_TIME: Final = 60.0
_STOP_TIME: Final = 10.0
_TICKS: Final = os.sysconf("SC_CLK_TCK")


class Failed(Exception):
    """A process did not start, or has ended."""


@dataclass(frozen=True, slots=True)
class Running:
    """A process that is up, with all that it has started."""

    process: subprocess.Popen[bytes]
    log: Path

    def cpu(self) -> float:
        """Seconds of CPU so far, of the whole group."""
        return sum(_ticks(stat) for stat in self._stats().values()) / _TICKS

    def rss(self) -> int:
        """Resident bytes, of the whole group."""
        return sum(int(stat[21]) for stat in self._stats().values()) * os.sysconf("SC_PAGE_SIZE")

    def busiest(self) -> int:
        """Id of the one of the group that has had the most CPU."""
        stats = self._stats()
        return max(stats, key=lambda pid: _ticks(stats[pid]))

    def check(self) -> None:
        """Raises Failed when it has ended."""
        if self.process.poll() is not None:
            raise Failed(f"ended with {self.process.returncode}: {self.tail()}")

    def tail(self) -> str:
        """The end of what it has said."""
        return self.log.read_text("utf-8", "replace")[-600:].strip()

    def _stats(self) -> dict[int, list[str]]:
        """Fields of /proc/PID/stat from `state` on (proc_pid_stat(5): the third), of each process of the group."""
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    fields = (entry / "stat").read_text().rpartition(") ")[2].split()
                    if int(fields[2]) == self.process.pid:
                        found[int(entry.name)] = fields
        return found


@contextlib.contextmanager
def running(
    command: Sequence[str],
    port: int,
    *,
    core: int,
    directory: Path,
    name: str,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Running]:
    """Runs while the block does, and listens on the port when the block begins. Raises Failed."""
    log = directory / f"{name}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            on_core(core, command),
            cwd=directory,
            env={**outside(), **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a group, so that it ends whole, and Ctrl-C is ours to handle
        )
    started = Running(process, log)
    try:
        _wait_until_open(started, port)
        yield started
    finally:
        _stop(process)


def outside() -> dict[str, str]:
    """This process's environment without what the gateway sets for itself, here too: all others have gRPC as it is."""
    return {name: value for name, value in os.environ.items() if name not in {"GRPC_EXPERIMENTS", "GRPC_VERBOSITY"}}


def on_core(core: int, command: Sequence[str]) -> list[str]:
    """The command, kept to one core."""
    return ["taskset", "-c", str(core), *command]


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _wait_until_open(started: Running, port: int) -> None:
    until = time.monotonic() + _START_TIME
    while time.monotonic() < until:
        started.check()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
            return
        time.sleep(0.05)
    raise Failed(f"does not listen after {_START_TIME:.0f} s: {started.tail()}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    _signal(process, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_TIME)
    _signal(process, signal.SIGKILL)  # what it has started may have outlived it
    process.wait()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _ticks(stat: Sequence[str]) -> int:
    """Of CPU, by the process and the kernel for it."""
    return int(stat[11]) + int(stat[12])
