"""Answers that clients do not take stay with the gateway, which has limits for them, and do not fill the kernel."""

from __future__ import annotations

import asyncio
import fcntl
import json
import struct
import sys
import termios
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import pytest
from h2.connection import H2Connection
from h2.settings import SettingCodes, Settings

from gateway.gen.emporix.sessioncontext.v1 import session_context_pb2 as pb
from gateway.rpc.sockets import sockets
from gateway.sandbox import seed
from stage import opened
from waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

TOKEN: Final = f"Bearer {seed.CUSTOMER_TOKEN}"
WIDE: Final = 2**31 - 1


def by_graphql() -> bytes:
    body = b'{"query": "{ mySessionContext(tenant: \\"acme\\") { context } }"}'
    head = f"POST /graphql HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\nauthorization: {TOKEN}\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


def by_grpc() -> bytes:
    """Of a client that promises to take everything."""
    client = H2Connection()
    client.local_settings = Settings(initial_values={SettingCodes.INITIAL_WINDOW_SIZE: WIDE})
    client.initiate_connection()
    client.increment_flow_control_window(WIDE - client.inbound_flow_control_window)
    path = "/emporix.sessioncontext.v1.OwnSessionContextService/GetOwnSessionContext"
    head = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "a", "te": "trailers"}
    client.send_headers(1, [*head.items(), ("content-type", "application/grpc"), ("authorization", TOKEN)])
    message = pb.GetOwnSessionContextRequest(tenant="acme").SerializeToString()
    client.send_data(1, b"\0" + len(message).to_bytes(4, "big") + message, end_stream=True)
    return client.data_to_send()


@pytest.mark.skipif(sys.platform != "linux", reason="other kernels have no such option, or hold little")
@pytest.mark.parametrize("request_by", [by_graphql, by_grpc])
async def test_the_kernel_holds_little_of_an_answer_that_its_client_does_not_take(
    request_by: Callable[[], bytes],
) -> None:
    """By default it takes megabytes for each connection, which count as the container's memory."""
    large = json.loads(seed.SESSIONS["acme", seed.CUSTOMER_SESSION]) | {"context": {"large": "x" * 1_500_000}}
    async with opened() as dev:
        dev.sandbox.store.seed("acme", seed.CUSTOMER_SESSION, json.dumps(large).encode())
        address = urlsplit(dev.graphql_url if request_by is by_graphql else f"//{dev.doors.grpc}")
        port = address.port or 0
        _, writer = await asyncio.open_connection(address.hostname, port, limit=1024)
        try:
            writer.transport.pause_reading()  # type: ignore[attr-defined]  # asyncio's types know it not of a socket's
            writer.write(request_by())
            await eventually(lambda: held(port) > 30_000)
            await asyncio.sleep(0.2)
            assert held(port) < 200_000
        finally:
            writer.transport.abort()


def held(port: int) -> int:
    """Bytes that the kernel has still to deliver from connections of this port (tcp(7), SIOCOUTQ)."""
    found = 0
    for each in sockets(port):
        try:
            each.getpeername()
        except OSError:  # it listens
            continue
        (size,) = struct.unpack("i", fcntl.ioctl(each, termios.TIOCOUTQ, bytes(4)))
        found += size
    return found
