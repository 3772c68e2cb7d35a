"""The files to which processes write their metrics, so that another process can add them up.

Format and names are those of prometheus_client's multi-process mode, and its own collector reads them. Only writing is
done here: prometheus_client maps the files into memory, and if the filesystem has no room for a new page, the kernel
kills the process with SIGBUS, while a write would just fail. No error leaves this module, since metrics are not worth a
call: a number that could not be written stays in memory, and is written when there is room.
"""

from __future__ import annotations

import errno
import os
import time
from functools import partial
from struct import Struct
from typing import TYPE_CHECKING, Final

import structlog
from prometheus_client import values
from prometheus_client.mmap_dict import mmap_key

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["NumbersFile", "write_metrics_to"]

_TRY_AGAIN_AFTER: Final = 1.0
"""Seconds after a failure before the file is made longer again."""
_LOG_EVERY: Final = 60.0

_used: Final = Struct("i4x")
_length: Final = Struct("i")
_number: Final = Struct("dd")

_log = structlog.stdlib.get_logger(__name__)


def write_metrics_to(folder: Path) -> None:
    """Write all metrics that this process creates from now on to files in a folder."""
    values.ValueClass = partial(_Value, _Files(folder))


class NumbersFile:
    """Numbers by key, in memory and, as far as possible, in a file, which is created with the first number.

    The file begins with its used length, and 4 unused bytes. For each number there follow the length of its key, the
    key, 1 to 8 spaces up to a multiple of 8 bytes, the number, and a time, which is 0 here.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._used = _used.size
        self._numbers: dict[str, float] = {}
        self._places: dict[str, int] = {}
        self._try_again_at = 0.0
        self._logged_at = -_LOG_EVERY

    def get(self, key: str) -> float:
        """The number, or 0."""
        return self._numbers.get(key, 0.0)

    def set(self, key: str, number: float) -> None:
        """Change a number, or add one."""
        self._numbers[key] = number
        self.write(key)

    def write(self, *keys: str) -> None:
        """Write these, and what could not be written before, as far as possible."""
        try:
            for key in keys:
                if key in self._places:
                    self._put(_number.pack(self._numbers[key], 0.0), self._places[key])
            if len(self._places) < len(self._numbers) and time.monotonic() >= self._try_again_at:
                self._append()
        except OSError as error:
            self._failed(error)

    def close(self) -> None:
        """Write no more."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _append(self) -> None:
        """Write all numbers that have no place yet. The used length comes last: readers go by that."""
        entries, places = bytearray(), {}
        for key, number in self._numbers.items():
            if key not in self._places:
                encoded = key.encode()
                entries += _length.pack(len(encoded)) + encoded
                entries += b" " * (8 - len(entries) % 8)
                places[key] = self._used + len(entries)
                entries += _number.pack(number, 0.0)
        self._put(entries, self._used)
        self._put(_used.pack(self._used + len(entries)), 0)
        self._used += len(entries)
        self._places |= places

    def _put(self, data: bytes | bytearray, place: int) -> None:
        if self._descriptor is None:
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        if os.pwrite(self._descriptor, data, place) < len(data):  # readers ignore what was written of it
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _failed(self, error: OSError) -> None:
        now = time.monotonic()
        self._try_again_at = now + _TRY_AGAIN_AFTER
        if now - self._logged_at >= _LOG_EVERY:
            self._logged_at = now
            _log.warning("metrics_not_written", file=self._path.name, error=error.strerror)


class _Files:
    """The files of this process, by kind of metric."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, NumbersFile] = {}

    def of(self, kind: str) -> NumbersFile:
        """The file for a kind."""
        if kind not in self._files:
            self._files[kind] = NumbersFile(self._folder / f"{kind}_{os.getpid()}.db")
        return self._files[kind]


class _Value:
    """A number that belongs to a metric, with the parameters and methods that prometheus_client calls."""

    def __init__(  # noqa: PLR0917 - prometheus_client passes them so
        self,
        files: _Files,
        typ: str,
        metric_name: str,
        name: str,
        labelnames: Sequence[str],
        labelvalues: Sequence[str],
        help_text: str,
        multiprocess_mode: str = "",
    ) -> None:
        self._file = files.of(f"{typ}_{multiprocess_mode}" if typ == "gauge" else typ)
        self._key = mmap_key(metric_name, name, list(labelnames), list(labelvalues), help_text)
        self.set(0.0)

    def inc(self, amount: float) -> None:
        """Add to it."""
        self.set(self.get() + amount)

    def set(self, number: float) -> None:
        """Change it."""
        self._file.set(self._key, number)

    def get(self) -> float:
        """What it is now."""
        return self._file.get(self._key)

    def get_exemplar(self) -> None:
        """There is none: the files have no place for it."""
