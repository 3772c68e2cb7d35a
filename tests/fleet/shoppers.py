"""Load as shoppers make it, and every answer checked.

Each session has one shopper, who alone writes to it: so that what it has seen and written is the least that any gateway
may answer with afterwards, a write that succeeded is there for good, and a conflict without a write that got lost is
with nobody. What each version held is compared with upstream's history at the end.

The load is open: requests begin at their times, however long others take.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

import httpx

from doors import Caller, Refused
from gateway.sandbox import Sandbox, seed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from doors import Door, Seen

__all__ = ["CALLER", "PATIENCE", "TENANT", "Book", "Load", "Tally", "raise_for_status"]

PATIENCE: Final = 15.0
"""Seconds that a client waits: longer than any budget, so that it is never the client who ends a call."""
TENANT: Final = "acme"
CALLER: Final = Caller(saas_token=Sandbox().saas_token)
_WRITE_EVERY: Final = 5
_FREE_EVERY: Final = 4
"""One read in so many names no `min_version`."""
_MAX_UNDER_WAY: Final = 2_000
_CREATED: Final = "2026-03-01T08:00:00.000Z"
_METADATA: Final = {"version": 1, "createdAt": _CREATED, "modifiedAt": _CREATED}


@dataclass
class Tally:
    """What callers of one door saw in one phase."""

    requests: int = 0
    writes: int = 0
    """Of them."""
    errors: Counter[str] = field(default_factory=Counter)
    """By kind: the gateway's reason, or what the load balancer said in its place."""
    older: int = 0
    """Reads without `min_version` that were older than what this shopper had written with success."""
    seconds: list[float] = field(default_factory=list)


@dataclass
class Book:
    """All that callers saw."""

    phase: str = "before"
    tallies: dict[tuple[str, str], Tally] = field(default_factory=dict)
    """By phase and door; a request counts where it ended."""
    wrong: list[str] = field(default_factory=list)
    unsent: int = 0
    """Requests that did not begin, as too many were under way."""

    def tally(self, phase: str, door: str) -> Tally:
        """Its own."""
        return self.tallies.setdefault((phase, door), Tally())

    def errors(self, phase: str) -> Counter[str]:
        """Of both doors."""
        total: Counter[str] = Counter()
        for (each, _), tally in self.tallies.items():
            if each == phase:
                total += tally.errors
        return total


@dataclass
class _Shopper:
    session_id: str
    seen: int = 1
    """The highest version that it was told of."""
    told: int = 1
    """The version that its last write with success became."""
    writes: int = 0
    writing: bool = False
    doubtful: bool = False
    """Whether a write may have been applied that it was not told of."""
    held: set[tuple[int, str | None]] = field(default_factory=set)
    """Versions that it was shown, and what they held."""
    written: dict[str, int] = field(default_factory=dict)
    """What it wrote with success, and the version that became of it."""


class Load:
    """So many requests a second, by each of the doors in turn. Enter it to begin; it ends with the block."""

    def __init__(self, doors: Sequence[Door], book: Book, *, rate: float, sessions: int, seed: int = 1) -> None:
        self._doors = doors
        self._book = book
        self._rate = rate
        self._chance = random.Random(seed)
        self._shoppers = [_Shopper(f"fleet-{number:04}") for number in range(sessions)]
        self._enough = asyncio.Event()
        self._tasks = asyncio.TaskGroup()
        self.under_way: set[asyncio.Task[None]] = set()

    async def put_in_place(self, client: httpx.AsyncClient, sandbox_api: str) -> None:
        """Create the sessions, of which every shopper has seen the first version."""
        for each in self._shoppers:
            document = {"sessionId": each.session_id, "customerId": seed.CUSTOMER_ID, "siteCode": "main"}
            response = await client.put(
                f"{sandbox_api}/sessions/{TENANT}/{each.session_id}", json={**document, "metadata": _METADATA}
            )
            response.raise_for_status()

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._tasks.create_task(self._begin_all())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._enough.set()
        await self._tasks.__aexit__(kind, error, trace)

    async def check(self, client: httpx.AsyncClient, sandbox_api: str) -> None:
        """Compare what was told with what upstream has done, once all is over."""
        for shopper in self._shoppers:
            history = (await client.get(f"{sandbox_api}/history/{TENANT}/{shopper.session_id}")).json()
            marks = {each["version"]: each["document"].get("context", {}).get("mark") for each in history}
            wrong = [f"version {v} was shown with {m!r}" for v, m in shopper.held if marks.get(v) != m]
            wrong += [f"the write {m!r} is not version {v}" for m, v in shopper.written.items() if marks.get(v) != m]
            twice = [m for m, count in Counter(marks.values()).items() if m is not None and count > 1]
            wrong += [f"the write {m!r} was applied twice" for m in twice]
            self._book.wrong += [f"{shopper.session_id}: {each}" for each in wrong]

    async def _begin_all(self) -> None:
        began, number = time.perf_counter(), 0
        while not self._enough.is_set():
            number += 1
            await asyncio.sleep(began + number / self._rate - time.perf_counter())
            if len(self.under_way) >= _MAX_UNDER_WAY:
                self._book.unsent += 1
                continue
            door = self._doors[number % len(self._doors)]
            shopper = self._chance.choice(self._shoppers)
            write = self._chance.randrange(_WRITE_EVERY) == 0 and not shopper.writing
            task = self._tasks.create_task(self._request(door, shopper, write=write))
            self.under_way.add(task)
            task.add_done_callback(self.under_way.discard)

    async def _request(self, door: Door, shopper: _Shopper, *, write: bool) -> None:
        began, failed, older = time.perf_counter(), None, False
        try:
            if write:
                await self._write(door, shopper)
            else:
                older = await self._read(door, shopper)
        except (Refused, httpx.HTTPError) as error:
            failed = _kind(error)
        tally = self._book.tally(self._book.phase, door.name)
        tally.requests += 1
        tally.writes += write
        tally.older += older
        tally.seconds.append(time.perf_counter() - began)
        if failed is not None:
            tally.errors[f"{'write' if write else 'read'}: {failed}"] += 1

    async def _read(self, door: Door, shopper: _Shopper) -> bool:
        """Returns whether it was older than what this shopper had written, and nothing was said against that."""
        least, own = shopper.seen, shopper.told
        free = self._chance.randrange(_FREE_EVERY) == 0
        found = await door.get(TENANT, shopper.session_id, min_version=None if free else least, timeout=PATIENCE)
        self._shown(shopper, door, found, 0 if free else least)
        return found is not None and free and found.version < own

    async def _write(self, door: Door, shopper: _Shopper) -> None:
        shopper.writing = True
        shopper.writes += 1
        mark, expected = f"{shopper.session_id}/{shopper.writes}", shopper.seen
        change = {"context": {"mark": mark}}
        try:
            found = await door.patch(
                TENANT, shopper.session_id, change, CALLER, expected_version=expected, timeout=PATIENCE
            )
        except Refused as refused:
            if refused.reason != "VERSION_CONFLICT":
                shopper.doubtful = True
                raise
            self._conflicted(shopper, door, refused)
        except httpx.HTTPError:
            shopper.doubtful = True
            raise
        else:
            shopper.doubtful = False
            shopper.told = shopper.written[mark] = expected + 1
            shopper.seen = max(shopper.seen, expected + 1)
            if found is not None:  # it may have succeeded, and not been read back
                self._shown(shopper, door, found, expected + 1)
                if found.context.get("mark") != mark:
                    self._wrong(shopper, door, f"showed another write than {mark!r}")
        finally:
            shopper.writing = False

    def _conflicted(self, shopper: _Shopper, door: Door, refused: Refused) -> None:
        """A write came first: one of this shopper's own, whose answer it never had."""
        if not shopper.doubtful:
            self._wrong(shopper, door, "told of a conflict with nobody")
        if refused.current is not None:
            shopper.doubtful = False
            self._shown(shopper, door, refused.current, shopper.seen)

    def _shown(self, shopper: _Shopper, door: Door, found: Seen | None, least: int) -> None:
        if found is None or found.session_id != shopper.session_id:
            self._wrong(shopper, door, f"showed {'nothing' if found is None else found.session_id}")
            return
        if found.version < least:
            self._wrong(shopper, door, f"showed version {found.version}, after {least}")
        shopper.held.add((found.version, found.context.get("mark")))
        shopper.seen = max(shopper.seen, found.version)

    def _wrong(self, shopper: _Shopper, door: Door, what: str) -> None:
        self._book.wrong.append(f"{self._book.phase}: {shopper.session_id}: {door.name} {what}")


async def raise_for_status(response: httpx.Response) -> None:
    """Raise httpx.HTTPStatusError with the body read, unless a gateway says in it when to come back."""
    if response.status_code != 200 and "retry-after" not in response.headers:
        await response.aread()
        response.raise_for_status()


def _kind(error: Refused | httpx.HTTPError) -> str:
    """The gateway's reason, or the status of an answer that the load balancer made."""
    match error:
        case Refused():
            return error.reason or f"{error.code} by the load balancer: {error.message[:120]}"
        case httpx.HTTPStatusError():
            response = error.response
            if "json" in response.headers.get("content-type", ""):
                return f"HTTP {response.status_code} by a gateway"
            return f"HTTP {response.status_code} by the load balancer: {response.text[:120]}"
        case _:
            return type(error).__name__
