"""uvicorn's protocol with a bound on a request's head: neither it nor the parser below has one, in size or in time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    import asyncio

__all__ = ["BoundedHead"]

_TOO_LARGE: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-length: 0\r\nx-content-type-options: nosniff\r\nconnection: close\r\n\r\n"
)


class BoundedHead(HttpToolsProtocol):
    """Ends connections whose request does not come to the point."""

    max_head: ClassVar[int] = 65_536
    """Bytes of a request's head, its line and its headers, that may have come without its end. A GET carries its
    document there."""
    patience: ClassVar[float] = 10.0
    """Seconds for a head to arrive, from its first byte on, and for the first byte on a new connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head: int | None = 0
        """Bytes of the head that is arriving; None while a body is."""
        self._waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Begin to wait for a head."""
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._wait_no_more()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count, and go on."""
        if self._head is not None:
            self._head += len(data)
        super().data_received(data)
        if self._head:  # is still not at its end
            if self._waiting is None:
                self._wait()
            if self._head > self.max_head and not self.transport.is_closing():
                self.transport.write(_TOO_LARGE)
                self.transport.close()

    def on_headers_complete(self) -> None:
        """Go on."""
        self.head_complete()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Go on."""
        self.message_complete()
        super().on_message_complete()

    def head_complete(self) -> None:
        """A body follows, if anything."""
        self._wait_no_more()
        self._head = None

    def message_complete(self) -> None:
        """The next head may follow."""
        self._head = 0

    def _wait(self) -> None:
        self._waiting = self.loop.call_later(self.patience, self.transport.close)

    def _wait_no_more(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
