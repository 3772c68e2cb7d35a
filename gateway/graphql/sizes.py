"""How large an answer will be, before it is encoded: one that is too large need not be encoded."""

from __future__ import annotations

from msgspec import Raw

__all__ = ["exceeds"]


def exceeds(value: object, most: int) -> bool:
    """Whether a value takes more than so many bytes as JSON, as far as can be told without encoding it.

    The count is never too high, and ends as soon as it exceeds the bound.
    """
    size = 0
    found = [value]
    for each in found:  # which grows meanwhile
        match each:
            case Raw():
                size += memoryview(each).nbytes
            case str():
                size += len(each) + 2
            case dict():
                size += 3 * len(each) + 1 + sum(map(len, each))
                found += each.values()
            case list():
                size += len(each) + 1
                found += each
            case _:
                size += 1
        if size > most:
            return True
    return False
