"""What Pyrope has to reach beside Redis, and whether it did."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from benchmarks.harness import figures as fig
from benchmarks.harness.figures import Figures

COUNT = 100_000
DIM = 384
"""The targets are set for this many vectors of this dimension; another run's are only a hint."""

CONNECTIONS = 32

SEARCH_RATIO = 2.0
INGEST_RATIO = 4.0
PING_RATIO = 0.8
RESTART_SECONDS = 3.0
REBUILD_SECONDS = 60.0
MEMORY_BYTES = 231e6
"""Anonymous memory of Redis 8 for COUNT vectors (NOQUANT, M 16), measured; where Redis takes part
in the run, its own figure is the bar."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One target.

    Attributes:
        figure: what was measured, in words; empty if it was not.
        target: the bar, in words.
        met: None if something to judge by was not measured.
    """

    name: str
    figure: str
    target: str
    met: bool | None


def verdicts(pyrope: Figures, redis: Figures | None, count: int) -> list[Verdict]:
    """Every target.

    Args:
        redis: its NOQUANT figures; None: it took no part.
        count: vectors in this run.
    """
    other = redis if redis is not None else Figures("Redis", "", "")
    return [
        _search(pyrope, other),
        _tail(pyrope, other),
        _ratio(
            "ingest, durable, acknowledged, beside VADD without persistence",
            _acknowledged(pyrope),
            _acknowledged(other),
            INGEST_RATIO,
        ),
        _ratio(
            "unpipelined PING from 50 connections, beside Redis",
            fig.rate(pyrope.ping),
            fig.rate(other.ping),
            PING_RATIO,
        ),
        _memory(pyrope, redis, count),
        _seconds("restart from the saved graph", pyrope, fig.START_SAVED, RESTART_SECONDS),
        _seconds("restart, graph rebuilt", pyrope, fig.START_REBUILT, REBUILD_SECONDS),
    ]


def _search(pyrope: Figures, redis: Figures) -> Verdict:
    name = f"searches/s at the same recall, {CONNECTIONS} connections, beside VSIM"
    mine, theirs = _rounds_rate(pyrope), _rounds_rate(redis)
    return _ratio(name, mine, theirs, SEARCH_RATIO, comparable=_reached(pyrope, redis))


def _tail(pyrope: Figures, redis: Figures) -> Verdict:
    mine = fig.p99(pyrope.search.get(CONNECTIONS, []))
    theirs = fig.p99(redis.search.get(CONNECTIONS, []))
    name = f"p99 of those searches, {CONNECTIONS} connections"
    if mine is None or theirs is None:
        return Verdict(name, "", "no worse than Redis", None)
    met = mine <= theirs and _reached(pyrope, redis)
    return Verdict(name, f"{mine / 1e3:.2f} ms", f"no worse than Redis: {theirs / 1e3:.2f} ms", met)


def _memory(pyrope: Figures, redis: Figures | None, count: int) -> Verdict:
    mine = _grown(pyrope)
    theirs = None if redis is None else _grown(redis)
    if redis is None and count == COUNT:
        theirs = int(MEMORY_BYTES)
    name = "anonymous memory over the empty server's"
    if mine is None or theirs is None:
        return Verdict(name, "" if mine is None else _megabytes(mine), "Redis' own", None)
    return Verdict(name, _megabytes(mine), f"at most {_megabytes(theirs)}", mine <= theirs)


def _ratio(
    name: str, mine: float | None, theirs: float | None, least: float, *, comparable: bool = True
) -> Verdict:
    target = f"at least {least:g} ×"
    if mine is None or theirs is None:
        return Verdict(name, "" if mine is None else f"{mine:,.0f}/s", target, None)
    ratio = mine / theirs
    figure = f"{ratio:.2f} × ({mine:,.0f}/s to {theirs:,.0f}/s)"
    return Verdict(name, figure, target, ratio >= least and comparable)


def _seconds(name: str, pyrope: Figures, kind: str, most: float) -> Verdict:
    seconds = pyrope.startup.get(kind, [])
    found = median(seconds) if seconds else None
    figure = "" if found is None else f"{found:.2f} s"
    return Verdict(name, figure, f"at most {most:g} s", None if found is None else found <= most)


def _reached(*both: Figures) -> bool:
    """Each reached the recall that they are compared at."""
    return all(figures.ef is not None for figures in both)


def _rounds_rate(figures: Figures) -> float | None:
    return fig.rate(figures.search.get(CONNECTIONS, []))


def _acknowledged(figures: Figures) -> float | None:
    ingest = figures.ingest.get(fig.ONE_BY_ONE)
    return None if ingest is None else ingest.acknowledged


def _grown(figures: Figures) -> int | None:
    """As late as it was read before a restart: searches may make a server grow."""
    after_searches = fig.grown(figures.memory, fig.SEARCHED)
    return fig.grown(figures.memory, fig.INGESTED) if after_searches is None else after_searches


def _megabytes(amount: float) -> str:
    return f"{amount / 1e6:,.0f} MB"
