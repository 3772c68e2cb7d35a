"""The requests of both doors: each is begun and ended here, and told of once.

That is done for many at a time. What counts and writes them costs several times as much when it is called now and then,
between all that a request needs, as for one after the other.
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
"""Requests that are told of without waiting for more."""
_WITHIN: Final = 0.1
"""Seconds within which all others are told of."""

_well_formed: Final = re.compile(r"[!-~]{1,128}").fullmatch
"""Visible ASCII: it goes into headers, and into the log."""


class RequestWatcher(Protocol):
    """Takes requests soon after they have ended. Must be quick, and must not raise."""

    def requests_finished(self, requests: Sequence[Request]) -> None:
        """Take some, in the order in which they ended."""
        ...


class Requests:
    """Gives ids, keeps count by door of what has begun and ended, and tells the watchers.

    `tell` them at the end, and before anybody looks at what they have: the last requests may still be waiting.
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
        """How many are under way, by door."""
        return {door: self.begun[door] - self._ended[door] for door in DOORS}

    def begin(self, door: str, method: str, header: Callable[[str], str | None]) -> Request:
        """A request has come. It has the id that its caller gave it, if that is one.

        `header` looks up headers, or metadata, by their names in lower case. What runs in this task from now on, or is
        begun by it, is part of the request.
        """
        given = header("x-request-id")
        request_id = given if given and _well_formed(given) else f"{self._prefix}{next(self._numbers):x}"
        request = Request(door, method, request_id, perf_counter())
        under_way.set(request)
        self.begun[door] += 1
        return request

    def end(self, request: Request) -> None:
        """It has been answered, or its caller has gone."""
        request.duration = perf_counter() - request.started
        self._ended[request.door] += 1
        self._untold.append(request)
        if len(self._untold) >= _AT_ONCE:
            self.tell()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_WITHIN, self._tell_in_time)
        under_way.set(None)

    def tell(self) -> None:
        """Tell the watchers of all that have ended."""
        requests, self._untold = self._untold, []
        for each in self._watchers:
            each.requests_finished(requests)

    def _tell_in_time(self) -> None:
        self._timer = None
        self.tell()
