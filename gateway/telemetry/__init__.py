"""What happens inside, told to whoever wants to know: records, and the one Protocol that takes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

__all__ = ["Observer", "Unobserved", "WriteFinished"]


@dataclass(frozen=True, slots=True)
class WriteFinished:
    """A write came to its end."""

    operation: str
    outcome: str
    """`applied`, or the reason of the error it ended with."""
    attempts: int
    """Times that the write was sent upstream."""
    ambiguous: int
    """Times that its answer was lost, and a read settled what became of it or tried to."""


class Observer(Protocol):
    """Takes records. Must be quick, and must not raise."""

    def write_finished(self, event: WriteFinished) -> None:
        """Take the record of one write."""
        ...


class Unobserved:
    """Takes no notice."""

    def write_finished(self, event: WriteFinished) -> None:
        """Take no notice."""
