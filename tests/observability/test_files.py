"""Files that processes write their metrics to: prometheus_client reads them, and a full disk costs numbers at most."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from observability.metrics import parsed
from prometheus_client.mmap_dict import MmapedDict
from structlog.testing import capture_logs

from gateway.telemetry import files
from gateway.telemetry.files import NumbersFile
from gateway.telemetry.summed import SummedMetrics

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def numbers_file(path: Path) -> Iterator[NumbersFile]:
    file = NumbersFile(path)
    try:
        yield file
    finally:
        file.close()


def read(path: Path) -> dict[str, float]:
    """As prometheus_client does."""
    return {key: number for key, number, _, _ in MmapedDict.read_all_values_from_file(str(path))}


def counted(name: str, number: float) -> tuple[str, float]:
    """A counter's key, and its number."""
    return json.dumps([name, f"{name}_total", {}, "Help."]), number


def write(path: Path, *numbers: tuple[str, float]) -> None:
    with numbers_file(path) as file:
        for key, number in numbers:
            file.set(key, number)


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    """Keys of every length up to a multiple of eight, and enough of them for many pages."""
    expected = {f"{number:04}{'ü' if number % 3 else ''}{'x' * (number % 17)}": number / 3 for number in range(2000)}
    path = tmp_path / "counter_1.db"

    write(path, *((key, 0.0) for key in expected), *expected.items())

    assert read(path) == expected


FULL = """
import json, resource, sys
from pathlib import Path
from prometheus_client.mmap_dict import MmapedDict
from gateway.telemetry import files

files._TRY_AGAIN_AFTER = 0.0
path = Path(sys.argv[1])
file = files.NumbersFile(path)

def read():
    print(json.dumps({key: number for key, number, _, _ in MmapedDict.read_all_values_from_file(str(path))}))

file.set("first", 1)
limits = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, limits[1]))
file.set("second", 2)  # there is room for a part of it
file.set("third", 3)   # and now for nothing
file.set("first", 4)
read()
resource.setrlimit(resource.RLIMIT_FSIZE, limits)
file.set("first", 5)
read()
"""
"""A file that may not become longer stands for a filesystem that is full."""


def test_what_finds_no_room_is_written_once_there_is_some(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "counter_1.db")], capture_output=True, text=True, check=True
    )
    during, after = (json.loads(line) for line in done.stdout.splitlines() if line.startswith("{"))

    assert during == {"first": 4}
    assert after == {"first": 5, "second": 2, "third": 3}
    assert done.stdout.count("metrics_not_written") == 1


def test_where_nothing_can_be_written_nothing_fails() -> None:
    with numbers_file(Path("/dev/full")) as file, capture_logs() as logs:
        for number in range(3):
            file.set("a", number)
            file.set(f"b{number}", 1)

        assert file.get("a") == 2
    assert [(each["event"], each["error"]) for each in logs] == [("metrics_not_written", os.strerror(28))]


# What has become of a file


def broken(path: Path, how: str) -> None:
    """As a crash of the machine, or somebody else, may leave it."""
    write(path, *(counted(f"metric_{number}", 1) for number in range(200)))
    match how:
        case "empty":
            path.write_bytes(b"")
        case "cut":
            os.truncate(path, 5000)
        case "cut in its first word":
            os.truncate(path, 2)
        case "too long a key":
            content = bytearray(path.read_bytes())
            content[8:12] = struct.pack("i", 1 << 30)
            path.write_bytes(content)
        case _:
            raise ValueError(how)


BROKEN = ["empty", "cut", "cut in its first word", "too long a key"]


@pytest.mark.parametrize("how", BROKEN)
def test_a_file_that_cannot_be_read_is_left_out(tmp_path: Path, how: str) -> None:
    broken(tmp_path / "counter_1.db", how)
    write(tmp_path / "counter_2.db", counted("good", 7))
    summed = SummedMetrics(tmp_path, lambda: [os.getpid()])

    with capture_logs() as logs:
        for _ in range(2):
            assert parsed(summed.exposition().decode())["good_total", frozenset()] == 7

    assert [(each["event"], each["file"]) for each in logs] == [("metrics_unreadable", "counter_1.db")]


@pytest.mark.parametrize("how", BROKEN)
def test_a_process_whose_file_cannot_be_read_may_end(tmp_path: Path, how: str) -> None:
    broken(tmp_path / "histogram_1.db", how)
    write(tmp_path / "counter_1.db", counted("good", 7))
    summed = SummedMetrics(tmp_path, lambda: [os.getpid()])

    with capture_logs() as logs:
        summed.ended(1, 0.0)

    assert [(each["event"], each["file"]) for each in logs] == [("metrics_lost", "histogram_1.db")]
    assert parsed(summed.exposition().decode())["good_total", frozenset()] == 7
    assert {each.name for each in tmp_path.iterdir()} == {"counter_ended.db"}


def test_sums_that_find_no_room_are_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a process that has ended: they are written when somebody asks."""
    monkeypatch.setattr(files, "_TRY_AGAIN_AFTER", 0.0)
    place = tmp_path / "counter_ended.db"
    place.mkdir()  # nothing can be written to it
    write(tmp_path / "counter_1.db", counted("good", 7))
    summed = SummedMetrics(tmp_path, lambda: [os.getpid()])
    with capture_logs() as logs:
        summed.ended(1, 0.0)
    assert [each["event"] for each in logs] == ["metrics_not_written"]
    assert not (tmp_path / "counter_1.db").exists()

    place.rmdir()

    assert parsed(summed.exposition().decode())["good_total", frozenset()] == 7
