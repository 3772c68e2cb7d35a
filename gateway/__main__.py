"""Where `session-gateway` begins, and `python -m gateway`."""

from __future__ import annotations

from gateway.garbage import uncollected

__all__ = ["main"]


def main() -> None:
    """Run the command line."""
    with uncollected():
        from gateway import cli  # noqa: PLC0415 - see `uncollected`
    cli.main()


if __name__ == "__main__":
    main()
