"""The concurrent history test for as long as you like: `python tests/soak/soak.py --seconds 600`.

Each round has new sessions and is checked when it is over. Ends with 1, and what disagrees, at the first violation.
"""

# ruff: noqa: E402, T201 - a script, which makes its own way to its modules and talks to whoever runs it
from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # where the tests' own modules are

import httpx

from gateway.logs import configure_logs
from gateway.settings import Log
from soak.history import violations
from soak.workload import TIMEOUT, Figures, Workload, answers_lost
from stage import entered, opened

_OPERATIONS = 1_000
"""In one round."""


async def soak(seconds: float, seed: int, clients: int) -> int:
    total, number, until = Figures(), 0, time.monotonic() + seconds
    async with (
        opened(upstream={"timeout": TIMEOUT, "retries": {"max_attempts": 3}}) as dev,
        entered("grpc", dev) as by_grpc,
        entered("graphql", dev) as by_graphql,
        httpx.AsyncClient() as client,
    ):
        workload = Workload(dev, [by_grpc, by_graphql], seed=seed, clients=clients)
        while time.monotonic() < until:
            before = await answers_lost(client, dev)
            history, figures = await workload.round(_OPERATIONS, number)
            figures.lost = await answers_lost(client, dev) - before
            total.add(figures)
            if found := violations(history):
                print(f"seed {seed}, round {number}: what was told and what was done do not agree", *found, sep="\n  ")
                return 1
            number += 1
            print(f"{max(0, until - time.monotonic()):6.0f} s left; in all, {total}", flush=True)
            dev.sandbox.store.clear()
    print(f"seed {seed}: no violation in {number} rounds")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="how long (default: 60)")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32), help="to do again what was done before")
    parser.add_argument("--clients", type=int, default=16, help="how many at a time (default: 16)")
    options = parser.parse_args()
    configure_logs(Log(level="error"))
    return asyncio.run(soak(options.seconds, options.seed, options.clients))


if __name__ == "__main__":
    sys.exit(main())
