"""The figures as pictures, PNG and SVG."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import matplotlib as mpl

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from bench.results import Results, Row

__all__ = ["plot"]

_COLOURS: Final = {"ours": "#1b7f5c", "peer": "#5b7db1", "floor": "#b8b8b8"}
_PANELS: Final = (
    ("GraphQL read, cached", "graphql-cached", 32),
    ("GraphQL read, uncached", "graphql-uncached", 32),
    ("gRPC read, cached", "grpc-cached", 32),
    ("gRPC read, uncached", "grpc-uncached", 32),
)
_PAGES: Final = (
    ("pages by GraphQL, 25 ms upstream", "pages-graphql", 16),
    ("pages by gRPC, 25 ms upstream", "pages-grpc", 16),
)


def plot(results: Results, path: Path) -> list[Path]:
    """Draw them; `path` has no suffix. Returns the files."""
    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "session-gateway"  # the same figures give the same file
    from matplotlib import pyplot as plt  # noqa: PLC0415 - looks for a screen unless it was told

    figure, axes = plt.subplots(3, 2, figsize=(13, 12), layout="constrained")
    places: list[Axes] = list(axes.flat)
    for place, (title, case, concurrency) in zip(places, _PANELS, strict=False):
        rows = [
            (each.contender, each)
            for each in results.rows
            if (each.case, each.fields, each.concurrency) == (case, "all", concurrency) and not each.wrong
        ]
        _bars(place, f"{title}: requests/s, {concurrency} in flight", rows, "rps")
    for place, (title, case, shoppers) in zip(places[len(_PANELS) :], _PAGES, strict=True):
        rows = [
            (f"{each.contender}, {each.case.rpartition('-')[2]}", each)
            for each in results.rows
            if each.case.startswith(case) and each.concurrency == shoppers and not each.wrong
        ]
        _bars(place, f"{title}, {shoppers} shoppers: p50, ms", rows, "p50")
    figure.suptitle(f"One core, one worker. {results.machine}, {results.date[:10]}", fontsize=10)
    files = [path.with_suffix(suffix) for suffix in (".png", ".svg")]
    for each in files:
        figure.savefig(each, dpi=110, metadata={"Date": None} if each.suffix == ".svg" else None)
    plt.close(figure)
    return files


def _bars(place: Axes, title: str, rows: Sequence[tuple[str, Row]], figure: str) -> None:
    """One bar for each, the best on top."""
    place.set_title(title, fontsize=10, loc="left")
    place.spines[["top", "right"]].set_visible(False)
    if not rows:
        place.text(0.5, 0.5, "not measured", ha="center", transform=place.transAxes)
        return
    ordered = sorted(rows, key=lambda row: getattr(row[1], figure), reverse=figure == "p50")
    names = [name for name, _ in ordered]
    values: list[float] = [getattr(row, figure) for _, row in ordered]
    bars = place.barh(names, values, color=[_COLOURS[row.kind] for _, row in ordered])
    place.bar_label(bars, labels=[f"{each:,.0f}" if each >= 100 else f"{each:.2f}" for each in values], padding=3)
    place.margins(x=0.15)
