"""A fixed bound on calls against an adaptive one, while upstream is slow: who is answered, how soon, who is not.

    .venv/bin/python bench/shedding.py

Upstream is simulated, on a clock of its own: it works on so many calls at a time and has others wait; after 20 s its
service time grows tenfold for 20 s. Callers come at random, at a rate that it carries when well and not when slow,
and wait for 1 s at most. An answer that comes later is of no use, and so is the work that upstream did for it.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

WORKERS: Final = 20
"""Calls that upstream works on at a time."""
SERVICE: Final = 0.025
SLOW_SERVICE: Final = 0.25
SLOW: Final = (20.0, 40.0)
END: Final = 60.0
RATE: Final = 400.0
"""Callers a second: half of what upstream carries when well, five times what it carries when slow."""
PATIENCE: Final = 1.0
QUEUED: Final = 256
QUEUE_WAIT: Final = 0.5


class Fixed:
    """The same number always."""

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def ended(self, seconds: float, *, well: bool) -> None:
        """Take no notice."""


class Aimd:
    """Up by one a round trip while calls are quick and there is demand, down by a tenth after one that is not."""

    def __init__(self, most: int) -> None:
        self._limit = float(most)
        self._most = most
        self._since = 0

    @property
    def limit(self) -> int:
        """Calls at a time."""
        return int(self._limit)

    def ended(self, seconds: float, *, well: bool) -> None:
        """Learn from a call."""
        self._since += 1
        if well and seconds < PATIENCE / 2:
            self._limit = min(self._most, self._limit + 1 / self._limit)
        elif self._since >= self._limit:  # once a round trip
            self._limit, self._since = max(4.0, self._limit * 0.9), 0


@dataclass
class Tally:
    """What callers saw while upstream was slow, and after."""

    answered: list[float] = field(default_factory=list)
    late: int = 0
    shed: int = 0


@dataclass
class Call:
    """One call: when it came, and when it was sent upstream."""

    came: float
    sent: float = 0.0


def simulate(limit: Fixed | Aimd, seed: int) -> dict[str, Tally]:  # noqa: C901, PLR0915 - a simulation reads as one story
    """Run it to the end; returns the tallies of the three periods."""
    chance = random.Random(seed)  # noqa: S311 - to be had again
    tallies = {"well": Tally(), "slow": Tally(), "after": Tally()}
    events: list[tuple[float, int, Callable[[], None]]] = []
    order = iter(range(10**9))
    now, in_flight, busy = 0.0, 0, 0
    queue: deque[Call] = deque()
    upstream: deque[Call] = deque()

    def at(when: float, do: Callable[[], None]) -> None:
        heapq.heappush(events, (when, next(order), do))

    def tally(call: Call) -> Tally:
        return tallies["well" if call.came < SLOW[0] else "slow" if call.came < SLOW[1] else "after"]

    def arrive() -> None:
        at(now + chance.expovariate(RATE), arrive)
        call = Call(now)
        if in_flight < limit.limit and not queue:
            send(call)
        elif len(queue) < QUEUED:
            queue.append(call)
        else:
            tally(call).shed += 1

    def send(call: Call) -> None:
        nonlocal in_flight
        in_flight += 1
        call.sent = now
        upstream.append(call)
        work()

    def work() -> None:
        nonlocal busy
        while upstream and busy < WORKERS:
            call = upstream.popleft()
            busy += 1
            mean = SLOW_SERVICE if SLOW[0] <= now < SLOW[1] else SERVICE
            at(now + chance.expovariate(1 / mean), lambda call=call: finish(call))  # type: ignore[misc]  # a late binding

    def finish(call: Call) -> None:
        nonlocal busy, in_flight
        busy -= 1
        in_flight -= 1
        well = now - call.came <= PATIENCE
        limit.ended(now - call.sent, well=well)
        if well:
            tally(call).answered.append(now - call.came)
        else:
            tally(call).late += 1
        while queue and in_flight < limit.limit:
            waiting = queue.popleft()
            if now - waiting.came > QUEUE_WAIT:
                tally(waiting).shed += 1
            else:
                send(waiting)
        work()

    at(0.0, arrive)
    while events and events[0][0] < END:
        now, _, do = heapq.heappop(events)
        do()
    return tallies


def main() -> None:
    """Print a row for each."""
    print(f"{'bound':14}{'period':8}{'answered':>9}{'late':>7}{'shed':>7}{'p50 ms':>8}{'p99 ms':>8}")
    bounds: dict[str, Callable[[], Fixed | Aimd]] = {
        **{f"fixed {number}": lambda number=number: Fixed(number) for number in (20, 40, 64, 128, 256)},  # type: ignore[misc]
        **{f"AIMD to {number}": lambda number=number: Aimd(number) for number in (64, 256)},  # type: ignore[misc]
    }
    for name, bound in bounds.items():
        for period, seen in simulate(bound(), seed=7).items():
            times = sorted(seen.answered) or [0.0]
            p50, p99 = times[len(times) // 2] * 1000, times[int(len(times) * 0.99)] * 1000
            print(f"{name:14}{period:8}{len(seen.answered):9}{seen.late:7}{seen.shed:7}{p50:8.0f}{p99:8.0f}")


if __name__ == "__main__":
    main()
