"""Three gateways behind Envoy, with Redis, under load, while one after another is lost: what do callers see?

    make fleet                                    # two minutes
    .venv/bin/python tests/fleet/fleet.py --seconds 3 --cluster --json fleet.json

Prints a table, a row a phase and door. Ends with 1 when any answer was wrong, or a planned restart lost a request.
"""

# ruff: noqa: E402, T201 - a script, which makes its own way to its modules and talks to whoever runs it
from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path[0] = str(Path(__file__).resolve().parents[1])  # where the tests' own modules are

import msgspec

from fleet.machines import Options, missing, opened
from fleet.phases import PHASES, run

if TYPE_CHECKING:
    from fleet.phases import Run
    from fleet.shoppers import Tally

_DOORS = ("graphql", "grpc")


def rows_of(run: Run) -> list[dict[str, Any]]:
    """A row a phase and door. Times are in milliseconds."""
    return [
        {"phase": phase.name, "door": door, **_figures(run.book.tally(phase.name, door))}
        | {"retries": run.retries[phase.name][door]}
        for phase in PHASES
        for door in _DOORS
    ]


def _figures(tally: Tally) -> dict[str, Any]:
    times = statistics.quantiles(tally.seconds, n=100) if len(tally.seconds) > 1 else [0.0] * 99
    return {
        "requests": tally.requests,
        "failed": tally.errors.total(),
        "errors": dict(tally.errors),
        "older": tally.older,
        "p50": 1000 * times[49],
        "p99": 1000 * times[98],
        "max": 1000 * max(tally.seconds, default=0),
    }


def print_table(run: Run) -> None:
    """What callers saw, in Markdown."""
    print("\n| phase | door | requests | failed | retried | older | p50 ms | p99 | max | failures |")
    print("| --- | --- |" + " --: |" * 7 + " --- |")
    for row in rows_of(run):
        counts = f"{row['requests']} | {row['failed']} | {row['retries']} | {row['older']}"
        times = f"{row['p50']:.1f} | {row['p99']:.0f} | {row['max']:.0f}"
        kinds = ", ".join(f"{count} {kind}" for kind, count in row["errors"].items())
        print(f"| {row['phase']} | {row['door']} | {counts} | {times} | {kinds} |")
    print(f"\n{run.at_the_kill} requests were under way when a gateway was killed")
    print(f"wrong answers: {len(run.book.wrong)}", *run.book.wrong[:20], sep="\n  ")


def write_json(run: Run, options: argparse.Namespace) -> None:
    """All of it, for whoever wants to compare."""
    document = {"rows": rows_of(run), "wrong": run.book.wrong, "under_way_at_the_kill": run.at_the_kill}
    document["options"] = vars(options)
    Path(options.json).write_bytes(msgspec.json.format(msgspec.json.encode(document)) + b"\n")


async def main(options: argparse.Namespace) -> int:
    """Returns the exit status."""
    if (lacking := missing()) is not None:
        print(f"cannot run: {lacking}")
        return 2
    with tempfile.TemporaryDirectory() as folder:
        async with opened(Path(options.logs or folder), Options(cluster=options.cluster)) as fleet:
            found = await run(
                fleet,
                seconds=options.seconds,
                rate=options.rate,
                sessions=options.sessions,
                told=lambda name: print(name, file=sys.stderr, flush=True),
            )
    print_table(found)
    if options.json:
        write_json(found, options)
    return 1 if found.book.wrong or found.book.errors("rolling restart") else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10, help="of each phase, of which there are ten (default: 10)")
    parser.add_argument("--rate", type=float, default=100, help="requests a second, both doors together (default: 100)")
    parser.add_argument("--sessions", type=int, default=300, help="so many, each with a shopper (default: 300)")
    parser.add_argument("--cluster", action="store_true", help="Redis as a cluster of three masters")
    parser.add_argument("--json", help="file to write the figures to")
    parser.add_argument("--logs", help="existing folder to keep the logs of all processes in")
    sys.exit(asyncio.run(main(parser.parse_args())))
