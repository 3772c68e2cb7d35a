"""A read must not become more than a tenth dearer than what was recorded: `make costs` records anew."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from guard.costs import RECORDED, Cost
from processes import BYTECODE

GROWTH = 1.1


@pytest.fixture(scope="module")
def costs() -> dict[str, Cost]:
    """In a process of its own: what other tests have left behind would be counted with it."""
    program = str(Path(__file__).parent / "costs.py")
    done = subprocess.run(
        [sys.executable, program, "--print"],
        env={**os.environ, **BYTECODE, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return msgspec.json.decode(done.stdout, type=dict[str, Cost])


@pytest.mark.parametrize("read", ["graphql", "grpc", "graphql, uncached", "grpc, uncached"])
@pytest.mark.parametrize("figure", Cost.__struct_fields__)
def test_a_read_costs_no_more_than_was_recorded(
    read: str, figure: str, costs: dict[str, Cost], record_property: Any
) -> None:
    if not RECORDED.exists():
        pytest.skip(f"nothing was recorded for this version of Python: `make costs` writes {RECORDED.name}")
    recorded: int = getattr(msgspec.json.decode(RECORDED.read_bytes(), type=dict[str, Cost])[read], figure)
    found: int = getattr(costs[read], figure)
    record_property(f"{read}: {figure}", f"{found}, recorded {recorded}")
    assert found <= recorded * GROWTH, "if it is worth that, `make costs` records what it costs now"
