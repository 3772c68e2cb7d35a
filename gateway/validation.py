"""Checks of callers' input. They are pure, and return violations, so that one answer names all of them.

Field names are those of the protobuf contract; the GraphQL door spells them its own way.
"""

from __future__ import annotations

import re
from itertools import chain
from typing import TYPE_CHECKING, Final

from gateway.errors import InvalidArgument, Violation
from gateway.model import MAX_VERSION
from gateway.tenants import PATTERN

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pydantic import SecretStr

__all__ = ["check", "currency", "segment", "tenant", "token", "version"]

MAX_SEGMENT: Final = 256
"""Longest session id or attribute name, in characters. The platform's bound for a whole URL is 10 KB."""

_TENANT = re.compile(PATTERN)
_CURRENCY = re.compile(r"[A-Za-z]{3}")
_TOKEN = re.compile(r"[\x21-\x7e]+")
_UNWRITABLE = re.compile(r"[\x00\ud800-\udfff]")


def check(*violations: Iterable[Violation]) -> None:
    """Raise InvalidArgument with all of the violations, if there are any."""
    if found := [*chain.from_iterable(violations)]:
        raise InvalidArgument(found)


def tenant(value: str) -> Sequence[Violation]:
    """A tenant's name, by `gateway.tenants.PATTERN`."""
    if _TENANT.fullmatch(value):
        return ()
    return (Violation("tenant", "must be 3 to 16 lowercase letters and digits, beginning with a letter"),)


def segment(field: str, value: str) -> Sequence[Violation]:
    """A session id or attribute name: anything that can be one segment of a path when percent-encoded.

    "." and ".." are refused since their encoded forms mean the same (RFC 3986, 6.2.2.2 and 5.2.4).
    """
    if not value:
        return (Violation(field, "must not be empty"),)
    if value in {".", ".."}:
        return (Violation(field, f"must not be {value!r}"),)
    if len(value) > MAX_SEGMENT:
        return (Violation(field, f"must be at most {MAX_SEGMENT} characters, has {len(value)}"),)
    if _UNWRITABLE.search(value):
        return (Violation(field, "must not hold a NUL or a lone surrogate"),)
    return ()


def currency(field: str, value: str | None) -> Iterator[Violation]:
    """A currency is three letters (ISO 4217)."""
    if value is not None and not _CURRENCY.fullmatch(value):
        yield Violation(field, "must be three letters, for example EUR")


def token(field: str, value: SecretStr) -> Iterator[Violation]:
    """A token is visible ASCII, so that it can be a header's value (RFC 6750, 2.1 allows less)."""
    if not _TOKEN.fullmatch(value.get_secret_value()):
        yield Violation(field, "is not a token: must be visible ASCII characters without spaces")


def version(field: str, value: int | None) -> Sequence[Violation]:
    """A version is an integer from 0 to 2^63 - 1."""
    if value is None or 0 <= value <= MAX_VERSION:
        return ()
    return (Violation(field, "must be an integer from 0 to 2^63 - 1"),)
