"""Whether callers are to be sent to this process, and what there is to say about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["Readiness", "Report"]


class Report(Struct, frozen=True, omit_defaults=True):
    """What is told to operators and their load balancers. Holds no secret."""

    ready: bool
    checks: dict[str, str]
    """What was looked at, and how it stands, in a few words."""
    workers: tuple[Report, ...] = ()
    """Those of the processes below this one."""


class Readiness:
    """Conditions, all of which must be met, and remarks, which nothing depends on. Without any it is ready."""

    def __init__(self) -> None:
        self._conditions: dict[str, tuple[bool, str]] = {}
        self._remarks: dict[str, Callable[[], Awaitable[str | None]]] = {}
        self._to_call: list[Callable[[], None]] = []

    @property
    def ready(self) -> bool:
        """Whether all conditions are met."""
        return all(met for met, _ in self._conditions.values())

    def set(self, condition: str, words: str, *, met: bool) -> None:
        """Say how a condition stands."""
        before = self.ready
        self._conditions[condition] = (met, words)
        if self.ready != before:
            for each in self._to_call:
                each()

    def remark(self, name: str, look: Callable[[], Awaitable[str | None]]) -> None:
        """Have something looked at for every report. `look` raises nothing, and takes little time.

        What it says stands in the place of the words of a condition of this name. None is nothing to remark.
        """
        self._remarks[name] = look

    def when_changed(self, call: Callable[[], None]) -> None:
        """Call this whenever it becomes ready, or ceases to be."""
        self._to_call.append(call)

    async def report(self) -> Report:
        """How everything stands."""
        checks = {name: words for name, (_, words) in self._conditions.items()}
        for name, look in self._remarks.items():
            if (said := await look()) is not None:
                checks[name] = said
        return Report(self.ready, checks)
