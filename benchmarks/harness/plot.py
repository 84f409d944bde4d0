"""The picture of a run: queries per second against recall, and latency by connections."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.harness import figures as fig
from benchmarks.harness.figures import Figures, Report


def plot(report: Report, file: Path) -> bool:
    """Write a PNG; False if the run has nothing to show."""
    swept = [one for one in report.figures if one.sweep]
    timed = [one for one in report.figures if one.search]
    if not swept and not timed:
        return False
    # A Figure made by itself draws with Agg; pyplot, which might look for a display, is not used.
    drawing = Figure(figsize=(12, 4.8), layout="constrained")
    left, right = drawing.subplots(1, 2)
    _curves(left, swept, report.target_recall)
    _bars(right, timed)
    drawing.suptitle(f"{report.count:,} × {report.dim}, {report.dataset}", fontsize=10)
    drawing.savefig(file, dpi=120)
    return True


def _curves(axes: Axes, swept: Sequence[Figures], target: float) -> None:
    for one in swept:
        axes.plot(
            [point.recall for point in one.sweep],
            [point.rate for point in one.sweep],
            marker="o",
            label=one.label,
        )
    axes.axvline(target, color="grey", linestyle=":", label=f"recall {target:g}")
    axes.set(xlabel="recall@10", ylabel="searches/s, 32 connections", yscale="log")
    axes.grid(alpha=0.3)
    axes.legend()


def _bars(axes: Axes, timed: Sequence[Figures]) -> None:
    """Medians as bars, 99th percentiles as paler bars behind them."""
    connections = sorted({n for one in timed for n in one.search})
    width = 0.8 / max(1, len(timed))
    for place, one in enumerate(timed):
        where = [group + place * width for group in range(len(connections))]
        rounds = [one.search.get(n, []) for n in connections]
        tail = [(fig.p99(found) or 0.0) / 1e3 for found in rounds]
        half = [(fig.middle(found, lambda each: each.p50_us) or 0.0) / 1e3 for found in rounds]
        colour = f"C{place}"
        axes.bar(where, tail, width * 0.95, color=colour, alpha=0.35, label=f"{one.label} p99")
        axes.bar(where, half, width * 0.95, color=colour, label=f"{one.label} p50")
    middle = width * (len(timed) - 1) / 2
    axes.set_xticks([group + middle for group in range(len(connections))], map(str, connections))
    axes.set(xlabel="connections", ylabel="latency, ms")
    axes.grid(axis="y", alpha=0.3)
    axes.legend()
