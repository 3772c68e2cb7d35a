"""A gRPC call without its request message: metadata, credentials, deadline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

from gateway.cache.freshness import FRESH_ENOUGH, ReadOptions, parse_cache_control
from gateway.credentials import CallerCredentials
from gateway.deadline import Deadline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import grpc

    from gateway.cache.freshness import CacheStatus
    from gateway.gen.emporix.sessioncontext.v1 import session_context_pb2 as pb

__all__ = ["Call"]

Read: TypeAlias = "pb.GetSessionContextRequest | pb.BatchGetSessionContextsRequest | pb.GetOwnSessionContextRequest"

_MARGIN: Final = 0.05
"""Share of the caller's time that is kept back, so that an answer (above all an error) can still reach the caller."""


class Call:
    """One call. Its metadata is read once; if a key occurs several times, `header` returns the last value.

    `budget` bounds it, in seconds, whatever deadline its caller sets.
    """

    __slots__ = ("_budget", "_metadata", "context", "header")

    def __init__(self, context: grpc.aio.ServicerContext[Any, Any], budget: float) -> None:
        self._budget = budget
        self.context = context
        """What grpc.aio hands a method; its message types are of no interest here."""
        # Values are bytes where keys end with -bin; none of those is looked up.
        metadata: Any = context.invocation_metadata() or ()
        self._metadata: Iterable[tuple[str, str]] = metadata
        self.header: Callable[[str], str | None] = dict(metadata).get
        """Looks up metadata."""

    def credentials(self) -> CallerCredentials:
        """The caller's credentials, from the metadata and the client's certificate."""
        return CallerCredentials.read(self.header, self._certificate_names())

    def read_options(self, request: Read) -> ReadOptions:
        """What the caller asks of a read, in the request and by `cache-control` in the metadata."""
        options = FRESH_ENOUGH
        if request.HasField("read_options"):
            asked = request.read_options
            options = ReadOptions(
                max_age=asked.max_age.ToNanoseconds() / 1e9 if asked.HasField("max_age") else None,
                min_version=asked.min_version if asked.HasField("min_version") else None,
            )
        if self.header("cache-control") is None:
            return options
        control = ", ".join(value for key, value in self._metadata if key == "cache-control")  # RFC 9110, 5.3
        return options.stricter(parse_cache_control(control))

    def deadline(self) -> Deadline:
        """The caller's, or the budget's from now on, whichever comes first."""
        # The stubs forget None, which a call without a deadline has.
        remaining: float | None = self.context.time_remaining()
        return Deadline.after(self._budget if remaining is None else min(self._budget, remaining * (1 - _MARGIN)))

    def tell_of_cache(self, status: CacheStatus) -> None:
        """Say in the response metadata where an answer came from (RFC 9211) and how old it is (RFC 9111, 5.1)."""
        before = self.context.trailing_metadata() or ()
        told = (("cache-status", status.header()), ("age", str(int(status.age))))
        self.context.set_trailing_metadata((*told, *before))

    def _certificate_names(self) -> tuple[str, ...]:
        """URIs and DNS names that the client's certificate is for; none without one that the handshake has verified.

        A DNS name that looks like a URI is neither: what a CA lets its clients choose freely must not pass for a
        SPIFFE id.
        """
        if self.context.peer_identity_key() is None:  # costs next to nothing, and no client has it but by mutual TLS
            return ()
        verified: Mapping[str, Iterable[bytes]] = self.context.auth_context()
        uris = (each.decode("utf-8", "replace") for each in verified.get("peer_uri", ()))
        hosts = (each.decode("utf-8", "replace") for each in verified.get("peer_dns", ()))
        return (*(each for each in uris if ":" in each), *(each for each in hosts if ":" not in each))
