"""Events inside the gateway: the records, and the Protocols of observers that take them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "SHED_BECAUSE",
    "WRITES",
    "BreakerChanged",
    "CacheFailed",
    "CachePut",
    "CacheRead",
    "CallShed",
    "Observer",
    "TokenRequested",
    "Unobserved",
    "UpstreamCalled",
    "UpstreamObserver",
    "UpstreamRetried",
    "WriteFinished",
]


WRITES: Final = ("replace", "patch", "add_attribute", "remove_attribute")
"""The operations that write."""


class WriteFinished(Struct, frozen=True):
    """A write has ended."""

    operation: str
    """One of WRITES."""
    outcome: str
    """`applied`, or the reason of the error it ended with."""
    attempts: int
    """How many times the write was sent to upstream."""
    answers_lost: int
    """How many times its answer was lost, so that the session was read back."""


class CacheRead(Struct, frozen=True):
    """A read was answered."""

    outcome: str
    """`hit`, `stale_while_revalidate` and `stale_if_error` (served from the cache although too old), or why upstream
    was asked: `miss`, `stale` (the entry was too old), `request` (the caller wanted it)."""
    collapsed: bool
    """Whether it shared the result of another caller's request to upstream."""


class CachePut(Struct, frozen=True):
    """The result of a read was kept, or not, for example because of a write or a higher version."""

    kept: bool


class CacheFailed(Struct, frozen=True):
    """An operation of the shared cache failed, and the gateway went on without it."""

    operation: str


class UpstreamCalled(Struct, frozen=True):
    """A request was sent to upstream, and answered or not."""

    method: str
    outcome: str
    """`2xx` to `5xx`, `timeout`, `unreachable` (nothing was sent), `lost` (the connection broke), `not_taken` (it was
    too large), `malformed`, or `cancelled` (whoever waited for it went away, or had no more time)."""
    seconds: float


class UpstreamRetried(Struct, frozen=True):
    """A request will be sent to upstream again."""

    reason: str
    """`unreachable`, `lost`, or the status."""


class TokenRequested(Struct, frozen=True):
    """A token was requested."""

    outcome: str
    """`ok`, or the reason why there is none."""


class BreakerChanged(Struct, frozen=True):
    """The circuit breaker has changed its state."""

    state: str
    """`closed`, `half_open` or `open`."""


SHED_BECAUSE: Final = ("full", "waited")
"""All places and the queue were full, or the call had waited in the queue too long."""


class CallShed(Struct, frozen=True):
    """A call was rejected, because there are too many calls to upstream."""

    cause: str
    """One of SHED_BECAUSE."""


class UpstreamObserver(Protocol):
    """Takes records about requests to upstream. Must be quick, and must not raise."""

    def upstream_called(self, event: UpstreamCalled) -> None:
        """Take the record of one request."""
        ...

    def upstream_retried(self, event: UpstreamRetried) -> None:
        """Take the record of one repetition."""
        ...

    def token_requested(self, event: TokenRequested) -> None:
        """Take the record of one request for a token."""
        ...

    def breaker_changed(self, event: BreakerChanged) -> None:
        """Take the record of one change."""
        ...

    def call_shed(self, event: CallShed) -> None:
        """Take the record of one call."""
        ...

    def watch_upstream(self, in_flight: Callable[[], int]) -> None:
        """Call this for the number of calls in progress, whenever metrics are read."""
        ...


class Observer(Protocol):
    """Takes records. Must be quick, and must not raise."""

    def write_finished(self, event: WriteFinished) -> None:
        """Take the record of one write."""
        ...

    def cache_read(self, event: CacheRead) -> None:
        """Take the record of one read through the cache."""
        ...

    def cache_put(self, event: CachePut) -> None:
        """Take the record of one entry that was to be kept."""
        ...

    def cache_failed(self, event: CacheFailed) -> None:
        """Take the record of one failure of the shared cache."""
        ...


class Unobserved:
    """An observer that ignores everything."""

    def write_finished(self, event: WriteFinished) -> None:
        """Ignore it."""

    def cache_read(self, event: CacheRead) -> None:
        """Ignore it."""

    def cache_put(self, event: CachePut) -> None:
        """Ignore it."""

    def cache_failed(self, event: CacheFailed) -> None:
        """Ignore it."""

    def upstream_called(self, event: UpstreamCalled) -> None:
        """Ignore it."""

    def upstream_retried(self, event: UpstreamRetried) -> None:
        """Ignore it."""

    def token_requested(self, event: TokenRequested) -> None:
        """Ignore it."""

    def breaker_changed(self, event: BreakerChanged) -> None:
        """Ignore it."""

    def call_shed(self, event: CallShed) -> None:
        """Ignore it."""

    def watch_upstream(self, in_flight: Callable[[], int]) -> None:
        """Ignore it."""
