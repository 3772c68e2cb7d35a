"""What a read over gRPC costs: the gateway beside a bare `grpc.aio` server that answers the very same message.

    .venv/bin/python bench/grpc_read.py

Needs h2load (Debian: nghttp2-client) and Linux. Servers are pinned to the first core and load to the second, and take
turns, so that whatever else the machine does meets all of them; the gateway has API keys, rate limits and the cache in
memory. Every answer is counted by its bytes. CPU is that of the server's process, all of its threads.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import grpc

from bench.processes import outside
from gateway.access.keys import hash_of, new_key
from gateway.gen.emporix.sessioncontext.v1 import session_context_pb2 as pb
from gateway.gen.emporix.sessioncontext.v1 import session_context_pb2_grpc as pb_grpc
from gateway.sandbox import seed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

BIN: Final = Path(sys.executable).parent
METHOD: Final = "/emporix.sessioncontext.v1.SessionContextService/GetSessionContext"
REQUEST: Final = pb.GetSessionContextRequest(tenant="acme", session_id=seed.CUSTOMER_SESSION)
LOAD: Final = ("-t1", "-c4", "-m8")


@dataclass
class Server:
    """What is measured, and what was seen of it."""

    name: str
    address: str
    pid: int
    headers: tuple[tuple[str, str], ...] = ()
    rates: list[float] = field(default_factory=list)
    """Calls a second, of each round."""
    costs: list[float] = field(default_factory=list)
    """Microseconds of CPU a call, of each round."""


@contextlib.contextmanager
def started(command: Sequence[str | Path], said: str, core: int, **environment: str) -> Iterator[tuple[str, int]]:
    """A process on a core; yields what the group of `said` matches in what it prints, and its id."""
    with subprocess.Popen(
        ["taskset", "-c", str(core), *command],  # noqa: S607 - from the PATH, as all that is measured
        env={**outside(), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            found = next(found[1] for line in process.stdout if (found := re.search(said, line)))
            # Its log is read on: a pipe that is full would hold it up.
            threading.Thread(target=process.stdout.read, daemon=True).start()
            yield found, process.pid
        finally:
            process.terminate()


@contextlib.contextmanager
def servers() -> Iterator[list[Server]]:
    """The echo, and the gateway with and without its cache."""
    key, known = new_key("bench"), []
    environment = {f"SESSION_GATEWAY_{each}__PORT": "0" for each in ("GRAPHQL", "GRPC", "ADMIN")} | {
        "SESSION_GATEWAY_TENANTS__ACME__CLIENT_ID": "acme-client",
        "SESSION_GATEWAY_TENANTS__ACME__CLIENT_SECRET": "acme-secret",
        "SESSION_GATEWAY_ACCESS__KEYS__BENCH__HASH": hash_of(key[0]),
        "SESSION_GATEWAY_ACCESS__KEYS__BENCH__PERMISSIONS": '["sessions:read"]',
        "SESSION_GATEWAY_ACCESS__KEYS__BENCH__TENANTS": '["acme"]',
        "SESSION_GATEWAY_RATE_LIMITS__RATE": "1000000",
        "SESSION_GATEWAY_GRPC__CONNECTIONS__MAX_AGE": "3600",  # h2load does not go on after GOAWAY
        "SESSION_GATEWAY_LOG__FORMAT": "json",
    }
    headers = (("x-api-key", key[0].get_secret_value()),)
    with contextlib.ExitStack() as stack:
        sandbox, _ = stack.enter_context(
            started([BIN / "session-gateway", "sandbox", "--port", "0"], r"(http://\S+)", 1)
        )
        for name, backend in (("cached", "memory"), ("uncached", "none")):
            address, pid = stack.enter_context(
                started(
                    [BIN / "session-gateway", "serve"],
                    r'"grpc": "([^"]+)"',
                    0,
                    **environment,
                    SESSION_GATEWAY_UPSTREAM__BASE_URL=sandbox,
                    SESSION_GATEWAY_CACHE__BACKEND=backend,
                    SESSION_GATEWAY_CACHE__TTL="3600",
                )
            )
            known.append(Server(name, address, pid, headers))
        address, pid = stack.enter_context(
            started(
                [sys.executable, __file__, "--echo", answer_of(known[0]).SerializeToString().hex()], r"(\S+:\d+)", 0
            )
        )
        yield [Server("echo", address, pid), *known]


async def echo(answer: bytes) -> None:
    """Serve this answer until the process is told to stop."""
    message = pb.GetSessionContextResponse.FromString(answer)

    async def answered(_: object, __: object) -> pb.GetSessionContextResponse:
        return message

    service = pb.DESCRIPTOR.services_by_name["SessionContextService"]
    handler = grpc.unary_unary_rpc_method_handler(
        answered,
        request_deserializer=pb.GetSessionContextRequest.FromString,
        response_serializer=pb.GetSessionContextResponse.SerializeToString,
    )
    server: Any = grpc.aio.server()
    # All methods, as generated code does: what grpc.aio takes for a call depends on how many there are.
    server.add_registered_method_handlers(service.full_name, {each.name: handler for each in service.methods})
    print(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}", flush=True)
    await server.start()
    await server.wait_for_termination()


def answer_of(server: Server) -> pb.GetSessionContextResponse:
    """What a client gets. Raises for any status but OK."""
    with grpc.insecure_channel(server.address) as channel:
        return pb_grpc.SessionContextServiceStub(channel).GetSessionContext(REQUEST, metadata=server.headers, timeout=5)


def loaded(server: Server, body: Path, seconds: int, size: int) -> None:
    """Load a server for so many seconds. Raises unless every answer has `size` bytes, frame included."""
    headers = [
        "content-type: application/grpc",
        "te: trailers",
        *(f"{name}: {value}" for name, value in server.headers),
    ]
    before = cpu(server.pid)
    command = ["taskset", "-c", "1", "h2load", *LOAD, f"-D{seconds}", "-d", str(body)]
    command += [part for each in headers for part in ("-H", each)]
    command.append(f"http://{server.address}{METHOD}")
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    spent = cpu(server.pid) - before
    done = int(_found(r"(\d+) succeeded, 0 failed", said))
    got = int(_found(r"\((\d+)\) data", said))
    # A call that is under way when time is up is no failure, and may have been answered in part.
    assert 0 <= got - done * size <= 32 * size, f"{server.name}: {got} bytes in {done} answers of {size}"
    server.rates.append(float(_found(r", ([\d.]+) req/s", said)))
    server.costs.append(spent / done * 1e6)


def cpu(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _found(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    assert found is not None, text
    return found[1]


def main(rounds: int, seconds: int, only: Sequence[str]) -> None:
    """Measure, and print a table."""
    with servers() as all_of_them, tempfile.TemporaryDirectory() as folder:
        measured = [each for each in all_of_them if each.name in {"echo", *only}]
        message = REQUEST.SerializeToString()
        body = Path(folder) / "request"
        body.write_bytes(b"\0" + len(message).to_bytes(4, "big") + message)
        answer = answer_of(measured[0])
        for server in measured:
            assert answer_of(server) == answer, server.name
        for _ in range(rounds):
            for server in measured:
                loaded(server, body, seconds, 5 + answer.ByteSize())
        print(f"{'':<12}{'calls/s':>10}{'us of CPU':>12}{'of the echo':>14}{'by CPU':>10}")
        for server in measured:
            rates, costs = (statistics.median(each) for each in (server.rates, server.costs))
            by_rate = statistics.median(ours / bare for ours, bare in zip(server.rates, measured[0].rates, strict=True))
            by_cpu = statistics.median(bare / ours for ours, bare in zip(server.costs, measured[0].costs, strict=True))
            print(f"{server.name:<12}{rates:>10.0f}{costs:>12.1f}{by_rate:>14.2f}{by_cpu:>10.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5, help="of each round")
    parser.add_argument("--only", nargs="*", default=["cached", "uncached"], help="which to measure beside the echo")
    parser.add_argument("--echo", metavar="HEX", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.echo is None:
        main(arguments.rounds, arguments.seconds, arguments.only)
    else:
        asyncio.run(echo(bytes.fromhex(arguments.echo)))
