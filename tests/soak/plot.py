"""A soak as a picture, PNG and SVG: requests and errors, memory, open files and threads, and the weather."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import matplotlib as mpl

if TYPE_CHECKING:
    from pathlib import Path

    from soak.report import Report

__all__ = ["plot"]


def plot(report: Report, path: Path) -> list[Path]:
    """Draw it; `path` has no suffix. Returns the files."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415 - looks for a screen unless it was told

    figure, (rates, memory, files, weather) = plt.subplots(
        4, 1, figsize=(12, 13), sharex=True, layout="constrained", height_ratios=(2, 2, 1.4, 2.6)
    )
    steps = list(pairwise(report.over_time))
    at = [after[0] for _, after in steps]
    for column, label, colour in ((1, "requests", "#1b7f5c"), (2, "errors", "#b8433a")):
        per_second = [(after[column] - before[column]) / max(after[0] - before[0], 1e-9) for before, after in steps]
        rates.plot(at, per_second, label=label, color=colour, linewidth=1)
    rates.set_title("requests and errors a second, at both doors", fontsize=10, loc="left")
    rates.legend(frameon=False, fontsize=8)
    times = [each.at for each in report.samples]
    memory.plot(times, [each.rss for each in report.samples], color="#5b7db1")
    memory.set_title("resident memory of the gateway, MB", fontsize=10, loc="left")
    memory.set_ylim(bottom=0)
    files.plot(times, [each.files for each in report.samples], color="#5b7db1", label="open files")
    files.plot(times, [each.threads for each in report.samples], color="#b8b8b8", label="threads")
    files.set_title("open files and threads of the gateway", fontsize=10, loc="left")
    files.set_ylim(bottom=0)
    files.legend(frameon=False, fontsize=8)
    names = sorted({name for name, _, _ in report.spells}, reverse=True)
    for row, name in enumerate(names):
        spans = [(began, ended - began) for each, began, ended in report.spells if each == name]
        weather.broken_barh(spans, (row - 0.35, 0.7), color="#d99a3d")
    weather.set_yticks(range(len(names)), names, fontsize=8)
    weather.set_title("faults", fontsize=10, loc="left")
    weather.set_xlabel("seconds")
    for each in (rates, memory, files, weather):
        each.spines[["top", "right"]].set_visible(False)
    how = ", ".join(f"{name} {value}" for name, value in report.how.items())
    figure.suptitle(f"{report.tally.requests:,} requests, {len(report.wrong)} wrong answers. {how}", fontsize=10)
    written = [path.with_suffix(suffix) for suffix in (".png", ".svg")]
    for each in written:
        figure.savefig(each, dpi=110)
    plt.close(figure)
    return written
