"""A run as a Markdown page and as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Sequence
from statistics import median

from benchmarks.harness import figures as fig
from benchmarks.harness import targets
from benchmarks.harness.figures import Figures, Kind, Report, Round

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
        _mixed(report),
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
    return table(("", ""), facts.items())


def _failures(report: Report) -> str:
    if not report.failures:
        return ""
    blocks = [f"```\n{failure.strip()}\n```" for failure in report.failures]
    return "\n\n".join(["## Failed steps", *blocks])


def _targets(report: Report) -> str:
    rows = [
        (one.label, one.name, one.figure or "not measured", one.target, MET[one.met])
        for one in targets.verdicts(report.figures)
    ]
    if not rows:
        return ""
    text = "## Targets\n\n" + table(("", "", "measured", "target", "met"), rows)
    text += "\n\nRedis is the quicker of those measured, for searches at the same recall."
    if (report.count, report.dim) != (targets.COUNT, targets.DIM):
        text += f" The targets are set at {targets.COUNT:,} × {targets.DIM}; this run is not."
    return text


def _search(report: Report) -> str:
    rows = []
    for one in report.figures:
        timed = [(str(count), found) for count, found in sorted(one.search.items())]
        timed += [(f"batches of {n}", found) for n, found in sorted(one.in_process.items())]
        for how, rounds in timed:
            rows.append(
                (
                    one.label,
                    how,
                    NOTHING if one.effort is None else f"{one.effort_option} {one.effort}",
                    number(fig.rate(rounds)),
                    _ms(rounds, lambda found: found.p50_us),
                    _ms(rounds, lambda found: found.p99_us),
                    _recall(one, rounds),
                    _us(rounds, lambda found: found.generator_cpu_us),
                    _us(rounds, lambda found: found.server_cpu_us),
                )
            )
    heads = ["", "connections", "effort", "searches/s", "p50 ms", "p99 ms", "recall@10"]
    heads += ["generator CPU µs", "server CPU µs"]
    title = f"## Search at recall@10 ≥ {report.target_recall:g}, closed loop"
    note = (
        "An effort of – means that none reached the recall, and the highest tried was timed, "
        "or that there is none to set."
    )
    return section(title, heads, rows, note)


def _ratios(report: Report) -> str:
    mine = [one for one in report.figures if one.kind is Kind.PYROPE]
    others = [one for one in report.figures if one.kind is not Kind.PYROPE]
    rows = []
    for one in mine:
        for connections, rounds in sorted(one.search.items()):
            best = fig.best_search(
                [other for other in others if other.kind is Kind.REDIS], connections
            )
            cells = [
                NOTHING if best is None else _times(rounds, fig.rate(best.search[connections]))
            ]
            for other in others:
                theirs = fig.rate(other.search.get(connections, [])) or fig.ceiling(other)
                cells.append(_times(rounds, theirs))
            rows.append((one.label, str(connections), *cells))
    heads = ("", "connections", "best Redis", *(other.label for other in others))
    return section("## Searches per second, times those of", heads, rows) if others else ""


def _times(rounds: Sequence[Round], theirs: float | None) -> str:
    mine = fig.rate(rounds)
    return NOTHING if mine is None or not theirs else f"{mine / theirs:.2f}"


def _sweeps(report: Report) -> str:
    rows = [
        (
            one.label,
            "default" if point.effort is None else f"{one.effort_option} {point.effort}",
            f"{point.recall:.4f}",
            number(point.rate),
        )
        for one in report.figures
        for point in one.sweep
    ]
    title = "## Recall by effort, every query once, 32 connections"
    return section(title, ("", "effort", "recall@10", "searches/s"), rows)


def _ingest(report: Report) -> str:
    redis = [one for one in report.figures if one.kind is Kind.REDIS and one.ingest]
    rows = []
    for one in report.figures:
        for way, ingest in one.ingest.items():
            ratios = []
            for other in redis:
                vadd = other.ingest[fig.ONE_BY_ONE].acknowledged
                ratios.append(f"{ingest.acknowledged / vadd:.1f}, {ingest.indexed / vadd:.1f}")
            rows.append(
                (
                    one.label,
                    "in process" if one.kind is Kind.BARE else way,
                    number(ingest.acknowledged),
                    number(ingest.indexed),
                    NOTHING if ingest.p50_us is None else f"{ingest.p50_us / 1e3:.2f}",
                    NOTHING if ingest.p99_us is None else f"{ingest.p99_us / 1e3:.2f}",
                    *ratios,
                )
            )
    heads = ["", "way", "acknowledged vectors/s", "until merged vectors/s", "p50 ms", "p99 ms"]
    heads += [f"× VADD, {one.label}" for one in redis]
    note = "Ratios to VADD: acknowledged, until merged." if redis else ""
    return section("## Ingest", heads, rows, note)


def _mixed(report: Report) -> str:
    rows = [
        (
            one.label,
            f"{number(found.idle.rate)} → {number(found.busy.rate)}",
            f"{found.kept:.0%}",
            f"{_ms([found.idle], _p99)} → {_ms([found.busy], _p99)}",
            NOTHING if found.stretch is None else f"{found.stretch:.2f}",
            f"{_recall(one, [found.idle])} → {_recall(one, [found.busy])}",
            f"{number(found.writes.rate)} of {number(found.asked_rate)}",
            f"{found.writes.p50_us / 1e3:.2f}, {found.writes.p99_us / 1e3:.2f}",
            f"{found.head_before:,} → {found.head_after:,}",
        )
        for one in report.figures
        for found in one.mixed
    ]
    heads = ["", "searches/s", "kept", "p99 ms", "times", "recall@10", "writes/s"]
    heads += ["write p50, p99 ms", "head_count"]
    note = "Idle → while writing, on the same index, 32 connections; writes paced by the clock."
    return section("## Searches while vectors are written", heads, rows, note)


def _ping(report: Report) -> str:
    rows = [
        (
            one.label,
            number(fig.rate(one.ping)),
            _ms(one.ping, lambda found: found.p50_us),
            _ms(one.ping, lambda found: found.p99_us),
            _us(one.ping, lambda found: found.generator_cpu_us),
            _us(one.ping, lambda found: found.server_cpu_us),
        )
        for one in report.figures
        if one.ping
    ]
    heads = ("", "PING/s", "p50 ms", "p99 ms", "generator CPU µs", "server CPU µs")
    return section("## PING, 50 connections, unpipelined", heads, rows)


def _memory(report: Report) -> str:
    rows = []
    for one in report.figures:
        for moment, memory in one.memory.items():
            grown, said = fig.grown(one.memory, moment), one.reported.get(moment)
            measured = grown is not None and moment != fig.EMPTY
            rows.append(
                (
                    one.label,
                    moment,
                    megabytes(memory.anonymous),
                    megabytes(grown),
                    f"{grown / report.count:,.0f}" if measured and grown else NOTHING,
                    megabytes(said),
                    f"{said / grown - 1:+.1%}" if said and grown else NOTHING,
                    megabytes(memory.total),
                )
            )
    heads = ["", "moment", "anonymous MB", "over empty MB", "bytes per vector"]
    heads += ["memory_bytes MB", "off by", "resident MB"]
    raw = report.count * report.dim * 4 / 1e6
    note = f"Raw float32: {raw:,.1f} MB. Resident counts pages of mapped files too."
    return section("## Memory", heads, rows, note)


def _startup(report: Report) -> str:
    rows = [
        (one.label, kind, f"{median(seconds):.3f}", f"{max(seconds):.3f}", str(len(seconds)))
        for one in report.figures
        for kind, seconds in one.startup.items()
    ]
    note = "From exec to the first answer to PING that is not LOADING; files in the page cache."
    return section("## Start-up", ("", "", "median s", "longest s", "times"), rows, note)


def section(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]], note: str = "") -> str:
    """A heading with a table under it; nothing without rows."""
    if not rows:
        return ""
    return f"{title}\n\n{table(heads, rows)}" + (f"\n\n{note}" if note else "")


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table that no cell's text can break."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def number(value: float | None) -> str:
    """Rounded to a whole, with commas."""
    return NOTHING if value is None else f"{value:,.0f}"


def megabytes(value: float | None) -> str:
    """Bytes in millions."""
    return NOTHING if value is None else f"{value / 1e6:,.1f}"


def _p99(found: Round) -> float | None:
    return found.p99_us


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
        found = next((point.recall for point in one.sweep if point.effort == one.effort), None)
    return NOTHING if found is None else f"{found:.4f}"
