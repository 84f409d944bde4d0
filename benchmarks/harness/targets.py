"""What Pyrope has to reach, beside Redis, the bare engines and itself, and whether it did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.harness import figures as fig
from benchmarks.harness.figures import Figures, Kind, Mixed

COUNT = 100_000
DIM = 384
"""The targets are set for this many vectors of this dimension; another run's are only a hint."""

CONNECTIONS = 32

SEARCH_RATIO = 3.0
CEILING_RATIO = 0.6
TAIL_RATIO = 0.5
INGEST_RATIO = 20.0
MERGED_RATIO = 5.0
MIXED_KEPT = 0.8
MIXED_STRETCH = 2.0
MIXED_PACE = 0.95
"""Share of the writes' asked rate below which searching beside them proves nothing."""
PING_RATIO = 0.8
RESTART_SECONDS = 3.0
REBUILD_SECONDS = 60.0
MEMORY_ERROR = 0.15


@dataclass(frozen=True, slots=True)
class Verdict:
    """One target.

    Attributes:
        label: of the Pyrope that it is about.
        figure: what was measured, in words; empty if it was not.
        target: the bar, in words.
        met: None if something to judge by was not measured.
    """

    label: str
    name: str
    figure: str
    target: str
    met: bool | None


def verdicts(figures: Sequence[Figures]) -> list[Verdict]:
    """Every target for every Pyrope, beside the best of the others."""
    redis = [one for one in figures if one.kind is Kind.REDIS]
    found: list[Verdict] = []
    for one in figures:
        if one.kind is Kind.PYROPE:
            bare = [
                other
                for other in figures
                if other.kind is Kind.BARE and other.index_type == one.index_type
            ]
            found += _of(one, redis, bare[0] if bare else None)
    return found


def _of(one: Figures, redis: Sequence[Figures], bare: Figures | None) -> list[Verdict]:
    verdicts = [
        _search(one, fig.best_search(redis, CONNECTIONS)),
        _tail(one, fig.best_search(redis, CONNECTIONS)),
    ]
    if bare is not None:
        verdicts.append(_ceiling(one, bare))
    vadd = fig.best_ingest(redis)
    for way in (fig.ONE_BY_ONE, fig.BATCHES):
        verdicts += [
            _ingest(one, vadd, way, merged=False),
            _ingest(one, vadd, way, merged=True),
        ]
    verdicts += [_kept(one), _stretch(one), _memory(one)]
    if one.ping:
        verdicts.append(_ping(one, next((other for other in redis if other.ping), None)))
    if one.startup:
        verdicts += [
            _seconds(one, "restart", fig.START_SAVED, RESTART_SECONDS),
            _seconds(
                one, "restart without graph, merged", fig.START_REBUILT_MERGED, REBUILD_SECONDS
            ),
        ]
    return verdicts


def _search(one: Figures, redis: Figures | None) -> Verdict:
    return _ratio(
        one.label,
        f"searches/s at the same recall, {CONNECTIONS} connections",
        _searches(one),
        _searches(redis),
        SEARCH_RATIO,
        _name(redis),
        comparable=one.reached,
    )


def _tail(one: Figures, redis: Figures | None) -> Verdict:
    name = f"p99 of those searches, {CONNECTIONS} connections"
    target = f"at most {TAIL_RATIO:g} × {_name(redis)}"
    mine = fig.p99(one.search.get(CONNECTIONS, []))
    theirs = None if redis is None else fig.p99(redis.search.get(CONNECTIONS, []))
    if mine is None or theirs is None:
        return Verdict(
            one.label, name, "" if mine is None else f"{mine / 1e3:.2f} ms", target, None
        )
    figure = f"{mine / theirs:.2f} × ({mine / 1e3:.2f} ms to {theirs / 1e3:.2f} ms)"
    return Verdict(one.label, name, figure, target, mine <= TAIL_RATIO * theirs and one.reached)


def _ceiling(one: Figures, bare: Figures) -> Verdict:
    return _ratio(
        one.label,
        "those searches beside the bare engine's batches",
        _searches(one),
        fig.ceiling(bare) if bare.reached else None,
        CEILING_RATIO,
        bare.label,
        comparable=one.reached,
    )


def _ingest(one: Figures, redis: Figures | None, way: str, *, merged: bool) -> Verdict:
    mine = one.ingest.get(way)
    return _ratio(
        one.label,
        f"ingest, durable, {way}, {'until merged' if merged else 'acknowledged'}",
        None if mine is None else (mine.indexed if merged else mine.acknowledged),
        None if redis is None else redis.ingest[fig.ONE_BY_ONE].acknowledged,
        MERGED_RATIO if merged else INGEST_RATIO,
        f"VADD of {_name(redis)}",
    )


def _kept(one: Figures) -> Verdict:
    name, target = _mixed_name(one, "searches/s"), f"at least {MIXED_KEPT:.0%} of idle"
    if not one.mixed:
        return Verdict(one.label, name, "", target, None)
    kept = median(found.kept for found in one.mixed)
    figure = f"{kept:.0%} of idle, at {_pace(one.mixed):,.0f} writes/s"
    return Verdict(one.label, name, figure, target, kept >= MIXED_KEPT and _paced(one.mixed))


def _stretch(one: Figures) -> Verdict:
    name, target = _mixed_name(one, "p99"), f"at most {MIXED_STRETCH:g} × idle"
    stretches = [found.stretch for found in one.mixed if found.stretch is not None]
    if not stretches:
        return Verdict(one.label, name, "", target, None)
    stretch = median(stretches)
    met = stretch <= MIXED_STRETCH and _paced(one.mixed)
    return Verdict(one.label, name, f"{stretch:.2f} × idle", target, met)


def _mixed_name(one: Figures, what: str) -> str:
    return (
        f"{what} while {one.mixed[0].asked_rate:,.0f}/s are written"
        if one.mixed
        else (f"{what} while vectors are written")
    )


def _pace(mixed: Sequence[Mixed]) -> float:
    return median(found.writes.rate for found in mixed)


def _paced(mixed: Sequence[Mixed]) -> bool:
    return all(found.writes.rate >= MIXED_PACE * found.asked_rate for found in mixed)


def _memory(one: Figures) -> Verdict:
    name, target = (
        "memory_bytes beside the anonymous memory grown by",
        (f"within {MEMORY_ERROR:.0%}"),
    )
    moment = fig.SEARCHED if fig.SEARCHED in one.reported else fig.INGESTED
    grown, said = fig.grown(one.memory, moment), one.reported.get(moment)
    if not grown or said is None:
        return Verdict(one.label, name, "", target, None)
    figure = f"{said / grown - 1:+.1%} ({said / 1e6:,.1f} MB to {grown / 1e6:,.1f} MB)"
    return Verdict(one.label, name, figure, target, abs(said / grown - 1) <= MEMORY_ERROR)


def _ping(one: Figures, redis: Figures | None) -> Verdict:
    return _ratio(
        one.label,
        "unpipelined PING from 50 connections",
        fig.rate(one.ping),
        None if redis is None else fig.rate(redis.ping),
        PING_RATIO,
        "Redis",
    )


def _ratio(
    label: str,
    name: str,
    mine: float | None,
    theirs: float | None,
    least: float,
    than: str,
    *,
    comparable: bool = True,
) -> Verdict:
    target = f"at least {least:g} × {than}"
    if mine is None or theirs is None:
        return Verdict(label, name, "" if mine is None else f"{mine:,.0f}/s", target, None)
    figure = f"{mine / theirs:.2f} × ({mine:,.0f}/s to {theirs:,.0f}/s)"
    return Verdict(label, name, figure, target, mine >= least * theirs and comparable)


def _seconds(one: Figures, name: str, kind: str, most: float) -> Verdict:
    seconds = one.startup.get(kind, [])
    target = f"at most {most:g} s"
    if not seconds:
        return Verdict(one.label, name, "", target, None)
    found = median(seconds)
    return Verdict(one.label, name, f"{found:.2f} s", target, found <= most)


def _searches(figures: Figures | None) -> float | None:
    return None if figures is None else fig.rate(figures.search.get(CONNECTIONS, []))


def _name(redis: Figures | None) -> str:
    return "Redis" if redis is None else redis.label
