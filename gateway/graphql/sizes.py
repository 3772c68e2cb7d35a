"""How large an answer is, before it is encoded: what has no room is not made first and thrown away then."""

from __future__ import annotations

from msgspec import Raw

__all__ = ["exceeds"]


def exceeds(value: object, most: int) -> bool:
    """Whether a value takes more than so many bytes as JSON, for all that can be told without encoding it.

    What is counted is never more than there will be. Counting ends where it exceeds.
    """
    size = 0
    pending = [value]
    while pending:
        each = pending.pop()
        if isinstance(each, Raw):
            size += memoryview(each).nbytes
        elif isinstance(each, str):
            size += len(each) + 2
        elif isinstance(each, dict):
            size += 2 + sum(map(len, each)) + 3 * len(each)
            pending += each.values()
        elif isinstance(each, list):
            size += 2 + len(each)
            pending += each
        else:
            size += 1
        if size > most:
            return True
    return False
