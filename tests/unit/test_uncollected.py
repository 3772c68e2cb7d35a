"""Imports without collections. In a process of its own, as what is frozen stays so."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import gc
from gateway.garbage import uncollected

before = gc.get_freeze_count()
with uncollected():
    assert not gc.isenabled()
    made = [[] for _ in range(1000)]
assert gc.isenabled()
assert gc.get_freeze_count() >= before + 1000

try:
    with uncollected():
        raise ImportError
except ImportError:
    assert gc.isenabled()
else:
    raise AssertionError
"""


def test_nothing_is_collected_during_imports_and_what_comes_later_is() -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], check=True)
