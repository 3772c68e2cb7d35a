"""The folder to which workers write their metrics."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["metrics_folder"]

_PLACES: Final = (None, "/dev/shm")  # noqa: S108 - the folder is made under a name that nobody can guess
"""None means the default for temporary files: TMPDIR, or `/tmp`."""
_NOWHERE: Final = Path(os.devnull, "metrics")
"""Nothing can be created here."""


@contextmanager
def metrics_folder() -> Iterator[Path]:
    """A folder of this process's own while the block runs.

    If none can be created, for example on a full disk, it logs a warning, and yields a path where nothing can be
    written: the gateway serves calls without metrics.
    """
    folder = _made()
    if folder is None:
        yield _NOWHERE
        return
    with folder as name:
        yield Path(name)


def _made() -> tempfile.TemporaryDirectory[str] | None:
    for place in _PLACES:
        try:
            return tempfile.TemporaryDirectory(prefix="session-gateway-", dir=place, ignore_cleanup_errors=True)
        except OSError as error:
            problem = error.strerror
    structlog.stdlib.get_logger(__name__).warning("metrics_have_no_folder", error=problem)
    return None
