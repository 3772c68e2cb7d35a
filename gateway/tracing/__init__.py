"""Traces: what the gateway is made of, wrapped so that each of its steps is a span. Off, nothing is wrapped."""

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
    """Traces cannot be made as the environment wants them."""


class Tracing(Protocol):
    """Makes or wraps what the composition root puts together."""

    def requests(self, *watchers: RequestWatcher) -> Requests:
        """Where the doors tell of requests."""
        ...

    def around(self, name: str, layer: Layer, *methods: str) -> Layer:
        """A layer whose methods of these names are steps of their own, called `name.method`."""
        ...

    def flights(self) -> Flights[Value]:
        """Reads that several requests may wait for."""
        ...

    def transport(self, inner: httpx.AsyncBaseTransport) -> httpx.AsyncBaseTransport:
        """The way to upstream, each attempt a step. The inner one is lent."""
        ...


class Untraced:
    """`Tracing` that is off: everything as it is."""

    def requests(self, *watchers: RequestWatcher) -> Requests:
        """As it is."""
        return Requests(*watchers)

    def around(self, name: str, layer: Layer, *methods: str) -> Layer:  # noqa: ARG002 - see the Protocol
        """As it is."""
        return layer

    def flights(self) -> Flights[Value]:
        """As they are."""
        return Flights()

    def transport(self, inner: httpx.AsyncBaseTransport) -> httpx.AsyncBaseTransport:
        """As it is."""
        return inner
