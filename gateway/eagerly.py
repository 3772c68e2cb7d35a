"""Coroutines that are begun at once: most calls never wait, and what never waits needs no task, timer or watch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator

__all__ = ["Begun"]

Result = TypeVar("Result")


class Begun(Generic[Result]):
    """A coroutine that has run to its end, or to where it first waits.

    Awaiting it runs the rest, in the task that began it, as if it had been awaited from the first; so whoever begins
    one goes on to await it, and may arm in between what bounds the wait. Beginning it raises what it raises before it
    waits.
    """

    __slots__ = ("_waits_for", "_work", "done", "result")

    def __init__(self, work: Coroutine[Any, None, Result]) -> None:
        self._work = work
        self.result: Result
        """Once it is done."""
        self._waits_for: object = None
        self.done = False
        try:
            self._waits_for = work.send(None)
        except StopIteration as end:
            self.done = True
            self.result = end.value

    def __await__(self) -> Generator[Any, None, Result]:
        while not self.done:
            try:
                try:
                    yield self._waits_for
                except BaseException as error:  # noqa: BLE001 - whatever it is, it is the coroutine's to deal with
                    self._waits_for = self._work.throw(error)
                else:
                    self._waits_for = self._work.send(None)
            except StopIteration as end:
                self.done = True
                self.result = end.value
        return self.result
