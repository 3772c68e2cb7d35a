"""The log: one line for each event, on standard error; readable text on a terminal, otherwise JSON."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

import structlog
from structlog.processors import ExceptionRenderer
from structlog.tracebacks import ExceptionDictTransformer

from gateway.lines import NonBlockingHandler
from gateway.request import under_way

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor

    from gateway.settings import Log

__all__ = ["configure_logs", "is_fit_to_log"]

_tracebacks = ExceptionRenderer(ExceptionDictTransformer(show_locals=False))
"""Without local variables, which may be tokens and attribute values."""


def configure_logs(settings: Log) -> None:
    """Configure logging, for us and for libraries. To be called once per process.

    Lines about a request have its id.
    """
    readable = settings.format == "console" or (settings.format == "auto" and sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        _of_request,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper("iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    rendering: list[Processor] = (
        [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)]
        if readable
        else [_tracebacks, structlog.processors.JSONRenderer()]
    )
    handler = NonBlockingHandler(sys.stderr.fileno(), readable=readable)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    # Libraries never log more: at DEBUG they log cache keys, which contain session ids, and upstream's headers.
    logging.basicConfig(handlers=[handler], level=max(level, logging.INFO), force=True)
    logging.getLogger("gateway").setLevel(level)
    logging.getLogger("uvicorn").setLevel(max(level, logging.WARNING))  # it reports each listener's coming and going
    logging.getLogger("grpc._cython.cygrpc").addFilter(is_fit_to_log)
    sys.unraisablehook = _log_ignored


def is_fit_to_log(record: logging.LogRecord) -> bool:
    """Whether to log what gRPC logs.

    Of metadata that is not text it shows the whole value, which may be a token but for one byte. And for each caller
    that goes away before it has taken its answer it logs an error, with a traceback.
    """
    return record.msg != "Invalid encoding on %s" and not record.getMessage().startswith("ExecuteBatchError ")


def _log_ignored(ignored: sys.UnraisableHookArgs) -> None:
    """Log an exception that Python cannot raise anywhere.

    By itself it writes a traceback to standard error, of several lines, and waits for whoever reads it. Any client can
    cause one, by a server name (TLS) that is not ASCII. The object that it is about is left out: it might be a secret.
    """
    error = (ignored.exc_type, ignored.exc_value, ignored.exc_traceback)
    structlog.stdlib.get_logger(__name__).warning("exception_ignored", exc_info=error)


def _of_request(_: object, __: str, event: EventDict) -> EventDict:
    request = under_way.get()
    if request is not None:
        event.setdefault("request_id", request.id)
        if request.trace_id is not None:
            event.setdefault("trace_id", request.trace_id)
    return event
