"""How large an answer is, before it is encoded: what has no room is not made first and thrown away then."""

from __future__ import annotations

from msgspec import Raw

__all__ = ["exceeds"]


def exceeds(value: object, most: int) -> bool:
    """Whether a value takes more than so many bytes as JSON, for all that can be told without encoding it.

    What is counted is never more than there will be. Counting ends where it exceeds.
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
