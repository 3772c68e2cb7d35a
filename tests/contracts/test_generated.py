"""What is generated is what the sources give."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GENERATED = [
    "schema/session_context.graphql",
    "docs/settings.toml",
    "gateway/gen/emporix/sessioncontext/v1/session_context_pb2.py",
    "gateway/gen/emporix/sessioncontext/v1/session_context_pb2.pyi",
    "gateway/gen/emporix/sessioncontext/v1/session_context_pb2_grpc.py",
    "gateway/gen/emporix/sessioncontext/v1/session_context_pb2_grpc.pyi",
]


@pytest.fixture(scope="module")
def regenerated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("generated")
    subprocess.run(["make", "--silent", "generate", f"OUT={out}"], cwd=ROOT, check=True)
    return out


@pytest.mark.parametrize("name", GENERATED)
def test_a_generated_file_is_fresh(regenerated: Path, name: str) -> None:
    assert (regenerated / name).read_text("utf-8") == (ROOT / name).read_text("utf-8"), "run `make generate`"


def test_nothing_else_is_generated(regenerated: Path) -> None:
    made = {str(each.relative_to(regenerated)) for each in regenerated.rglob("*") if each.is_file()}
    kept = {
        str(each.relative_to(ROOT)) for each in (ROOT / "gateway/gen").rglob("*.py*") if "__pycache__" not in each.parts
    }

    assert made == set(GENERATED)
    assert kept == {each for each in made if each.startswith("gateway/gen/")}
