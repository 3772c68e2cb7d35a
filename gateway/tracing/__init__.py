"""Tracing: wraps parts of the gateway so that their calls are spans. If it is off, nothing is wrapped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

from gateway.cache.flights import Flights
from gateway.telemetry.requests import Requests

if TYPE_CHECKING:
    import httpx

    from gateway.telemetry.requests import RequestWatcher

__all__ = ["BadTracing", "Tracing", "Untraced"]

Layer = TypeVar("Layer")
Value = TypeVar("Value")


class BadTracing(Exception):
    """Traces cannot be made as the environment variables say."""


class Tracing(Protocol):
    """Makes or wraps parts for the composition root."""

    def requests(self, *watchers: RequestWatcher) -> Requests:
        """Where the doors report requests."""
        ...

    def around(self, name: str, layer: Layer, *methods: str) -> Layer:
        """A layer of which each call of these methods is a span, `name.method`."""
        ...

    def flights(self) -> Flights[Value]:
        """Reads that several requests may wait for."""
        ...

    def transport(self, inner: httpx.AsyncBaseTransport) -> httpx.AsyncBaseTransport:
        """The transport to upstream, with a span for each attempt. It does not close the inner one."""
        ...


class Untraced:
    """`Tracing` that is off: everything is unchanged."""

    def requests(self, *watchers: RequestWatcher) -> Requests:
        """Unchanged."""
        return Requests(*watchers)

    def around(self, name: str, layer: Layer, *methods: str) -> Layer:  # noqa: ARG002 - see the Protocol
        """Unchanged."""
        return layer

    def flights(self) -> Flights[Value]:
        """Unchanged."""
        return Flights()

    def transport(self, inner: httpx.AsyncBaseTransport) -> httpx.AsyncBaseTransport:
        """Unchanged."""
        return inner
