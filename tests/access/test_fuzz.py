"""Ten thousand inputs that nobody would send in good faith, to both ports of a gateway in a process of its own.

It never answers with a fault of its own, tells nothing of its inside, keeps neither memory nor connections, and
answers as before when it is over.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

import grpc
import httpx
import pytest
from access import fuzzing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.gen.emporix.sessioncontext.v1 import session_context_pb2 as pb
from gateway.gen.emporix.sessioncontext.v1 import session_context_pb2_grpc as pb_grpc
from gateway.sandbox import seed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

SCRIPT = Path(sys.executable).parent / "session-gateway"
AT_A_TIME = 250
"""Connections. Some inputs leave both sides waiting for the other, and are given up after a while."""
GROWTH = 48 * 2**20
"""Bytes that the process may grow by: allocators keep what they had at the peak."""
LEAKS = re.compile(
    rb"Traceback|File \\?\"|\.py\b|site-packages|gateway[./][a-z]|asyncio|msgspec|strawberry|0x[0-9a-f]{8}"
)
FAULTS = {"INTERNAL", "UPSTREAM_FAULT"}
SENTINEL = b"\r\n\r\nGET /end HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
_NOT_OPEN = {"0A", "06"}
"""LISTEN and TIME_WAIT, in /proc/net/tcp."""
KEY = {"x-api-key": "dev-key", "authorization": f"Bearer {seed.CUSTOMER_TOKEN}"}

batches = settings(
    derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck), report_multiple_bugs=False
)


@dataclass
class Gateway:
    """A running `session-gateway dev`."""

    process: subprocess.Popen[str]
    graphql: str
    grpc: str
    log: Path
    runner: asyncio.Runner
    inputs: int = 0
    seen: Counter[str] = field(default_factory=Counter)

    def each(self, inputs: Iterable[object], work: Callable[..., Awaitable[None]]) -> None:
        """Do the work for all of them, side by side."""

        async def all_of_them() -> None:
            async with asyncio.TaskGroup() as tasks:
                for each in inputs:
                    self.inputs += 1
                    tasks.create_task(work(each))  # type: ignore[arg-type]  # each is a coroutine

        self.runner.run(all_of_them())

    def resident(self) -> int:
        """Bytes of memory."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text("ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def connections(self) -> int:
        """How many there are to either port, on the gateway's side."""
        ports = {f"{int(each.rpartition(':')[2].partition('/')[0]):04X}" for each in (self.graphql, self.grpc)}
        rows = [each.split() for each in Path(f"/proc/{self.process.pid}/net/tcp").read_text("ascii").splitlines()[1:]]
        return sum(row[1].rpartition(":")[2] in ports and row[3] not in _NOT_OPEN for row in rows)


@contextmanager
def running(folder: Path, runner: asyncio.Runner) -> Iterator[Gateway]:
    ports = {f"SESSION_GATEWAY_{each}__PORT": "0" for each in ("GRAPHQL", "GRPC", "ADMIN", "SANDBOX")}
    bounds = {"SESSION_GATEWAY_GRAPHQL__BUDGET": "0.5", "SESSION_GATEWAY_GRAPHQL__DOCUMENTS_MEMORY": "4194304"}
    environment = {**os.environ, **ports, **bounds}
    log = folder / "log"
    with (
        log.open("w") as err,
        subprocess.Popen([SCRIPT, "dev"], env=environment, stdout=subprocess.PIPE, stderr=err, text=True) as process,
    ):
        assert process.stdout is not None
        said = ""
        while "Ctrl-C" not in said:
            line = process.stdout.readline()
            assert line, log.read_text("utf-8")
            said += line
        graphql = re.findall(r"GraphQL +(http://\S+/graphql) ", said)[0]
        yield Gateway(process, graphql, re.findall(r"gRPC +(127\.0\.0\.1:\d+)", said)[0], log, runner)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with asyncio.Runner() as runner, running(tmp_path_factory.mktemp("fuzz"), runner) as gateway:
        yield gateway


def unchanged(gateway: Gateway, test: Callable[[], None], *, inputs: int) -> None:
    """Run a test of so many inputs; fails when the process is another afterwards."""
    answers_normally(gateway)
    memory, before = gateway.resident(), gateway.inputs
    test()
    answers_normally(gateway)

    assert gateway.inputs - before >= inputs
    assert gateway.resident() - memory < GROWTH
    gateway.runner.run(until(lambda: gateway.connections() <= 0))
    assert not re.findall(rb".*(?:Traceback|defect|exc_info).*", gateway.log.read_bytes())


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.05)


def answers_normally(gateway: Gateway) -> None:
    query = f'{{ sessionContext(tenant: "acme", sessionId: "{seed.ANONYMOUS_SESSION}") {{ sessionId }} }}'
    response = httpx.post(gateway.graphql, json={"query": query}, headers=KEY)
    assert response.json() == {"data": {"sessionContext": {"sessionId": seed.ANONYMOUS_SESSION}}}
    with grpc.insecure_channel(gateway.grpc) as channel:
        stub = pb_grpc.SessionContextServiceStub(channel)
        request = pb.GetSessionContextRequest(tenant="acme", session_id=seed.ANONYMOUS_SESSION)
        found = stub.GetSessionContext(request, metadata=(("x-api-key", "dev-key"),), timeout=5)
        assert found.session_context.session_id == seed.ANONYMOUS_SESSION


async def exchange(host: str | None, port: int | None, data: bytes, *, within: float) -> bytes:
    """Send, and read until the server closes the connection or has nothing to say."""
    reader, writer = await asyncio.open_connection(host, port)
    answer = b""
    try:
        writer.write(data)
        async with asyncio.timeout(within):
            while part := await reader.read(65_536):
                answer += part
    except (TimeoutError, ConnectionError):
        pass
    finally:
        writer.transport.abort()
    return answer


# HTTP


class Answer(NamedTuple):
    status: int
    body: bytes


def answers_in(data: bytes) -> Iterator[Answer]:
    """The answers of one connection, one after another."""
    while data:
        head, found, rest = data.partition(b"\r\n\r\n")
        assert found, data
        status = re.match(rb"HTTP/1\.1 (\d{3}) ", head)
        assert status, head
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        if status[1] == b"100":
            data = rest
            continue
        assert length, head
        size = 0 if rest.startswith(b"HTTP/1.1 ") else int(length[1])  # there is no body after HEAD
        yield Answer(int(status[1]), rest[:size])
        data = rest[size:]


def check(gateway: Gateway, answer: Answer) -> None:
    gateway.seen[str(answer.status)] += 1
    assert answer.status < 500 or answer.status == 501, answer  # of a transfer coding (RFC 9112, 6.1)
    assert not LEAKS.search(answer.body), answer
    if answer.body.startswith(b'{"'):
        codes = {each["extensions"]["code"] for each in json.loads(answer.body).get("errors", ())}
        gateway.seen.update(codes)
        assert not codes & FAULTS, answer


def test_bytes_at_the_port_of_graphql(gateway: Gateway) -> None:
    url = urlsplit(gateway.graphql)

    async def send(data: bytes) -> None:
        for answer in answers_in(await exchange(url.hostname, url.port, data + SENTINEL, within=1)):
            check(gateway, answer)

    @settings(batches, max_examples=4)
    @given(st.lists(st.binary(min_size=1, max_size=60), min_size=AT_A_TIME, max_size=AT_A_TIME))
    def any_bytes(inputs: list[bytes]) -> None:
        gateway.each(inputs, send)

    @settings(batches, max_examples=10)
    @given(st.integers(0, 2**64))
    def nearly_requests(seed: int) -> None:
        random = Random(seed)
        gateway.each([fuzzing.http_request(random) for _ in range(AT_A_TIME)], send)

    def both() -> None:
        any_bytes()
        nearly_requests()

    unchanged(gateway, both, inputs=3500)


def test_documents_that_are_nearly_right(gateway: Gateway) -> None:
    async def send(request: object) -> None:
        body = json.dumps(request, allow_nan=False, ensure_ascii=False).encode(errors="replace")
        headers = {"content-type": "application/json", **KEY}
        response = await client.post(gateway.graphql, content=body, headers=headers)
        check(gateway, Answer(response.status_code, response.content))

    @settings(batches, max_examples=24)
    @given(st.integers(0, 2**64))
    def nearly_documents(seed: int) -> None:
        random = Random(seed)
        gateway.each([fuzzing.graphql_request(random) for _ in range(50)], send)

    def all_of_them() -> None:
        try:
            nearly_documents()
        finally:
            gateway.runner.run(client.aclose())

    client = httpx.AsyncClient(timeout=20)
    unchanged(gateway, all_of_them, inputs=1200)


# gRPC


def test_bytes_at_the_port_of_grpc(gateway: Gateway) -> None:
    host, _, port = gateway.grpc.partition(":")

    async def send(data: bytes) -> None:
        assert not LEAKS.search(await exchange(host, int(port), data, within=0.3))

    @settings(batches, max_examples=2)
    @given(st.lists(st.binary(min_size=1, max_size=60), min_size=AT_A_TIME, max_size=AT_A_TIME))
    def any_bytes(inputs: list[bytes]) -> None:
        gateway.each(inputs, send)

    @settings(batches, max_examples=6)
    @given(st.integers(0, 2**64))
    def nearly_frames(seed: int) -> None:
        random = Random(seed)
        gateway.each([fuzzing.http2_frames(random) for _ in range(AT_A_TIME)], send)

    def both() -> None:
        any_bytes()
        nearly_frames()

    unchanged(gateway, both, inputs=2000)


def test_messages_that_are_nearly_right(gateway: Gateway) -> None:
    async def send(call: tuple[str, bytes]) -> None:
        path, message = call
        method = channel.unary_unary(path, lambda each: each, lambda each: each)
        try:
            await method(message, metadata=tuple(KEY.items()), timeout=10)
        except grpc.aio.AioRpcError as error:
            failed(call, error)

    def failed(call: tuple[str, bytes], error: grpc.aio.AioRpcError) -> None:
        gateway.seen[error.code().name] += 1
        trailers = [each if isinstance(each, bytes) else each.encode() for _, each in error.trailing_metadata() or ()]
        told = b" ".join(((error.details() or "").encode(), *trailers))
        assert error.code() not in {grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL}, (call, told)
        assert not LEAKS.search(told), (call, told)

    @settings(batches, max_examples=66)
    @given(st.integers(0, 2**64))
    def nearly_messages(seed: int) -> None:
        random = Random(seed)
        gateway.each([fuzzing.grpc_call(random) for _ in range(50)], send)

    async def channel_of() -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(gateway.grpc)

    def all_of_them() -> None:
        try:
            nearly_messages()
        finally:
            gateway.runner.run(channel.close())

    channel = gateway.runner.run(channel_of())
    unchanged(gateway, all_of_them, inputs=3300)
