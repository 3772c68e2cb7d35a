"""A connection with HTTP/2 (RFC 9113): many requests at a time, each on its own stream.

The event loop does the socket and TLS, and h2 the frames. This module keeps the streams, does the flow control, and
decides what becomes of each request when the connection, or upstream, ends.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final, cast

import httpx
from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import FrameTooLargeError, ProtocolError, StreamClosedError
from h2.settings import SettingCodes, Settings

from gateway.upstream.connections import Connection
from gateway.upstream.incoming import AHEAD, Incoming

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.upstream.connections import Origin

__all__ = ["Http2Connection"]

_STREAMS: Final = 100
"""Concurrent requests on a connection: servers should allow as many, and most do (RFC 9113, section 6.5.2)."""
_LAST_STREAM: Final = 2**31 - 1
_WINDOW: Final = 2 * _STREAMS * AHEAD
"""Flow-control window of the connection, in bytes. Since no stream buffers more than `AHEAD` unread bytes, one with a
slow reader never makes the others wait for this."""
_HEAD: Final = 64 * 1024
"""Bytes of an answer's head."""
_BACKLOG: Final = 1024 * 1024
"""Bytes of acknowledgements that may wait to be sent: bodies stop earlier."""
_SILENCE: Final = 1.0
"""If a request was given up, and nothing was received for so many seconds after a request was sent, a connection is not
used again: its other end may be gone, and TCP takes a quarter of an hour to find out."""
_HEADER: Final = 9
"""Bytes of a frame's header (section 4.1)."""
_GOAWAY: Final = 7
_OF_A_CONNECTION: Final = frozenset({b"host", b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding"})
"""Fields that HTTP/2 does not have (section 8.2.2), or expresses differently."""


class Http2Connection(Connection):
    """HTTP/2. A protocol error of upstream ends all requests in progress; a refusal only the refused ones."""

    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self._loop = asyncio.get_running_loop()
        self._h2 = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        self._h2.local_settings = Settings(
            client=True,
            initial_values={
                SettingCodes.ENABLE_PUSH: 0,
                SettingCodes.INITIAL_WINDOW_SIZE: AHEAD,
                SettingCodes.MAX_HEADER_LIST_SIZE: _HEAD,
            },
        )
        self._streams: dict[int, _Stream] = {}
        self._begun = b""
        """The beginning of a frame that has not arrived completely."""
        self._unheard_since: float | None = None
        """When the first request was sent after the last data was received."""
        self._settled: asyncio.Future[None] = self._loop.create_future()
        """Done when upstream has sent its settings, which come first (section 3.4), or is gone."""
        self._in_use = False
        self._full = False
        """Whether bodies have to wait until the socket has taken what is buffered."""
        self._leaving = False
        """Whether no further requests may be sent."""

    async def ready(self) -> None:
        await self._settled

    def ask(self, request: bytes) -> Incoming:
        """Send a request. Others may follow at once, if the connection can take more."""
        head, _, body = request.partition(b"\r\n\r\n")
        line, *lines = head.split(b"\r\n")
        method, target, _ = line.split(b" ")
        fields = [(name.lower(), value) for name, _, value in (each.partition(b": ") for each in lines)]
        pseudo = [
            (b":method", method),
            (b":scheme", b"https"),
            (b":authority", next((value for name, value in fields if name == b"host"), b"")),
            (b":path", target),
        ]
        stream = _Stream(self, self._h2.get_next_available_stream_id(), body)
        sent = [*pseudo, *(each for each in fields if each[0] not in _OF_A_CONNECTION)]
        self._h2.send_headers(stream.number, sent, end_stream=not body)
        self._streams[stream.number] = stream
        self._in_use = True
        if self._unheard_since is None:
            self._unheard_since = self._loop.time()
        self._send_bodies((stream,))
        self._tell()
        return stream.answer

    def close(self) -> None:
        """Close it at once, with all requests in progress."""
        self.transport.abort()

    # What a stream says.

    def abandon(self, stream: _Stream) -> None:
        """Its answer is no longer needed."""
        if self._streams.pop(stream.number, None) is None:
            return
        self._cancel(stream)
        if self._unheard_since is not None and self._loop.time() - self._unheard_since > _SILENCE:
            self._leaving = True
        self._tell()

    def widen(self, stream: _Stream) -> None:
        """The data received on it has been read."""
        if stream.number in self._streams:
            taken = AHEAD - self._h2.remote_flow_control_window(stream.number)
            if taken >= AHEAD // 2:
                self._h2.increment_flow_control_window(taken, stream.number)
                self._flush()

    # What the event loop says.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # that of a stream
        self._origin.opened(self)
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(_WINDOW - self._h2.inbound_flow_control_window)
        self._flush()

    def data_received(self, data: bytes) -> None:
        try:
            for event in self._h2.receive_data(self._without_goaway(data)):
                self._take(event)
            self._send_bodies(self._streams.values())  # not before: h2 has processed all of the events already
            taken = _WINDOW - self._h2.inbound_flow_control_window
            if taken >= _WINDOW // 2:
                self._h2.increment_flow_control_window(taken)
        except ProtocolError as error:
            self._fail(httpx.RemoteProtocolError, f"upstream's answer is no HTTP/2: {error}")
        else:
            self._unheard_since = self._loop.time() if self._streams else None
            self._tell()

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self._send_bodies(self._streams.values())

    def connection_lost(self, error: Exception | None) -> None:
        self._origin.ended(self)
        self._fail(httpx.ReadError, str(error or "the connection ended before the answer did"))

    # What upstream says.

    def _take(self, event: events.Event) -> None:
        match event:
            case events.ResponseReceived():
                self._head(event.stream_id, event.headers)
            case events.DataReceived():
                if stream := self._streams.get(event.stream_id):
                    stream.answer.add(event.data)
                    stream.answer.wake()
            case events.StreamEnded():
                self._end(event.stream_id)
            case events.StreamReset():
                self._reset(event.stream_id, event.error_code)
            case events.RemoteSettingsChanged():
                if not self._settled.done():
                    self._settled.set_result(None)
            case _:
                pass

    def _head(self, number: int, fields: Iterable[tuple[bytes, bytes]]) -> None:
        stream = self._streams.get(number)
        if stream is None:
            return
        (_, status), *stream.answer.fields = fields
        if len(status) != 3 or not status.isdigit():
            raise ProtocolError("a status that is none")
        stream.answer.status = int(status)
        stream.answer.wake()

    def _end(self, number: int) -> None:
        stream = self._streams.pop(number, None)
        if stream is None:
            return
        stream.answer.ended = True
        stream.answer.wake()
        if stream.unsent:
            self._cancel(stream)  # upstream does not need the rest of the request

    def _reset(self, number: int, code: ErrorCodes | int | None) -> None:
        stream = self._streams.pop(number, None)
        if stream is None:
            return
        if code == ErrorCodes.REFUSED_STREAM:
            stream.answer.fail(*_NOT_TAKEN)
        else:
            stream.answer.fail(httpx.ReadError, f"upstream has ended the answer before its end ({code!r})")

    def _without_goaway(self, data: bytes) -> bytes:
        """The data without GOAWAY frames: h2 would end the connection, though answers may follow (section 6.8)."""
        data = self._begun + data
        kept, at = [], 0
        while len(data) - at >= _HEADER:
            size = int.from_bytes(data[at : at + 3])
            if size > self._h2.max_inbound_frame_size:
                raise FrameTooLargeError(f"a frame of {size} bytes")
            end = at + _HEADER + size
            if end > len(data):
                break
            if data[at + 3] == _GOAWAY and size >= 8:
                self._leave(int.from_bytes(data[at + _HEADER : at + _HEADER + 4]) & _LAST_STREAM)
            else:
                kept.append(data[at:end])
            at = end
        self._begun = data[at:]
        return b"".join(kept)

    def _leave(self, last: int) -> None:
        """Upstream takes no more requests, and has not processed those after this one."""
        self._leaving = True
        for number in [each for each in self._streams if each > last]:
            self._streams.pop(number).answer.fail(*_NOT_TAKEN)

    # What is sent.

    def _cancel(self, stream: _Stream) -> None:
        with suppress(StreamClosedError):  # upstream has been quicker
            self._h2.reset_stream(stream.number, ErrorCodes.CANCEL)

    def _send_bodies(self, streams: Iterable[_Stream]) -> None:
        for stream in streams:
            while stream.unsent and not self._full:
                room = min(self._h2.local_flow_control_window(stream.number), self._h2.max_outbound_frame_size)
                if room <= 0:
                    break
                part, stream.unsent = stream.unsent[:room], stream.unsent[room:]
                self._h2.send_data(stream.number, part, end_stream=not stream.unsent)
                self._flush()

    def _tell(self) -> None:
        """Send what is buffered, and report the state to the origin."""
        self._flush()
        if self.transport.is_closing():
            return
        if not self._has_room():
            self._origin.fill(self)
            if not self._streams:
                self.close()
        elif self._streams:
            self._origin.share(self)
        elif self._in_use:
            self._in_use = False
            self._origin.keep(self)

    def _has_room(self) -> bool:
        allowed = min(_STREAMS, self._h2.remote_settings.max_concurrent_streams)
        used_up = self._leaving or self._h2.highest_outbound_stream_id >= _LAST_STREAM
        return len(self._streams) < allowed and not used_up

    def _flush(self) -> None:
        data = self._h2.data_to_send()
        if data and not self.transport.is_closing():
            self.transport.write(data)
            if self._full and self.transport.get_write_buffer_size() > _BACKLOG:
                self._fail(httpx.RemoteProtocolError, "upstream says much and hears nothing")

    def _fail(self, kind: type[httpx.TransportError], message: str) -> None:
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.answer.fail(kind, message)
        if not self._settled.done():
            self._settled.set_result(None)
        self.close()


_NOT_TAKEN: Final = (httpx.ConnectError, "upstream has not taken the request on")
"""It has not been processed, as if there had been no connection (section 8.7)."""


class _Stream:
    """A request, and the source of its answer."""

    __slots__ = ("_connection", "answer", "number", "unsent")

    def __init__(self, connection: Http2Connection, number: int, body: bytes) -> None:
        self._connection = connection
        self.answer = Incoming(self, asyncio.get_running_loop(), b"HTTP/2")
        self.number = number
        self.unsent = memoryview(body)

    def resume(self) -> None:
        self._connection.widen(self)

    def close(self) -> None:
        self._connection.abandon(self)
