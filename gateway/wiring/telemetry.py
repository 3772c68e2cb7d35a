"""How requests are observed: metrics, the access log, traces."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from gateway.settings import ConfigurationError
from gateway.telemetry.access_log import AccessLog
from gateway.telemetry.request_metrics import RequestMetrics
from gateway.tracing import BadTracing, Untraced

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from gateway.settings import Settings
    from gateway.telemetry.prometheus import Metrics
    from gateway.telemetry.requests import Requests, RequestWatcher
    from gateway.tracing import Tracing

__all__ = ["open_requests", "open_tracing"]


@asynccontextmanager
async def open_tracing(settings: Settings) -> AsyncIterator[Tracing]:
    """Traces, while the block runs, if configured. Raises ConfigurationError if they cannot be made."""
    if not settings.telemetry.traces:
        yield Untraced()
        return
    try:
        from gateway.tracing.export import open_spans  # noqa: PLC0415 - OpenTelemetry is an extra, and takes its time
    except ModuleNotFoundError:
        raise ConfigurationError(
            "telemetry.traces: OpenTelemetry is not installed: install session-gateway[otel]"
        ) from None
    except ValueError as error:  # bounds that the SDK reads as it is imported
        raise ConfigurationError(f"OpenTelemetry's variables: {error}") from None
    try:
        async with open_spans() as spans:
            yield spans
    except BadTracing as error:
        raise ConfigurationError(str(error)) from None


@contextmanager
def open_requests(settings: Settings, metrics: Metrics, tracing: Tracing) -> Iterator[Requests]:
    """Where doors report requests, while the block runs: they are counted, and logged if there is a log."""
    counted = RequestMetrics(metrics.registry)
    watchers: list[RequestWatcher] = [counted]
    with ExitStack() as stack:
        handler = AccessLog.handler()
        if handler is not None:
            metrics.watch_lines(lambda: handler.dropped)
            if settings.log.access and AccessLog.wanted():
                log = AccessLog(handler, asyncio.get_running_loop())
                stack.callback(log.end)
                watchers.append(log)
        requests = tracing.requests(*watchers)
        metrics.when_sampled(requests.tell)
        metrics.when_sampled(lambda: counted.flush(requests.in_flight))
        stack.callback(metrics.sample)  # for whoever reads them after the end of this process
        yield requests
