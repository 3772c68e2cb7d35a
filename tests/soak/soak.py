"""All operations at both doors while upstream fails, for as long as you like; every answer is checked.

Sandbox, gateway and, with `--cache redis`, Redis run in processes of their own. Ends with 1 after a wrong answer, an
error that no fault explains, or the gateway's death. Ctrl-C ends it early, with the report so far.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # where the tests' own modules are

import click
import grpc
import httpx

from doors import GraphQLDoor, GrpcDoor
from gateway.sandbox import Sandbox
from soak.filling import fill
from soak.report import Report
from soak.shoppers import Round, Setting, play
from soak.system import MAX_AGE, NotStarted, System, running_system
from soak.upstream import Upstream
from soak.watch import SHORTEST, watch
from soak.weather import Weather

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from doors import Door

__all__ = ["soak"]

_ROUND: Final = 4.0
"""Seconds of a round: what one is checked for takes with its square."""


async def soak(  # noqa: PLR0917
    seconds: float,
    seed: int,
    clients: int,
    cache: str,
    workers: int,
    folder: Path,
    tell: Callable[[float, str], None] = lambda _passed, _said: None,
    stop: asyncio.Event | None = None,
    enough: Callable[[Report], bool] = lambda _: True,
) -> Report:
    """Soak a gateway for so long, and on until it is `enough`. `tell` hears every second how it goes.

    Raises NotStarted.
    """
    stopped = stop or asyncio.Event()
    how = {"seconds": seconds, "seed": seed, "clients": clients, "cache": cache, "workers": workers}
    report = Report(how)
    chance = random.Random(seed)
    async with running_system(cache, workers, folder) as system, httpx.AsyncClient(timeout=30) as client:
        upstream = Upstream(client, system.sandbox)
        if seconds >= SHORTEST:
            await fill(upstream, GraphQLDoor(client, system.graphql))
        weather = Weather(upstream, system.cache, random.Random(seed), seconds)
        began = time.monotonic()
        background = [
            asyncio.create_task(watch(system.pid, report.samples)),
            asyncio.create_task(weather.run()),
            asyncio.create_task(_told(report, weather, began, tell)),
        ]
        try:
            await _rounds(report, system, upstream, weather, chance, clients, stopped, began + seconds, enough)
        finally:
            for each in background:
                each.cancel()
            await asyncio.wait(background)
        for each in background:
            if not each.cancelled() and (error := each.exception()) is not None:
                raise error
        report.struck = await upstream.struck()
        report.spells = _spells(weather, began)
        report.died = system.gone()
        report.complaints = system.complaints()
    return report


async def _rounds(  # noqa: PLR0917
    report: Report,
    system: System,
    upstream: Upstream,
    weather: Weather,
    chance: random.Random,
    clients: int,
    stopped: asyncio.Event,
    until: float,
    enough: Callable[[Report], bool],
) -> None:
    async with grpc.aio.insecure_channel(system.grpc) as channel, httpx.AsyncClient() as client:
        one_process = report.how["workers"] == 1
        gateway = "gateway" if one_process else ""  # of several, one may answer before it hears of another's write
        doors: list[Door] = [GrpcDoor(channel, gateway), GraphQLDoor(client, system.graphql, gateway)]
        setting = Setting(upstream, doors, report.tally, weather.explains, MAX_AGE, Sandbox().saas_token, one_process)
        while not stopped.is_set() and ((left := until - time.monotonic()) > 0 or not enough(report)):
            ends_at = time.monotonic() + (min(left, _ROUND) if left > 0 else _ROUND)
            name = f"soak-{report.rounds}"
            played = await play(
                setting,
                chance,
                name,
                lambda ends_at=ends_at: stopped.is_set() or time.monotonic() >= ends_at,  # type: ignore[misc]  # bound
                clients,
            )
            report.rounds += 1
            if played.wrong:
                report.wrong += played.wrong
                _keep(played, system.log.parent / f"wrong-{report.rounds}.json")


def _keep(played: Round, path: Path) -> None:
    """The history of a round with a wrong answer."""
    events = [{"kind": type(each).__name__, **vars(each)} for each in played.history.events]
    chains = {name: [vars(each) for each in chain] for name, chain in played.history.chains.items()}
    found = {"wrong": played.wrong, "events": events, "chains": chains}
    path.write_text(json.dumps(found, default=str, indent=1), "utf-8")


def _spells(weather: Weather, began: float) -> list[tuple[str, float, float]]:
    return [(name, start - began, end - began) for name, start, end in weather.log]


async def _told(report: Report, weather: Weather, began: float, tell: Callable[[float, str], None]) -> None:
    while True:
        passed = time.monotonic() - began
        requests, errors = report.tally.requests, report.tally.errors.total()
        report.over_time.append((round(passed, 2), requests, errors))
        report.spells = _spells(weather, began)
        last = report.samples[-1] if report.samples else None
        memory = "" if last is None else f", {last.rss:.0f} MB, {last.files} files"
        now = " + ".join(weather.now) or "fine"
        tell(passed, f"{requests:,} requests, {errors:,} errors, {len(report.wrong)} wrong{memory} | {now}")
        await asyncio.sleep(1)


@contextlib.contextmanager
def _telling(seconds: float, interval: float) -> Iterator[Callable[[float, str], None]]:
    """A bar on a terminal, and lines elsewhere."""
    if sys.stdout.isatty():
        with click.progressbar(
            length=int(seconds), show_eta=True, show_percent=False, width=20, item_show_func=lambda said: said or ""
        ) as bar:
            yield lambda passed, said: bar.update(max(0, min(int(passed), int(seconds)) - bar.pos), said)
        return
    due = 0.0

    def tell(passed: float, said: str) -> None:
        nonlocal due
        if passed >= due:
            due += interval
            click.echo(f"{passed:5.0f} s  {said}")

    yield tell


@click.command(help=__doc__)
@click.option("--seconds", type=float, default=600, show_default=True, help="How long.")
@click.option("--seed", type=int, default=None, help="To have the same weather again.")
@click.option("--clients", type=int, default=16, show_default=True, help="How many at a time.")
@click.option("--cache", type=click.Choice(["memory", "redis", "none"]), default="memory", show_default=True)
@click.option("--workers", type=int, default=1, show_default=True, help="Processes of the gateway's.")
@click.option("--out", type=click.Path(path_type=Path), default=Path(".soak"), show_default=True, help="Folder.")
@click.option("--interval", type=float, default=10, show_default=True, help="Seconds between lines, off a terminal.")
def main(  # noqa: PLR0917
    seconds: float, seed: int | None, clients: int, cache: str, workers: int, out: Path, interval: float
) -> None:
    chosen = random.randrange(2**32) if seed is None else seed
    click.echo(f"soak: {seconds:.0f} s, {clients} clients, cache {cache}, {workers} worker(s), seed {chosen}")

    async def run() -> Report:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        for each in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(each, stop.set)
        with _telling(seconds, interval) as tell:
            return await soak(seconds, chosen, clients, cache, workers, out, tell, stop)

    out.mkdir(parents=True, exist_ok=True)
    try:
        report = asyncio.run(run())
    except NotStarted as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"\n{report.text()}")
    files = report.write(out)
    click.echo(f"written        {', '.join(map(str, files))}")
    if len(files) == 1:
        click.echo("no plots: matplotlib is in the dependency group `bench`, which `make soak` installs")
    sys.exit(not report.good)


if __name__ == "__main__":
    main()
