"""How answers are read, wherever they are cut and whatever comes: connections are handed bytes as by the event loop."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import NamedTuple

import httpx
from hypothesis import example, given
from hypothesis import strategies as st
from wire import Wire, read, turns

from gateway.upstream.connections import HTTP_1, Origin
from gateway.upstream.http1 import Http1Connection

CUTS = st.lists(st.integers(min_value=0, max_value=500), max_size=8)


class Answer(NamedTuple):
    sent: bytes
    status: int
    body: bytes


def wired() -> tuple[Origin, Http1Connection, Wire]:
    origin = Origin("upstream.test", 80, None, {HTTP_1: Http1Connection})
    connection = Http1Connection(origin)
    wire = Wire(connection)
    connection.connection_made(wire)
    return origin, connection, wire


@st.composite
def answers(draw: st.DrawFn) -> Answer:
    status = draw(st.sampled_from([200, 201, 404, 409, 500]))
    parts = draw(st.lists(st.binary(min_size=1, max_size=20), max_size=4))
    announced = draw(st.sampled_from([b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 E\r\nlink: </x>\r\n\r\n"]))
    head = b"HTTP/1.1 %d Reason\r\nx-y: z\r\n" % status
    if draw(st.booleans()):
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
        trailer = draw(st.sampled_from([b"", b"t: u\r\n"]))
        sent = head + b"transfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n" + trailer + b"\r\n"
        return Answer(announced + sent, status, b"".join(parts))
    body = b"".join(parts)
    return Answer(announced + head + b"content-length: %d\r\n\r\n" % len(body) + body, status, body)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[begin:end] for begin, end in pairwise(places)]


def deliver(connection: Http1Connection, data: bytes, cuts: list[int]) -> None:
    for each in pieces(data, cuts):
        connection.data_received(each)


@given(st.lists(answers(), min_size=1, max_size=3), CUTS, st.booleans())
def test_answers_are_the_same_wherever_they_are_cut(
    expected: list[Answer], cuts: list[int], as_they_come: bool
) -> None:
    """They are read as they come, or once all has come."""

    async def check() -> None:
        origin, connection, wire = wired()
        for each in expected:
            assert connection is (origin.available() or connection)
            incoming = connection.ask(b"")
            reader = asyncio.ensure_future(read(incoming)) if as_they_come else None
            for piece in pieces(each.sent, cuts):
                connection.data_received(piece)
                await turns()
            assert await (reader or read(incoming)) == (each.status, each.body)
            assert next(name for name, _ in incoming.fields) == b"x-y"
            assert not {b"link", b"t"} & {name for name, _ in incoming.fields}
        assert not wire.closed
        assert origin.available() is connection
        await origin.aclose()

    asyncio.run(check())


@given(answers(), CUTS, st.integers(min_value=1, max_value=500))
def test_part_of_an_answer_is_none(whole: Answer, cuts: list[int], missing: int) -> None:
    async def check() -> None:
        _, connection, _ = wired()
        incoming = connection.ask(b"")
        deliver(connection, whole.sent[: -min(missing, len(whole.sent))], cuts)
        connection.connection_lost(None)
        try:
            await read(incoming)
        except httpx.ReadError:
            return
        raise AssertionError("was taken for a whole one")

    asyncio.run(check())


@given(answers(), st.binary(min_size=1, max_size=60), CUTS)
@example(Answer(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", 200, b"ok"), b"HTTP/1.1 200 OK\r\nx: ", [])
def test_whatever_follows_an_answer_ends_the_connection(whole: Answer, more: bytes, cuts: list[int]) -> None:
    async def check() -> None:
        origin, connection, wire = wired()
        incoming = connection.ask(b"")
        deliver(connection, whole.sent + more, cuts)
        assert await read(incoming) == (whole.status, whole.body)
        # Empty lines may follow an answer, and are none of the next (llhttp; RFC 9112, section 2.2, of requests).
        if more.strip(b"\r\n"):
            assert wire.closed
            assert origin.available() is None

    asyncio.run(check())


@given(st.lists(st.binary(max_size=60), max_size=5))
@example([b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999999\r\n\r\n"])
@example([b"HTTP/1.1 000 OK\r\ncontent-length: 0\r\n\r\n"])
def test_nothing_that_comes_is_a_defect(pieces: list[bytes]) -> None:
    async def check() -> None:
        _, connection, wire = wired()
        incoming = connection.ask(b"")
        for piece in pieces:
            if not wire.closed:
                connection.data_received(piece)
        connection.connection_lost(None)
        try:
            await read(incoming)
        except httpx.TransportError:
            return
        assert incoming.ended

    asyncio.run(check())


async def test_connections_that_are_made_together_do_not_get_old_together() -> None:
    loop = asyncio.get_running_loop()
    before = loop.time()
    old_at = [wired()[1].old_at for _ in range(50)]
    assert before + 54 <= min(old_at) < max(old_at) - 1
    assert max(old_at) <= loop.time() + 66


async def test_one_timer_serves_however_often_connections_are_used() -> None:
    origin, connection, _ = wired()
    origin.keep(connection)
    timer = origin._timer
    assert timer is not None
    assert origin.available() is connection
    origin.keep(connection)
    assert origin._timer is timer
    await origin.aclose()
