"""Load: wrk for HTTP, h2load for gRPC, and shoppers of our own for pages. All on the core of the load."""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from bench.contenders import CALLERS, caller_key
from bench.dialects import HEADERS, Rpc
from bench.processes import LOAD_CORE, Failed, on_core
from bench.stub import SESSION

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.contenders import Up

__all__ = ["Sample", "h2load", "shoppers", "wrk"]

_SCRIPT: Final = Path(__file__).parent / "wrk.lua"
_PATIENCE: Final = 60.0
"""Seconds, beyond those that it was to take."""
_STREAMS: Final = 8
"""At most, of one HTTP/2 connection."""


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """What one run has shown."""

    requests: int
    total: int
    """With those before counting began."""
    seconds: float
    p50: float
    """Milliseconds."""
    p99: float
    bad: int = 0
    """Answers that were no success."""
    size: float = 0.0
    """Bytes of an answer, on average, with its head if it has come by wrk."""
    stale: int = 0
    """Reads that did not show what the same shopper had written."""
    foreign: int = 0
    """Reads that showed another session than the one that was asked for."""
    conflicts: int = 0
    """Writes that were refused, as the version was not the current one."""

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds


def wrk(
    port: int, path: str, body: bytes | None, *, connections: int, seconds: float, directory: Path, mode: str = ""
) -> Sample:
    """POST the body, or GET where there is none."""
    files = {
        "BODY": body or b"",
        "HEADERS": _lines({**HEADERS, **({"content-type": "application/json"} if body else {})}),
        "KEYS": "\n".join(caller_key(each) for each in range(CALLERS)).encode(),
    }
    environment = {"MODE": mode, "SESSION": SESSION}
    for name, content in files.items():
        if content:
            (directory / name).write_bytes(content)
            environment[name] = str(directory / name)
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "10s", "-s", str(_SCRIPT)]
    said = _run([*command, f"http://127.0.0.1:{port}{path}"], seconds, environment)
    found = re.search(r"@@(.*)@@", said)
    if found is None:
        raise Failed(f"wrk: {said[-300:]}")
    figures = json.loads(found[1])
    return Sample(
        requests=figures["requests"],
        total=figures["requests"],
        seconds=figures["seconds"],
        p50=figures["p50"] / 1000,
        p99=figures["p99"] / 1000,
        bad=figures["bad"],
        size=figures["bytes"] / max(1, figures["requests"]),
    )


def h2load(port: int, rpc: Rpc, *, streams: int, seconds: float, directory: Path) -> Sample:
    """Call the read of one session, with so many calls under way."""
    message = rpc.read_message()
    body, log = directory / "framed", directory / "h2load.log"
    body.write_bytes(b"\0" + len(message).to_bytes(4, "big") + message)
    log.unlink(missing_ok=True)
    connections = max(1, streams // _STREAMS)
    headers = {"content-type": "application/grpc", "te": "trailers", **HEADERS}
    command = ["h2load", "-t1", f"-c{connections}", f"-m{streams // connections}", f"-D{max(1, round(seconds))}"]
    command += [
        f"--data={body}",
        f"--log-file={log}",
        *(f"--header={name}: {value}" for name, value in headers.items()),
    ]
    said = _run([*command, f"http://127.0.0.1:{port}{rpc.read_method}"], seconds)
    counts = re.search(r"(\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored", said)
    traffic = re.search(r"\((\d+)\) data", said)
    took = re.search(r"finished in ([\d.]+)(m?s)", said)
    if counts is None or traffic is None or took is None:
        raise Failed(f"h2load: {said[-300:]}")
    done, succeeded = int(counts[1]), int(counts[2])
    times = [int(line.split()[2]) / 1000 for line in log.read_text().splitlines()]
    p50, p99 = _percentiles(times)
    return Sample(
        requests=succeeded,
        total=done,
        seconds=float(took[1]) / (1000 if took[2] == "ms" else 1),
        p50=p50,
        p99=p99,
        bad=done - succeeded,
        size=int(traffic[1]) / max(1, done),
    )


def shoppers(up: Up, door: str, *, number: int, seconds: float) -> Sample:
    """View pages; see `bench.pages`."""
    port = up.port if door == "graphql" else up.rpc_port
    options = {"--port": port, "--shoppers": number, "--seconds": seconds}
    command = [sys.executable, "-m", "bench.pages", up.name, door]
    said = _run([*command, *(str(each) for option in options.items() for each in option)], seconds)
    return msgspec.json.decode(said.splitlines()[-1], type=Sample)


def _percentiles(times: Sequence[float]) -> tuple[float, float]:
    cuts = statistics.quantiles(times, n=100)
    return cuts[49], cuts[98]


def _lines(headers: Mapping[str, str]) -> bytes:
    return "\n".join(f"{name}: {value}" for name, value in headers.items()).encode()


def _run(command: Sequence[str], seconds: float, environment: Mapping[str, str] | None = None) -> str:
    """What it says, in the end."""
    try:
        done = subprocess.run(
            on_core(LOAD_CORE, command),
            env={**os.environ, **(environment or {})},
            capture_output=True,
            text=True,
            timeout=seconds + _PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"{command[0]} has not ended in time") from None
    if done.returncode:
        raise Failed(f"{command[0]}: {(done.stderr or done.stdout)[-600:]}")
    return done.stdout
