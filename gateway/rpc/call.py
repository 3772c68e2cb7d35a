"""What a gRPC call brings along besides its request message."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.cache.freshness import ReadOptions, parse_cache_control
from gateway.credentials import CallerCredentials
from gateway.deadline import Deadline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import grpc

    from gateway.cache.freshness import CacheStatus
    from gateway.gen.emporix.sessioncontext.v1 import session_context_pb2 as pb

__all__ = ["credentials_of", "deadline_of", "read_options_of", "tell_of_cache"]

_MARGIN: Final = 0.05
"""Share of the caller's time kept back so that an answer, a typed error above all, can still reach the caller."""


def credentials_of(context: grpc.aio.ServicerContext[object, object]) -> CallerCredentials:
    """The caller's credentials, from the metadata and the client's certificate."""
    return CallerCredentials.read(_headers(context), _certificate_names(context))


def read_options_of(context: grpc.aio.ServicerContext[object, object], asked: pb.ReadOptions) -> ReadOptions:
    """What the caller asks of a read, in the request and by `cache-control` in the metadata."""
    options = ReadOptions(
        max_age=asked.max_age.ToNanoseconds() / 1e9 if asked.HasField("max_age") else None,
        min_version=asked.min_version if asked.HasField("min_version") else None,
    )
    return options.stricter(parse_cache_control(_headers(context)("cache-control")))


def tell_of_cache(context: grpc.aio.ServicerContext[object, object], status: CacheStatus) -> None:
    """Say in the response metadata where an answer came from (RFC 9211) and how old it is (RFC 9111, 5.1)."""
    context.set_trailing_metadata((("cache-status", status.header()), ("age", str(int(status.age)))))


def _headers(context: grpc.aio.ServicerContext[object, object]) -> Callable[[str], str | None]:
    """Look-up of metadata by name. A key that comes twice is taken by its last value."""
    metadata = dict(context.invocation_metadata() or ())

    def header(name: str) -> str | None:
        value = metadata.get(name)
        return value if isinstance(value, str) else None

    return header


def _certificate_names(context: grpc.aio.ServicerContext[object, object]) -> tuple[str, ...]:
    """URIs and DNS names that the client's certificate is for; none without one that the handshake has verified.

    A DNS name that looks like a URI is neither: what a CA lets its clients choose freely must not pass for a SPIFFE id.
    """
    if context.peer_identity_key() is None:  # costs next to nothing, and no client has it but by mutual TLS
        return ()
    verified: Mapping[str, Iterable[bytes]] = context.auth_context()
    uris = (each.decode("utf-8", "replace") for each in verified.get("peer_uri", ()))
    hosts = (each.decode("utf-8", "replace") for each in verified.get("peer_dns", ()))
    return (*(each for each in uris if ":" in each), *(each for each in hosts if ":" not in each))


def deadline_of(context: grpc.aio.ServicerContext[object, object], budget: float) -> Deadline:
    """The caller's deadline, or so many seconds from now, whichever comes first."""
    remaining: float | None = context.time_remaining()  # the stubs forget None, which a call without a deadline has
    return Deadline.after(budget if remaining is None else min(budget, remaining * (1 - _MARGIN)))
