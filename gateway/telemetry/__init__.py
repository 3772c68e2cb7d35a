"""What happens inside, told to whoever wants to know: records, and the one Protocol that takes them."""

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
    """A write came to its end."""

    operation: str
    """One of WRITES."""
    outcome: str
    """`applied`, or the reason of the error it ended with."""
    attempts: int
    """Times that the write was sent upstream."""
    answers_lost: int
    """Times that its answer was lost, and a read settled what became of it or tried to."""


class CacheRead(Struct, frozen=True):
    """A read was answered."""

    outcome: str
    """`hit`, `stale_while_revalidate` and `stale_if_error` (served from the cache, and older than it should be), or why
    upstream was asked: `miss`, `stale` (what there was is too old), `request` (the caller's own wish)."""
    collapsed: bool
    """It was answered by what another caller had asked upstream for."""


class CachePut(Struct, frozen=True):
    """What a read brought back was kept, or refused for a write or a higher version that stands against it."""

    kept: bool


class CacheFailed(Struct, frozen=True):
    """The shared cache did not do its part, and was done without."""

    operation: str


class UpstreamCalled(Struct, frozen=True):
    """A request was sent upstream, and answered or not."""

    method: str
    outcome: str
    """`2xx` to `5xx`, `timeout`, `unreachable` (nothing was sent), `lost` (the connection broke), `not_taken` (it was
    too large), `malformed`, or `cancelled` (whoever waited for it went away, or had no more time)."""
    seconds: float


class UpstreamRetried(Struct, frozen=True):
    """A request is going to be sent upstream again."""

    reason: str
    """`unreachable`, `lost`, or the status."""


class TokenRequested(Struct, frozen=True):
    """A token was asked for."""

    outcome: str
    """`ok`, or the reason why there is none."""


class BreakerChanged(Struct, frozen=True):
    """Upstream is left alone from now on, tried, or trusted again."""

    state: str
    """`closed`, `half_open` or `open`."""


SHED_BECAUSE: Final = ("full", "waited")
"""All places and the queue were full, or the call had waited in the queue for as long as it may."""


class CallShed(Struct, frozen=True):
    """A call was turned away, because too many to upstream are under way."""

    cause: str
    """One of SHED_BECAUSE."""


class UpstreamObserver(Protocol):
    """Takes records of the way upstream. Must be quick, and must not raise."""

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
        """Ask for the number of calls that are under way, whenever it is wanted."""
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
    """Takes no notice."""

    def write_finished(self, event: WriteFinished) -> None:
        """Take no notice."""

    def cache_read(self, event: CacheRead) -> None:
        """Take no notice."""

    def cache_put(self, event: CachePut) -> None:
        """Take no notice."""

    def cache_failed(self, event: CacheFailed) -> None:
        """Take no notice."""

    def upstream_called(self, event: UpstreamCalled) -> None:
        """Take no notice."""

    def upstream_retried(self, event: UpstreamRetried) -> None:
        """Take no notice."""

    def token_requested(self, event: TokenRequested) -> None:
        """Take no notice."""

    def breaker_changed(self, event: BreakerChanged) -> None:
        """Take no notice."""

    def call_shed(self, event: CallShed) -> None:
        """Take no notice."""

    def watch_upstream(self, in_flight: Callable[[], int]) -> None:
        """Take no notice."""
