"""A run as a Markdown page and as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Sequence
from statistics import median

from benchmarks.harness import figures as fig
from benchmarks.harness import targets
from benchmarks.harness.figures import Figures, Report, Round

NOTHING = "–"
MET = {True: "yes", False: "**no**", None: NOTHING}


def to_json(report: Report) -> str:
    """Every round and every step, unrounded."""
    return json.dumps(dataclasses.asdict(report), indent=2) + "\n"


def to_markdown(report: Report, plot: str | None) -> str:
    """The page.

    Args:
        plot: file name of the plot beside it; None: there is none.
    """
    sections = [
        "# Benchmark",
        _introduction(report),
        _failures(report),
        _targets(report),
        _search(report),
        _ratios(report),
        _sweeps(report),
        _ingest(report),
        _ping(report),
        _memory(report),
        _startup(report),
        f"![Queries per second against recall, and latency]({plot})" if plot else "",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _introduction(report: Report) -> str:
    facts = {
        "command": f"`{report.command}`",
        "data": f"{report.dataset}; {report.count:,} × {report.dim}, {report.queries:,} queries",
        "rounds": f"{report.rounds} of {report.seconds:g} s each; figures are medians over them",
        **report.environment,
        **{one.label: f"{one.version}; {one.settings}" for one in report.figures},
    }
    return _table(("", ""), facts.items())


def _failures(report: Report) -> str:
    if not report.failures:
        return ""
    blocks = [f"```\n{failure.strip()}\n```" for failure in report.failures]
    return "\n\n".join(["## Failed steps", *blocks])


def _targets(report: Report) -> str:
    pyrope, redis = _named(report, "Pyrope"), _named(report, "Redis")
    if pyrope is None:
        return ""
    rows = [
        (one.name, one.figure or "not measured", one.target, MET[one.met])
        for one in targets.verdicts(pyrope, redis, report.count)
    ]
    text = "## Targets\n\n" + _table(("", "measured", "target", "met"), rows)
    if (report.count, report.dim) != (targets.COUNT, targets.DIM):
        text += f"\n\nThe targets are set at {targets.COUNT:,} × {targets.DIM}; this run is not."
    return text


def _search(report: Report) -> str:
    rows = []
    for one in report.figures:
        for connections, rounds in sorted(one.search.items()):
            rows.append(
                (
                    one.label,
                    "in process" if connections == fig.IN_PROCESS else str(connections),
                    NOTHING if one.ef is None else str(one.ef),
                    _number(fig.rate(rounds)),
                    _ms(rounds, lambda found: found.p50_us),
                    _ms(rounds, lambda found: found.p99_us),
                    _recall(one, rounds),
                    _us(rounds, lambda found: found.generator_cpu_us),
                    _us(rounds, lambda found: found.server_cpu_us),
                )
            )
    heads = ["", "connections", "EF", "searches/s", "p50 ms", "p99 ms", "recall@10"]
    heads += ["generator CPU µs", "server CPU µs"]
    title = f"## Search at recall@10 ≥ {report.target_recall:g}, closed loop"
    note = "An EF of – means that no EF reached the recall; the highest tried was timed."
    return _section(title, heads, rows, note)


def _ratios(report: Report) -> str:
    pyrope = _named(report, "Pyrope")
    if pyrope is None:
        return ""
    others = [one for one in report.figures if one is not pyrope]
    rows = []
    for connections, rounds in sorted(pyrope.search.items()):
        mine = fig.rate(rounds)
        ratios = []
        for other in others:
            theirs = fig.rate(other.search.get(connections, other.search.get(fig.IN_PROCESS, [])))
            ratios.append(f"{mine / theirs:.2f}" if mine and theirs else NOTHING)
        rows.append((str(connections), *ratios))
    heads = ("connections", *(f"Pyrope / {other.label}" for other in others))
    return _section("## Searches per second, ratios", heads, rows) if others else ""


def _sweeps(report: Report) -> str:
    rows = [
        (one.label, str(point.ef), f"{point.recall:.4f}", _number(point.rate))
        for one in report.figures
        for point in one.sweep
    ]
    title = "## Recall by EF, every query once, 32 connections"
    return _section(title, ("", "EF", "recall@10", "searches/s"), rows)


def _ingest(report: Report) -> str:
    rows = [
        (
            one.label,
            way,
            _number(ingest.acknowledged),
            _number(ingest.indexed),
            NOTHING if ingest.p50_us is None else f"{ingest.p50_us / 1e3:.2f}",
            NOTHING if ingest.p99_us is None else f"{ingest.p99_us / 1e3:.2f}",
        )
        for one in report.figures
        for way, ingest in one.ingest.items()
    ]
    heads = ("", "way", "acknowledged vectors/s", "until indexed vectors/s", "p50 ms", "p99 ms")
    return _section("## Ingest", heads, rows)


def _ping(report: Report) -> str:
    rows = [
        (
            one.label,
            _number(fig.rate(one.ping)),
            _ms(one.ping, lambda found: found.p50_us),
            _ms(one.ping, lambda found: found.p99_us),
            _us(one.ping, lambda found: found.generator_cpu_us),
            _us(one.ping, lambda found: found.server_cpu_us),
        )
        for one in report.figures
        if one.ping
    ]
    heads = ("", "PING/s", "p50 ms", "p99 ms", "generator CPU µs", "server CPU µs")
    return _section("## PING, 50 connections, unpipelined", heads, rows)


def _memory(report: Report) -> str:
    rows = []
    for one in report.figures:
        for moment, memory in one.memory.items():
            grown = fig.grown(one.memory, moment)
            rows.append(
                (
                    one.label,
                    moment,
                    f"{memory.anonymous / 1e6:,.1f}",
                    NOTHING if grown is None else f"{grown / 1e6:,.1f}",
                    f"{memory.total / 1e6:,.1f}",
                )
            )
    heads = ("", "moment", "anonymous MB", "over empty MB", "resident MB")
    raw = report.count * report.dim * 4 / 1e6
    note = f"Raw float32: {raw:,.1f} MB. Resident counts pages of mapped files too."
    return _section("## Resident memory", heads, rows, note)


def _startup(report: Report) -> str:
    rows = [
        (one.label, kind, f"{median(seconds):.3f}", f"{max(seconds):.3f}", str(len(seconds)))
        for one in report.figures
        for kind, seconds in one.startup.items()
    ]
    note = "From exec to the first answer to PING that is not LOADING; files in the page cache."
    return _section("## Start-up", ("", "", "median s", "longest s", "times"), rows, note)


def _named(report: Report, label: str) -> Figures | None:
    return next((one for one in report.figures if one.label == label), None)


def _section(
    title: str, heads: Sequence[str], rows: Sequence[Sequence[str]], note: str = ""
) -> str:
    if not rows:
        return ""
    return f"{title}\n\n{_table(heads, rows)}" + (f"\n\n{note}" if note else "")


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:,.0f}"


def _ms(rounds: Sequence[Round], value: Callable[[Round], float | None]) -> str:
    found = fig.middle(rounds, value)
    return NOTHING if found is None else f"{found / 1e3:.2f}"


def _us(rounds: Sequence[Round], value: Callable[[Round], float | None]) -> str:
    found = fig.middle(rounds, value)
    return NOTHING if found is None else f"{found:.1f}"


def _recall(one: Figures, rounds: Sequence[Round]) -> str:
    """Of the timed replies; of the sweep where the timed ones were not looked at."""
    found = fig.middle(rounds, lambda each: each.recall)
    if found is None:
        found = next((point.recall for point in one.sweep if point.ef == one.ef), None)
    return NOTHING if found is None else f"{found:.4f}"
