"""The gateway beside what a team would run instead, on this machine.

`make bench` runs all of it; while developing, a part of it is enough:

    .venv/bin/python bench/run.py --only graphql-cached --peers ours,mercurius --seconds 3 --concurrency 32

Contenders have one core and one worker each; load and the stub upstream have the other core. Every case is run by all
who take part in turn, several rounds, and the median counts. Answers are compared whole before each run, and counted
at upstream after it: of an uncached contender each request must have got there, so nobody's de-duplication flatters it.
Cases: see `bench/cases.py`; contenders: `bench/contenders.py`. Writes bench/results.json, and plots it.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from bench.answers import Wrong
from bench.cases import CASES, Case, Measured, measure
from bench.contenders import CONTENDERS, Contender, Up, up
from bench.install import Missing, debian_tools
from bench.processes import LOAD_CORE, SERVER_CORE, Failed
from bench.results import Results, Row, print_table, row_of, verdicts, write_json
from bench.stub import Stub, stub_upstream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_T = TypeVar("_T")

_HERE: Final = Path(__file__).parent
_USUAL: Final = 32
"""In flight. Runs with another number are shorter."""
_SHORTER: Final = 0.6
_BUSY: Final = 0.5
"""Load of a machine that has something else to do."""
_WARM_UP: Final = 0.4
"""Of a run; V8 has compiled what it is going to by then."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is wanted."""

    cases: tuple[Case, ...]
    contenders: tuple[Contender, ...]
    seconds: float
    rounds: int
    concurrency: tuple[int, ...] | None

    def of(self, case: Case) -> tuple[int, ...]:
        """The numbers in flight of a case."""
        if self.concurrency is None or case.mode == "pages":
            return case.concurrency
        return tuple(each for each in case.concurrency if each in self.concurrency)


@dataclass(slots=True)
class Bench:
    """A benchmark under way."""

    plan: Plan
    directory: Path
    stub: Stub
    missing: dict[str, str] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def run(self) -> None:
        """All cases. Those who cache are up together, then those who do not; then upstream is slow."""
        for pages in (False, True):
            for cached in (True, False):
                cases = [each for each in self.plan.cases if (each.mode == "pages", each.cached) == (pages, cached)]
                wanted = [each for each in self.plan.contenders if any(case.takes(each) for case in cases)]
                port = self.stub.slow_port if pages else self.stub.port
                with contextlib.ExitStack() as stack:
                    started = [self._started(stack, each, port, cached) for each in wanted]
                    for case in cases:
                        self._case(case, [each for each in started if each and case.takes(each.contender)])

    def _started(self, stack: contextlib.ExitStack, contender: Contender, port: int, cached: bool) -> Up | None:
        if contender.name in self.missing:
            return None
        self._say(f"starting {contender.name}, {'cached' if cached else 'uncached'}")
        try:
            return stack.enter_context(up(contender, self.directory, port, cached=cached))
        except (Missing, Failed, OSError, subprocess.SubprocessError) as problem:
            self.missing[contender.name] = str(problem)
            self._say(f"{contender.name} is missing: {problem}")
            return None

    def _case(self, case: Case, ups: list[Up]) -> None:
        for fields in case.fields:
            takes = [each for each in ups if fields == "all" or each.contender.floor is None]
            for concurrency in self.plan.of(case):
                self._row(case, takes, fields, concurrency)

    def _row(self, case: Case, ups: list[Up], fields: str, concurrency: int) -> None:
        """Rounds in turn, so that whatever else the machine does hits all alike."""
        self._say(f"{case.name}, {fields} fields, {concurrency} in flight")
        usual = concurrency == _USUAL or case.mode == "pages"
        seconds = self.plan.seconds * (1.0 if usual else _SHORTER)
        runs: dict[str, list[Measured]] = {each.name: [] for each in ups}
        wrong: dict[str, str] = {}
        for number in range(-1, self.plan.rounds):  # the first of them warms up
            for each in (one for one in ups if one.name not in wrong):
                try:
                    run = measure(
                        case,
                        each,
                        fields,
                        concurrency,
                        seconds=seconds if number >= 0 else seconds * _WARM_UP,
                        stub=self.stub,
                    )
                except (Wrong, Failed) as problem:
                    wrong[each.name] = str(problem)
                    self._say(f"  {problem}")
                    continue
                if number >= 0:
                    runs[each.name].append(run)
        for each in ups:
            row = row_of(
                runs[each.name],
                case=case.name,
                fields=fields,
                contender=each.name,
                kind=each.contender.kind,
                concurrency=concurrency,
                rss=each.process.rss(),
                wrong=wrong.get(each.name),
            )
            if row.wrong is None:
                self._say(f"  {each.name:24}{row.rps:>9,.0f} rps  p50 {row.p50:.2f} ms")
            self.rows.append(row)

    def _say(self, what: str) -> None:
        print(f"{time.monotonic() - self.began:6.0f} s  {what}", flush=True)


def main() -> int:
    """Measure, print, write, plot. 1 when the gateway itself was wrong or missing."""
    arguments = _arguments()
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, lambda number, _: sys.exit(128 + number))  # unwinds, so that everything is stopped
    plan = Plan(
        _chosen(CASES, arguments.only, lambda case: case.name),
        _chosen(CONTENDERS, arguments.peers, lambda contender: contender.name),
        arguments.seconds,
        arguments.rounds,
        arguments.concurrency and tuple(int(each) for each in arguments.concurrency.split(",")),
    )
    if SERVER_CORE == LOAD_CORE:
        print("there is one core alone: load and server share it, and the figures say little")
    if os.getloadavg()[0] > _BUSY:
        print("the machine has other work to do: of the figures, only CPU will mean much")
    try:
        debian_tools()
    except Missing as problem:
        print(problem, file=sys.stderr)
        return 2
    versions, missing = _versions(plan)
    with tempfile.TemporaryDirectory(prefix="session-gateway-bench-") as name:
        directory = Path(name)
        directory.chmod(0o755)  # nginx's worker is another user
        with stub_upstream(directory) as stub:
            bench = Bench(plan, directory, stub, missing)
            bench.run()
    results = Results(
        date=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        machine=_machine(),
        python=platform.python_version(),
        seconds=plan.seconds,
        rounds=plan.rounds,
        versions=versions,
        missing=bench.missing,
        rows=bench.rows,
        targets=verdicts(bench.rows),
    )
    print_table(results)
    write_json(results, arguments.json)
    print(f"\nwritten: {arguments.json}")
    if not arguments.no_plot:
        from bench.plot import plot  # noqa: PLC0415 - matplotlib takes a second

        for path in plot(results, arguments.json.with_suffix("")):
            print(f"written: {path}")
    failed = [each for each in bench.rows if each.kind == "ours" and (each.wrong or each.stale or each.foreign)]
    return 1 if failed or "ours" in bench.missing else 0


def _versions(plan: Plan) -> tuple[dict[str, str], dict[str, str]]:
    """Of each contender, once it is installed; and why those are missing that are."""
    versions: dict[str, str] = {}
    missing: dict[str, str] = {}
    for each in plan.contenders:
        try:
            versions[each.name] = each.version()
        except Missing as problem:
            missing[each.name] = str(problem)
    return versions, missing


def _chosen(each_of: Iterable[_T], names: str | None, name_of: Callable[[_T], str]) -> tuple[_T, ...]:
    """Those that are named, or all. A name stands for all that begin with it."""
    wanted = [each.strip() for each in (names or "").split(",")]
    return tuple(each for each in each_of if any(name_of(each).startswith(name) for name in wanted))


def _machine() -> str:
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    models = {line.partition(": ")[2] for line in lines if line.startswith("model name")}
    return f"{', '.join(models) or platform.machine()}, {os.cpu_count()} cores, {platform.platform(terse=True)}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="cases that begin so, with commas between")
    parser.add_argument("--peers", help="contenders that begin so, with commas between; `ours` is one")
    parser.add_argument("--seconds", type=float, default=5.0, help="of one run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--concurrency", help="numbers in flight, with commas between")
    parser.add_argument("--json", type=Path, default=_HERE / "results.json")
    parser.add_argument("--no-plot", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
