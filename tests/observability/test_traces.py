"""Traces, as a collector gets them from the real exporter."""

from __future__ import annotations

import asyncio
import json
import logging.handlers
import os
import secrets
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import pytest
import pytest_asyncio
import requests
from access.calls import Clients
from hypothesis import example, given
from hypothesis import strategies as st
from observability.collector import Collector, collecting, drawn
from observability.metrics import samples
from opentelemetry.util.re import parse_env_headers
from processes import ONE_WORKER, run, running

from gateway.gen.emporix.sessioncontext.v1 import session_context_pb2 as pb
from gateway.gen.emporix.sessioncontext.v1 import session_context_pb2_grpc as pb_grpc
from gateway.listener import bind
from gateway.sandbox import seed
from gateway.tracing import BadTracing, export
from stage import opened
from waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

KEY = {"x-api-key": "dev-key"}
CALLER = "b7ad6b7169203331"
FRESH = {"cache-control": "no-cache"}
DOORS = ["graphql", "grpc"]
ROOTS = {
    "graphql": "query sessionContext",
    "grpc": "emporix.sessioncontext.v1.SessionContextService/GetSessionContext",
}
ANYWHERE = {f"SESSION_GATEWAY_{each}__PORT": "0" for each in ("GRAPHQL", "GRPC", "ADMIN", "SANDBOX")}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def collector() -> AsyncIterator[Collector]:
    async with collecting() as collector:
        yield collector


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def watched(collector: Collector) -> AsyncIterator[Clients]:
    """In place of the one that traces nothing."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        environment.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
        async with (
            opened(
                cache={"backend": "memory"},
                upstream={"timeout": 3.0, "breaker": {"enabled": False}},
                telemetry={"traces": True},
            ) as dev,
            grpc.aio.insecure_channel(dev.doors.grpc) as channel,
            httpx.AsyncClient() as http,
        ):
            yield Clients(dev, channel, http)


def new_trace() -> str:
    return secrets.token_hex(16)


async def read(
    clients: Clients,
    door: str,
    trace: str,
    headers: Mapping[str, str] = {},
    *,
    session_id: str = seed.CUSTOMER_SESSION,
    flags: str = "01",
) -> None:
    """Read by a door, as part of a trace."""
    sent = {**KEY, **headers, "traceparent": f"00-{trace}-{CALLER}-{flags}", "tracestate": "vendor=opaque"}
    if door == "graphql":
        query = f'query Mine {{ sessionContext(tenant: "acme", sessionId: "{session_id}") {{ currency }} }}'
        await clients.http.post(clients.dev.graphql_url, json={"query": query}, headers=sent)
        return
    request = pb.GetSessionContextRequest(tenant="acme", session_id=session_id)
    stub = pb_grpc.SessionContextServiceStub(clients.channel)
    with suppress(grpc.aio.AioRpcError):
        await stub.GetSessionContext(request, metadata=tuple(sent.items()))


@pytest.mark.parametrize("door", DOORS)
async def test_a_request_is_one_tree_from_its_callers_span_to_upstream(
    clients: Clients, collector: Collector, door: str
) -> None:
    trace = new_trace()
    await read(clients, door, new_trace())  # there is a token then, and an entry
    clients.dev.sandbox.requests.clear()
    await read(clients, door, trace, {**FRESH, "x-request-id": "the-id"})

    spans = await collector.trace(trace)
    by_name = {each.name: each for each in spans}
    assert drawn(spans, CALLER) == [
        [
            ROOTS[door],
            [
                "session.get",
                [
                    "cache.get",
                    [
                        "GET",
                    ],
                    ["token.get"],
                ],
            ],
        ],
    ]
    assert {each.kind for each in spans if each.name not in {ROOTS[door], "GET"}} == {"internal"}
    assert {each.service for each in spans} == {"session-gateway"}
    assert by_name["cache.get"].attributes == {"session_gateway.cache": "request"}
    request, attempt = by_name[ROOTS[door]], by_name["GET"]
    common = {
        "session_gateway.request_id": "the-id",
        "session_gateway.tenant": "acme",
        "session_gateway.caller": "dev",
        "session_gateway.cache": "request",
    }
    assert request.kind == "server"
    assert (
        request.attributes
        == {
            "graphql": {
                **common,
                "http.request.method": "POST",
                "url.path": "/graphql",
                "http.response.status_code": 200,
                "graphql.operation.type": "query",
                "graphql.operation.name": "Mine",
            },
            "grpc": {
                **common,
                "rpc.system": "grpc",
                "rpc.service": "emporix.sessioncontext.v1.SessionContextService",
                "rpc.method": "GetSessionContext",
                "rpc.grpc.status_code": 0,
            },
        }[door]
    )
    url = httpx.URL(clients.dev.sandbox_url)
    assert attempt.kind == "client"
    assert attempt.attributes == {
        "http.request.method": "GET",
        "server.address": url.host,
        "server.port": url.port,
        "http.response.status_code": 200,
    }
    assert not any(each.failed or each.links for each in spans)
    (asked,) = clients.dev.sandbox.requests
    assert asked.headers["traceparent"] == f"00-{trace}-{attempt.id}-01"
    assert asked.headers["tracestate"] == "vendor=opaque"


async def test_a_call_whose_caller_goes_away_has_the_status_that_its_caller_sees(
    clients: Clients, collector: Collector
) -> None:
    trace = new_trace()
    clients.dev.sandbox.faults.arm("hang", "get")
    reading = asyncio.create_task(read(clients, "grpc", trace, FRESH))
    await eventually(lambda: clients.dev.sandbox.under_way == 1)
    reading.cancel()

    request = {each.name: each for each in await collector.trace(trace)}[ROOTS["grpc"]]
    assert request.attributes["error.type"] == "CANCELLED"
    assert request.attributes["rpc.grpc.status_code"] == grpc.StatusCode.CANCELLED.value[0]


@pytest.mark.parametrize("door", DOORS)
async def test_a_hit_ends_at_the_cache(clients: Clients, collector: Collector, door: str) -> None:
    trace = new_trace()
    await read(clients, door, new_trace())
    await read(clients, door, trace)

    spans = await collector.trace(trace)
    assert drawn(spans, CALLER) == [[ROOTS[door], ["session.get", ["cache.get"]]]]
    assert {each.attributes["session_gateway.cache"] for each in spans} == {"hit"}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(("status", "code"), [("503", "UPSTREAM_UNAVAILABLE"), ("429", "RATE_LIMITED")])
async def test_a_failure_is_told_by_its_name_alone(
    clients: Clients, collector: Collector, door: str, status: str, code: str
) -> None:
    trace = new_trace()
    clients.dev.sandbox.faults.arm(f"status={status};retry-after=600", "get", times=None)
    await read(clients, door, trace, FRESH)

    spans = {each.name: each for each in await collector.trace(trace)}
    for name in (ROOTS[door], "session.get", "cache.get"):
        assert spans[name].attributes["error.type"] == code
        assert spans[name].failed
    assert spans["GET"].attributes["error.type"] == status
    assert spans["GET"].failed


@pytest.mark.parametrize("door", DOORS)
async def test_what_is_the_callers_fault_is_no_failure_of_ours(
    clients: Clients, collector: Collector, door: str
) -> None:
    trace = new_trace()
    await read(clients, door, trace, {"x-api-key": "nobody's"})

    (span,) = await collector.trace(trace)
    assert span.attributes["error.type"] == "CALLER_UNAUTHENTICATED"
    assert not span.failed


@pytest.mark.parametrize("door", DOORS)
async def test_who_joins_a_read_under_way_links_to_it(clients: Clients, collector: Collector, door: str) -> None:
    clients.dev.sandbox.faults.arm("latency=200ms", "get", times=None)
    session = f"shared-by-{door}"
    traces = [new_trace() for _ in range(3)]
    await asyncio.gather(*(read(clients, door, each, session_id=session) for each in traces))

    trees = [await collector.trace(each) for each in traces]
    (leader,) = (each for each in trees if any(span.name == "GET" for span in each))
    (flight,) = (each for each in leader if each.name == "cache.fetch")
    assert drawn(leader, CALLER) == [
        [ROOTS[door], ["session.get", ["cache.get", ["cache.fetch", ["GET"], ["token.get"]]]]]
    ]
    for tree in trees:
        (get,) = (each for each in tree if each.name == "cache.get")
        assert get.links == (() if tree is leader else (flight.id,))


async def test_a_token_that_has_to_be_fetched_is_part_of_it(clients: Clients, collector: Collector) -> None:
    trace = new_trace()
    await read(clients, "grpc", new_trace(), FRESH)
    clients.dev.sandbox.tokens.revoke(service_only=True)
    await read(clients, "grpc", trace, FRESH)

    spans = await collector.trace(trace)
    assert drawn(spans, CALLER) == [
        [ROOTS["grpc"], ["session.get", ["cache.get", ["GET"], ["GET"], ["token.get"], ["token.get", ["POST"]]]]]
    ]


async def test_the_reads_of_a_batch_are_side_by_side(clients: Clients, collector: Collector) -> None:
    trace = new_trace()
    stub = pb_grpc.SessionContextServiceStub(clients.channel)
    ids = [seed.CUSTOMER_SESSION, seed.ANONYMOUS_SESSION]
    sent = {**KEY, **FRESH, "traceparent": f"00-{trace}-{CALLER}-01"}
    await stub.BatchGetSessionContexts(
        pb.BatchGetSessionContextsRequest(tenant="acme", session_ids=ids), metadata=tuple(sent.items())
    )

    one = ["cache.get", ["GET"], ["token.get"]]
    ((root, (use_case, *below)),) = drawn(await collector.trace(trace), CALLER)
    assert (root.rpartition("/")[2], use_case) == ("BatchGetSessionContexts", "session.batch_get")
    assert below == [one, one]


async def test_a_write_is_told_with_all_its_attempts(clients: Clients, collector: Collector) -> None:
    trace = new_trace()
    stub = pb_grpc.SessionContextServiceStub(clients.channel)
    request: Any = pb.PatchSessionContextRequest(
        tenant="acme",
        session_id=seed.CUSTOMER_SESSION,
        session_context=pb.SessionContext(currency="SEK"),
        omit_session_context=True,
    )
    request.update_mask.paths.append("currency")
    sent = {**KEY, "saas-token": clients.dev.sandbox.saas_token, "traceparent": f"00-{trace}-{CALLER}-01"}
    await stub.PatchSessionContext(request, metadata=tuple(sent.items()))

    spans = await collector.trace(trace)
    assert {each.name for each in spans} >= {"session.patch", "cache.read", "GET", "PUT"}
    (put,) = (each for each in spans if each.name == "PUT")
    (use_case,) = (each for each in spans if each.name == "session.patch")
    assert put.parent == use_case.id


async def test_who_says_that_it_is_not_sampled_is_not_traced(clients: Clients, collector: Collector) -> None:
    unsampled, sampled = new_trace(), new_trace()
    clients.dev.sandbox.requests.clear()
    await read(clients, "graphql", unsampled, FRESH, flags="00")
    await read(clients, "graphql", sampled, FRESH)
    await collector.trace(sampled)

    assert unsampled not in {each.trace for each in collector.spans}
    asked = clients.dev.sandbox.requests[0].headers["traceparent"]
    assert (asked[3:35], asked[-2:]) == (unsampled, "00")


@pytest.mark.parametrize("header", ["nonsense", "00-0-0-00", f"00-{'0' * 32}-{CALLER}-01"])
async def test_a_context_that_is_none_begins_a_new_trace(clients: Clients, collector: Collector, header: str) -> None:
    before = len(collector.spans)
    await clients.http.post(
        clients.dev.graphql_url,
        json={"query": "{ __typename }"},
        headers={**KEY, "traceparent": header, "x-request-id": f"of-{header[:9]}"},
    )
    async with asyncio.timeout(5):
        while not (new := [each for each in collector.spans[before:] if each.kind == "server"]):
            await asyncio.sleep(0.01)

    (span,) = new
    assert span.parent == ""
    assert int(span.trace, 16)


async def test_a_collector_that_does_not_answer_holds_up_no_request(clients: Clients, collector: Collector) -> None:
    collector.answering.clear()
    try:
        before = await samples(clients)
        for _ in range(30):
            await read(clients, "graphql", new_trace())
        after = await samples(clients)
    finally:
        collector.answering.set()

    labels = frozenset({"door": "graphql", "operation": "sessionContext"}.items())
    spent = "session_gateway_request_duration_seconds_sum"
    assert after[spent, labels] - before.get((spent, labels), 0) < 2


# a process


async def test_what_is_not_sent_yet_goes_out_at_the_end() -> None:
    async with collecting() as collector:
        variables = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_BSP_SCHEDULE_DELAY": "60000",
            "OTEL_SERVICE_NAME": "mine",
        }
        async with running("dev", **ANYWHERE, **variables, SESSION_GATEWAY_TELEMETRY__TRACES="true") as process:
            graphql = await process.says(r"GraphQL +(http://\S+/graphql) ")
            async with httpx.AsyncClient() as client:
                await client.post(graphql, json={"query": "{ __typename }"}, headers=KEY)
            assert collector.spans == []
            process.process.terminate()
            assert await process.end(within=20) == 0

    assert [(each.name, each.service) for each in collector.spans] == [("query __typename", "mine")]


async def test_disabled_by_opentelemetrys_own_variable_there_is_no_trace_to_look_for() -> None:
    variables = {"OTEL_SDK_DISABLED": "true", "SESSION_GATEWAY_TELEMETRY__TRACES": "true"}
    async with running("dev", **ANYWHERE, **variables, SESSION_GATEWAY_LOG__FORMAT="json") as process:
        graphql = await process.says(r"GraphQL +(http://\S+/graphql) ")
        async with httpx.AsyncClient() as client:
            await client.post(graphql, json={"query": "{ __typename }"}, headers=KEY)
        line = json.loads(await process.says(r'(.*"gateway.requests".*)'))

    assert line["code"] == "OK"
    assert "trace_id" not in line


async def test_a_collector_that_hangs_does_not_hold_up_the_end() -> None:
    async with collecting() as collector:
        collector.answering.clear()
        variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
        async with running("dev", **ANYWHERE, **variables, SESSION_GATEWAY_TELEMETRY__TRACES="true") as process:
            graphql = await process.says(r"GraphQL +(http://\S+/graphql) ")
            async with httpx.AsyncClient() as client:
                await client.post(graphql, json={"query": "{ __typename }"}, headers=KEY)
            process.process.terminate()
            assert await process.end(within=20) == 0
        collector.answering.set()

    assert "spans_not_sent" in process.said


async def test_a_collector_that_is_not_there_is_told_of_in_the_log_alone() -> None:
    listener = bind("127.0.0.1", 0)
    port = listener.getsockname()[1]
    listener.close()
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}", "OTEL_BSP_SCHEDULE_DELAY": "20"}
    async with running("dev", **ANYWHERE, **variables, SESSION_GATEWAY_TELEMETRY__TRACES="true") as process:
        graphql = await process.says(r"GraphQL +(http://\S+/graphql) ")
        async with httpx.AsyncClient() as client:
            answer = await client.post(graphql, json={"query": "{ __typename }"}, headers=KEY)
        await process.says('"logger": ?"(opentelemetry.exporter[^"]*)"')
        process.process.terminate()
        assert await process.end(within=20) == 0

    assert answer.json() == {"data": {"__typename": "Query"}}


SERVE = {
    "SESSION_GATEWAY_TENANTS__ACME__CLIENT_ID": "x",
    "SESSION_GATEWAY_TENANTS__ACME__CLIENT_SECRET": "x",
    "SESSION_GATEWAY_TELEMETRY__TRACES": "true",
    **ANYWHERE,
}


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin", "OTEL_TRACES_EXPORTER: must be otlp, console or none"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "canary:4318", "OTEL_EXPORTER_OTLP_ENDPOINT: must be a URL"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: must be a URL"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "OTEL_EXPORTER_OTLP_PROTOCOL: must be http/protobuf"),
        (
            "OTEL_EXPORTER_OTLP_HEADERS",
            "authorization: Bearer canary",
            "OTEL_EXPORTER_OTLP_HEADERS: must be name=value",
        ),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "canary", "OTEL_EXPORTER_OTLP_TRACES_HEADERS: must be name=value"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "256", "OpenTelemetry's variables: max_export_batch_size must be less than"),
        ("OTEL_SPAN_EVENT_COUNT_LIMIT", "few", "OpenTelemetry's variables: OTEL_SPAN_EVENT_COUNT_LIMIT must be"),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "few", "OpenTelemetry's variables: OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT must"),
    ],
)
async def test_what_the_variables_ask_for_and_is_not_here_is_refused(variable: str, value: str, message: str) -> None:
    status, process = await run("serve", **SERVE, **{variable: value})

    assert status == 2
    assert f"session-gateway: {message}" in process.said
    assert "canary" not in process.said
    assert "Traceback" not in process.said


@given(st.one_of(st.text(), st.from_regex(r"\A[a-z%: ]+[=:][ -~%0AD]*\Z")))
@example("authorization=Bearer%0Acanary")
@example("authorization=canary;x")
@example('authorization="canary"')
@example("x y=canary")
@example("a=%C4%80")
def test_headers_are_refused_that_the_exporter_would_tell_of(value: str) -> None:
    """In its log, as it cannot read them, or cannot send them."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setattr(os, "environ", {"OTEL_EXPORTER_OTLP_HEADERS": value})
        with suppress(BadTracing):
            export._check_headers()
            with told_by("opentelemetry.util.re") as told:
                requests.Request("POST", "http://collector", headers=parse_env_headers(value, liberal=True)).prepare()
            assert [each.args for each in told if any(map(str.strip, map(str, each.args or ())))] == []  # but spaces


@contextmanager
def told_by(logger: str) -> Iterator[list[logging.LogRecord]]:
    """What it logs meanwhile."""
    handler = logging.handlers.BufferingHandler(1000)
    logging.getLogger(logger).addHandler(handler)
    try:
        yield handler.buffer
    finally:
        logging.getLogger(logger).removeHandler(handler)


def test_headers_are_taken_as_they_are_or_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("", "a=b", "authorization=Bearer x==", "a=b%20c , d = e,", "x-key=a:b/c?d@e"):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", value)
        export._check_headers()


async def program(source: str, **variables: str) -> tuple[int | None, str]:
    """Run a program that may import the gateway and what tests have."""
    tests = Path(__file__).parents[1]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        source,
        env={**os.environ, **ONE_WORKER, "PYTHONPATH": f"{tests}:{tests.parent}", **variables},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(30):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, said.decode()


@pytest.mark.parametrize("command", ["serve", "check"])
async def test_without_the_extra_it_says_what_to_install(command: str) -> None:
    status, said = await program(
        f"import sys; sys.modules['opentelemetry'] = None\nfrom gateway.cli import main\nmain(['{command}'])", **SERVE
    )

    assert status == 2
    assert "session-gateway: telemetry.traces: OpenTelemetry is not installed: install session-gateway[otel]" in said


async def test_while_it_is_off_nothing_of_tracing_is_imported() -> None:
    """redis-py imports what OpenTelemetry has for metrics, if it is there, whoever wants it."""
    status, said = await program("""
import asyncio, sys
from stage import opened
from waiting import eventually

async def main() -> None:
    async with opened():
        pass

asyncio.run(main())
ours = ("opentelemetry.sdk.trace", "opentelemetry.exporter", "opentelemetry.proto", "gateway.tracing.")
print([each for each in sys.modules if each.startswith(ours)])
""")

    assert (status, said.splitlines()[-1]) == (0, "[]")
