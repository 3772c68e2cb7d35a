"""The operator's table of the log's events is that of the code."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
SERIOUS = {"warning", "error", "critical", "exception"}
NAMED_ELSEWHERE = {
    "cache_unavailable",  # given to the leash, in gateway/cache/shared.py
    "rate_limits_not_shared",  # likewise, in gateway/access/limits.py
    "authentication_failed",  # chosen in gateway/access/audit.py
    "refused",
}


def logged() -> Iterator[str]:
    """The first argument of every call of a logger's method, if it is spelled out."""
    for file in (ROOT / "gateway").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            match node:
                case ast.Call(func=ast.Attribute(attr=level), args=[ast.Constant(value=str(event)), *_]):
                    if level in SERIOUS and re.fullmatch("[a-z_]+", event):  # zlib.error takes a sentence
                        yield event
                case _:
                    pass


def test_its_table_has_every_event_that_an_operator_may_have_to_see_to() -> None:
    page = (ROOT / "docs/operations.md").read_text("utf-8")
    table = page.partition("### What the log says")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]+`) \| [^|]+ \| [^|]+ \|$", table, re.MULTILINE)

    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == {*logged(), *NAMED_ELSEWHERE}


def test_what_is_named_elsewhere_is_there() -> None:
    text = "".join(file.read_text("utf-8") for file in (ROOT / "gateway").rglob("*.py"))

    assert all(f'"{name}"' in text for name in NAMED_ELSEWHERE)
