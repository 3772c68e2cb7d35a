"""Readiness: whether this process should get traffic, and why not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["Readiness", "Report"]


class Report(Struct, frozen=True, omit_defaults=True):
    """What operators and load balancers are told. It contains no secrets."""

    ready: bool
    checks: dict[str, str]
    """What was checked, with its state in a few words."""
    workers: tuple[Report, ...] = ()
    """Reports of this supervisor's workers."""


class Readiness:
    """Conditions, all of which must be met, and remarks, which do not matter. Without any it is ready."""

    def __init__(self) -> None:
        self._conditions: dict[str, tuple[bool, str]] = {}
        self._remarks: dict[str, Callable[[], Awaitable[str | None]]] = {}
        self._to_call: list[Callable[[], None]] = []

    @property
    def ready(self) -> bool:
        """Whether all conditions are met."""
        return all(met for met, _ in self._conditions.values())

    def set(self, condition: str, words: str, *, met: bool) -> None:
        """Set the state of a condition."""
        before = self.ready
        self._conditions[condition] = (met, words)
        if self.ready != before:
            for each in self._to_call:
                each()

    def remark(self, name: str, look: Callable[[], Awaitable[str | None]]) -> None:
        """Call `look` for every report. It must raise nothing, and take little time.

        Its result replaces the words of a condition of the same name, unless it is None.
        """
        self._remarks[name] = look

    def when_changed(self, call: Callable[[], None]) -> None:
        """Call this whenever readiness changes."""
        self._to_call.append(call)

    async def report(self) -> Report:
        """The state of everything."""
        checks = {name: words for name, (_, words) in self._conditions.items()}
        for name, look in self._remarks.items():
            if (said := await look()) is not None:
                checks[name] = said
        return Report(self.ready, checks)
