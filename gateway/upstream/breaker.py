"""The circuit breaker (Nygard, Release It!): upstream is left alone while it keeps failing.

While it is closed, calls pass and are counted. If too many of the last seconds' calls have failed, it opens: calls are
rejected at once. After a while it is half open: a few probes pass, and close it if all succeed, or open it again.

No library fits: purgatory counts failures in a row, not a rate, and reads the wall clock; pybreaker and circuitbreaker
are untyped, and the first supports asyncio only through Tornado; aiobreaker and hyx have had no release in years.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

__all__ = ["Breaker", "Rules", "State"]

_SLOTS: Final = 10
"""Parts of the window, which moves by one part at a time."""


class State(enum.Enum):
    """State of the circuit breaker."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class Rules:
    """When it opens, and for how long. All times are in seconds."""

    failure_rate: float
    """Opens when this share of the calls in the window has failed."""
    min_calls: int
    """Opens only if there are this many calls in the window."""
    window: float
    open_for: float
    probes: int
    """Calls in a row that have to succeed to close it."""


class Breaker:
    """The state machine. Pure: times are passed in, in seconds on any clock that does not go back."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._epoch = 0
        self._until = 0.0
        self._probing = 0
        self._passed = 0
        self._slots = [_Slot() for _ in range(_SLOTS)]
        self.state = State.CLOSED

    def admit(self, now: float) -> int | None:
        """Let a call pass, and return what `record` needs; None if it is rejected."""
        if self.state is State.CLOSED:
            return self._epoch
        if self.state is State.OPEN:
            if now < self._until:
                return None
            self._become(State.HALF_OPEN)
        if self._probing + self._passed >= self._rules.probes:
            return None
        self._probing += 1
        return self._epoch

    def wait(self, now: float) -> float:
        """Seconds after which a rejected call may pass."""
        return max(0.0, self._until - now) if self.state is State.OPEN else self._rules.open_for

    def record(self, admitted: int, *, well: bool | None, now: float) -> None:
        """A call has ended, `well` or not; None if it says nothing. Calls from an earlier state do not count."""
        if admitted != self._epoch:
            return
        if self.state is State.HALF_OPEN:
            self._record_probe(well=well, now=now)
        elif well is not None:
            self._count(well=well, now=now)

    def _record_probe(self, *, well: bool | None, now: float) -> None:
        self._probing -= 1
        if well is False:
            self._open(now)
        elif well:
            self._passed += 1
            if self._passed >= self._rules.probes:
                self._become(State.CLOSED)

    def _count(self, *, well: bool, now: float) -> None:
        number = int(now / (self._rules.window / _SLOTS))
        slot = self._slots[number % _SLOTS]
        if slot.number != number:
            slot.number, slot.calls, slot.failures = number, 0, 0
        slot.calls += 1
        if well:
            return
        slot.failures += 1
        recent = [each for each in self._slots if each.number > number - _SLOTS]
        calls = sum(each.calls for each in recent)
        failures = sum(each.failures for each in recent)
        if calls >= self._rules.min_calls and failures >= self._rules.failure_rate * calls:
            self._open(now)

    def _open(self, now: float) -> None:
        self._until = now + self._rules.open_for
        self._become(State.OPEN)

    def _become(self, state: State) -> None:
        self.state = state
        self._epoch += 1
        self._probing = self._passed = 0
        for slot in self._slots:
            slot.number = -_SLOTS


class _Slot:
    __slots__ = ("calls", "failures", "number")

    def __init__(self) -> None:
        self.number = -_SLOTS
        self.calls = 0
        self.failures = 0
