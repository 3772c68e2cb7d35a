"""More calls than upstream can take: how soon callers are turned away, and which bound answers most of them.

    .venv/bin/python bench/shedding.py refusals    # half a minute
    .venv/bin/python bench/shedding.py bounds      # five minutes a round

A gateway without a cache on one core; on the other its callers, and a stub upstream that works on 10 calls at a time
(`bench.crowded`). All are real processes, and what they say goes through sockets.

`refusals`: upstream stands still, two calls are under way and two wait. Everyone else is turned away, and waits for
nothing but that: times are from the sending of a request to the whole answer, as the client sees it, and from the
request's arrival to its answer, as the gateway's log has it. `livez` is what the same client and the same gateway
take over nothing at all, and so what of this is the machine's.

`bounds`: upstream takes 25 ms, ten times that for a while, and 25 ms again. Callers come at random, 200 a second: half
of what upstream carries when well, five times what it carries when slow; each goes away after 1 s. The bounds are fixed
ones, and some that adapt (`bench.bounds`); all have the same short queue before them, and the breaker is as always.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import random
import sys
import tempfile
import time
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import aiohttp
import grpc
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_status import rpc_status

from bench.bounds import KINDS as ADAPTIVE
from bench.crowded import KINDS, MEAN
from bench.dialects import OURS
from bench.processes import LOAD_CORE, SERVER_CORE, Failed, Running, free_port, running
from bench.stub import SESSION
from gateway.gen.emporix.sessioncontext.v1 import session_context_pb2 as pb
from gateway.gen.emporix.sessioncontext.v1 import session_context_pb2_grpc as pb_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

    Ask = Callable[[], Awaitable[str]]

RATE: Final = 200.0
"""Callers a second."""
PATIENCE: Final = 1.0
SLOW: Final = 10.0
"""How many times as long upstream then takes."""
PERIODS: Final = {"well": 5.0, "slow": 15.0, "after": 10.0}
FOREVER: Final = 3600.0
BOUNDS: Final = (
    *(("fixed", each) for each in (5, 10, 20, 40, 256)),
    *((each, 256) for each in ADAPTIVE),
    ("halving", 40),
)
REFUSED: Final = "UPSTREAM_UNAVAILABLE"
CHANNELS: Final = 16
"""Of gRPC's callers, who take turns: a connection has at most `grpc.max_calls_per_connection` calls at a time (100)."""
LATE: Final = "DEADLINE_EXCEEDED"
_SCRIPT: Final = str(Path(sys.executable).parent / "session-gateway")
_READ: Final = pb.GetSessionContextRequest(tenant="acme", session_id=SESSION)


@dataclass(frozen=True)
class Up:
    """A gateway that is up, and its upstream."""

    gateway: Running
    grpc: str
    graphql: str
    livez: str
    upstream: str


@contextmanager
def up(upstream: str, bound: str = "fixed", **more: str) -> Iterator[Up]:
    """Runs while the block does: this kind of upstream and this kind of bound, with more settings."""
    with tempfile.TemporaryDirectory() as folder:
        directory, port = Path(folder), free_port()
        ports = {each: free_port() for each in ("GRPC", "GRAPHQL", "ADMIN")}
        address = f"http://127.0.0.1:{port}"
        settings = {
            "WORKERS": "1",
            "LOG__FORMAT": "json",
            "UPSTREAM__BASE_URL": address,
            "TENANTS__ACME__CLIENT_ID": "acme-client",
            "TENANTS__ACME__CLIENT_SECRET": "acme-secret",
            **{f"{each}__PORT": str(number) for each, number in ports.items()},
            **more,
        }
        serve = [_SCRIPT, "serve"] if bound == "fixed" else [sys.executable, "-m", "bench.bounds", bound, "serve"]
        with (
            running(
                [sys.executable, "-m", "bench.crowded", str(port), upstream],
                port,
                core=LOAD_CORE,
                directory=directory,
                name="upstream",
            ),
            running(
                serve,
                ports["GRPC"],
                core=SERVER_CORE,
                directory=directory,
                name="gateway",
                environment={f"SESSION_GATEWAY_{name}": value for name, value in settings.items()},
            ) as gateway,
        ):
            http = f"http://127.0.0.1:{ports['GRAPHQL']}/graphql", f"http://127.0.0.1:{ports['ADMIN']}/livez"
            yield Up(gateway, f"127.0.0.1:{ports['GRPC']}", *http, address)


@asynccontextmanager
async def doors(it: Up, patience: float | None = None) -> AsyncIterator[dict[str, Ask]]:
    """A client of each door; asked, it reads a session context and returns what became of that.

    The one of gRPC has so many seconds of patience, and the gateway knows.
    """
    body, headers = OURS.read_body("all"), {"content-type": "application/json"}
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        own = [("grpc.use_local_subchannel_pool", 1)]  # else they would share one connection
        channels = [grpc.aio.insecure_channel(it.grpc, own) for _ in range(CHANNELS)]
        stubs = [pb_grpc.SessionContextServiceStub(await stack.enter_async_context(each)) for each in channels]
        turns = itertools.cycle(stubs)

        async def by_grpc() -> str:
            try:
                await next(turns).GetSessionContext(_READ, timeout=patience)
            except grpc.aio.AioRpcError as error:
                return _reason(error)
            return "OK"

        async def by_graphql() -> str:
            async with http.post(it.graphql, data=body, headers=headers) as response:
                answer = await response.json(content_type=None)
            errors = answer.get("errors")
            return str(errors[0]["extensions"]["code"]) if errors else "OK"

        async def by_livez() -> str:
            async with http.get(it.livez, raise_for_status=True) as response:
                await response.read()
            return "OK"

        yield {"grpc": by_grpc, "graphql": by_graphql, "livez": by_livez}


def _reason(error: grpc.aio.AioRpcError) -> str:
    """As the gateway's `ErrorInfo` has it, or else the status."""
    status, info = rpc_status.from_call(error), ErrorInfo()  # type: ignore[arg-type]  # documented to take it; the stubs want a Call
    found = any(each.Unpack(info) for each in status.details) if status else False
    return info.reason if found and error.code().name != LATE else error.code().name


async def refusals(number: int) -> None:
    """Print how long they take, by the door and by how callers come."""
    few = {"UPSTREAM__MAX_CONCURRENT": "2", "UPSTREAM__MAX_QUEUED": "2"}
    patient = {"UPSTREAM__TIMEOUT": "600", "UPSTREAM__MAX_QUEUE_WAIT": "60", "GRPC__BUDGET": "600"}
    print(f"{number} refusals each; milliseconds")
    print(f"{'door':9}{'callers':14}{'by':8}{'p50':>8}{'p99':>8}{'p99.9':>8}{'max':>8}")
    with up("deaf", **few, **patient) as it:
        async with doors(it) as asks, AsyncExitStack() as stack:
            for ask in asks.values():
                if await ask() != "OK":
                    raise Failed("upstream is to be well at first")
            await set_mean(it, FOREVER)
            within = [asyncio.ensure_future(asks["grpc"]()) for _ in range(5)]
            stack.callback(lambda: [each.cancel() for each in within])
            done, _ = await asyncio.wait(within, return_when=asyncio.FIRST_COMPLETED)
            if [each.result() for each in done] != [REFUSED]:
                raise Failed("of five callers one is to be turned away")
            for door, ask in asks.items():
                for how, rate in (("one by one", None), (f"{RATE:.0f} a second", RATE)):
                    spent = it.gateway.cpu()
                    times = await timed(ask, "OK" if door == "livez" else REFUSED, number, rate)
                    spent = it.gateway.cpu() - spent
                    if sum(each.done() for each in within) != 1:
                        raise Failed("somebody who was within has left")
                    await asyncio.sleep(0.5)  # the log is written up to 0.1 s late
                    row(door, how, "client", times)
                    if door != "livez":
                        row(door, how, "gateway", logged(it, door)[-number:])
                    print(f"{'':37}{spent / number * 1000:.2f} of CPU each")


async def timed(ask: Ask, expected: str, number: int, rate: float | None) -> list[float]:
    """Milliseconds until each of so many has its answer; without a rate, they come one after another.

    Raises Failed if the answer is another one.
    """
    chance, times = random.Random(7), list[float]()  # noqa: S311 - to be had again

    async def one() -> None:
        began = time.perf_counter()
        if (became := await ask()) != expected:
            raise Failed(f"a call became {became}")
        times.append((time.perf_counter() - began) * 1000)

    async with asyncio.TaskGroup() as tasks:
        due = time.monotonic()
        for _ in range(number):
            task = tasks.create_task(one())
            if rate is None:
                await task
            else:
                due += chance.expovariate(rate)
                await asyncio.sleep(max(0.0, due - time.monotonic()))
    return times


def logged(it: Up, door: str) -> list[float]:
    """Milliseconds that the gateway took for each refusal so far, as its log has them."""
    lines = [json.loads(each) for each in it.gateway.log.read_text("utf-8").splitlines() if each.startswith("{")]
    return [each["duration_ms"] for each in lines if each.get("code") == REFUSED and each.get("door") == door]


def row(door: str, how: str, by: str, times: Sequence[float]) -> None:
    """Print it."""
    cuts = "".join(f"{percentile(times, share):8.2f}" for share in (0.5, 0.99, 0.999, 1.0))
    print(f"{door:9}{how:14}{by:8}{cuts}", flush=True)


def percentile(times: Sequence[float], share: float) -> float:
    """That of so large a share."""
    return sorted(times)[min(len(times) - 1, int(len(times) * share))] if times else 0.0


@dataclass
class Tally:
    """What callers saw who came in one period."""

    answered: list[float] = field(default_factory=list)
    """Milliseconds."""
    late: int = 0
    """Went away before there was an answer."""
    shed: int = 0
    other: int = 0


async def bounds(upstream: str, rounds: int, only: Sequence[str]) -> None:
    """Print a row for each bound and period."""
    tallies = {
        each: {period: Tally() for period in PERIODS} for each in BOUNDS if not only or "{} {}".format(*each) in only
    }
    for number in range(rounds):
        for (kind, most), periods in tallies.items():
            with up(upstream, kind, UPSTREAM__MAX_CONCURRENT=str(most)) as it:
                behind = await crowd(it, random.Random(number), periods)  # noqa: S311 - the same for all bounds
                print(
                    f"round {number + 1}, {kind} {most}: callers up to {behind * 1000:.0f} ms late; the gateway had"
                    f" {it.gateway.cpu():.1f} s of CPU, and waited {waited(it.gateway):.1f} s for it",
                    flush=True,
                )
    print(f"\n{'bound':14}{'period':8}{'callers/s':>10}{'answered/s':>11}{'late/s':>8}{'shed/s':>8}{'else':>6}", end="")
    print(f"{'p50 ms':>8}{'p99 ms':>8}")
    for (kind, most), periods in tallies.items():
        for period, seen in periods.items():
            seconds = PERIODS[period] * rounds
            answered, late, shed = (each / seconds for each in (len(seen.answered), seen.late, seen.shed))
            print(
                f"{f'{kind} {most}':14}{period:8}{answered + late + shed:10.0f}{answered:11.1f}{late:8.1f}{shed:8.1f}"
                f"{seen.other:6}{percentile(seen.answered, 0.5):8.0f}{percentile(seen.answered, 0.99):8.0f}"
            )


def waited(process: Running) -> float:
    """Seconds for which its main thread was ready to run, and something else ran."""
    return int(Path(f"/proc/{process.process.pid}/schedstat").read_text("ascii").split()[1]) / 1e9


async def crowd(it: Up, chance: random.Random, tallies: dict[str, Tally]) -> float:
    """All three periods; returns by how many seconds a caller came too late at most, as the machine was busy."""
    behind = 0.0
    async with doors(it, PATIENCE) as asks, asyncio.TaskGroup() as tasks:
        for _ in range(20):
            await asks["grpc"]()
        due = time.monotonic()
        for (period, seconds), mean in zip(PERIODS.items(), (MEAN, MEAN * SLOW, MEAN), strict=True):
            await set_mean(it, mean)
            until = due + seconds
            while (due := due + chance.expovariate(RATE)) < until:
                if (ahead := due - time.monotonic()) > 0:
                    await asyncio.sleep(ahead)
                behind = max(behind, time.monotonic() - due)
                tasks.create_task(call(asks["grpc"], tallies[period]))
            due = until
    return behind


async def call(ask: Ask, tally: Tally) -> None:
    """One caller."""
    began = time.perf_counter()
    became = await ask()
    if became == "OK":
        tally.answered.append((time.perf_counter() - began) * 1000)
    elif became == LATE:
        tally.late += 1
    elif became == REFUSED:
        tally.shed += 1
    else:
        tally.other += 1


async def set_mean(it: Up, seconds: float) -> None:
    """Of upstream's work."""
    async with aiohttp.ClientSession() as http, http.put(f"{it.upstream}/mean", data=str(seconds)) as response:
        response.raise_for_status()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=["refusals", "bounds"])
    parser.add_argument("--number", type=int, default=2000, help="of refusals (default: 2000)")
    parser.add_argument("--upstream", choices=KINDS, default=KINDS[0], help="for bounds (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=1, help="of bounds (default: 1)")
    parser.add_argument("--only", action="append", default=[], metavar="BOUND", help='e.g. "fixed 20"')
    options = parser.parse_args()
    os.sched_setaffinity(0, {LOAD_CORE})
    asyncio.run(
        refusals(options.number)
        if options.what == "refusals"
        else bounds(options.upstream, options.rounds, options.only)
    )
