"""Faults on demand: by the request header `x-sandbox-fault`, or armed beforehand for requests to come.

A fault is written as parts joined by `;`:

    latency=250ms             wait before anything else; goes with all others
    status=503                answer so (200 to 599), and do nothing; `retry-after=2` goes along with it
    status=503-after-write    do it, and answer so
    drop                      cut the connection before anything is done
    drop-after-write          do it, and cut the connection before the answer
    hang                      accept the request, and answer nothing for a minute
    truncated                 do it, and cut the connection in the middle of the answer
    not-json, wrong-json      do it, and answer 200 with text, or with JSON of another shape
"""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import dataclass
from typing import Literal, Self, TypeAlias

__all__ = ["Armed", "Fault", "Faults"]

Kind: TypeAlias = Literal["", "status", "drop", "hang", "truncated", "not-json", "wrong-json"]

_LATENCY = re.compile(r"latency=(\d+)ms")
_STATUS = re.compile(r"status=([2-5]\d\d)(-after-write)?")
_RETRY_AFTER = re.compile(r"retry-after=([\x20-\x7e]+)")


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to fail."""

    kind: Kind = ""
    after_write: bool = False
    """Do what was asked first."""
    status: int = 0
    retry_after: str = ""
    latency: float = 0.0
    """Seconds."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a fault as it is written. Raises ValueError."""
        kind: Kind = ""
        after_write, status, retry_after, latency = False, 0, "", 0.0
        for part in (each.strip() for each in text.split(";")):
            if match := _LATENCY.fullmatch(part):
                latency = int(match[1]) / 1000
            elif match := _RETRY_AFTER.fullmatch(part):
                retry_after = match[1]
            elif match := _STATUS.fullmatch(part):
                kind, status, after_write = "status", int(match[1]), match[2] is not None
            elif part in {"drop", "drop-after-write"}:
                kind, after_write = "drop", part.endswith("after-write")
            elif part == "hang":
                kind = "hang"
            elif part == "truncated":
                kind, after_write = "truncated", True
            elif part == "not-json":
                kind, after_write = "not-json", True
            elif part == "wrong-json":
                kind, after_write = "wrong-json", True
            else:
                raise ValueError(f"{part!r} is not a fault")
        return cls(kind, after_write, status, retry_after, latency)


@dataclass(slots=True)
class Armed:
    """A fault that waits for requests."""

    fault: Fault
    text: str
    """As it was written."""
    operation: str = "*"
    """Name of an operation, `*` for all."""
    times: int | None = 1
    """How often it strikes; None for always."""
    probability: float = 1.0


class Faults:
    """The armed faults. Chance comes from a seeded generator, so that a run can be had again."""

    def __init__(self, seed: int = 0) -> None:
        self.struck: Counter[str] = Counter()
        """How often each has struck, by its text."""
        self._armed: list[Armed] = []
        self._random = random.Random(seed)  # noqa: S311 - for tests

    def arm(self, fault: str, operation: str = "*", *, times: int | None = 1, probability: float = 1.0) -> None:
        """Let requests of an operation fail. Raises ValueError for a text that is no fault."""
        self._armed.append(Armed(Fault.parse(fault), fault, operation, times, probability))

    def clear(self) -> None:
        """Disarm all."""
        self._armed.clear()

    def all(self) -> list[Armed]:
        """What is armed."""
        return list(self._armed)

    def strike(self, operation: str) -> Fault | None:
        """The fault that this request meets."""
        for armed in self._armed:
            if armed.operation in {"*", operation} and self._random.random() < armed.probability:
                self._use(armed)
                return armed.fault
        return None

    def _use(self, armed: Armed) -> None:
        self.struck[armed.text] += 1
        if armed.times is not None:
            armed.times -= 1
            if armed.times <= 0:
                self._armed.remove(armed)
