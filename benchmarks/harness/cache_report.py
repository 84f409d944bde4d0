"""A run of the caching benchmark: its records, its targets, and its page."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from benchmarks.harness import figures as fig
from benchmarks.harness.cache_runs import LEVELS, NEAR, Band, TraceRun
from benchmarks.harness.exact_hits import CONNECTIONS, HitFigures
from benchmarks.harness.figures import Round
from benchmarks.harness.oracle import SHARE_KEPT, OracleRun
from benchmarks.harness.randomized import Correctness
from benchmarks.harness.repair import ADDS, Repaired
from benchmarks.harness.replay import Policy
from benchmarks.harness.report import MET, NOTHING, number, section, table
from benchmarks.harness.servers import K
from benchmarks.harness.targets import Verdict

HIT_RATE = 0.7
HIT_P99_MS = 2.0
CLOSE_COSINE = 0.9
CLOSE_SERVED = 0.85
CLOSE_RECALL = 0.98
KEPT_RATIO = 5.0
KEPT_WRITES = 0.1
REPAIR_US = 200.0
REPAIR_BEHIND = 1000
OPERATIONS = 1_000_000


@dataclass(slots=True)
class CacheReport:
    """One run.

    Attributes:
        facts: what it ran on, by name.
        traces: runs, those of a trace together.
        hits, repairs, correctness, oracle: of those parts that took part.
        failures: steps that failed, and how.
    """

    command: str
    facts: dict[str, str]
    traces: list[TraceRun] = field(default_factory=list)
    hits: HitFigures | None = None
    repairs: list[Repaired] = field(default_factory=list)
    correctness: Correctness | None = None
    oracle: list[OracleRun] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def to_json(report: CacheReport) -> str:
    """Everything, unrounded."""
    return json.dumps(dataclasses.asdict(report), indent=2) + "\n"


def to_markdown(report: CacheReport) -> str:
    """The page."""
    failures = [f"```\n{one.strip()}\n```" for one in report.failures]
    targets = [
        (one.name, one.figure or "not measured", one.target, MET[one.met])
        for one in verdicts(report)
    ]
    sections = [
        "# Caching benchmark",
        table(("", ""), {"command": f"`{report.command}`", **report.facts}.items()),
        "\n\n".join(["## Failed steps", *failures]) if failures else "",
        section("## Targets", ("", "measured", "target", "met"), targets),
        _traces(report.traces),
        _levels(report.traces),
        _answers(report.traces),
        _bands(report.traces),
        _oracle(report.oracle),
        _hits(report.hits),
        _repairs(report.repairs),
        _correctness(report.correctness),
    ]
    return "\n\n".join(one for one in sections if one) + "\n"


# -- targets --------------------------------------------------------------------------------------


def verdicts(report: CacheReport) -> list[Verdict]:
    """Every target, measured or not."""
    return [
        *_of_hits(report.hits),
        *_of_answers(report.traces),
        _of_operations(report.correctness),
        *_of_close(report.traces),
        _of_drop_all(report.traces),
        _of_repair(report.repairs),
    ]


def _of_hits(hits: HitFigures | None) -> Iterator[Verdict]:
    name, target = f"exact hits, {CONNECTIONS} connections, unpipelined", f"{HIT_RATE:g} × GET"
    ratio = None if hits is None else hits.ratio
    figure = "" if ratio is None else f"{ratio:.2f} ×"
    yield Verdict("", name, figure, f"at least {target}", None if ratio is None else ratio >= 0.7)
    p99 = None if hits is None else fig.p99(hits.pyrope)
    figure = "" if p99 is None else f"{p99 / 1e3:.2f} ms"
    met = None if p99 is None else p99 < HIT_P99_MS * 1e3
    yield Verdict("", "p99 of those", figure, f"below {HIT_P99_MS:g} ms", met)


def _of_answers(traces: Sequence[TraceRun]) -> Iterator[Verdict]:
    checked = sum(one.searches for one in traces)
    for name, count in {
        "wrong answers, exact or proven, all traces": sum(one.exact_wrong for one in traces),
        "answers with foreign ids or scores": sum(one.dishonest for one in traces),
        "near hits worse than certified": sum(one.unproven for one in traces),
    }.items():
        figure = f"{count} of {checked:,} searches" if traces else ""
        yield Verdict("", name, figure, "0", count == 0 if traces else None)


def _of_operations(found: Correctness | None) -> Verdict:
    name, target = "stale or wrong exact answers", f"0 in {OPERATIONS:,} randomized operations"
    if found is None:
        return Verdict("", name, "", target, None)
    figure = f"{found.wrong} in {found.operations:,}"
    met = None if not found.wrong and found.operations < OPERATIONS else found.wrong == 0
    return Verdict("", name, figure, target, met)


def _of_close(traces: Sequence[TraceRun]) -> Iterator[Verdict]:
    """Of the first trace of paraphrases that may be answered by estimate, without writes."""
    bands = next((close for one in traces if not one.writes and (close := _close(one))), [])
    pairs, near = sum(one.pairs for one in bands), sum(one.near for one in bands)
    served, late = sum(one.served for one in bands), sum(one.late for one in bands)
    late_served = sum(one.late_served for one in bands)
    name = f"paraphrases nearer than cosine {CLOSE_COSINE:g} that are served"
    for words, part, of in ((name, served, pairs), (f"{name}, second half", late_served, late)):
        figure = f"{part / of:.1%} ({part:,} of {of:,})" if of else ""
        met = part >= CLOSE_SERVED * of if of else None
        yield Verdict("", words, figure, f"at least {CLOSE_SERVED:.0%}", met)
    recall = sum(one.right for one in bands) / (K * near) if near else None
    yield Verdict(
        "",
        "mean true recall of near hits among them",
        "" if recall is None else f"{recall:.4f}",
        f"at least {CLOSE_RECALL:g}",
        None if recall is None else recall >= CLOSE_RECALL,
    )


def _close(run: TraceRun) -> list[Band]:
    certified = "CERTIFIED" in run.trace
    cached = run.policy == Policy.CACHED.value
    return [one for one in run.bands if one.low >= CLOSE_COSINE and cached and not certified]


def _of_drop_all(traces: Sequence[TraceRun]) -> Verdict:
    """The least of all traces with about that many writes."""
    name = f"hit ratio with {KEPT_WRITES:.0%} writes, beside {Policy.DROP_ALL.value}"
    ratios = []
    for one in traces:
        share = one.writes / (one.searches + one.writes)
        if one.policy != Policy.CACHED.value or abs(share - KEPT_WRITES) > 0.005:
            continue
        other = _beside(traces, one, Policy.DROP_ALL)
        if other is not None:
            ratios.append((_times(one.hit_ratio, other.hit_ratio), one, other))
    target = f"at least {KEPT_RATIO:g} ×"
    if not ratios:
        return Verdict("", name, "", target, None)
    least, one, other = min(ratios, key=lambda found: found[0])
    figure = f"{least:.1f} × ({one.hit_ratio:.1%} to {other.hit_ratio:.1%}; {one.trace})"
    return Verdict("", name, figure, target, least >= KEPT_RATIO)


def _of_repair(repairs: Sequence[Repaired]) -> Verdict:
    name = f"hit on an entry {REPAIR_BEHIND:,} writes behind, median"
    target = f"below {REPAIR_US:g} µs"
    for one in repairs:
        took = one.median_us
        if (one.writes, one.behind) == (ADDS, REPAIR_BEHIND) and took is not None:
            return Verdict("", name, f"{took:.0f} µs", target, took < REPAIR_US)
    return Verdict("", name, "", target, None)


def _beside(traces: Sequence[TraceRun], run: TraceRun, policy: Policy) -> TraceRun | None:
    """The same trace under another policy."""
    for one in traces:
        if (one.trace, one.policy) == (run.trace, policy.value):
            return one
    return None


def _times(mine: float, theirs: float) -> float:
    return mine / theirs if theirs else float("inf") if mine else 0.0


# -- tables ---------------------------------------------------------------------------------------


def _traces(traces: Sequence[TraceRun]) -> str:
    rows = []
    for one in traces:
        off = _beside(traces, one, Policy.OFF)
        rows.append(
            (
                one.trace,
                one.policy,
                f"{one.hit_ratio:.1%}" if one.policy != Policy.OFF.value else NOTHING,
                number(one.rate),
                f"{one.rate / off.rate:.2f}" if off else NOTHING,
                f"{one.p50_us / 1e3:.2f}",
                f"{one.p99_us / 1e3:.2f}",
                number(one.server_cpu_us),
                number(one.generator_cpu_us),
            )
        )
    heads = ["trace", "caches", "hit ratio", "searches/s", "× off", "p50 ms", "p99 ms"]
    heads += ["server CPU µs", "generator CPU µs"]
    note = (
        "Each on a fresh index, with empty caches. Hit ratio: of searches that were looked up. "
        "Server CPU is per search, and includes the writes and what runs in the background; the "
        "generator's is per step. \u201c"
        + Policy.DROP_ALL.value
        + "\u201d is a client that sends VECTOR.CACHE FLUSH as soon as a write is acknowledged."
    )
    return section("## Traces", heads, rows, note)


def _levels(traces: Sequence[TraceRun]) -> str:
    rows = [
        (
            one.trace,
            one.policy,
            *(f"{one.share(level):.1%}" for level in LEVELS),
            *(number(one.counters[name]) for name in ("repairs", "stale", "shared")),
            ", ".join(f"{level} {count:,}" for level, count in sorted(one.sampled.items())),
        )
        for one in traces
        if one.policy != Policy.OFF.value
    ]
    heads = ["trace", "caches", *LEVELS, "repairs", "stale", "shared", "WITHINFO said"]
    note = (
        "Hits by level, of all searches, by VECTOR.CACHE STATS. Shared: misses that waited for a "
        "search that was under way. The last column is of those searches that asked."
    )
    return section("## Hits by level", heads, rows, note)


def _answers(traces: Sequence[TraceRun]) -> str:
    rows = [
        (
            one.trace,
            one.policy,
            f"{one.searches:,}",
            str(one.exact_wrong),
            str(one.reordered),
            str(one.dishonest),
            str(one.unproven),
            f"{one.near:,}",
            NOTHING if one.near_recall is None else f"{one.near_recall:.4f}",
        )
        for one in traces
    ]
    heads = ["trace", "caches", "checked", "wrong", "reordered", "foreign", "worse than certified"]
    heads += ["near hits", f"their recall@{K}"]
    note = (
        "Every answer is held against a full scan by the harness' own model of what was stored. "
        "Wrong: not the exact answer, of all but near hits that nothing proves. Reordered: right "
        "if a write that was under way is taken as seen before an earlier one that was, too. "
        "Foreign: more than K results, an id twice or not stored, or a score of another query."
    )
    examples = [f"```\n{text}\n```" for one in traces for text in one.examples]
    return "\n\n".join([section("## Answers", heads, rows, note), *examples])


def _bands(traces: Sequence[TraceRun]) -> str:
    rows = [
        (
            one.trace,
            f"{max(band.low, 0):.2f} to {min(band.high, 1):.2f}",
            f"{band.pairs:,}",
            f"{band.served / band.pairs:.1%}",
            f"{band.late_served / band.late:.1%}" if band.late else NOTHING,
            f"{band.near:,}",
            f"{band.right / (K * band.near):.4f}" if band.near else NOTHING,
        )
        for one in traces
        for band in one.bands
        if band.pairs and one.policy == Policy.CACHED.value
    ]
    heads = ["trace", "cosine", "pairs", "served", "in the second half", "near hits"]
    heads.append(f"their recall@{K}")
    levels = " or ".join(NEAR)
    note = (
        "Second queries of pairs, by the cosine to the first. Served: by any level; near hits: by "
        f"{levels}. At first the server knows nothing of what its near hits are worth; the second "
        "half is that of the trace."
    )
    return section("## Paraphrases", heads, rows, note)


def _oracle(runs: Sequence[OracleRun]) -> str:
    rows = [
        (
            "yes" if one.model else "no",
            f"{one.hit_ratio:.1%}",
            *(f"{one.levels.get(level, 0) / one.searches:.1%}" for level in ("exact", "alias")),
            NOTHING if one.alias_recall is None else f"{one.alias_recall:.4f}",
            number(one.aliases),
            number(one.questions),
            number(one.tokens),
        )
        for one in runs
    ]
    heads = ["asks a model", "hit ratio", "exact", "alias", f"recall@{K} of hits by alias"]
    heads += ["aliases", "questions", "tokens"]
    note = (
        ""
        if not runs
        else f"{runs[0].searches:,} searches after as many to learn from, for {runs[0].pairs:,} "
        f"pairs with two wordings each, and room for the answers to {SHARE_KEPT:.0%} of the "
        "wordings. The model answers from the labels; the tokens are those that its stand-in "
        "counts, a quarter of the bytes."
    )
    return section("## Paraphrases and a model that knows the labels", heads, rows, note)


def _hits(hits: HitFigures | None) -> str:
    if hits is None:
        return ""
    rows = [
        (name, *_cells(rounds, request))
        for name, rounds, request in (
            ("Pyrope, exact hits", hits.pyrope, hits.search_bytes),
            ("Redis GET", hits.redis, hits.get_bytes),
        )
        if rounds
    ]
    heads = ["", "requests/s", "p50 ms", "p99 ms", "server CPU µs", "generator CPU µs"]
    heads.append("bytes of a request")
    note = (
        f"{CONNECTIONS} connections, unpipelined, {hits.queries:,} queries or keys one after the "
        f"other, replies of {hits.reply_bytes} bytes from both; medians of {len(hits.pyrope)} "
        "rounds, in turn."
    )
    return section("## Exact hits beside Redis GET", heads, rows, note)


def _cells(rounds: Sequence[Round], request: int) -> tuple[str, ...]:
    def of(value: Callable[[Round], float | None], scale: float, digits: int) -> str:
        found = fig.middle(rounds, value)
        return NOTHING if found is None else f"{found / scale:,.{digits}f}"

    return (
        number(fig.rate(rounds)),
        of(lambda one: one.p50_us, 1e3, 2),
        of(lambda one: one.p99_us, 1e3, 2),
        of(lambda one: one.server_cpu_us, 1, 1),
        of(lambda one: one.generator_cpu_us, 1, 1),
        f"{request:,}",
    )


def _repairs(repairs: Sequence[Repaired]) -> str:
    rows = [
        (
            f"{one.behind:,} {one.writes}",
            f"{one.hits:,}",
            str(one.lost),
            number(one.median_us),
            number(one.p99_us),
            number(one.fresh_us),
        )
        for one in repairs
    ]
    heads = ("behind by", "hits", "lost", "median µs", "p99 µs", "a full search, median µs")
    note = (
        "In process, FLAT, without a network: from the call to the answer. Lost: entries one of "
        "whose results was updated, which are searched for again."
    )
    return section("## Hits that catch up with writes", heads, rows, note)


def _correctness(found: Correctness | None) -> str:
    if found is None:
        return ""
    counters = found.counters
    rows = [
        ("operations", f"{found.operations:,}"),
        ("searches", f"{found.searches:,}"),
        ("writes", f"{found.writes:,}"),
        ("exact hits", number(counters["hits_exact"])),
        ("near hits, proven", number(sum(counters.get(f"hits_{level}", 0) for level in NEAR))),
        ("of all hits, repaired", number(counters["repairs"])),
        ("waited for the same search", number(counters["shared"])),
        ("CACHE ONLY, not found", f"{found.refused:,}"),
        ("WITHINFO said", ", ".join(f"{a} {b:,}" for a, b in sorted(found.by_level.items()))),
        ("wrong", str(found.wrong)),
    ]
    text = section("## Randomized operations", ("", ""), rows)
    return "\n\n".join([text, *(f"```\n{one}\n```" for one in found.examples)])
