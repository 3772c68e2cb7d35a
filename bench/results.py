"""What has been measured: rows, the targets among them, the table and the JSON file."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from bench.cases import Measured

__all__ = ["Results", "Row", "Verdict", "print_table", "row_of", "verdicts", "write_json"]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One contender in one case: medians of the rounds."""

    case: str
    fields: str
    contender: str
    kind: str
    concurrency: int
    rps: float = 0.0
    p50: float = 0.0
    """Milliseconds."""
    p99: float = 0.0
    cpu: float = 0.0
    """Seconds of CPU per 1,000 requests, of the contender."""
    busy: float = 0.0
    """Share of its core that it has used; below 0.9 it was not what bounded the rate."""
    upstream: float = 0.0
    """Calls upstream per 1,000 requests."""
    rss: float = 0.0
    """MiB, after the case."""
    rounds: list[float] = []
    """Requests a second, each."""
    stale: int = 0
    """Of all rounds: reads that did not show what the same shopper had written."""
    foreign: int = 0
    """Of all rounds: reads that showed another session than the one asked for."""
    conflicts: int = 0
    wrong: str | None = None
    """Why there are no figures."""

    @property
    def key(self) -> tuple[str, str, int]:
        """What rows that can be compared have in common."""
        return self.case, self.fields, self.concurrency


class Verdict(msgspec.Struct, frozen=True):
    """A target, and what became of it."""

    target: str
    ratio: float | None
    """None where one of the two was not measured."""
    wanted: float
    by_cpu: float | None = None
    """The ratio by CPU time per request, which holds on a busy machine too; none for latencies."""

    @property
    def outcome(self) -> Literal["reached", "NOT reached", "not measured"]:
        """In words."""
        if self.ratio is None:
            return "not measured"
        return "reached" if self.ratio >= self.wanted else "NOT reached"


class Results(msgspec.Struct, kw_only=True):
    """All of it."""

    date: str
    machine: str
    python: str
    seconds: float
    rounds: int
    versions: dict[str, str]
    missing: dict[str, str]
    rows: list[Row]
    targets: list[Verdict] = []


@dataclass(frozen=True, slots=True)
class _Target:
    """Ours in one case against another in the same or another; `lower` for times, where less is better."""

    text: str
    ours: str
    other: str
    contender: str
    wanted: float
    concurrency: int = 32
    lower: bool = False


_TARGETS: Final = (
    _Target("GraphQL cached / Mercurius with JIT, uncached", "graphql-cached", "graphql-uncached", "mercurius", 1.0),
    _Target("GraphQL cached / Mercurius with JIT and cache", "graphql-cached", "graphql-cached", "mercurius", 0.8),
    _Target("GraphQL cached / Hive Gateway with cache", "graphql-cached", "graphql-cached", "hive", 4.0),
    _Target("GraphQL cached / uvicorn, constant", "graphql-cached", "graphql-cached", "uvicorn", 0.55),
    _Target("GraphQL uncached / Hive Gateway, uncached", "graphql-uncached", "graphql-uncached", "hive", 4.0),
    _Target("gRPC cached / grpc.aio echo", "grpc-cached", "grpc-cached", "grpc.aio echo", 0.85),
    _Target("gRPC uncached / grpc.aio over aiohttp", "grpc-uncached", "grpc-uncached", "grpc.aio over aiohttp", 1.5),
    _Target("gRPC uncached / grpc.aio over httpx", "grpc-uncached", "grpc-uncached", "grpc.aio over httpx", 5.0),
    *(
        _Target(
            f"pages by {door}, shoppers: {number}; p50 of {name}, uncached / ours",
            f"pages-{case}-cached",
            f"pages-{case}-uncached",
            name,
            20.0,
            concurrency=number,
            lower=True,
        )
        for number in (1, 16)
        for door, case, names in (
            ("GraphQL", "graphql", ("mercurius", "hive", "tailcall")),
            ("gRPC", "grpc", ("envoy",)),
        )
        for name in names
    ),
)


def row_of(
    measured: Sequence[Measured],
    *,
    case: str,
    fields: str,
    contender: str,
    kind: str,
    concurrency: int,
    rss: int,
    wrong: str | None,
) -> Row:
    """The medians, where nothing was wrong."""
    row = Row(
        case=case,
        fields=fields,
        contender=contender,
        kind=kind,
        concurrency=concurrency,
        rss=rss / 2**20,
        wrong=wrong,
    )
    if wrong is not None:
        return row
    samples = [each.sample for each in measured]
    return msgspec.structs.replace(
        row,
        rps=statistics.median(each.rate for each in samples),
        p50=statistics.median(each.p50 for each in samples),
        p99=statistics.median(each.p99 for each in samples),
        cpu=statistics.median(1000 * each.cpu / each.sample.total for each in measured),
        busy=statistics.median(each.busy for each in measured),
        upstream=statistics.median(1000 * each.calls / each.sample.total for each in measured),
        rounds=[each.rate for each in samples],
        stale=sum(each.stale for each in samples),
        foreign=sum(each.foreign for each in samples),
        conflicts=sum(each.conflicts for each in samples),
    )


def verdicts(rows: Iterable[Row]) -> list[Verdict]:
    """Of all targets, which are for all fields."""
    found = {(each.case, each.contender, each.concurrency): each for each in rows if each.fields == "all"}
    return [_verdict(each, found) for each in _TARGETS]


def _verdict(target: _Target, found: dict[tuple[str, str, int], Row]) -> Verdict:
    ours = found.get((target.ours, "ours", target.concurrency))
    other = found.get((target.other, target.contender, target.concurrency))
    if ours is None or other is None or ours.wrong or other.wrong:
        return Verdict(target.text, None, target.wanted)
    if target.lower:
        return Verdict(target.text, other.p50 / ours.p50, target.wanted)
    return Verdict(target.text, ours.rps / other.rps, target.wanted, other.cpu / ours.cpu)


def print_table(results: Results) -> None:
    """One table, then the targets."""
    head = f"{'':24}{'c':>5}{'rps':>9}{'ours/it':>9}{'p50 ms':>9}{'p99 ms':>9}{'CPU s/1k':>10}{'core':>6}"
    head += f"{'up/1k':>7}{'MiB':>6}"
    ours = {each.key: each for each in results.rows if each.contender == "ours"}
    title = ""
    for row in results.rows:
        if title != (title := f"{row.case}, {row.fields} fields"):
            print(f"\n{title}\n{head}")
        print(f"{row.contender:24}{row.concurrency:>5}{_figures(row, ours.get(row.key))}")
    print("\nA contender with less than 90% of its core was not what bounded the rate. Versions:")
    for name, version in results.versions.items():
        print(f"{name:24}{version}")
    for name, reason in results.missing.items():
        print(f"{name:24}MISSING: {reason}")
    print("\ntargets (32 in flight where nothing else is said)")
    print(f"{'':64}{'ratio':>7}{'by CPU':>8}{'wanted':>8}")
    for verdict in results.targets:
        ratio, by_cpu = ("-" if each is None else f"{each:.2f}" for each in (verdict.ratio, verdict.by_cpu))
        print(f"{verdict.target:64}{ratio:>7}{by_cpu:>8}{verdict.wanted:>8g}  {verdict.outcome}")


def _figures(row: Row, ours: Row | None) -> str:
    if row.wrong:
        return f"  wrong: {row.wrong}"
    ratio = f"{ours.rps / row.rps:.2f}" if ours is not None and not ours.wrong else "-"
    remarks = {"stale": row.stale, "of another session": row.foreign, "conflicts": row.conflicts}
    return (
        f"{row.rps:>9,.0f}{ratio:>9}{row.p50:>9.2f}{row.p99:>9.2f}{row.cpu:>10.3f}{row.busy:>6.0%}"
        f"{row.upstream:>7.0f}{row.rss:>6.0f}"
        + "".join(f"  {count} {name}" for name, count in remarks.items() if count)
    )


def write_json(results: Results, path: Path) -> None:
    """All of it, for whoever wants to compare."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n")
