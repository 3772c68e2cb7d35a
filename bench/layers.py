"""Where the time goes: `.venv/bin/python bench/layers.py` profiles the gateway under load.

For a cached and an uncached GraphQL read and a cached and an uncached gRPC read, 32 in flight: a flame graph in bench/,
and a table of the layers. A sample belongs to the layer of its innermost frame that belongs to one, so that a library
counts for who has called it unless it is a layer itself. What waits is left out; frames of C are among them.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench.answers import check_answer
from bench.cases import CASES, Case, load
from bench.contenders import CONTENDERS, up
from bench.install import debian_tools
from bench.processes import LOAD_CORE, Failed, on_core
from bench.stub import stub_upstream

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bench.contenders import Up

_HERE: Final = Path(__file__).parent
_PROFILED: Final = ("graphql-cached", "graphql-uncached", "grpc-cached", "grpc-uncached")
_IN_FLIGHT: Final = 32
_HERTZ: Final = 200
_AROUND: Final = 4.0
"""Seconds of load before and after what is recorded."""

_LAYERS: Final = {
    "garbage collection": r"gc_collect_main|\bgc_",
    "GraphQL: document and its limits": r"gateway/graphql/(documents|limits|manifest)|graphql/(language|validation)/",
    "GraphQL: compiled plan": r"gateway/graphql/(compiled|plan|projection)",
    "GraphQL: Strawberry and its executor": r"strawberry/|graphql/(execution|type|utilities|pyutils)/",
    "GraphQL: endpoint": r"gateway/graphql/",
    "gRPC: servicers and conversion": r"gateway/rpc/",
    "gRPC: protobuf": r"google/(_upb|protobuf)|protobuf.*\.so",
    "gRPC: core and grpc.aio": r"cygrpc|grpc/",
    "access: keys, limits, audit": r"gateway/access/",
    "sessions": r"gateway/sessions/",
    "cache": r"gateway/(cache|stores)/|aiocache/|cachetools/",
    "upstream: our part": r"gateway/upstream/|gateway/model",
    "upstream: HTTP client": r"httpx|httpcore|h11/|anyio/|aiohttp|pyreqwest|sniffio",
    "telemetry and log": r"gateway/(telemetry|logs)|prometheus_client|structlog",
    "HTTP: uvicorn, httptools, Starlette": r"uvicorn/|httptools|starlette/",
    "event loop": r"uvloop|loop\.c|\b(core|stream|linux|uv-common|loop-watcher)\.c|asyncio|_asynciomodule|epoll",
}
"""Innermost first within a stack, and by this order within a frame."""
_WAITING: Final = re.compile(r"^(epoll_wait|pthread_cond_|futex|__futex|sem_|poll) ?|^Thread\.run ")
"""Threads of gRPC that wait; a loop that polls does not match."""


def profile(case: Case, up: Up, seconds: float, directory: Path, flame: Path) -> Counter[str]:
    """Samples by layer; draws the flame graph besides."""
    check_answer(up, case.door, "all")
    loading = threading.Thread(
        target=load, args=(case, up, "all", _IN_FLIGHT, 2 * seconds + _AROUND), name="load", daemon=True
    )
    loading.start()
    folded = directory / f"{case.name}.folded"
    _record(up, seconds, "flamegraph", flame)
    # py-spy writes its own command line there.
    flame.write_text(re.sub(r"[^<>]*py-spy record[^<>]*", case.name, flame.read_text("utf-8")), "utf-8")
    _record(up, seconds, "raw", folded)
    loading.join()
    return _by_layer(folded.read_text("utf-8").splitlines())


def _record(up: Up, seconds: float, style: str, path: Path) -> None:
    """py-spy from PyPI, on the core of the load."""
    command = [str(Path(sys.executable).parent / "py-spy"), "record", "--pid", str(up.process.busiest()), "--native"]
    command += ["--rate", str(_HERTZ), "--duration", str(round(seconds)), "--format", style, "--output", str(path)]
    done = subprocess.run(on_core(LOAD_CORE, command), capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"py-spy (it needs to be root, or kernel.yama.ptrace_scope 0): {done.stderr[-300:]}")


def _by_layer(lines: Iterable[str]) -> Counter[str]:
    rules = {layer: re.compile(pattern) for layer, pattern in _LAYERS.items()}
    found: Counter[str] = Counter()
    for line in lines:
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        if not _WAITING.search(frames[-1]):
            found[_layer(frames, rules)] += int(count)
    return found


def _layer(frames: list[str], rules: dict[str, re.Pattern[str]]) -> str:
    return next(
        (layer for frame in reversed(frames) for layer, rule in rules.items() if rule.search(frame)), "elsewhere"
    )


def _print(found: dict[str, Counter[str]]) -> None:
    print(f"\n{'share of the busy samples, %':40}" + "".join(f"{name:>18}" for name in found))
    for layer in (*_LAYERS, "elsewhere"):
        shares = [100 * each[layer] / each.total() for each in found.values()]
        if any(shares):
            print(f"{layer:40}" + "".join(f"{share:>18.1f}" for share in shares))
    print(f"{'samples':40}" + "".join(f"{each.total():>18}" for each in found.values()))


def main() -> None:
    """Profile, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each recording")
    parser.add_argument("--out", type=Path, default=_HERE, help="directory of the flame graphs")
    arguments = parser.parse_args()
    debian_tools()
    ours = next(each for each in CONTENDERS if each.kind == "ours")
    found: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory(prefix="session-gateway-bench-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        with stub_upstream(directory) as stub:
            for case in (each for each in CASES if each.name in _PROFILED):
                flame = directory / f"flame-{case.name}.svg"
                with up(ours, directory, stub.port, cached=case.cached) as gateway:
                    found[case.name] = profile(case, gateway, arguments.seconds, directory, flame)
                shutil.rmtree(gateway.directory)
                written = shutil.copy(flame, arguments.out)
                print(f"written: {written}", flush=True)
    _print(found)


if __name__ == "__main__":
    main()
