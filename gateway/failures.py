"""Error messages and exit status of a process that cannot do its work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.settings import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Unserved", "explained"]


class Unserved(Exception):
    """The work cannot be done; `problems` and `status` are known already, maybe from another process."""

    def __init__(self, problems: tuple[str, ...], status: int) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
        self.status = status


def explained(group: BaseExceptionGroup[Exception]) -> tuple[tuple[str, ...], int]:
    """A line for each problem, and the exit status: 2 if the configuration is at fault, otherwise 1.

    The same message from several workers counts once.
    """
    problems: list[str] = []
    status = 1
    for each in _leaves(group):
        match each:
            case Unserved():
                problems += each.problems
                status = max(status, each.status)
            case ConfigurationError():
                problems += each.problems
                status = 2
            case _:
                problems.append(str(getattr(each, "strerror", None) or each))
    return tuple(dict.fromkeys(problems)), status


def _leaves(group: BaseExceptionGroup[Exception]) -> Iterator[Exception]:
    """The errors themselves: each listener that is already up wraps what passes through it in another group."""
    for each in group.exceptions:
        if isinstance(each, BaseExceptionGroup):
            yield from _leaves(each)
        else:
            yield each
