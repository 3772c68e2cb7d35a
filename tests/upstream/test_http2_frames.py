"""HTTP/2 wherever it is cut and whatever comes: a connection is handed bytes as by the event loop."""

from __future__ import annotations

import asyncio
import ssl
from itertools import pairwise

import httpx
import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, StreamEnded
from hyperframe.frame import DataFrame, GoAwayFrame
from hypothesis import example, given
from hypothesis import strategies as st
from wire import Wire, read, turns

from gateway.upstream.connections import HTTP_1, HTTP_2, Origin
from gateway.upstream.http1 import Http1Connection
from gateway.upstream.http2 import Http2Connection
from gateway.upstream.incoming import AHEAD

REQUEST = b"GET /x HTTP/1.1\r\nhost: upstream.test\r\n\r\n"
TLS = ssl.create_default_context()


class Wired:
    def __init__(self) -> None:
        self.origin = Origin("upstream.test", 443, TLS, {HTTP_2: Http2Connection, HTTP_1: Http1Connection})
        self.connection = Http2Connection(self.origin)
        self.wire = Wire(self.connection)
        self.connection.connection_made(self.wire)
        self.server = H2Connection(H2Configuration(client_side=False))
        self.server.initiate_connection()
        self.talk()

    def talk(self) -> None:
        """Each says to the other what there is to say."""
        while data := self.wire.take():
            self.server.receive_data(data)
            if answer := self.server.data_to_send():
                self.connection.data_received(answer)


@given(
    bodies=st.lists(st.lists(st.binary(max_size=40), min_size=1, max_size=3), min_size=1, max_size=4),
    order=st.randoms(use_true_random=False),
    leaves_at=st.none() | st.integers(min_value=0, max_value=12),
    cuts=st.lists(st.integers(min_value=0, max_value=2000), max_size=8),
    as_they_come=st.booleans(),
)
def test_answers_are_the_same_wherever_they_are_cut(
    bodies: list[list[bytes]], order: object, leaves_at: int | None, cuts: list[int], as_they_come: bool
) -> None:
    """On as many streams, in any order, and also if the server says meanwhile that it takes no more.

    They are read as they come, or once all has come.
    """
    assert hasattr(order, "choice")

    async def check() -> None:
        wired = Wired()
        asked = [wired.connection.ask(REQUEST) for _ in bodies]
        wired.talk()
        pieces = {1 + 2 * number: list(parts) for number, parts in enumerate(bodies)}
        for stream in pieces:
            wired.server.send_headers(stream, [(":status", "200"), ("stream", str(stream))])
        frames = [wired.server.data_to_send()]
        while pieces:
            stream = order.choice(sorted(pieces))
            part = pieces[stream].pop(0)
            wired.server.send_data(stream, part, end_stream=not pieces[stream])
            frames.append(wired.server.data_to_send())
            if not pieces[stream]:
                del pieces[stream]
        if leaves_at is not None:
            frames.insert(leaves_at, GoAwayFrame(0, last_stream_id=99).serialize())
        data = b"".join(frames)
        readers = [asyncio.ensure_future(read(incoming)) for incoming in asked] if as_they_come else []
        for begin, end in pairwise(sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})):
            wired.connection.data_received(data[begin:end])
            await turns()
        readers = readers or [asyncio.ensure_future(read(incoming)) for incoming in asked]
        for number, (incoming, reader, parts) in enumerate(zip(asked, readers, bodies, strict=True)):
            assert await reader == (200, b"".join(parts))
            assert incoming.fields == [(b"stream", str(1 + 2 * number).encode())]
        assert wired.wire.closed is (leaves_at is not None)
        assert wired.origin.available() is (None if wired.wire.closed else wired.connection)
        await wired.origin.aclose()

    asyncio.run(check())


@pytest.mark.parametrize("padding", [None, 0, 10], ids=["no padding", "no bytes of padding", "padding"])
@pytest.mark.parametrize("pieces", [[b"", b"ok"], [b"o", b"", b"k"], [b"ok", b""]], ids=["first", "between", "last"])
async def test_a_frame_with_nothing_in_it_is_not_the_end_of_an_answer(pieces: list[bytes], padding: int | None) -> None:
    """A frame of data may hold none, or nothing but padding (RFC 9113, section 6.1). The flag END_STREAM is the end."""
    wired = Wired()
    incoming = wired.connection.ask(REQUEST)
    wired.talk()
    reader = asyncio.ensure_future(read(incoming))
    wired.server.send_headers(1, [(":status", "200")])
    for number, piece in enumerate(pieces):
        is_last = number == len(pieces) - 1
        wired.server.send_data(1, piece, end_stream=is_last, pad_length=None if piece else padding)
        wired.connection.data_received(wired.server.data_to_send())
        await turns()
        assert reader.done() is is_last
    assert await reader == (200, b"ok")
    await wired.origin.aclose()


FRAMES = st.builds(
    lambda kind, flags, stream, payload: len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload,
    st.integers(min_value=0, max_value=11),
    st.integers(min_value=0, max_value=255),
    st.sampled_from([0, 1, 2, 3, 5, 2**31 - 1, 2**32 - 1]),
    st.binary(max_size=40),
)


@given(st.lists(FRAMES | st.binary(max_size=40), max_size=6))
@example([b"\0\0\x04\x07\0\0\0\0\0\0\0\0\0"])  # GOAWAY, cut short
@example([b"\0\0\x04\x08\0\0\0\0\x01\xff\xff\xff\xff"])  # a window that is too wide
@example([b"\0\0\x06\x04\0\0\0\0\0\0\x05\0\0\0\0"])  # frames of no bytes
@example([b"\0\0\x06\x04\0\0\0\0\0\0\x04\xff\xff\xff\xff"])  # windows that are too wide
@example([b"\xff\xff\xff\0\0\0\0\0\x01"])
def test_nothing_that_comes_is_a_defect(pieces: list[bytes]) -> None:
    async def check() -> None:
        wired = Wired()
        asked = [wired.connection.ask(b"PUT /x HTTP/1.1\r\nhost: a\r\n\r\n" + b"x" * 100_000) for _ in range(2)]
        for piece in pieces:
            if not wired.wire.closed:
                wired.connection.data_received(piece)
        wired.wire.abort()
        await asyncio.sleep(0)
        for incoming in asked:
            try:
                await read(incoming)
            except httpx.TransportError:
                continue
            assert incoming.ended

    asyncio.run(check())


async def test_an_answer_may_come_with_a_reset_while_the_request_is_still_being_sent() -> None:
    """As of a server that refuses a body: all in one piece, in which there is more room for another body, too."""
    wired = Wired()
    request = b"PUT /x HTTP/1.1\r\ncontent-length: 100000\r\n\r\n" + b"x" * 100_000
    refused, taken = wired.connection.ask(request), wired.connection.ask(request)
    wired.server.receive_data(wired.wire.take())
    wired.server.increment_flow_control_window(200_000)
    wired.server.increment_flow_control_window(200_000, 3)
    wired.server.increment_flow_control_window(200_000, 1)
    wired.server.send_headers(1, [(":status", "413")], end_stream=True)
    wired.server.reset_stream(1, ErrorCodes.NO_ERROR)
    wired.connection.data_received(wired.server.data_to_send())
    assert await read(refused) == (413, b"")
    wired.talk()
    wired.server.send_headers(3, [(":status", "204")], end_stream=True)
    wired.connection.data_received(wired.server.data_to_send())
    assert await read(taken) == (204, b"")
    assert not wired.wire.closed
    await wired.origin.aclose()


async def test_a_request_that_is_reset_while_it_is_being_sent_is_lost_alone() -> None:
    wired = Wired()
    request = b"PUT /x HTTP/1.1\r\ncontent-length: 100000\r\n\r\n" + b"x" * 100_000
    lost, other = wired.connection.ask(request), wired.connection.ask(REQUEST)
    wired.server.receive_data(wired.wire.take())
    wired.server.increment_flow_control_window(200_000, 1)
    wired.server.increment_flow_control_window(200_000)
    wired.server.reset_stream(1, ErrorCodes.INTERNAL_ERROR)
    wired.server.send_headers(3, [(":status", "204")], end_stream=True)
    wired.connection.data_received(wired.server.data_to_send())
    with pytest.raises(httpx.ReadError, match="INTERNAL_ERROR"):
        await read(lost)
    assert await read(other) == (204, b"")
    assert not wired.wire.closed
    await wired.origin.aclose()


async def test_more_than_there_is_room_for_ends_the_connection() -> None:
    wired = Wired()
    incoming = wired.connection.ask(REQUEST)
    wired.talk()
    wired.server.send_headers(1, [(":status", "200")])
    much = [DataFrame(1, b"x" * 16_384).serialize()] * (AHEAD // 16_384 + 1)
    wired.connection.data_received(wired.server.data_to_send() + b"".join(much))
    with pytest.raises(httpx.RemoteProtocolError, match="window"):
        await read(incoming)
    assert wired.wire.closed


async def test_bodies_wait_until_the_socket_has_taken_what_there_is() -> None:
    wired = Wired()
    wired.connection.pause_writing()
    wired.connection.ask(b"PUT /x HTTP/1.1\r\ncontent-length: 50000\r\n\r\n" + b"x" * 50_000)
    assert len(wired.wire.written) < 200
    events = wired.server.receive_data(wired.wire.take())
    wired.connection.resume_writing()
    events = wired.server.receive_data(wired.wire.take())
    assert sum(len(each.data) for each in events if isinstance(each, DataReceived)) == 50_000
    assert isinstance(events[-1], StreamEnded)
    await wired.origin.aclose()


async def test_a_server_that_says_much_and_hears_nothing_is_given_up() -> None:
    """It asks for more acknowledgements than it takes."""
    wired = Wired()
    incoming = wired.connection.ask(REQUEST)
    wired.talk()
    wired.connection.pause_writing()
    wired.wire.waiting = 2_000_000
    wired.server.ping(b"x" * 8)
    wired.connection.data_received(wired.server.data_to_send())
    with pytest.raises(httpx.RemoteProtocolError, match="hears nothing"):
        await read(incoming)
    assert wired.wire.closed


async def test_a_connection_whose_streams_are_used_up_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.upstream.http2._LAST_STREAM", 3)
    wired = Wired()
    for stream in (1, 3):
        incoming = wired.connection.ask(REQUEST)
        wired.talk()
        wired.server.send_headers(stream, [(":status", "204")], end_stream=True)
        wired.connection.data_received(wired.server.data_to_send())
        assert await read(incoming) == (204, b"")
        assert wired.origin.available() is (wired.connection if stream == 1 else None)
    assert wired.wire.closed


async def test_a_connection_that_is_old_answers_what_it_has_been_asked_and_no_more() -> None:
    wired = Wired()
    asked = [wired.connection.ask(REQUEST) for _ in range(2)]
    assert wired.origin.available() is wired.connection
    wired.connection.old_at = 0.0
    asked.append(wired.connection.ask(REQUEST))
    wired.talk()
    for number, incoming in enumerate(asked):
        assert wired.origin.available() is None
        assert not wired.wire.closed
        wired.server.send_headers(1 + 2 * number, [(":status", "204")], end_stream=True)
        wired.connection.data_received(wired.server.data_to_send())
        assert await read(incoming) == (204, b"")
    assert wired.wire.closed
