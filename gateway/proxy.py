"""An HTTP proxy between gateway and upstream, which makes tunnels (CONNECT; RFC 9110, section 9.3.6)."""

from __future__ import annotations

import asyncio
import base64
import re
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from msgspec import Struct
from pydantic import SecretStr

from gateway.addresses import authority

if TYPE_CHECKING:
    import socket
    from typing import Self

__all__ = ["Proxy"]

_LONGEST_ANSWER: Final = 64 * 1024
"""Bytes."""
_host: Final = re.compile(r"[0-9A-Za-z._:-]+").fullmatch
"""A name or an address, for IPv6 without brackets."""
_status: Final = re.compile(rb"HTTP/1\.[01] (\d{3})[ \r]").match


class Proxy(Struct, frozen=True):
    """Its address and credentials."""

    host: str
    port: int
    authorization: SecretStr | None = None

    @classmethod
    def of(cls, url: SecretStr) -> Self:
        """The proxy at a URL, which may contain user and password. Raises ValueError, whose text has no part of it."""
        try:
            parts = urlsplit(url.get_secret_value())
            host, port = parts.hostname, parts.port or 80
        except ValueError:
            host, port = None, 0
        if not host or not _host(host) or parts.scheme != "http" or parts.path not in {"", "/"} or parts.query:
            raise ValueError("must be http://[user:password@]host[:port]")
        if parts.username is None:
            return cls(host, port)
        credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        return cls(host, port, SecretStr(f"Basic {base64.b64encode(credentials).decode()}"))

    async def tunnel(self, connection: socket.socket, host: str, port: int) -> None:
        """Make a connection to the proxy a tunnel to this host. Raises OSError."""
        loop = asyncio.get_running_loop()
        target = authority(host, port)
        fields = f"CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n"
        if self.authorization is not None:
            fields += f"proxy-authorization: {self.authorization.get_secret_value()}\r\n"
        await loop.sock_sendall(connection, f"{fields}\r\n".encode("ascii"))
        answer = b""
        while b"\r\n\r\n" not in answer:
            part = await loop.sock_recv(connection, _LONGEST_ANSWER)
            if not part:
                raise ConnectionResetError("the proxy has ended the connection")
            answer += part
            if len(answer) > _LONGEST_ANSWER:
                raise ConnectionAbortedError("the proxy's answer is too large")
        status = _status(answer)
        if status is None:
            raise ConnectionAbortedError("the proxy's answer is no HTTP")
        if not status[1].startswith(b"2"):
            raise ConnectionRefusedError(f"the proxy refuses with status {status[1].decode()}")
        if answer.partition(b"\r\n\r\n")[2]:
            raise ConnectionAbortedError("the proxy says more than that the tunnel is there")
