"""What happens inside, told to whoever wants to know: records, and the one Protocol that takes them."""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

__all__ = ["CacheFailed", "CachePut", "CacheRead", "Observer", "Unobserved", "WriteFinished"]


class WriteFinished(Struct, frozen=True):
    """A write came to its end."""

    operation: str
    outcome: str
    """`applied`, or the reason of the error it ended with."""
    attempts: int
    """Times that the write was sent upstream."""
    ambiguous: int
    """Times that its answer was lost, and a read settled what became of it or tried to."""


class CacheRead(Struct, frozen=True):
    """A read was answered."""

    outcome: str
    """`hit`, `stale` (served, while it is refreshed behind), `stale_if_error`, or why upstream was asked: `miss`,
    `request` (the caller's own wish)."""
    collapsed: bool
    """It was answered by what another caller had asked upstream for."""


class CachePut(Struct, frozen=True):
    """What a read brought back was kept, or refused for a write or a higher version that stands against it."""

    kept: bool


class CacheFailed(Struct, frozen=True):
    """The shared cache did not do its part, and was done without."""

    operation: str


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
