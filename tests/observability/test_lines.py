"""Lines of the log go out whole and in order, and nobody waits for whoever should read them."""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import resource
import select
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import structlog

from gateway.lines import NonBlockingHandler

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Pipe:
    """A pipe as small as can be, and who reads it when told to."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        self.size = fcntl.fcntl(self.writer, fcntl.F_SETPIPE_SZ, 4096)
        os.set_blocking(self.reader, False)

    def read(self) -> bytes:
        """All that is in it."""
        parts = []
        while select.select([self.reader], [], [], 0)[0] and (part := os.read(self.reader, 65536)):
            parts.append(part)
        return b"".join(parts)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    for each in (pipe.reader, pipe.writer):
        os.close(each)


@contextmanager
def lines_to(descriptor: int, *, room: int = 1_048_576) -> Iterator[NonBlockingHandler]:
    lines = NonBlockingHandler(descriptor, room=room)
    try:
        yield lines
    finally:
        lines.close()


def numbered(count: int, width: int = 200) -> list[bytes]:
    return [f"{number:08}".encode().ljust(width, b".") + b"\n" for number in range(count)]


def test_what_is_put_is_written_in_order_when_it_is_pushed(pipe: Pipe) -> None:
    with lines_to(pipe.writer) as lines:
        for each in numbered(3):
            lines.put(each)
        assert pipe.read() == b""

        lines.push()

        assert pipe.read() == b"".join(numbered(3))
        assert lines.waiting == 0


def test_a_record_is_written_at_once_after_what_was_put_before(pipe: Pipe) -> None:
    with lines_to(pipe.writer) as lines:
        lines.put(b"first\n")
        lines.handle(logging.LogRecord("x", logging.INFO, "x", 1, "second: %s", ("é\udcff",), None))

        assert pipe.read() == "first\nsecond: é\\udcff\n".encode()


def test_a_full_pipe_makes_nobody_wait_and_nothing_is_lost_that_there_is_room_for(pipe: Pipe) -> None:
    sent = numbered(100)
    with lines_to(pipe.writer) as lines:
        for each in sent:
            lines.put(each)
        lines.push()  # takes what the pipe takes, and returns
        assert 0 < lines.waiting <= sum(map(len, sent)) - 4000

        received = b""
        while lines.waiting:
            received += pipe.read()
            lines.push()
        received += pipe.read()

    assert received == b"".join(sent)
    assert lines.dropped == 0


def test_a_line_longer_than_the_pipe_comes_through_in_pieces(pipe: Pipe) -> None:
    line = b"x" * 50_000 + b"\n"
    with lines_to(pipe.writer) as lines:
        lines.put(line)
        received = b""
        lines.push()
        while lines.waiting:
            received += pipe.read()
            lines.push()

    assert received + pipe.read() == line


def test_past_its_bound_lines_are_dropped_counted_and_told_of(pipe: Pipe) -> None:
    with structlog.testing.capture_logs() as log, lines_to(pipe.writer, room=10_000) as lines:
        for each in numbered(1000):
            lines.put(each)
            lines.push()
        assert lines.waiting <= 10_000
        dropped = lines.dropped
        assert log == []

        received = b""
        while lines.waiting:
            received += pipe.read()
            lines.push()
        received += pipe.read()

    assert log == [{"event": "lines_dropped", "log_level": "warning", "lines": dropped}]
    assert received.count(b"\n") == 1000 - dropped
    assert received == b"".join(numbered(1000)[: 1000 - dropped])


def test_a_reader_who_is_gone_costs_lines_and_nothing_else() -> None:
    reader, writer = os.pipe()
    try:
        with lines_to(writer) as lines:
            os.close(reader)
            for each in numbered(5):
                lines.put(each)
            lines.push()

            assert (lines.waiting, lines.dropped) == (0, 5)
    finally:
        os.close(writer)


def test_a_full_disk_costs_lines_which_are_told_of_once_there_is_room(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with (tmp_path / "log").open("ab", buffering=0) as file, lines_to(file.fileno()) as lines:
        lines.put(*numbered(2))
        lines.push()
        with structlog.testing.capture_logs() as log:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file.tell(), hard))  # as good as a full disk: write(2) fails
            try:
                for _ in range(2):
                    lines.put(*numbered(3))
                    lines.push()
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            assert log == []
            assert lines.dropped == 6

            lines.put(*numbered(1))
            lines.push()

    assert log == [{"event": "lines_dropped", "log_level": "warning", "lines": 6}]
    assert (tmp_path / "log").read_bytes() == b"".join([*numbered(2), *numbered(1)])


def test_other_holders_of_the_pipe_may_still_block(pipe: Pipe) -> None:
    """The flag belongs to the pipe as it was opened, and others, the shell even, write by it."""
    with lines_to(pipe.writer):
        assert os.get_blocking(pipe.writer)


async def test_the_end_waits_for_a_slow_reader(pipe: Pipe) -> None:
    sent = numbered(300)
    received: list[bytes] = []

    def read() -> None:
        while sum(map(len, received)) < 300 * 201:
            select.select([pipe.reader], [], [], 5)
            received.append(pipe.read())

    lines = NonBlockingHandler(pipe.writer)
    for each in sent:
        lines.put(each)
    reading = asyncio.create_task(asyncio.to_thread(read))
    await asyncio.to_thread(lines.close)
    await reading

    assert b"".join(received) == b"".join(sent)


def test_files_take_everything(tmp_path: Path) -> None:
    file = tmp_path / "log"
    with file.open("wb") as opened, lines_to(opened.fileno()) as lines:
        for each in numbered(20_000):
            lines.put(each)
        lines.push()

    assert file.read_bytes() == b"".join(numbered(20_000))


def test_threads_may_write_side_by_side(tmp_path: Path) -> None:
    file = tmp_path / "log"
    with file.open("wb") as opened, lines_to(opened.fileno()) as lines:

        def write(name: str) -> None:
            for number in range(500):
                lines.put(json.dumps([name, number]).encode() + b"\n")
                lines.push()

        threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
        for each in threads:
            each.start()
        for each in threads:
            each.join()

    told = [json.loads(each) for each in file.read_text().splitlines()]
    for name in "abcd":
        assert [number for by, number in told if by == name] == list(range(500))
