"""Spans (https://opentelemetry.io/docs/specs/semconv/): of requests, use cases, the cache, tokens, upstream.

They contain names, codes and where an answer came from, but no session ids, attributes, tokens or error messages.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast
from weakref import WeakKeyDictionary

import httpx
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from gateway import errors
from gateway.cache.flights import Flights
from gateway.cache.readthrough import Found
from gateway.telemetry.requests import Requests

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Iterator

    from opentelemetry.trace import Span, Tracer
    from opentelemetry.util.types import AttributeValue

    from gateway.cache.flights import Flight
    from gateway.request import Request
    from gateway.telemetry.requests import RequestWatcher

__all__ = ["FAULTS", "Spans"]

Layer = TypeVar("Layer")
Value = TypeVar("Value")

_OWN: Final = "session_gateway"
"""Namespace of attributes that OpenTelemetry does not define."""
FAULTS: Final = frozenset(
    {
        errors.GatewayError.reason,
        errors.IssuerUnavailable.reason,
        errors.WriteOutcomeUnknown.reason,
        *(each.reason for each in errors.UpstreamError.__subclasses__()),
        *("UNKNOWN", "UNAVAILABLE", "DEADLINE_EXCEEDED"),
    }
)
"""Codes that are a fault of the gateway or upstream; the alerts count the same. All others are the caller's, for which
a server span is not marked as failed. The last three are gRPC's own."""

_PORTS: Final = {"http": 80, "https": 443}

_propagator: Final = TraceContextTextMapPropagator()
"""W3C's `traceparent` and `tracestate`. Baggage is not passed on: callers may put anything into it."""


class Spans:
    """`Tracing` by OpenTelemetry."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def requests(self, *watchers: RequestWatcher) -> Requests:
        """Each request is a span, and part of its caller's trace."""
        return _Requests(self._tracer, *watchers)

    def around(self, name: str, layer: Layer, *methods: str) -> Layer:
        """Each call of these methods is a span."""
        return cast("Layer", _Around(self._tracer, name, layer, methods))

    def flights(self) -> Flights[Value]:
        """Each fetch is a span below the request that started it; other requests that wait for it link to it."""
        return _Flights(self._tracer)

    def transport(self, inner: httpx.AsyncBaseTransport) -> httpx.AsyncBaseTransport:
        """Each attempt is a span, and the trace context is sent to upstream."""
        return _Transport(self._tracer, inner)


class _Requests(Requests):
    def __init__(self, tracer: Tracer, *watchers: RequestWatcher) -> None:
        super().__init__(*watchers)
        self._tracer = tracer
        self._spans: dict[int, Span] = {}

    def begin(self, door: str, method: str, header: Callable[[str], str | None]) -> Request:
        request = super().begin(door, method, header)
        carrier = {name: value for name in _propagator.fields if (value := header(name)) is not None}
        caller = _propagator.extract(carrier, Context())
        span = self._tracer.start_span(method, caller, SpanKind.SERVER)
        otel_context.attach(trace.set_span_in_context(span, caller))  # until its end, which may come in another task
        self._spans[id(request)] = span
        if (made := span.get_span_context()).is_valid:  # it is not where OTEL_SDK_DISABLED has it so
            request.trace_id = f"{made.trace_id:032x}"
        return request

    def end(self, request: Request) -> None:
        span = self._spans.pop(id(request))
        if request.door == "graphql":
            span.update_name(f"{request.kind} {request.operation}" if request.kind else f"{request.method} /graphql")
        if span.is_recording():
            span.set_attributes(dict(_attributes(request)))
            if request.code in FAULTS:
                span.set_status(StatusCode.ERROR)
        span.end()
        otel_context.attach(Context())
        super().end(request)


def _attributes(request: Request) -> Iterator[tuple[str, AttributeValue]]:
    if request.door == "graphql":
        yield "http.request.method", request.method
        yield "url.path", "/graphql"
        if request.status is not None:
            yield "http.response.status_code", request.status
        if request.kind:
            yield "graphql.operation.type", request.kind
        if request.name is not None:
            yield "graphql.operation.name", request.name
    else:
        service, _, method = request.method.rpartition("/")
        yield "rpc.system", "grpc"
        yield "rpc.service", service
        yield "rpc.method", method
        if request.status is not None:
            yield "rpc.grpc.status_code", request.status
    if request.code != "OK":
        yield "error.type", request.code
    yield f"{_OWN}.request_id", request.id
    for name in ("tenant", "caller", "cache"):
        value = getattr(request, name)
        if value is not None:
            yield f"{_OWN}.{name}", value


class _Around:
    """A proxy for an object: calls of some methods are spans; everything else is passed through."""

    def __init__(self, tracer: Tracer, name: str, inner: object, methods: tuple[str, ...]) -> None:
        self._inner = inner
        for method in methods:
            setattr(self, method, _spanned(tracer, name, inner, method))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def _spanned(tracer: Tracer, name: str, inner: object, method: str) -> Callable[..., Awaitable[object]]:
    async def call(*arguments: object, **named: object) -> object:
        with _step(tracer, f"{name}.{method}") as span:
            result = await getattr(inner, method)(*arguments, **named)
            if isinstance(result, Found):
                span.set_attribute(f"{_OWN}.cache", "hit" if result.status.hit else result.status.fwd)
            return result

    return call


@contextmanager
def _step(tracer: Tracer, name: str, kind: SpanKind = SpanKind.INTERNAL) -> Iterator[Span]:
    """A span below the current one. Only an error's name is recorded, since its message may contain anything."""
    with tracer.start_as_current_span(name, kind=kind, record_exception=False, set_status_on_exception=False) as span:
        try:
            yield span
        except errors.GatewayError as error:
            span.set_attribute("error.type", error.reason)
            if error.reason in FAULTS:
                span.set_status(StatusCode.ERROR)
            raise
        except BaseException as error:
            span.set_attribute("error.type", type(error).__name__)
            span.set_status(StatusCode.ERROR)
            raise


class _Flights(Flights[Value]):
    def __init__(self, tracer: Tracer) -> None:
        super().__init__()
        self._tracer = tracer
        self._spans: WeakKeyDictionary[asyncio.Task[Value | Exception], Span] = WeakKeyDictionary()

    async def join(self, key: str, fetch: Callable[[], Awaitable[Value]]) -> tuple[Value, bool]:
        flight = self._flights.get(key)
        if flight is not None and flight.task in self._spans:
            trace.get_current_span().add_link(self._spans[flight.task].get_span_context())
        return await super().join(key, fetch)

    def _depart(self, key: str, fetch: Callable[[], Awaitable[Value]]) -> Flight[Value]:
        span = self._tracer.start_span("cache.fetch")

        async def fetch_within() -> Value:
            with trace.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
                return await fetch()

        flight = super()._depart(key, fetch_within)
        self._spans[flight.task] = span
        return flight


class _Transport(httpx.AsyncBaseTransport):
    def __init__(self, tracer: Tracer, inner: httpx.AsyncBaseTransport) -> None:
        self._tracer = tracer
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        with _step(self._tracer, request.method, SpanKind.CLIENT) as span:
            span.set_attribute("http.request.method", request.method)
            span.set_attribute("server.address", request.url.host)
            span.set_attribute("server.port", request.url.port or _PORTS.get(request.url.scheme, 0))
            _propagator.inject(request.headers)
            response = await self._inner.handle_async_request(request)
            span.set_attribute("http.response.status_code", response.status_code)
            if response.status_code >= 400:
                span.set_attribute("error.type", str(response.status_code))
                span.set_status(StatusCode.ERROR)
            return response
