"""Where `session-gateway` begins, and `python -m gateway`.

Imports take a second on a busy machine, and signals may arrive meanwhile. The first process of a container (PID 1) must
have handlers for them: the kernel drops signals for which it has none.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gateway.garbage import uncollected

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["main"]

_SERVING: Final = {"serve", "dev", "sandbox"}
"""Commands that run until they are told to stop, and then exit with status 0, however early that is."""


def main() -> None:
    """Run the command line."""
    _open_what_is_closed()
    serves = not _SERVING.isdisjoint(sys.argv[1:2])
    if serves:  # until `gateway.shutdown` obeys signals, or holds them
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, _end)
    else:
        interrupted = signal.signal(signal.SIGINT, _abort)
    with uncollected():
        from gateway import cli  # noqa: PLC0415 - see `uncollected`
    if not serves:
        signal.signal(signal.SIGINT, interrupted)  # click says the same from here on
    try:
        cli.main()
    except OSError as error:  # of standard output: all others are handled where they occur
        _tell(f"session-gateway: cannot write to standard output: {error.strerror}")
        os._exit(1)  # otherwise Python would try to write again, and print a traceback


def _open_what_is_closed() -> None:
    """Open closed standard streams on /dev/null.

    Otherwise connections would get their numbers, the lowest free ones: libuv aborts a process that closes these.
    """
    for name, mode in {"stdin": "r", "stdout": "w", "stderr": "w"}.items():
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - for its whole life


def _end(_: int, __: FrameType | None) -> None:
    """Exit at once: nothing needs closing yet, and an exception could be swallowed by code that is being imported."""
    os._exit(0)


def _abort(_: int, __: FrameType | None) -> None:
    _tell("Aborted!")
    os._exit(1)


def _tell(line: str) -> None:
    with suppress(OSError):
        os.write(sys.stderr.fileno(), f"{line}\n".encode())


if __name__ == "__main__":
    main()
