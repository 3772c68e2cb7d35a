"""Where `session-gateway` begins, and `python -m gateway`."""

from __future__ import annotations

import sys

from gateway.garbage import uncollected

__all__ = ["main"]


def main() -> None:
    """Run the command line."""
    try:
        with uncollected():
            from gateway import cli  # noqa: PLC0415 - see `uncollected`
    except KeyboardInterrupt:  # from then on click hears of it
        sys.exit("Aborted!")
    cli.main()


if __name__ == "__main__":
    main()
