"""A server that speaks HTTP/2 over real sockets and TLS, and does with each request as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeAlias, cast

from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.settings import SettingCodes, Settings

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator

    from hyperframe.frame import Frame

Behave: TypeAlias = Callable[["Request"], None]


class Request:
    """One that has come whole, and how it is answered."""

    def __init__(self, end: End, stream: int, headers: list[tuple[str, str]]) -> None:
        self.end = end
        self.stream = stream
        self.headers = dict(headers)
        self.body = b""

    def answer(self, body: bytes = b"ok", status: int = 200, *, whole: bool = True, **fields: str) -> None:
        """The head, and as much of the body as there is room for; the rest when there is more."""
        self.end.h2.send_headers(self.stream, [(":status", str(status)), *fields.items()])
        self.send(body, whole=whole)

    def send(self, body: bytes, *, whole: bool = True) -> None:
        """More of the body."""
        self.end.unsent[self.stream] = (self.end.unsent.get(self.stream, (b"",))[0] + body, whole)
        self.end.flush()


class End(asyncio.Protocol):
    """The server's end of a connection."""

    transport: asyncio.Transport

    def __init__(self, server: Server) -> None:
        self._server = server
        self.h2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self.h2.local_settings = Settings(client=False, initial_values=server.settings)
        self.requests: dict[int, Request] = {}
        self.unsent: dict[int, tuple[bytes, bool]] = {}
        self.heard: list[bytes] = []
        self.resets: list[tuple[int, int]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._server.ends.append(self)
        self.h2.initiate_connection()
        self.flush()

    def data_received(self, data: bytes) -> None:
        self.heard.append(data)
        for event in self.h2.receive_data(data):
            match event:
                case events.RequestReceived():
                    headers = cast("list[tuple[str, str]]", event.headers)
                    self.requests[event.stream_id] = Request(self, event.stream_id, headers)
                    if self._server.early is not None:
                        self._server.early(self.requests[event.stream_id])
                case events.DataReceived():
                    self.requests[event.stream_id].body += event.data
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                case events.StreamEnded():
                    self._server.requests.append(self.requests[event.stream_id])
                    self._server.behave(self.requests[event.stream_id])
                case events.StreamReset():
                    self.resets.append((event.stream_id, int(event.error_code or 0)))
                    self.unsent.pop(event.stream_id, None)
                case _:
                    pass
        self.flush()

    def connection_lost(self, error: Exception | None) -> None:
        self._server.closed += 1

    def flush(self) -> None:
        """Send what may be sent."""
        for stream, (body, whole) in tuple(self.unsent.items()):
            rest = body
            while rest and (room := min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)):
                self.h2.send_data(stream, rest[:room], end_stream=whole and len(rest) <= room)
                rest = rest[room:]
            if rest:
                self.unsent[stream] = (rest, whole)
            else:
                del self.unsent[stream]
        self.transport.write(self.h2.data_to_send())

    def put(self, *frames: Frame) -> None:
        """Send these, whatever h2 would think of it."""
        self.transport.write(b"".join(each.serialize() for each in frames))


class Server:
    """Its connections, and the requests that came on them."""

    def __init__(self, behave: Behave, settings: dict[SettingCodes, int], early: Behave | None) -> None:
        self.behave = behave
        self.early = early
        self.settings = settings
        self.url = ""
        self.ends: list[End] = []
        self.requests: list[Request] = []
        self.closed = 0


@asynccontextmanager
async def serving(
    behave: Behave,
    tls: ssl.SSLContext,
    settings: dict[SettingCodes, int] | None = None,
    early: Behave | None = None,
) -> AsyncIterator[Server]:
    """`early` is told of requests whose body may not have come yet."""
    server = Server(behave, settings or {SettingCodes.MAX_CONCURRENT_STREAMS: 100}, early)
    tls.set_alpn_protocols(["h2"])
    listening = await asyncio.get_running_loop().create_server(lambda: End(server), "127.0.0.1", 0, ssl=tls)
    server.url = f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}/x"
    try:
        yield server
    finally:
        listening.close()
        for each in server.ends:
            each.transport.abort()
