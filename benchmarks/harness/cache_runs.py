"""One trace under one policy: plays it on a fresh index, and judges what came back."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.generator import LoadGenerator
from benchmarks.harness.history import History, Verdict
from benchmarks.harness.load import Job
from benchmarks.harness.replay import Policy, Replayed, replay, requests
from benchmarks.harness.servers import K, Pyrope
from benchmarks.harness.traces import Kind, Trace
from benchmarks.harness.wire import Recipe

BANDS = ((-1.0, 0.8), (0.8, 0.9), (0.9, 0.95), (0.95, 0.98), (0.98, 1.01))
"""Cosines of the two queries of a pair."""

NEAR = ("quantized", "cluster")
"""Levels that answer with another query's neighbourhood."""

LEVELS = ("exact", "alias", *NEAR, "prefetch")

_EXAMPLES = 5

_BATCH_ROWS, _BATCH_CONNECTIONS = 1_000, 4


@dataclass(slots=True)
class Band:
    """Second queries of pairs whose cosine is in a band.

    Attributes:
        pairs: of them.
        late: those in the second half of the trace, when the server has learnt.
        served: answered from a near level, or from the exact one if it had been asked before.
        late_served: of `late`.
        near: answered from a near level.
        right: of K results each, summed over `near`.
    """

    low: float
    high: float
    pairs: int = 0
    late: int = 0
    served: int = 0
    late_served: int = 0
    near: int = 0
    right: int = 0


@dataclass(slots=True)
class TraceRun:
    """What a trace came to under a policy.

    Attributes:
        rate: searches per second; latencies are those of searches, in microseconds.
        server_cpu_us: CPU time of the server per search, writes included.
        generator_cpu_us: of the harness per step.
        counters: VECTOR.CACHE STATS, as it has grown.
        sampled: searches with WITHINFO, by the level that they say.
        exact_wrong: answers that are not the exact one, of those that have to be: all but near
            hits that nothing proves.
        reordered: answers that are exact only if writes under way were seen in another order than
            they were sent in.
        dishonest: answers with more than K results, unknown ids, or scores of another query.
        unproven: near hits with fewer right results than `certified_recall` says.
        near_right: right results of K, summed over near hits.
        bands: of paraphrases.
        examples: the first few answers that are wrong.
    """

    trace: str
    policy: str
    searches: int
    writes: int
    seconds: float
    rate: float
    p50_us: float
    p99_us: float
    server_cpu_us: float
    generator_cpu_us: float
    counters: dict[str, float]
    sampled: dict[str, int] = field(default_factory=dict)
    exact_wrong: int = 0
    reordered: int = 0
    dishonest: int = 0
    unproven: int = 0
    near_right: int = 0
    bands: list[Band] = field(default_factory=list)
    examples: list[str] = field(default_factory=list)

    @property
    def hit_ratio(self) -> float:
        """Hits of all levels, of what was looked up."""
        looked_up = self.counters["hits"] + self.counters["misses"]
        return self.counters["hits"] / looked_up if looked_up else 0.0

    def share(self, level: str) -> float:
        """Hits of one level, of all searches."""
        return self.counters.get(f"hits_{level}", 0) / self.searches

    @property
    def near(self) -> int:
        return sum(self.sampled.get(level, 0) for level in NEAR)

    @property
    def near_recall(self) -> float | None:
        return self.near_right / (K * self.near) if self.near else None


@dataclass(frozen=True, slots=True)
class Playing:
    """How traces are played.

    Attributes:
        connections: for searches.
        info_share: share of searches that ask for WITHINFO; what is not told its level has to be
            exact, so traces with MINRECALL ask for it always.
        sessions: whether searches of sessions say SESSION.
    """

    connections: int
    info_share: float
    sessions: bool
    seed: int


def fill(server: Pyrope, base: Path, first_id: int = 0) -> None:
    """Make the index anew, holding the rows of a file under the ids from `first_id` on."""
    with server.client() as client:
        client.call(b"VECTOR.DROP", server.index)
    rows = np.load(base, mmap_mode="r")
    server.create(rows.shape[1])
    recipe = Recipe(server.add_batch(), base, _BATCH_ROWS, first_id=first_id, ahead=False)
    with LoadGenerator() as generator:
        generator.run(Job(server.port, recipe, _BATCH_CONNECTIONS))
    server.settle()


def counters(server: Pyrope) -> dict[str, float]:
    """The numbers of VECTOR.CACHE STATS."""
    with server.client() as client:
        flat = client.call(b"VECTOR.CACHE", b"STATS", server.index)
    pairs = zip(flat[::2], flat[1::2], strict=True)
    return {
        name.decode(): float(value)
        for name, value in pairs
        if isinstance(value, int) or _is_number(value)
    }


def play(
    server: Pyrope, trace: Trace, history: History, policy: Policy, playing: Playing, folder: Path
) -> TraceRun:
    """Play a trace on a fresh index.

    Args:
        folder: for the vectors' file; nothing is left in it.

    Raises:
        LoadError, ServerError, OSError, hiredis.HiredisError: the run failed.
    """
    folder.mkdir()
    try:
        base = folder / "base.npy"
        np.save(base, trace.base)
        fill(server, base)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    share = 1.0 if trace.options else playing.info_share
    informed = np.random.default_rng(playing.seed).random(len(trace.kinds)) < share
    told = playing.sessions and trace.name.startswith("sessions")
    commands = requests(trace, server.index, policy, informed, sessions=told)
    flush = b"*3\r\n$12\r\nVECTOR.CACHE\r\n$5\r\nFLUSH\r\n$%d\r\n%b\r\n"
    after = flush % (len(server.index), server.index) if policy is Policy.DROP_ALL else None
    before, cpu_before = counters(server), server.cpu_seconds()
    played = replay(server.port, trace, commands, playing.connections, after)
    cpu = server.cpu_seconds() - cpu_before
    p50, p99 = np.percentile(played.latencies_us, [50, 99])
    run = TraceRun(
        trace.name,
        policy.value,
        trace.searches,
        trace.writes,
        played.seconds,
        rate=trace.searches / played.seconds,
        p50_us=float(p50),
        p99_us=float(p99),
        server_cpu_us=cpu / trace.searches * 1e6,
        generator_cpu_us=played.cpu_us,
        counters={name: value - before.get(name, 0) for name, value in counters(server).items()},
    )
    judge(run, trace, history, played, informed)
    return run


def judge(
    run: TraceRun,
    trace: Trace,
    history: History,
    played: Replayed,
    informed: NDArray[np.bool_],
) -> None:
    """Hold every answer against the model, and count."""
    is_search = trace.kinds == Kind.SEARCH
    queries, told = trace.what[is_search].tolist(), informed[is_search].tolist()
    tags = trace.tags[is_search].tolist()
    if trace.options:
        run.bands = [Band(low, high) for low, high in BANDS]
    for row, reply in enumerate(played.replies):
        hits, info = (reply[0], _as_map(reply[1])) if told[row] else (reply, {})
        query, first = queries[row], int(played.acknowledged[row])
        last = int(played.sent[row])
        ids, scores = [int(one) for one in hits[::2]], [float(one) for one in hits[1::2]]
        verdict = history.judge(query, first, last, ids, scores)
        level = info["cache"].decode() if info else ""
        if _count(run, verdict, level, info) and len(run.examples) < _EXAMPLES:
            truth = history.exact(query, first).tolist()
            run.examples.append(
                f"search {row} for query {query}, {first} to {last} writes, {level or 'not told'}: "
                f"{ids} {scores}; after {first}: {truth}"
            )
        if run.bands and tags[row] >= 0:
            late = row >= len(queries) // 2
            _in_band(run, trace, tags[row], level, verdict, late=late)


def _count(run: TraceRun, verdict: Verdict, level: str, info: dict[str, Any]) -> bool:
    """Whether something is wrong with an answer."""
    if level:
        run.sampled[level] = run.sampled.get(level, 0) + 1
    run.dishonest += not verdict.honest
    run.reordered += verdict.reordered
    if level not in NEAR:
        run.exact_wrong += not verdict.exact
        return not verdict.exact
    proven = float(info["certified_recall"])
    run.near_right += verdict.right
    run.exact_wrong += proven >= 1 and not verdict.exact
    worse = verdict.right < round(proven * K)
    run.unproven += worse
    return worse or not verdict.honest


def _in_band(
    run: TraceRun, trace: Trace, pair: int, level: str, verdict: Verdict, *, late: bool
) -> None:
    half = len(trace.queries) // 2
    cosine = float(trace.queries[pair] @ trace.queries[half + pair])
    for band in run.bands:
        if band.low <= cosine < band.high:
            served, near = level in LEVELS, level in NEAR
            band.pairs += 1
            band.late += late
            band.served += served
            band.late_served += served and late
            band.near += near
            band.right += verdict.right if near else 0


def _as_map(flat: list[Any]) -> dict[str, Any]:
    return {name.decode(): value for name, value in zip(flat[::2], flat[1::2], strict=True)}


def _is_number(value: object) -> bool:
    try:
        return isinstance(value, bytes) and float(value) is not None
    except ValueError:
        return False
