"""Tenants' names, and how names that callers send are repeated in messages, logs and traces."""

from __future__ import annotations

from typing import Final

__all__ = ["PATTERN", "printable", "readable", "shortened"]

_LONGEST: Final = 16

PATTERN: Final = rf"[a-z][a-z0-9]{{2,{_LONGEST - 1}}}"
"""A regular expression for the whole name: `^[a-z][a-z0-9]+$`, 3 to 16 characters (API reference)."""


def shortened(tenant: str) -> str:
    """The name, cut to the length of a tenant's name: callers may send any length."""
    return tenant if len(tenant) <= _LONGEST else f"{tenant[:_LONGEST]}…"


def readable(tenant: str) -> str:
    """The name as logs and traces have it: shortened and printable."""
    if len(tenant) <= _LONGEST and tenant.isprintable():  # nearly always
        return tenant
    return printable(shortened(tenant))


def printable(text: str) -> str:
    """The text with control characters and new lines escaped, which a terminal would interpret."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
