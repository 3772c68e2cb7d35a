"""Coroutines that start at once: most of them never wait, and then need neither a task nor a timer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator

__all__ = ["Begun"]

Result = TypeVar("Result")


class Begun(Generic[Result]):
    """A coroutine that has run to its end, or to its first wait.

    Await it to run the rest, in the same task, as if it had been awaited in the first place. In between, a timeout can
    be set up, if it turns out to wait at all. What it raises before its first wait is raised at once.
    """

    __slots__ = ("_waits_for", "_work", "done", "result")

    def __init__(self, work: Coroutine[Any, None, Result]) -> None:
        self._work = work
        self.result: Result
        """Its result, once it is done."""
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
