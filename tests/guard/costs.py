"""What a read costs, counted: `make costs` records it, and `test_costs.py` holds us to it.

The whole gateway is up, as its composition root builds it, with access, rate limits, cache and metrics. Requests enter
where sockets and gRPC's core would hand them over: as bytes to uvicorn's protocol, and as a message's bytes to the
method's handler. Upstream is a process of its own, asked over a socket. So all that is Python is counted, and nothing
depends on time: medians, on a process of our own, with the garbage collector still.
"""

from __future__ import annotations

import asyncio
import gc
import json
import platform
import statistics
import sys
import tracemalloc
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import msgspec
import uvicorn
import uvloop

from gateway.access.guard import Guard
from gateway.gen.emporix.sessioncontext.v1 import session_context_pb2 as pb
from gateway.gen.emporix.sessioncontext.v1 import session_context_pb2_grpc as pb_grpc
from gateway.graphql.headers import BrowserHeaders
from gateway.rpc.handlers import Methods
from gateway.rpc.servicers import SessionContextServicer
from gateway.sandbox import seed
from gateway.telemetry.requests import Requests

sys.path.insert(0, str(Path(__file__).parents[1]))

from processes import running

from stage import opened
from waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import FrameType

T = TypeVar("T")

RECORDED: Final = Path(__file__).parent / f"costs-{'.'.join(platform.python_version_tuple()[:2])}.json"
"""For this version of Python: others call and allocate otherwise."""

UPSTREAM: Final = Path(__file__).parent / "upstream.py"
SESSION: Final = seed.SESSIONS["acme", seed.CUSTOMER_SESSION].decode()
WARM_UP: Final = 200
RUNS: Final = 15
TOGETHER: Final = 64
"""Reads in a row that are one run: what is done once for so many counts for each as well."""

_QUERY: Final = """query Read($t: String!, $s: ID!) { sessionContext(tenant: $t, sessionId: $s) { sessionId customerId
    siteCode currency cartId targetLocation language context metadata { version createdAt modifiedAt } } }"""
_METHOD: Final = "/emporix.sessioncontext.v1.SessionContextService/GetSessionContext"
_VARIABLES: Final = {"t": "acme", "s": seed.CUSTOMER_SESSION}


class Cost(msgspec.Struct, frozen=True):
    """Of one request."""

    calls: int
    """Of Python functions; a coroutine that goes on after it has waited counts again."""
    builtin_calls: int
    """Of functions in C."""
    peak: int
    """Bytes that it has allocated at its worst moment, beyond what there was before."""


class _Counter:
    """Counts calls while it is the profiler."""

    def __init__(self) -> None:
        self.calls = 0
        self.builtin_calls = 0

    def __call__(self, _: FrameType, event: str, __: object) -> None:
        if event == "call":
            self.calls += 1
        elif event == "c_call":
            self.builtin_calls += 1


class _Transport(asyncio.Transport):
    """A connection whose other end is a test."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 50_000), "sockname": ("127.0.0.1", 8000)})
        self.written = bytearray()
        self.answered = asyncio.Event()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data
        head, found, body = self.written.partition(b"\r\n\r\n")
        if found and len(body) >= int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]):
            self.answered.set()

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass


class _Details(NamedTuple):
    method: str


class _Call:
    """What grpc.aio hands a handler, for one call that has an API key and no deadline."""

    def __init__(self, message: bytes) -> None:
        self._message = message
        self._trailing: tuple[tuple[str, str], ...] = ()

    async def read(self) -> bytes:
        return self._message

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return (("x-api-key", "dev-key"), ("user-agent", "costs"))

    def time_remaining(self) -> None:
        return None

    def peer_identity_key(self) -> None:
        return None

    def set_trailing_metadata(self, metadata: tuple[tuple[str, str], ...]) -> None:
        self._trailing = metadata

    def trailing_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._trailing

    def code(self) -> int:
        return 0


def measured() -> dict[str, Cost]:
    """By door, and by whether the cache answers: each in a process of its own."""
    with ProcessPoolExecutor(2, get_context("spawn"), max_tasks_per_child=1) as processes:
        cached, uncached = processes.map(_measured, ("memory", "none"))
    return {**cached, **{f"{door}, uncached": cost for door, cost in uncached.items()}}


def _measured(backend: str) -> dict[str, Cost]:
    return uvloop.run(_with_cache(backend))


async def _with_cache(backend: str) -> dict[str, Cost]:
    async with (
        running(SESSION, program=(sys.executable, str(UPSTREAM))) as upstream,
        opened(
            upstream={"base_url": await upstream.says(r"http://[0-9.:]+"), "retries": {}, "breaker": {}},
            graphql={"playground": False, "introspection": False},
            grpc={"reflection": False},
            cache={"backend": backend, "ttl": 3600.0},
            rate_limits={"rate": 1e6},
        ),
    ):
        return {"graphql": await _cost(await _graphql()), "grpc": await _cost(_rpc())}


async def _graphql() -> Callable[[], Awaitable[None]]:
    config = _only(uvicorn.Config, lambda each: isinstance(each.app, BrowserHeaders))
    await eventually(lambda: config.loaded)  # its socket listens sooner
    protocol: Any = config.http_protocol_class
    transport = _Transport()
    connection = protocol(config=config, server_state=uvicorn.server.ServerState(), app_state={})
    connection.connection_made(transport)
    body = json.dumps({"query": _QUERY, "variables": _VARIABLES}).encode()
    request = (
        b"POST /graphql HTTP/1.1\r\nhost: 127.0.0.1\r\nx-api-key: dev-key\r\ncontent-type: application/json\r\n"
        b"accept: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
    ) + body

    async def read() -> None:
        transport.written.clear()
        transport.answered.clear()
        connection.data_received(request)
        await transport.answered.wait()
        _, _, answer = transport.written.partition(b"\r\n\r\n")
        found = json.loads(answer)["data"]["sessionContext"]
        assert found["sessionId"] == seed.CUSTOMER_SESSION, answer

    return read


def _rpc() -> Callable[[], Awaitable[None]]:
    methods: Any = Methods(_only(Requests, lambda _: True), budget=10.0, max_message=1_048_576, max_answer=4_194_304)
    servicer = SessionContextServicer(_only(Guard, lambda _: True), max_answer=4_194_304)
    pb_grpc.add_SessionContextServiceServicer_to_server(servicer, methods)
    handler = methods.service(_Details(_METHOD)).stream_unary
    request = pb.GetSessionContextRequest(tenant="acme", session_id=seed.CUSTOMER_SESSION).SerializeToString()

    async def read() -> None:
        answer = await asyncio.create_task(handler(None, _Call(request)))
        assert pb.GetSessionContextResponse.FromString(answer).session_context.session_id == seed.CUSTOMER_SESSION

    return read


def _only(kind: type[T], chosen: Callable[[T], bool]) -> T:
    """The one there is. The composition root hands out addresses alone, and is not to be built once more here."""
    (found,) = (each for each in gc.get_objects() if isinstance(each, kind) and chosen(each))
    return found


async def _cost(read: Callable[[], Awaitable[None]]) -> Cost:
    for _ in range(WARM_UP):
        await read()
    gc.collect()
    gc.disable()
    calls, builtin_calls, peaks = [], [], []
    for _ in range(RUNS):
        counter = _Counter()
        for _ in range(TOGETHER):
            sys.setprofile(counter)
            await read()
            sys.setprofile(None)
        calls.append(round(counter.calls / TOGETHER))
        builtin_calls.append(round(counter.builtin_calls / TOGETHER))
    tracemalloc.start()
    for _ in range(RUNS):
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        await read()
        peaks.append(tracemalloc.get_traced_memory()[1] - before)
    tracemalloc.stop()
    gc.enable()
    return Cost(*map(statistics.median_low, (calls, builtin_calls, peaks)))


def main() -> None:
    """Print what it costs; record it unless it is only to be printed."""
    costs = measured()
    encoded = msgspec.json.format(msgspec.json.encode(costs), indent=2).decode()
    print(encoded)  # noqa: T201 - its purpose
    if "--print" not in sys.argv:
        RECORDED.write_text(f"{encoded}\n", "utf-8")


if __name__ == "__main__":
    main()
