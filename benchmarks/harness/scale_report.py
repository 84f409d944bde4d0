"""The scaling curves as a Markdown page, as JSON, and as a picture."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.harness.report import NOTHING, megabytes, number, section, table
from benchmarks.harness.scaling import BATCH_ROWS, RECALLS, Case, Level, case_from_json


@dataclass(slots=True)
class Curves:
    """A run, which may have been continued.

    Attributes:
        commands: that contributed to it.
        facts: what it ran on and with, by name; of the last command.
    """

    commands: list[str] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    cases: list[Case] = field(default_factory=list)


def save(curves: Curves, file: Path) -> None:
    """As JSON, whole or not at all."""
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(dataclasses.asdict(curves), indent=1) + "\n")
    partial.replace(file)


def load(file: Path) -> Curves:
    """What `save` has written.

    Raises:
        ValueError, KeyError, TypeError: it is something else.
    """
    saved = json.loads(file.read_text())
    cases = [case_from_json(one) for one in saved["cases"]]
    return Curves(saved["commands"], saved["facts"], cases)


def to_markdown(curves: Curves, picture: str | None) -> str:
    """The page.

    Args:
        picture: file name of the plot beside it; None: there is none.
    """
    cases = sorted(curves.cases, key=lambda one: (one.key.dim, one.key.count, one.key.index_type))
    facts = [("command", f"`{command}`") for command in curves.commands]
    failures = [f"{one.key}:\n\n```\n{one.failure}\n```" for one in cases if one.failure]
    sections = [
        "# Scaling",
        table(("", ""), [*facts, *curves.facts.items()]),
        "\n\n".join(["## Failed", *failures]) if failures else "",
        _searches(cases),
        _writes(cases),
        _memory(cases),
        _restarts(cases),
        _mixed(cases),
        f"![Curves by number of vectors]({picture})" if picture else "",
    ]
    return "\n\n".join(one for one in sections if one) + "\n"


def _searches(cases: Sequence[Case]) -> str:
    rows = [
        (
            str(one.key),
            "default" if level.target is None else f"recall ≥ {level.target:g}",
            NOTHING if level.effort is None else str(level.effort),
            NOTHING if level.round.recall is None else f"{level.round.recall:.4f}",
            number(level.round.rate),
            _ms(level.round.p50_us),
            _ms(level.round.p99_us),
        )
        for one in cases
        for level in one.levels
    ]
    heads = ("", "at", "EF or NPROBE", "recall@10", "searches/s", "p50 ms", "p99 ms")
    note = "A recall that no effort reached has no line; FLAT has no effort."
    return section("## Searches, 32 connections", heads, rows, note)


def _writes(cases: Sequence[Case]) -> str:
    rows = [
        (
            str(one.key),
            str(one.info.get("active_type", NOTHING)),
            str(one.info.get("nlist") or NOTHING),
            number(one.acknowledged),
            number(one.merged),
        )
        for one in cases
        if one.acknowledged is not None
    ]
    heads = ("", "became", "lists", "acknowledged vectors/s", "until merged vectors/s")
    return section(f"## Ingest, {BATCH_ROWS:,} vectors a request", heads, rows)


def _memory(cases: Sequence[Case]) -> str:
    rows = []
    for one in cases:
        if one.filled is None or one.grown is None:
            continue
        said = int(one.info["memory_bytes"])
        rows.append(
            (
                str(one.key),
                megabytes(one.grown),
                number(one.grown / one.key.count),
                number(said / one.key.count),
                f"{said / one.grown - 1:+.1%}" if one.grown else NOTHING,
                megabytes(one.filled.mapped),
                megabytes(one.disk_bytes),
            )
        )
    heads = ["", "anonymous MB", "bytes per vector", "by memory_bytes", "off by"]
    heads += ["mapped, resident MB", "disk MB"]
    note = "Anonymous memory over that of the empty server, after the searches."
    return section("## Memory", heads, rows, note)


def _restarts(cases: Sequence[Case]) -> str:
    rows = [
        (
            str(one.key),
            _seconds(one.stop_seconds),
            _seconds(one.first_search_seconds),
            _seconds(one.merged_seconds),
            megabytes(None if one.restarted is None else one.restarted.anonymous),
        )
        for one in cases
        if one.stop_seconds is not None
    ]
    heads = ("", "stop s", "start to first search s", "until merged s", "anonymous MB after it")
    return section("## Restart, files in the page cache", heads, rows)


def _mixed(cases: Sequence[Case]) -> str:
    rows = []
    for one in cases:
        if (found := one.mixed) is None:
            continue
        recalls = [
            NOTHING if each.recall is None else f"{each.recall:.4f}"
            for each in (found.idle, found.busy)
        ]
        rows.append(
            (
                str(one.key),
                f"{number(found.idle.rate)} → {number(found.busy.rate)}",
                f"{found.kept:.0%}",
                f"{_ms(found.idle.p99_us)} → {_ms(found.busy.p99_us)}",
                " → ".join(recalls),
                f"{number(found.writes.rate)} of {number(found.asked_rate)}",
                f"{found.writes.p50_us / 1e3:.2f}, {found.writes.p99_us / 1e3:.2f}",
                f"{found.head_before:,} → {found.head_after:,}",
            )
        )
    heads = ("", "searches/s", "kept", "p99 ms", "recall@10", "writes/s", "write p50, p99 ms")
    note = f"At the effort for recall ≥ {RECALLS[0]:g}, or the highest tried. Idle → while writing."
    return section("## Searches while writing", (*heads, "head_count"), rows, note)


def _ms(value: float | None) -> str:
    return NOTHING if value is None else f"{value / 1e3:.2f}"


def _seconds(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.2f}"


# -- the picture -----------------------------------------------------------------------------------

_STYLES = ("-", "--", ":", "-.")


def plot(curves: Curves, file: Path) -> bool:
    """Write a PNG; False if there is nothing to show."""
    cases = [one for one in curves.cases if one.levels]
    if not cases:
        return False
    panels: list[tuple[str, Callable[[Case], Any]]] = [
        ("searches/s at the default effort", lambda one: _rate(one.level(None))),
        (f"searches/s at recall ≥ {RECALLS[0]:g}", _reaching),
        ("recall@10 at the default effort", lambda one: one.levels[0].round.recall),
        ("p99 at the default effort, ms", lambda one: (one.levels[0].round.p99_us or 0) / 1e3),
        ("ingest until merged, vectors/s", lambda one: one.merged),
        ("anonymous bytes per vector", lambda one: one.grown and one.grown / one.key.count),
        ("restart to first search, s", lambda one: one.first_search_seconds),
        ("searches/s while writing", lambda one: one.mixed and one.mixed.busy.rate),
    ]
    # A Figure made by itself draws with Agg; pyplot, which might look for a display, is not used.
    drawing = Figure(figsize=(18, 8.5), layout="constrained")
    for axes, (title, value) in zip(drawing.subplots(2, 4).flat, panels, strict=True):
        _panel(axes, cases, title, value)
    handles, labels = drawing.axes[0].get_legend_handles_labels()
    drawing.legend(handles, labels, loc="outside lower center", ncols=6)
    drawing.savefig(file, dpi=110)
    return True


def _panel(
    axes: Axes, cases: Sequence[Case], title: str, value: Callable[[Case], float | None]
) -> None:
    """One line for each type (colour) and dimension (style)."""
    types = list(dict.fromkeys(one.key.index_type for one in cases))
    dims = sorted({one.key.dim for one in cases})
    for place, kind in enumerate(types):
        for dim in dims:
            line = sorted(
                (one.key.count, found)
                for one in cases
                if (one.key.index_type, one.key.dim) == (kind, dim)
                if (found := value(one))
            )
            style = _STYLES[dims.index(dim) % len(_STYLES)]
            axes.plot(
                [count for count, _ in line],
                [found for _, found in line],
                color=f"C{place}",
                linestyle=style,
                marker="o",
                label=f"{kind}, {dim}",
            )
    scale = "linear" if title.startswith("recall") else "log"
    axes.set(title=title, xlabel="vectors", xscale="log", yscale=scale)
    axes.grid(alpha=0.3)


def _reaching(case: Case) -> float | None:
    """At the effort that reaches it; a scan reaches it anyway."""
    level = case.level(RECALLS[0])
    if level is None and (case.levels[0].round.recall or 0) >= RECALLS[0]:
        level = case.levels[0]
    return _rate(level)


def _rate(level: Level | None) -> float | None:
    return None if level is None else level.round.rate
