"""The requests of both doors: each begins and ends here, and is then passed to the watchers.

They are passed many at a time: counting and logging cost several times as much for single requests in between all the
other work as for many in a row.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import secrets
from time import perf_counter
from typing import TYPE_CHECKING, Final, Protocol

from gateway.request import Request, under_way

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["DOORS", "RequestWatcher", "Requests"]

DOORS: Final = ("graphql", "grpc")
_AT_ONCE: Final = 64
"""Number of requests that are passed on without waiting for more."""
_WITHIN: Final = 0.1
"""Seconds within which fewer are passed on."""

_well_formed: Final = re.compile(r"[!-~]{1,128}").fullmatch
"""Visible ASCII, since it goes into headers and into the log."""


class RequestWatcher(Protocol):
    """Takes requests shortly after they have ended. Must be quick, and must not raise."""

    def requests_finished(self, requests: Sequence[Request]) -> None:
        """Take some, in the order in which they ended."""
        ...


class Requests:
    """Assigns ids, counts by door which requests have begun and ended, and tells the watchers.

    Call `tell` at the end, and before the watchers' results are read: the last requests may still be waiting.
    """

    def __init__(self, *watchers: RequestWatcher) -> None:
        self._watchers = watchers
        self._prefix = f"{secrets.token_hex(6)}-"
        self._numbers = itertools.count(1)
        self.begun = dict.fromkeys(DOORS, 0)
        self._ended = dict.fromkeys(DOORS, 0)
        self._untold: list[Request] = []
        self._timer: asyncio.TimerHandle | None = None

    @property
    def in_flight(self) -> dict[str, int]:
        """How many are in progress, by door."""
        return {door: self.begun[door] - self._ended[door] for door in DOORS}

    def begin(self, door: str, method: str, header: Callable[[str], str | None]) -> Request:
        """Begin a request. It has the id that its caller sent, if that is valid.

        `header` looks up headers, or metadata, by their names in lower case. This task, and all tasks that it starts
        from now on, are part of the request.
        """
        given = header("x-request-id")
        request_id = given if given and _well_formed(given) else f"{self._prefix}{next(self._numbers):x}"
        request = Request(door, method, request_id, perf_counter())
        under_way.set(request)
        self.begun[door] += 1
        return request

    def end(self, request: Request) -> None:
        """End a request: it has been answered, or its caller has gone."""
        request.duration = perf_counter() - request.started
        self._ended[request.door] += 1
        self._untold.append(request)
        if len(self._untold) >= _AT_ONCE:
            self.tell()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_WITHIN, self._tell_in_time)
        under_way.set(None)

    def tell(self) -> None:
        """Pass all requests that have ended to the watchers."""
        requests, self._untold = self._untold, []
        for each in self._watchers:
            each.requests_finished(requests)

    def _tell_in_time(self) -> None:
        self._timer = None
        self.tell()
