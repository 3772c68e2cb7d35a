"""Requests answered past ASGI: over the same connections, by the same rules, and in the same order as all others."""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from gateway.direct import DirectProtocol, Headers, Response
from gateway.listener import listening
from waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.types import Receive, Scope, Send

    from gateway.protocol import Client

BODY = b'{"query": "{ x }"}'
EAGER = sys.version_info >= (3, 12)
"""Whether what need not wait is answered before the next request is looked at."""


LARGE = 20_000_000
"""Bytes that no buffer of the kernel's has room for."""


class Answers:
    """Answers directly what comes to /direct; holds back until `gate` is open whatever has `wait` in it."""

    path = "/direct"

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.bodies: list[bytes] = []
        self.waiting = 0
        self.heads = 0
        """How many of the heads were parsed."""
        self.headers: Headers = []
        """The last of them."""
        self.client: Any = None
        """The last."""
        self.gone = 0
        """Clients that have gone away."""

    def head(self, headers: Headers) -> Headers:
        self.heads += 1
        self.headers = headers
        return headers

    async def answer(self, head: Headers, body: bytes, client: Client) -> Response | None:
        self.bodies.append(body)
        self.client = client
        if b"gone" in body:
            self.waiting += 1
            if b"wait" in body:
                await self.gate.wait()
            gone = asyncio.Event()
            client.when_gone(gone.set)
            await gone.wait()
            self.gone += 1
            return None
        if b"wait" in body:
            self.waiting += 1
            await self.gate.wait()
        answer = body * LARGE if body == b"L" else body
        return Response(200, [(b"content-length", b"%d" % len(answer))], answer)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """All that is not answered directly."""
        self.headers = scope["headers"]
        body, more = b"", scope["path"] != "/early"
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        if b"wait" in body:
            self.waiting += 1
            await self.gate.wait()
        answer = f"asgi {scope['method']} {scope['path']} ".encode() + body
        headers = [(b"content-length", b"%d" % len(answer))]
        if scope["path"] == "/early" and scope["query_string"] != b"kept":
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


@asynccontextmanager
async def connected(grace: float = 1) -> AsyncIterator[tuple[Answers, asyncio.StreamReader, asyncio.StreamWriter]]:
    answers = Answers()
    protocol = partial(DirectProtocol, direct=answers)
    async with listening(answers, host="127.0.0.1", port=0, grace=grace, protocol=protocol) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        yield answers, reader, writer
    writer.close()


def post(body: bytes, *, path: str = "/direct", version: str = "1.1", headers: str = "") -> bytes:
    head = f"POST {path} HTTP/{version}\r\nhost: x\r\ncontent-length: {len(body)}\r\n{headers}\r\n"
    return head.encode() + body


async def answer_of(reader: asyncio.StreamReader) -> tuple[str, dict[str, str], bytes]:
    async with asyncio.timeout(5):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        return head[0], headers, await reader.readexactly(int(headers["content-length"]))


async def test_a_whole_post_is_answered_directly_and_the_connection_kept() -> None:
    async with connected() as (answers, reader, writer):
        for n in range(3):
            writer.write(post(b"%d" % n))
            status, headers, body = await answer_of(reader)
            assert (status, body) == ("HTTP/1.1 200 OK", b"%d" % n)
            assert "date" in headers
            assert "connection" not in headers
        assert answers.bodies == [b"0", b"1", b"2"]


async def open_when_closed(gate: asyncio.Event, writer: asyncio.StreamWriter) -> None:
    """Open the gate when the listener takes no more connections."""
    host, port = writer.get_extra_info("peername")
    async with asyncio.timeout(5):
        while True:
            try:
                _, another = await asyncio.open_connection(host, port)
            except ConnectionRefusedError:
                break
            another.close()
            await asyncio.sleep(0.01)
    gate.set()


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (post(BODY, path="/other"), b"asgi POST /other " + BODY),
        (post(BODY, path="/direct?x=1"), b"asgi POST /direct " + BODY),
        (post(BODY, headers="expect: 100-continue\r\n"), b"asgi POST /direct " + BODY),
        (b"GET /direct HTTP/1.1\r\nhost: x\r\n\r\n", b"asgi GET /direct "),
    ],
    ids=["another path", "a query", "a wish to be told to go on", "another method"],
)
async def test_all_else_goes_by_asgi(request_: bytes, answer: bytes) -> None:
    async with connected() as (answers, reader, writer):
        writer.write(request_)
        if b"expect" in request_:
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert (await answer_of(reader))[2] == answer
        writer.write(post(b"again"))
        assert (await answer_of(reader))[2] == b"again"
        assert answers.bodies == [b"again"]


async def test_a_body_that_comes_in_parts_goes_by_asgi_whole() -> None:
    async with connected() as (answers, reader, writer):
        whole = post(b"x" * 300_000)
        writer.write(whole[:100])
        await writer.drain()
        await asyncio.sleep(0.05)  # so that it arrives by itself
        writer.write(whole[100:])
        assert (await answer_of(reader))[2] == b"asgi POST /direct " + b"x" * 300_000
        assert answers.bodies == []


async def test_a_chunked_body_is_a_body() -> None:
    async with connected() as (answers, reader, writer):
        writer.write(
            b"POST /direct HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"
        )
        assert (await answer_of(reader))[2] == b"abc"
        assert answers.bodies == [b"abc"]


async def test_a_head_that_has_been_read_before_is_not_parsed_again() -> None:
    async with connected() as (answers, reader, writer):
        for body in (b"1", b"2", b"", b"33", b"3", b"44", b""):
            writer.write(post(body))
            assert (await answer_of(reader))[2] == body
        assert answers.bodies == [b"1", b"2", b"", b"33", b"3", b"44", b""]
        assert answers.heads == 3  # one for each length


UPGRADES = ["h2c", "websocket", "whatever"]


@pytest.mark.parametrize("path", ["/direct", "/other"])
@pytest.mark.parametrize("protocol", UPGRADES)
@pytest.mark.parametrize("name", ["upgrade", "Upgrade", "UPGRADE"])
async def test_who_would_like_another_protocol_is_answered_in_this_one(path: str, protocol: str, name: str) -> None:
    """Java's client asks for h2c with every first request, a POST and its body included."""
    async with connected() as (_, reader, writer):
        request = post(BODY, path=path, headers=f"connection: Upgrade, HTTP2-Settings\r\n{name}: {protocol}\r\n")
        for _ in range(2):
            writer.write(request)
            status, _, body = await answer_of(reader)
            assert (status, body.endswith(BODY)) == ("HTTP/1.1 200 OK", True)


@pytest.mark.parametrize("path", ["/direct", "/other"])
@pytest.mark.parametrize("protocol", UPGRADES)
@pytest.mark.parametrize("framing", ["content-length: {}", "transfer-encoding: chunked"])
@pytest.mark.parametrize("cut", [20, 60, None], ids=["in the request line", "in the headers", "after the head"])
async def test_a_body_of_who_would_like_another_protocol_is_never_the_next_request(
    path: str, protocol: str, framing: str, cut: int | None
) -> None:
    smuggled = b"POST /direct HTTP/1.1\r\nhost: x\r\ncontent-length: 8\r\n\r\nsmuggled"
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(smuggled), smuggled) if "chunked" in framing else smuggled
    head = (
        f"POST {path} HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: {protocol}\r\n"
        f"{framing.format(len(body))}\r\n\r\n"
    ).encode()
    async with connected() as (answers, reader, writer):
        for part in (head[:cut], head[len(head) if cut is None else cut :], body):
            writer.write(part)
            await asyncio.sleep(0.02)  # so that each arrives by itself
        status, headers, _ = await answer_of(reader)
        if status != "HTTP/1.1 200 OK":
            assert (status, headers["connection"]) == ("HTTP/1.1 400 Bad Request", "close")
            assert await reader.read() == b""
        else:
            writer.write(post(b"mine"))
            assert (await answer_of(reader))[2] == b"mine"
        assert b"smuggled" not in answers.bodies


@pytest.mark.parametrize("path", ["/direct", "/other"])
@pytest.mark.parametrize(
    "hosts", ["", "host: x\r\nhost: x\r\n", "Host: x\r\nhost: y\r\n"], ids=["none", "two", "others"]
)
async def test_a_request_names_one_host(path: str, hosts: str) -> None:
    async with connected() as (answers, reader, writer):
        writer.write(post(b"2", path=path).replace(b"host: x\r\n", hosts.encode()) + post(b"3"))
        status, headers, _ = await answer_of(reader)
        assert (status, headers["connection"]) == ("HTTP/1.1 400 Bad Request", "close")
        assert await reader.read() == b""
        assert (answers.bodies, answers.headers) == ([], [])


@pytest.mark.parametrize("path", ["/direct", "/other"])
@pytest.mark.parametrize(
    "codings",
    ["transfer-encoding: gzip, chunked\r\n", "Transfer-Encoding: gzip\r\ntransfer-encoding: chunked\r\n"],
    ids=["in a field", "in two"],
)
async def test_a_coding_that_is_not_understood_is_refused(path: str, codings: str) -> None:
    async with connected() as (answers, reader, writer):
        writer.write(f"POST {path} HTTP/1.1\r\nhost: x\r\n{codings}\r\n2\r\n{{}}\r\n0\r\n\r\n".encode() + post(b"3"))
        status, headers, _ = await answer_of(reader)
        assert (status, headers["connection"]) == ("HTTP/1.1 501 Not Implemented", "close")
        assert await reader.read() == b""
        assert (answers.bodies, answers.headers) == ([], [])


async def test_chunked_is_understood_however_it_is_written() -> None:
    async with connected() as (_, reader, writer):
        for value in ("Chunked", " chunked "):
            head = f"POST /direct HTTP/1.1\r\nhost: x\r\ntransfer-encoding:{value}\r\n\r\n"
            writer.write(head.encode() + b"2\r\n{}\r\n0\r\n\r\n")
            assert (await answer_of(reader))[2] == b"{}"


async def test_before_http_1_1_there_was_no_host() -> None:
    async with connected() as (_, reader, writer):
        writer.write(post(b"1", version="1.0").replace(b"host: x\r\n", b""))
        assert (await answer_of(reader))[2] == b"1"


async def test_no_tunnel_is_made() -> None:
    async with connected() as (answers, reader, writer):
        writer.write(b"CONNECT /direct HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n" + post(b"through"))
        status, headers, _ = await answer_of(reader)
        assert (status, headers["connection"]) == ("HTTP/1.1 400 Bad Request", "close")
        assert await reader.read() == b""
        assert answers.bodies == []


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (post(b"2", headers="x-other: 1\r\n"), [b"2"]),
        (post(b"2") + post(b"3"), [b"2", b"3" if EAGER else b"asgi POST /direct 3"]),
        (post(b"2", path="/other"), [b"asgi POST /other 2"]),
        (post(b"2").replace(b"POST", b"PUT"), [b"asgi PUT /direct 2"]),
        (b"\r\n" + post(b"2"), [b"2"]),
        (post(b"2", headers="expect: 100-continue\r\n")[:-1], []),
        (post(b"2").replace(b"host", b"Host"), [b"2"]),
    ],
    ids=["another header", "two at once", "another path", "another method", "a line before", "expect", "another case"],
)
async def test_a_head_that_differs_is_parsed(request_: bytes, expected: list[bytes]) -> None:
    async with connected() as (answers, reader, writer):
        writer.write(post(b"1"))
        await answer_of(reader)
        writer.write(request_)
        for body in expected:
            assert (await answer_of(reader))[2] == body
        if expected:
            heads = answers.heads
            writer.write(post(b"4"))
            assert (await answer_of(reader))[2] == b"4"
            assert answers.heads == heads  # the first head is still known


async def test_a_known_head_whose_body_comes_later_is_answered_all_the_same() -> None:
    async with connected() as (answers, reader, writer):
        writer.write(post(b"x" * 100))
        await answer_of(reader)
        whole = post(b"y" * 100)
        writer.write(whole[:-50])
        await writer.drain()
        await asyncio.sleep(0.05)  # so that it arrives by itself
        writer.write(whole[-50:])
        assert (await answer_of(reader))[2] == b"asgi POST /direct " + b"y" * 100
        assert answers.bodies == [b"x" * 100]


async def test_chunked_bodies_are_never_taken_by_their_head() -> None:
    head = b"POST /direct HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    async with connected() as (answers, reader, writer):
        for chunks, body in ((b"0\r\n\r\n", b""), (b"2\r\nab\r\n0\r\n\r\n", b"ab"), (b"2\r\ncd\r\n0\r\n\r\n", b"cd")):
            writer.write(head + chunks)
            assert (await answer_of(reader))[2] == body
        assert answers.heads == 3


@pytest.mark.parametrize("path", ["/direct", "/other"])
async def test_a_trailer_is_no_part_of_the_head(path: str) -> None:
    """RFC 9110, 6.5.1: what a proxy lets through there must not pass for what it looks at in the head."""
    async with connected() as (answers, reader, writer):
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
        writer.write(head.encode() + b"1\r\na\r\n0\r\nx-api-key: b\r\n\r\n")
        await answer_of(reader)

        assert [name for name, _ in answers.headers] == [b"host", b"transfer-encoding"]


async def test_the_end_of_a_head_is_no_request_however_it_looks() -> None:
    """Its begin came together with the request before it."""
    async with connected() as (answers, reader, writer):
        writer.write(post(b"1"))
        await answer_of(reader)  # this head is known from now on
        writer.write(post(b"2") + b"POST /other HTTP/1.1\r\nx-a: ")
        assert (await answer_of(reader))[2] == b"2"
        writer.write(post(b"3"))

        assert (await answer_of(reader))[2] == b"asgi POST /other 3"
        assert answers.bodies == [b"1", b"2"]


async def test_heads_are_forgotten_when_there_are_many_or_they_are_long() -> None:
    async with connected() as (answers, reader, writer):
        for n in range(60):
            writer.write(post(b"x" * n))
            await answer_of(reader)
        assert answers.heads == 60
        writer.write(post(b"x"))
        await answer_of(reader)
        assert answers.heads == 61  # it was pushed out
        for _ in range(2):
            writer.write(post(b"x", headers=f"x-long: {'y' * 17_000}\r\n"))
            await answer_of(reader)
        assert answers.heads == 63


async def test_heads_of_many_fields_are_forgotten_sooner() -> None:
    """Each field takes some hundred bytes, however short it is, and whoever is connected may fill the memory so."""
    many = [post(b"x", headers="".join(f"{letter}{n}:\r\n" for n in range(110))) for letter in "ab"]
    async with connected() as (answers, reader, writer):
        for each in (many[0], many[0], many[1], many[0]):
            writer.write(each)
            await answer_of(reader)
        assert answers.heads == 3


async def test_a_connection_at_rest_is_closed_in_time_however_it_was_used() -> None:
    """The timer is set once, and looks whether the connection has been used since."""
    answers = Answers()
    made: list[DirectProtocol[Headers]] = []

    def protocol(*arguments: Any, **named: Any) -> DirectProtocol[Headers]:
        made.append(DirectProtocol(*arguments, direct=answers, **named))
        made[-1].timeout_keep_alive = 1.0  # type: ignore[assignment]  # uvicorn says int; any number will do
        return made[-1]

    async with listening(answers, host="127.0.0.1", port=0, grace=1, protocol=protocol) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        for n in range(4):  # for longer than the time, in all
            writer.write(post(b"%d" % n))
            assert (await answer_of(reader))[2] == b"%d" % n
            await asyncio.sleep(0.35)
        writer.write(post(b"wait"))
        await eventually(lambda: answers.waiting == 1)
        await asyncio.sleep(1.1)  # what is being answered is not at rest
        answers.gate.set()
        assert (await answer_of(reader))[2] == b"wait"
        assert answers.heads == 2
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        writer.close()


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with connected() as (answers, reader, writer):
        writer.write(post(b"wait 1") + post(b"2") + post(b"3", path="/other") + post(b"4"))
        await eventually(lambda: answers.waiting == 1)
        assert answers.bodies == [b"wait 1"]
        answers.gate.set()
        bodies = [(await answer_of(reader))[2] for _ in range(4)]
        assert bodies == [b"wait 1", b"asgi POST /direct 2", b"asgi POST /other 3", b"asgi POST /direct 4"]
        writer.write(post(b"5"))
        assert (await answer_of(reader))[2] == b"5"


@pytest.mark.parametrize(
    "request_",
    [
        post(b"x", headers="connection: close\r\n"),
        post(b"x", version="1.0"),
        post(b"x", version="1.0", headers="connection: keep-alive\r\n"),
    ],
    ids=["close", "HTTP/1.0", "HTTP/1.0 that would keep it"],
)
async def test_a_connection_that_is_not_to_be_kept_is_closed(request_: bytes) -> None:
    async with connected() as (_, reader, writer):
        writer.write(request_)
        _, headers, body = await answer_of(reader)
        assert (headers["connection"], body) == ("close", b"x")
        assert await reader.read() == b""


async def test_whoever_goes_away_is_noticed() -> None:
    async with connected() as (answers, _, writer):
        writer.write(post(b"gone"))
        await eventually(lambda: answers.waiting == 1)
        writer.close()
        await eventually(lambda: answers.gone == 1)


async def test_whoever_has_gone_away_before_somebody_asks_is_noticed_too() -> None:
    async with connected() as (answers, _, writer):
        writer.write(post(b"wait and be gone"))
        await eventually(lambda: answers.waiting == 1)
        writer.close()
        await eventually(lambda: answers.client not in answers.client.connections)
        answers.gate.set()
        await eventually(lambda: answers.gone == 1)


async def test_who_has_gone_unnoticed_leaves_no_trace_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is read while a further request waits. The head of the answer finds out; the rest must not be tried."""
    async with connected() as (answers, _, writer):
        writer.write(post(b"wait 1", path="/other") + post(b"2"))
        await eventually(lambda: answers.waiting == 1)
        reset = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        writer.transport.abort()
        await asyncio.sleep(0.05)  # so that the reset has arrived
        answers.gate.set()
        await asyncio.sleep(0.05)

    assert caplog.records == []


async def test_what_is_malformed_after_the_head_is_refused_once() -> None:
    async with connected() as (answers, reader, writer):
        writer.write(b"POST /direct HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nnonsense\r\n")
        assert (await answer_of(reader))[0] == "HTTP/1.1 400 Bad Request"
        assert await reader.read() == b""
        assert answers.bodies == []


BEHIND = {
    "nonsense": b"}}",
    "malformed": b"GET / HTTP/1.1\r\nno field\r\n\r\n",
    "without a host": b"GET / HTTP/1.1\r\n\r\n",
    "another protocol": b"\r\n\r\n" + post(b"2", headers="connection: upgrade\r\nupgrade: h2c\r\n"),
    "too many fields": b"GET / HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * 200 + b"\r\n",
    "too large": b"GET / HTTP/1.1\r\nhost: x\r\na: ".ljust(65_537, b"a"),
}


@pytest.mark.parametrize("path", ["/direct", "/other"])
@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("behind", BEHIND.values(), ids=BEHIND)
async def test_what_is_refused_behind_a_request_does_not_cost_it_its_answer(
    path: str, behind: bytes, *, at_once: bool
) -> None:
    """Nor is it answered: clients take answers in their order."""
    async with connected() as (answers, reader, writer):
        writer.write(post(b"wait", path=path) + (behind if at_once else b""))
        await eventually(lambda: answers.waiting == 1)
        writer.write(b"a" if at_once else behind)
        await asyncio.sleep(0.02)  # so that what comes next arrives by itself
        writer.write(post(b"3"))
        await asyncio.sleep(0.02)
        answers.gate.set()
        status, headers, body = await answer_of(reader)
        assert (status, headers["connection"]) == ("HTTP/1.1 200 OK", "close")
        assert body.endswith(b"wait")
        assert await reader.read() == b""
        assert b"3" not in answers.bodies


async def test_the_answer_before_what_is_refused_may_take_longer_than_a_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DirectProtocol, "patience", 1.0)
    async with connected() as (answers, reader, writer):
        writer.write(post(b"wait"))
        await eventually(lambda: answers.waiting == 1)
        for part in (b"GET / HTTP/1.1\r\nhost: x\r\n", b"no field\r\n\r\n"):
            writer.write(part)
            await asyncio.sleep(0.02)  # so that what comes next arrives by itself
        await asyncio.sleep(1.2)
        answers.gate.set()
        assert (await answer_of(reader))[2] == b"wait"


async def test_a_malformed_body_behind_a_request_is_not_answered_in_its_place() -> None:
    async with connected() as (answers, reader, writer):
        writer.write(post(b"wait"))
        await eventually(lambda: answers.waiting == 1)
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nnonsense\r\n")
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        answers.gate.set()


@pytest.mark.parametrize("said", ["connection: close\r\n", ""], ids=["by both", "by the gateway"])
async def test_where_no_connection_is_kept_a_body_that_was_answered_may_come_to_its_end(said: str) -> None:
    async with connected() as (answers, reader, writer):
        request = post(b"x" * 100, path="/early", headers=said)
        writer.write(request[:-100])
        _, headers, body = await answer_of(reader)
        for each in request[-100:-1]:
            writer.write(bytes((each,)))
            await writer.drain()  # fails where the connection has been reset
        writer.write(request[-1:] + post(b"after the last") + post(b"2", path="/other"))
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        assert (headers["connection"], body) == ("close", b"asgi POST /early ")
        assert (dict(answers.headers)[b"content-length"], answers.bodies) == (b"100", [])  # that was the last


@pytest.mark.parametrize(("rest", "patience"), [(b"3", 60.0), (b"", 0.1)], ids=["comes", "does not come"])
async def test_a_connection_is_let_go_when_the_rest_of_a_body_that_is_answered(
    monkeypatch: pytest.MonkeyPatch, rest: bytes, patience: float
) -> None:
    monkeypatch.setattr(DirectProtocol, "patience", patience)
    answers = Answers()
    made: list[DirectProtocol[Headers]] = []

    def protocol(*arguments: Any, **named: Any) -> DirectProtocol[Headers]:
        made.append(DirectProtocol(*arguments, direct=answers, **named))
        return made[-1]

    async with listening(answers, host="127.0.0.1", port=0, grace=1, protocol=protocol) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(post(b"123", path="/early")[:-1])
        await answer_of(reader)
        writer.write(rest)
        await eventually(made[0].transport.is_closing, within=5)
        writer.close()


async def test_a_connection_is_kept_on_which_a_body_has_come_after_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time that it had for that counts no more."""
    monkeypatch.setattr(DirectProtocol, "patience", 1.0)
    async with connected() as (_, reader, writer):
        request = post(b"123", path="/early?kept")
        writer.write(request[:-2])
        await answer_of(reader)
        for part in (request[-2:-1], request[-1:]):
            writer.write(part)
            await asyncio.sleep(0.02)  # so that what comes next arrives by itself
        await asyncio.sleep(1.2)
        writer.write(post(b"4"))
        assert (await answer_of(reader))[2] == b"4"


async def test_where_no_connection_is_kept_an_early_answer_is_the_end() -> None:
    async with connected() as (_, reader, writer):
        writer.write(post(b"", path="/early").replace(b"content-length: 0", b"transfer-encoding: chunked"))
        await answer_of(reader)
        async with asyncio.timeout(5):
            assert await reader.read() == b""  # whether or not the body comes
        writer.write(b"nonsense\r\n")
        await writer.drain()


async def test_a_request_under_way_is_answered_when_the_listener_closes() -> None:
    async with connected() as (answers, reader, writer):
        writer.write(post(b"wait"))
        await eventually(lambda: answers.waiting == 1)
        opening = asyncio.create_task(open_when_closed(answers.gate, writer))
    await opening
    _, headers, body = await answer_of(reader)
    assert (headers["connection"], body) == ("close", b"wait")
    assert await reader.read() == b""


async def test_who_has_just_connected_when_the_listener_closes_may_send_a_request() -> None:
    closed = asyncio.Event()

    async def send(writer: asyncio.StreamWriter) -> None:
        await closed.wait()
        await asyncio.sleep(0.15)  # in which the listener looks at its connections
        writer.write(post(b"1"))

    async with connected(grace=5) as (_, reader, writer):
        sending = asyncio.create_task(send(writer))
        opening = asyncio.create_task(open_when_closed(closed, writer))
    await asyncio.gather(opening, sending)
    assert (await answer_of(reader))[2] == b"1"


async def test_what_takes_longer_than_the_grace_is_cut_off() -> None:
    async with connected(grace=0.1) as (answers, reader, writer):
        writer.write(post(b"wait"))
        await eventually(lambda: answers.waiting == 1)
    assert await reader.read() == b""


async def test_what_comes_while_the_last_answer_is_still_to_be_taken_is_not_done() -> None:
    async def ask_and_take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.3)  # by then the listener ends
        writer.write(post(b"3"))
        await asyncio.sleep(0.1)
        assert (await answer_of(reader))[2] == b"L" * LARGE
        assert await reader.read() == b""
        writer.close()

    async with asyncio.TaskGroup() as tasks, connected(grace=5) as (answers, _, other):
        reader, writer = await asyncio.open_connection(*other.get_extra_info("peername"))
        writer.write(post(b"1"))  # whose head is known from now on
        await answer_of(reader)
        writer.write(post(b"L"))
        await eventually(lambda: b"L" in answers.bodies)
        tasks.create_task(ask_and_take(reader, writer))
    assert answers.bodies == [b"1", b"L"]


@pytest.mark.parametrize("path", ["/direct", "/other"])
async def test_nothing_is_done_for_who_has_still_to_take_an_answer(path: str) -> None:
    """Else the next answer would be in memory too, where nothing counts it."""
    async with connected() as (answers, reader, writer):
        writer.write(post(b"L"))
        await eventually(lambda: answers.client is not None and answers.client.untaken > 0)
        writer.write(post(b"wait", path=path))
        answers.gate.set()
        await asyncio.sleep(0.2)
        begun, untaken = answers.waiting, answers.client.untaken
        assert (await answer_of(reader))[2] == b"L" * LARGE
        assert (await answer_of(reader))[2].endswith(b"wait")
        assert untaken > 0
        assert (begun, answers.waiting) == (0, 1)
