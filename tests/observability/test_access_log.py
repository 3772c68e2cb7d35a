"""One line for every request, by a gateway in a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import pytest
from observability.metrics import parsed
from processes import SCRIPT, Process, running

from gateway.gen.emporix.sessioncontext.v1 import session_context_pb2 as pb
from gateway.gen.emporix.sessioncontext.v1 import session_context_pb2_grpc as pb_grpc
from gateway.sandbox import seed
from waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ANYWHERE = {f"SESSION_GATEWAY_{each}__PORT": "0" for each in ("GRAPHQL", "GRPC", "ADMIN", "SANDBOX")}
KEY = {"x-api-key": "dev-key"}
QUERY = f'query Mine {{ sessionContext(tenant: "acme", sessionId: "{seed.CUSTOMER_SESSION}") {{ currency }} }}'


class Gateway:
    """Where it listens, as it said."""

    def __init__(self, process: Process, graphql: str, grpc: str, admin: str) -> None:
        self.process, self.graphql, self.grpc, self.admin = process, graphql, grpc, admin

    async def asked(self, *, by: str, request_id: str, good: bool = True) -> None:
        """One read by a door."""
        headers = {**(KEY if good else {}), "x-request-id": request_id}
        if by == "graphql":
            async with httpx.AsyncClient() as client:
                await client.post(self.graphql, json={"query": QUERY}, headers=headers)
            return
        async with grpc.aio.insecure_channel(self.grpc) as channel:
            stub = pb_grpc.SessionContextServiceStub(channel)
            request = pb.GetSessionContextRequest(tenant="acme", session_id=seed.CUSTOMER_SESSION)
            try:
                await stub.GetSessionContext(request, metadata=tuple(headers.items()))
            except grpc.aio.AioRpcError:
                assert not good

    def lines(self) -> list[dict[str, Any]]:
        """The log, if it is JSON."""
        return [json.loads(each) for each in self.process.err]

    async def line_of(self, request_id: str, event: str = "request") -> dict[str, Any]:
        """The line of a request, when it has been written."""

        def found() -> list[dict[str, Any]]:
            return [each for each in self.lines() if (each.get("request_id"), each["event"]) == (request_id, event)]

        await eventually(lambda: bool(found()), within=5)
        (line,) = found()
        return line


@asynccontextmanager
async def gateway(**variables: str) -> AsyncIterator[Gateway]:
    async with running("dev", **ANYWHERE, **variables) as process:
        graphql = await process.says(r"GraphQL +(http://\S+/graphql) ")
        address = await process.says(r"gRPC +(127\.0\.0\.1:\d+)")
        admin = await process.says(r"admin +(http://\S+) ")
        yield Gateway(process, graphql, address, admin)


@pytest.mark.parametrize(("by", "operation"), [("graphql", "sessionContext"), ("grpc", "GetSessionContext")])
async def test_a_line_says_all_there_is_to_say_of_a_request(by: str, operation: str) -> None:
    began = datetime.now(UTC)
    async with gateway() as gate:
        await gate.asked(by=by, request_id="the-first")
        await gate.asked(by=by, request_id="the-second")
        await gate.asked(by=by, request_id="the-refused", good=False)
        first, second, refused = [await gate.line_of(f"the-{each}") for each in ("first", "second", "refused")]
        audit = await gate.line_of("the-refused", "authentication_failed")

    assert began <= datetime.fromisoformat(first.pop("timestamp")) <= datetime.now(UTC)
    assert first.pop("duration_ms") > second.pop("duration_ms") > 0
    assert first == {
        "event": "request",
        "level": "info",
        "logger": "gateway.requests",
        "door": by,
        "operation": operation,
        "code": "OK",
        "request_id": "the-first",
        "tenant": "acme",
        "caller": "dev",
        "cache": "miss",
        "status": {"graphql": 200, "grpc": 0}[by],
    }
    assert second["cache"] == "hit"
    assert (refused["code"], refused.get("caller"), refused["tenant"]) == ("CALLER_UNAUTHENTICATED", None, "acme")
    assert audit["logger"] == "gateway.audit"


async def test_a_line_tells_the_tenant_of_a_shopper_without_a_token_too() -> None:
    async with gateway() as gate, httpx.AsyncClient() as client:
        query = {"query": '{ mySessionContext(tenant: "acme") { currency } }'}
        await client.post(gate.graphql, json=query, headers={"x-request-id": "the-refused"})
        line = await gate.line_of("the-refused")

    assert (line["code"], line["tenant"], line.get("caller")) == ("UNAUTHENTICATED", "acme", None)


@pytest.mark.parametrize("other", [seed.ANONYMOUS_SESSION, "missing"])
async def test_of_several_reads_it_tells_a_hit_only_if_all_are(other: str) -> None:
    found = [seed.CUSTOMER_SESSION, seed.ODD_SESSION]
    batches = {"the-first": found, "the-second": found, "the-third": [other, *found]}
    async with gateway(SESSION_GATEWAY_CACHE__TTL="60") as gate, grpc.aio.insecure_channel(gate.grpc) as channel:
        for request_id, ids in batches.items():
            await pb_grpc.SessionContextServiceStub(channel).BatchGetSessionContexts(
                pb.BatchGetSessionContextsRequest(tenant="acme", session_ids=ids),
                metadata=(*KEY.items(), ("x-request-id", request_id)),
            )
        told = [(await gate.line_of(request_id))["cache"] for request_id in batches]

    assert told == ["miss", "hit", "miss"]


async def test_the_last_lines_come_out_when_the_gateway_stops() -> None:
    async with gateway() as gate:
        await gate.asked(by="graphql", request_id="the-last")
        gate.process.process.terminate()
        assert await gate.process.end(within=20) == 0

    assert [each["request_id"] for each in gate.lines()] == ["the-last"]


@pytest.mark.parametrize("variable", ["SESSION_GATEWAY_LOG__ACCESS=false", "SESSION_GATEWAY_LOG__LEVEL=warning"])
async def test_there_is_none_where_it_is_not_wanted(variable: str) -> None:
    name, _, value = variable.partition("=")
    async with gateway(**{name: value}) as gate:
        await gate.asked(by="graphql", request_id="unwanted")
        await gate.asked(by="graphql", request_id="refused", good=False)
        await gate.line_of("refused", "authentication_failed")
        gate.process.process.terminate()
        assert await gate.process.end(within=20) == 0

    assert {each["event"] for each in gate.lines()} == {"authentication_failed"}


async def test_people_can_read_it_on_a_terminal() -> None:
    ours, theirs = pty.openpty()
    environment = {**{name: value for name, value in os.environ.items() if "GATEWAY" not in name}, **ANYWHERE}
    process = await asyncio.create_subprocess_exec(
        SCRIPT, "dev", env=environment, stdout=asyncio.subprocess.PIPE, stderr=theirs
    )
    os.close(theirs)
    try:
        assert process.stdout is not None
        graphql = ""
        while not graphql:
            graphql = "".join(re.findall(r"GraphQL +(http://\S+/graphql) ", (await process.stdout.readline()).decode()))
        async with httpx.AsyncClient() as client:
            await client.post(graphql, json={"query": QUERY}, headers={**KEY, "x-request-id": "on-a-terminal"})
        async with asyncio.timeout(5):
            shown = await asyncio.to_thread(os.read, ours, 65536)
    finally:
        process.terminate()
        await process.wait()
        os.close(ours)

    text = re.sub(r"\x1b\[[0-9;]*m", "", shown.decode())
    assert text != shown.decode()  # it is in colour
    (line,) = text.splitlines()
    assert re.search(r"\[info +\] request +\[gateway.requests\]", line)
    for each in ("operation=sessionContext", "code=OK", "cache=miss", "request_id=on-a-terminal", "duration_ms="):
        assert each in line


FORGED = "\x1b[31mRED\x1b]0;P\x07"


@pytest.mark.parametrize("tenant", [FORGED, "a\u202eb\u2028c\u2029\x9b", "two\nlines"])
@pytest.mark.parametrize("format_", ["console", "json"])
async def test_no_tenant_can_forge_a_line_or_steer_a_terminal(tenant: str, format_: str) -> None:
    query = 'query ($t: String!) { sessionContext(tenant: $t, sessionId: "s") { currency } }'
    async with gateway(SESSION_GATEWAY_LOG__FORMAT=format_) as gate:
        async with httpx.AsyncClient() as client:
            await client.post(gate.graphql, json={"query": query, "variables": {"t": tenant}})
        await eventually(lambda: any("CALLER_UNAUTHENTICATED" in each for each in gate.process.err[1:]), within=5)
        gate.process.process.terminate()
        assert await gate.process.end(within=20) == 0

    assert len(gate.process.err) == 2, "the audit line, and that of the request"
    for line in gate.process.err:
        assert line.rstrip("\n").isprintable()
        assert tenant.encode("unicode_escape").decode()[:4] in line.replace("\\\\", "\\")


async def test_a_log_that_nobody_reads_stops_nothing() -> None:
    reader, writer = os.pipe()
    environment = {**{name: value for name, value in os.environ.items() if "GATEWAY" not in name}, **ANYWHERE}
    process = await asyncio.create_subprocess_exec(
        SCRIPT, "dev", env=environment, stdout=asyncio.subprocess.PIPE, stderr=writer
    )
    os.close(writer)
    try:
        assert process.stdout is not None
        said = ""
        while "Ctrl-C" not in said:
            said += (await process.stdout.readline()).decode()
        graphql, admin = re.findall(r"(?:GraphQL|admin) +(http://\S+)", said)[:2]
        async with httpx.AsyncClient(timeout=10) as client:

            async def dropped() -> float:
                found = parsed((await client.get(f"{admin}/metrics")).text)
                return found["session_gateway_log_lines_dropped_total", frozenset()]

            while not await dropped():  # the pipe takes 64 KiB, the gateway keeps 1 MiB
                assert await _refused(graphql, 1000, "x" * 120) == 1000
            await client.post(graphql, json={"query": QUERY}, headers=KEY)
            reading = asyncio.create_task(asyncio.to_thread(_all_of, reader))
            process.terminate()
            assert await process.wait() == 0
            lines = [json.loads(each) for each in (await reading).splitlines()]
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        os.close(reader)

    assert len(lines) > 3000
    assert next(each["lines"] for each in lines if each["event"] == "lines_dropped") > 0
    assert {each["event"] for each in lines} == {"request", "lines_dropped"}


@pytest.mark.parametrize("level", ["info", "warning"])
async def test_lines_that_could_not_be_written_are_counted_whatever_the_level(level: str) -> None:
    program = ("sh", "-c", 'exec "$0" "$@" 2>/dev/full', str(SCRIPT))
    async with running("dev", program=program, **ANYWHERE, SESSION_GATEWAY_LOG__LEVEL=level) as process:
        graphql, admin = [await process.says(rf"{each} +(http://\S+) ") for each in ("GraphQL", "admin")]
        async with httpx.AsyncClient() as client:
            await client.post(graphql, json={"query": QUERY})  # without a key: the audit log has it as a warning
            metrics = parsed((await client.get(f"{admin}/metrics")).text)

    assert metrics["session_gateway_log_lines_dropped_total", frozenset()] > 0


async def _refused(url: str, number: int, request_id: str) -> int:
    """Send so many requests at a time that are refused; returns how many were answered."""
    host, _, port = url.removeprefix("http://").partition("/")[0].partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    request = f"PUT /graphql HTTP/1.1\r\nhost: {host}\r\nx-request-id: {request_id}\r\ncontent-length: 0\r\n"
    writer.write(f"{request}\r\n".encode() * (number - 1) + f"{request}connection: close\r\n\r\n".encode())
    async with asyncio.timeout(30):
        answers = await reader.read(-1)
    writer.close()
    return answers.count(b"HTTP/1.1 405 ")


def _all_of(reader: int) -> str:
    parts = []
    while part := os.read(reader, 65536):
        parts.append(part)
    return b"".join(parts).decode()
