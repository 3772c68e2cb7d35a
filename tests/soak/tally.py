"""What was asked and what came of it, by door and operation."""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from dataclasses import dataclass, field

__all__ = ["Row", "Tally"]


@dataclass
class Row:
    """One operation at one door."""

    errors: Counter[str] = field(default_factory=Counter)
    """By reason."""
    took: array[float] = field(default_factory=lambda: array("f"))
    """Seconds, of every request."""

    @property
    def requests(self) -> int:
        return len(self.took)

    def quantile(self, q: float) -> float:
        """Milliseconds that so many of all took at most."""
        ordered = sorted(self.took)
        return 1000 * ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else 0.0


@dataclass
class Tally:
    """All of them."""

    rows: dict[tuple[str, str], Row] = field(default_factory=lambda: defaultdict(Row))
    """By door and operation."""
    unexplained: Counter[str] = field(default_factory=Counter)
    """Errors that no fault explains, in words."""

    def add(self, door: str, operation: str, took: float, reason: str = "") -> None:
        """Count one; `reason` is why it failed."""
        row = self.rows[door, operation]
        row.took.append(took)
        if reason:
            row.errors[reason] += 1

    @property
    def requests(self) -> int:
        return sum(each.requests for each in self.rows.values())

    @property
    def errors(self) -> Counter[str]:
        """By reason, of both doors."""
        return sum((each.errors for each in self.rows.values()), Counter())
