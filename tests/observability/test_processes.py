"""Metrics of several processes: each writes its own, and whoever is asked adds them up."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

from observability.metrics import parsed
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = """
import asyncio, sys
from pathlib import Path
from gateway.telemetry.files import write_metrics_to
from gateway.telemetry.prometheus import Metrics
from gateway.telemetry.request_metrics import RequestMetrics
from gateway.telemetry.requests import Requests

async def main():
    write_metrics_to(Path(sys.argv[1]))
    metrics = Metrics()
    counted = RequestMetrics(metrics.registry)
    requests = Requests(counted)
    metrics.when_sampled(requests.tell)
    metrics.when_sampled(lambda: counted.flush(requests.in_flight))
    for number in range(1, 1001):
        request = requests.begin("graphql", "POST", {}.get)
        request.operation = "sessionContext"
        request.upstream = 1e-9
        if number % 10 == 0:
            request.failed("INTERNAL")
        requests.end(request)
        if number % 300 == 0:
            metrics.sample()  # as a worker does, from time to time
    begun = requests.begin("grpc", "x", {}.get)
    metrics.sample()
    print("ready", flush=True)
    sys.stdin.read()
    requests.end(begun)
    metrics.sample()

asyncio.run(main())
"""


async def test_counts_of_processes_are_added_up(tmp_path: Path) -> None:
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            PROGRAM,
            str(tmp_path),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        for _ in range(2)
    ]
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(tmp_path))
    try:
        async with asyncio.timeout(20):
            for each in processes:
                assert each.stdout is not None
                assert await each.stdout.readline() == b"ready\n"
        found = parsed(generate_latest(registry).decode())
    finally:
        for each in processes:
            assert each.stdin is not None
            each.stdin.close()
            async with asyncio.timeout(10):
                await each.wait()

    lost = {"operation": "patch", "outcome": "WRITE_OUTCOME_UNKNOWN"}
    assert found["session_gateway_writes_total", frozenset(lost.items())] == 0  # and is there all the same
    of_graphql = {"door": "graphql", "operation": "sessionContext"}
    total = "session_gateway_requests_total"
    assert found[total, frozenset({**of_graphql, "code": "OK"}.items())] == 1800
    assert found[total, frozenset({**of_graphql, "code": "INTERNAL"}.items())] == 200
    assert found["session_gateway_request_duration_seconds_count", frozenset(of_graphql.items())] == 2000
    assert found["session_gateway_request_overhead_seconds_count", frozenset({("door", "graphql")})] == 2000
    assert found["session_gateway_requests_in_flight", frozenset({("door", "grpc")})] == 2
    after = parsed(generate_latest(registry).decode())
    assert after[total, frozenset({"door": "grpc", "operation": "none", "code": "OK"}.items())] == 2
