"""One request at a door: filled in by whoever comes to know something of it, told of when it ends."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

from msgspec import Struct

from gateway.tenants import readable

__all__ = ["Request", "current", "under_way"]


class Request(Struct, eq=False):
    """What is known of it. Nothing of this is secret: it all goes into the log."""

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
    """What a client calls its GraphQL operation."""
    code: str = "OK"
    """`OK`, or the reason of the first thing that went wrong."""
    tenant: str | None = None
    caller: str | None = None
    """Name of whom the gateway recognised."""
    cache: str | None = None
    """Where its reads were answered from: `hit` if it was the cache for all of them, or else why upstream was asked."""
    status: int | None = None
    """The HTTP status, or gRPC's."""
    trace_id: str | None = None
    """In hex, where traces are on."""
    exchanges: int = 0
    """With upstream, under way for this request."""
    upstream: float = 0.0
    """Seconds in which there were any, up to `since`."""
    since: float = 0.0
    """When the first of those under way began."""

    def failed(self, code: str) -> None:
        """Something went wrong. The first failure is what it is known by."""
        if self.code == "OK":
            self.code = code

    def answered_from(self, source: str) -> None:
        """One of its reads was answered: from the cache (`hit`), or else why upstream was asked."""
        if source != "hit" or self.cache is None:
            self.cache = source

    def exchange_began(self, now: float) -> None:
        """Upstream is asked on its behalf. Times are in seconds, on any one clock."""
        if not self.exchanges:
            self.since = now
        self.exchanges += 1

    def exchange_ended(self, now: float) -> None:
        """Upstream has answered, or not. After the request has ended, that took none of its time."""
        self.exchanges -= 1
        if not self.exchanges and not self.duration:
            self.upstream += now - self.since

    def is_of(self, tenant: str, caller: str | None) -> None:
        """Whose sessions it is about, and who makes it. `tenant` may be anything: it is as the caller wrote it."""
        self.tenant = readable(tenant)
        self.caller = caller


under_way: Final[ContextVar[Request | None]] = ContextVar("request", default=None)
"""The request that what runs is part of, in the task that it is set in and in all that this begins. None where it is
part of none, as where a connection has yet to go on to its next."""


def current() -> Request:
    """The request under way; where there is none, one that nobody is told of."""
    return under_way.get() or Request("", "", "", 0.0)
