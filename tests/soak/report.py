"""What came of a soak: as a table, as JSON, and as pictures."""

from __future__ import annotations

import importlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from soak.tally import Tally
from soak.watch import Sample, growth

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Report"]

_SHOWN: Final = 10


@dataclass
class Report:
    """All that there is to tell."""

    how: dict[str, Any]
    """What was run: seconds, seed, clients, cache, workers."""
    tally: Tally = field(default_factory=Tally)
    samples: list[Sample] = field(default_factory=list)
    over_time: list[tuple[float, int, int]] = field(default_factory=list)
    """Seconds since the beginning, requests and errors until then."""
    wrong: list[str] = field(default_factory=list)
    spells: list[tuple[str, float, float]] = field(default_factory=list)
    """Name, and seconds since the beginning when it began and ended."""
    struck: dict[str, int] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)
    """Errors in the gateway's log."""
    died: bool = False
    rounds: int = 0

    @property
    def good(self) -> bool:
        """No wrong answer, no error that nothing explains, and the gateway alive to the end."""
        return not (self.wrong or self.tally.unexplained or self.died)

    def text(self) -> str:
        """For people."""
        return "\n".join(self._lines())

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        rows = [
            {
                "door": door,
                "operation": operation,
                "requests": row.requests,
                "errors": dict(row.errors),
                "p50_ms": round(row.quantile(0.5), 2),
                "p99_ms": round(row.quantile(0.99), 2),
            }
            for (door, operation), row in sorted(self.tally.rows.items())
        ]
        return {
            "run": self.how,
            "requests": self.tally.requests,
            "errors": dict(self.tally.errors.most_common()),
            "wrong_answers": self.wrong,
            "unexplained": dict(self.tally.unexplained),
            "died": self.died,
            "operations": rows,
            "faults": self.struck,
            "spells": self.spells,
            "growth": {name: found._asdict() for name, found in self._growths().items()},
            "errors_logged": self.complaints[:_SHOWN],
            "samples": [each._asdict() for each in self.samples],
            "over_time": self.over_time,
        }

    def write(self, folder: Path) -> list[Path]:
        """JSON, and pictures where matplotlib is; returns the files."""
        path = folder / "soak.json"
        path.write_text(json.dumps(self.as_dict(), indent=1) + "\n", "utf-8")
        try:
            plot = importlib.import_module("soak.plot")
        except ImportError:
            return [path]
        files: list[Path] = plot.plot(self, folder / "soak")
        return [path, *files]

    def _growths(self) -> dict[str, Any]:
        return {
            "memory_mb": growth([(each.at, each.rss) for each in self.samples], tolerated=0.03),
            "files": growth([(each.at, each.files) for each in self.samples], tolerated=0.1),
            "threads": growth([(each.at, each.threads) for each in self.samples], tolerated=0.1),
        }

    def _lines(self) -> Iterator[str]:
        yield f"{'door':8} {'operation':21} {'requests':>9} {'p50 ms':>8} {'p99 ms':>8}  errors"
        for (door, operation), row in sorted(self.tally.rows.items()):
            errors = ", ".join(f"{reason} {count:,}" for reason, count in row.errors.most_common())
            took = f"{row.quantile(0.5):8.1f} {row.quantile(0.99):8.1f}"
            yield f"{door:8} {operation:21} {row.requests:9,} {took}  {errors}"
        yield ""
        struck = sum(self.struck.values())
        yield f"requests       {self.tally.requests:,} in {self.rounds} rounds; faults that struck {struck:,}"
        yield "errors         " + ", ".join(f"{reason} {count:,}" for reason, count in self.tally.errors.most_common())
        yield f"wrong answers  {len(self.wrong)}"
        yield from (f"    {each}" for each in self.wrong[:_SHOWN])
        yield f"unexplained    {sum(self.tally.unexplained.values())}"
        yield from (f"    {count} x {each}" for each, count in self.tally.unexplained.most_common(_SHOWN))
        if self.died:
            yield "THE GATEWAY DIED"
        if self.complaints:
            yield f"errors logged  {len(self.complaints)}, the first: {self.complaints[0][:300]}"
        if self.samples:
            first, last = self.samples[0], self.samples[-1]
            values = {
                "memory_mb": (f"{first.rss:.1f} MB", f"{last.rss:.1f} MB"),
                "files": (str(first.files), str(last.files)),
                "threads": (str(first.threads), str(last.threads)),
            }
            for name, found in self._growths().items():
                label, unit = name.partition("_")[0], "MB" if name == "memory_mb" else name
                start, end = values[name]
                slope = f"{found.per_hour:+.1f} {unit} an hour after the warm-up"
                yield f"{label:14} {start} to {end}: {slope}, {found.verdict}"
            yield f"cpu            {last.cpu - first.cpu:.1f} s"
