"""Where `session-gateway` begins, and `python -m gateway`.

What it imports takes a second on a busy machine, and signals come during that too. The first process of a container
(PID 1) has to say what they do: the kernel drops those that it has no handler for.
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
"""Commands that go on until they are told to stop, and end with status 0 then, however early that is."""


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
    except OSError as error:  # of standard output: all others are told where they come from
        _tell(f"session-gateway: cannot write to standard output: {error.strerror}")
        os._exit(1)  # else what could not be written would be tried again, with a traceback


def _open_what_is_closed() -> None:
    """Have the standard streams lead nowhere where they were closed by whoever started this.

    Their numbers, the lowest that are free, would go to connections: libuv ends a process that closes such a one.
    """
    for name, mode in {"stdin": "r", "stdout": "w", "stderr": "w"}.items():
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - for its whole life


def _end(_: int, __: FrameType | None) -> None:
    """Nothing has been opened that would have to be closed. An exception could be lost in what is being imported."""
    os._exit(0)


def _abort(_: int, __: FrameType | None) -> None:
    _tell("Aborted!")
    os._exit(1)


def _tell(line: str) -> None:
    with suppress(OSError):
        os.write(sys.stderr.fileno(), f"{line}\n".encode())


if __name__ == "__main__":
    main()
