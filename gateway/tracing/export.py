"""Exports spans with OpenTelemetry's SDK, configured by its standard environment variables.

https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/: the SDK reads all of them but those
that choose exporter and protocol. Spans are sent by a thread of the SDK, and dropped if there are too many.
"""

from __future__ import annotations

import asyncio
import os
import re
import threading
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

import structlog
from opentelemetry.environment_variables import OTEL_TRACES_EXPORTER
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.environment_variables import (
    OTEL_EXPORTER_OTLP_ENDPOINT,
    OTEL_EXPORTER_OTLP_HEADERS,
    OTEL_EXPORTER_OTLP_PROTOCOL,
    OTEL_EXPORTER_OTLP_TRACES_ENDPOINT,
    OTEL_EXPORTER_OTLP_TRACES_HEADERS,
    OTEL_EXPORTER_OTLP_TRACES_PROTOCOL,
)
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

from gateway.tracing import BadTracing
from gateway.tracing.spans import Spans

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from opentelemetry.sdk.trace.export import SpanExporter

__all__ = ["open_spans"]

_NAME: Final = "session-gateway"
_PROTOCOL: Final = "http/protobuf"
_LAST_EXPORT: Final = 5.0
"""Seconds to send the rest, at the end."""

_is_pair: Final = re.compile(r"[ \t]*[\w!#$%&'*+.^`|~-]+[ \t]*=[\t !#-+./:<-\[\]-~0-9-]*", re.ASCII).fullmatch
"""A header's name, and its value, as it is or percent-encoded."""
_is_url: Final = re.compile(r"https?://[^\s/?#]+\S*", re.IGNORECASE).fullmatch
_can_be_sent: Final = re.compile(r"[\t -~\xa0-\xff]*").fullmatch

_log = structlog.stdlib.get_logger(__name__)


@asynccontextmanager
async def open_spans() -> AsyncIterator[Spans]:
    """Make spans and send them while the block runs. Raises BadTracing for variables that are not supported."""
    provider = _provider()
    try:
        yield Spans(provider.get_tracer(_NAME, version(_NAME)))
    finally:
        await _shut_down(provider)


def _provider() -> TracerProvider:
    try:
        provider = TracerProvider(resource=_resource(version(_NAME)), shutdown_on_exit=False)
        for each in _exporters():
            provider.add_span_processor(BatchSpanProcessor(each))
    except ValueError as error:  # invalid numbers, or a batch that is larger than the queue
        raise BadTracing(f"OpenTelemetry's variables: {error}") from None
    return provider


def _resource(version: str) -> Resource:
    """The attributes of this service, by the variables, with a default name."""
    resource = Resource.create({SERVICE_VERSION: version})
    if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
        return resource.merge(Resource({SERVICE_NAME: _NAME}))
    return resource


def _exporters() -> Iterator[SpanExporter]:
    for name in (os.environ.get(OTEL_TRACES_EXPORTER) or "otlp").split(","):
        match name.strip():
            case "otlp":
                _check_endpoint()
                _check_protocol()
                _check_headers()
                yield OTLPSpanExporter()
            case "console":
                yield ConsoleSpanExporter()
            case "none":
                pass
            case _:
                raise BadTracing(f"{OTEL_TRACES_EXPORTER}: must be otlp, console or none")


def _check_endpoint() -> None:
    """Otherwise the SDK would lose all spans, and log that with each batch."""
    for name in (OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, OTEL_EXPORTER_OTLP_ENDPOINT):
        if (endpoint := os.environ.get(name)) is not None and not _is_url(endpoint):
            raise BadTracing(f"{name}: must be a URL that begins with http:// or https://")


def _check_protocol() -> None:
    for name in (OTEL_EXPORTER_OTLP_TRACES_PROTOCOL, OTEL_EXPORTER_OTLP_PROTOCOL):
        if os.environ.get(name, _PROTOCOL) != _PROTOCOL:
            raise BadTracing(f"{name}: must be {_PROTOCOL}, which every collector takes, on port 4318")


def _check_headers() -> None:
    """Otherwise the SDK would log what it cannot parse or send, which may be a secret."""
    for name in (OTEL_EXPORTER_OTLP_TRACES_HEADERS, OTEL_EXPORTER_OTLP_HEADERS):
        for pair in os.environ.get(name, "").split(","):
            if pair.strip() and not (_is_pair(pair) and _can_be_sent(unquote(pair))):
                raise BadTracing(f"{name}: must be name=value, with a comma between two, and special characters as %XX")


async def _shut_down(provider: TracerProvider) -> None:
    """Send the rest, within a time: a collector that does not answer must not delay shutdown for long."""
    done = asyncio.Event()
    loop = asyncio.get_running_loop()

    def shut_down() -> None:
        provider.shutdown()
        with suppress(RuntimeError):  # nobody waits any more
            loop.call_soon_threadsafe(done.set)

    threading.Thread(target=shut_down, name="last export of spans", daemon=True).start()
    try:
        async with asyncio.timeout(_LAST_EXPORT):
            await done.wait()
    except TimeoutError:
        _log.warning("spans_not_sent", reason="the collector took too long")
