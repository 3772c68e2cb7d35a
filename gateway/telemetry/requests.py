"""The requests of both doors: each is begun and ended here, and told of once."""

from __future__ import annotations

import itertools
import re
import secrets
from time import perf_counter
from typing import TYPE_CHECKING, Final, Protocol

from gateway.request import Request, enter, leave

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["DOORS", "RequestWatcher", "Requests"]

DOORS: Final = ("graphql", "grpc")

_well_formed: Final = re.compile(r"[!-~]{1,128}").fullmatch
"""Visible ASCII: it goes into headers, and into the log."""


class RequestWatcher(Protocol):
    """Takes requests as they end. Must be quick, and must not raise."""

    def request_finished(self, request: Request, duration: float) -> None:
        """Take one, and how long it took in seconds."""
        ...


class Requests:
    """Gives ids, keeps count by door of what has begun and ended, and tells the watchers."""

    def __init__(self, *watchers: RequestWatcher) -> None:
        self._watchers = watchers
        self._prefix = f"{secrets.token_hex(6)}-"
        self._numbers = itertools.count(1)
        self.begun = dict.fromkeys(DOORS, 0)
        self._ended = dict.fromkeys(DOORS, 0)

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
        enter(request)
        self.begun[door] += 1
        return request

    def end(self, request: Request) -> None:
        """It has been answered, or its caller has gone."""
        duration = perf_counter() - request.started
        self._ended[request.door] += 1
        for each in self._watchers:
            each.request_finished(request, duration)
        leave()
