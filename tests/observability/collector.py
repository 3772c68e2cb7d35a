"""A collector of traces: a real HTTP server that takes OTLP."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from gateway.listener import listening
from waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from opentelemetry.proto.trace.v1 import trace_pb2
    from starlette.types import Receive, Scope, Send

KINDS = {1: "internal", 2: "server", 3: "client"}


@dataclass(frozen=True)
class Seen:
    """A span as it came."""

    trace: str
    id: str
    parent: str
    name: str
    kind: str
    attributes: dict[str, Any]
    links: tuple[str, ...]
    failed: bool
    service: str


@dataclass
class Collector:
    """What came so far."""

    url: str = ""
    raw: list[bytes] = field(default_factory=list)
    spans: list[Seen] = field(default_factory=list)
    answering: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["path"] == "/v1/traces"
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        await self.answering.wait()
        self.take(body)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    def take(self, body: bytes) -> None:
        self.raw.append(body)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            about = {each.key: each.value.string_value for each in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.spans += [_seen(each, about["service.name"]) for each in scope.spans]

    async def trace(self, trace: str, *, until: Callable[[list[Seen]], bool] = bool) -> list[Seen]:
        """The spans of a trace, when those that are waited for have come: by default, the request's own."""

        def found() -> list[Seen]:
            return [each for each in self.spans if each.trace == trace]

        def complete() -> bool:
            spans = found()
            return any(each.kind == "server" for each in spans) and until(spans)

        await eventually(complete, within=5)
        return found()


def _seen(span: trace_pb2.Span, service: str) -> Seen:
    values = {each.key: each.value for each in span.attributes}
    return Seen(
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.name,
        KINDS[span.kind],
        {name: getattr(value, value.WhichOneof("value") or "string_value") for name, value in values.items()},
        tuple(each.span_id.hex() for each in span.links),
        span.status.code == 2,
        service,
    )


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    """Collect while the block runs."""
    collector = Collector()
    collector.answering.set()
    async with listening(collector, host="127.0.0.1", port=0, grace=0.0) as collector.url:
        yield collector


def drawn(spans: list[Seen], parent: str) -> list[Any]:
    """The tree below a span: names, each with what is below it, in the order of names."""
    return [
        [each.name, *drawn(spans, each.id)] for each in sorted(spans, key=lambda s: s.name) if each.parent == parent
    ]
