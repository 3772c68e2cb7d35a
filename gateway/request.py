"""What is recorded of a request at a door. Every layer adds what it knows; at the end it is logged and counted."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

from msgspec import Struct

from gateway.tenants import readable

__all__ = ["Request", "current", "under_way"]


class Request(Struct, eq=False):
    """What is known of a request. Nothing here is secret: it all goes into the log."""

    door: str
    """`graphql`, `grpc`."""
    method: str
    """The HTTP method, or gRPC's `service/method`."""
    id: str
    started: float
    """On the performance counter, in seconds."""
    duration: float = 0.0
    """Seconds, once it has ended."""
    operation: str = "none"
    """The root field if there is one alone, else `several`; the gRPC method; `none` if nothing was executed."""
    kind: str = ""
    """`query` or `mutation`."""
    name: str | None = None
    """The client's name for its GraphQL operation."""
    code: str = "OK"
    """`OK`, or the reason of the first error."""
    tenant: str | None = None
    caller: str | None = None
    """Name of the authenticated caller."""
    cache: str | None = None
    """Where its reads were answered from: `hit` if all were from the cache, or else why upstream was asked."""
    status: int | None = None
    """The HTTP status, or gRPC's."""
    trace_id: str | None = None
    """In hex, where traces are on."""
    exchanges: int = 0
    """Exchanges with upstream in progress for this request."""
    upstream: float = 0.0
    """Seconds during which there were any, up to `since`."""
    since: float = 0.0
    """When the first of those in progress began."""

    def failed(self, code: str) -> None:
        """Record an error. Only the first one counts."""
        if self.code == "OK":
            self.code = code

    def answered_from(self, source: str) -> None:
        """Record that a read was answered: from the cache (`hit`), or else why upstream was asked."""
        if source != "hit" or self.cache is None:
            self.cache = source

    def exchange_began(self, now: float) -> None:
        """An exchange with upstream begins for this request. Times are in seconds, all on the same clock."""
        if not self.exchanges:
            self.since = now
        self.exchanges += 1

    def exchange_ended(self, now: float) -> None:
        """An exchange has ended. After the end of the request it does not count."""
        self.exchanges -= 1
        if not self.exchanges and not self.duration:
            self.upstream += now - self.since

    def is_of(self, tenant: str, caller: str | None) -> None:
        """Record tenant and caller. `tenant` may be any string, since it is as the caller sent it."""
        self.tenant = readable(tenant)
        self.caller = caller


under_way: Final[ContextVar[Request | None]] = ContextVar("request", default=None)
"""The request in progress, for the task that sets it and for all tasks that this starts. None if there is none, for
example while a connection waits for its next request."""


def current() -> Request:
    """The request in progress; if there is none, one that is not recorded."""
    return under_way.get() or Request("", "", "", 0.0)
