"""What is answered: how large it is, which is told before it is encoded, and how it is encoded.

What has no room is not made first and thrown away then.
"""

from __future__ import annotations

from msgspec import Raw
from msgspec.json import Encoder

__all__ = ["Json", "encode", "exceeds"]

_encode_json = Encoder().encode


class Json:
    """A JSON value in an answer. It is encoded once: that takes a fraction of what looking at all it holds would."""

    __slots__ = ("_encoded", "_value")

    def __init__(self, value: object) -> None:
        self._value = value
        self._encoded: Raw | None = None

    @property
    def encoded(self) -> Raw:
        """Its bytes."""
        if self._encoded is None:
            self._encoded = Raw(_encode_json(self._value))
        return self._encoded


def exceeds(value: object, most: int) -> bool:
    """Whether a value takes more than so many bytes as JSON, for all that can be told without encoding all of it.

    What is counted is never more than there will be. Counting ends where it exceeds.
    """
    size = 0
    found = [value]
    for each in found:  # which grows meanwhile
        match each:
            case Raw():
                size += memoryview(each).nbytes
            case Json():
                size += memoryview(each.encoded).nbytes
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


def _encoded(value: object) -> Raw:
    """What msgspec asks for where it meets a class that it does not know."""
    if isinstance(value, Json):
        return value.encoded
    raise TypeError(f"{type(value).__name__} is nothing to answer")


encode = Encoder(enc_hook=_encoded).encode
"""An answer, or part of one, in bytes."""
