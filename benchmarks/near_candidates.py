"""How good re-scored neighbourhoods are: recall, proofs, costs, and what audits make of them.

    python -m benchmarks.near_candidates [--shared DIR] [--pairs N] [--kept N ...] [--streams N]

For pairs of paraphrases: the first query's exact neighbourhood of so many candidates is cached, the
second query comes. The candidates are scored again for it, in float64 as the engines do, and its
ten best of them compared with a full search. Prints Markdown tables: recall and what is proven, by
the cosine of the two queries; recall by strain; and a simulated stream of such pairs, in which
audits teach a server from nothing which near hits it may serve. Takes about a minute.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from math import inf
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.arguments import absolute, positive
from benchmarks.harness.near_hits import Floats, Hits, Searched, near_hits, rescored, search
from benchmarks.harness.near_stream import CHECKPOINTS, MIN_RECALL, Streamed, stream
from benchmarks.harness.paraphrases import Paraphrases, load
from pyrope.engine.kernels import pair_scores
from pyrope.types import Float32Matrix, Metric, Slots

K = 10
KS = (1, K, 50)
BANDS = ((-1.0, 0.8), (0.8, 0.9), (0.9, 0.95), (0.95, 0.98), (0.98, 1.01), (0.9, 1.01))
STRAINS = (-1.0, 0.0, 0.8, 0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.15, 1.2, 1.3, 1.5, inf)
STREAM_HEAD = (
    "near hits",
    "served",
    "their recall",
    "of cosine ≥ 0.9 served",
    "their recall",
    "audited of served",
    "bounds too high",
)

# What might tell the recall of a hit before a full search.
FIGURES: dict[str, Callable[[Hits], Floats]] = {
    "distance d": lambda hits: hits.distance,
    "d / radius r": lambda hits: hits.distance / hits.radius,
    "d / (r - f)": lambda hits: np.where(
        hits.radius > hits.furthest,
        hits.distance / np.maximum(hits.radius - hits.furthest, 1e-9),
        np.inf,
    ),
    "(d + f) / r": lambda hits: (hits.distance + hits.furthest) / hits.radius,
    "√(d² + f²) / r": lambda hits: np.hypot(hits.distance, hits.furthest) / hits.radius,
    "√(d²/2 + f²) / r": lambda hits: np.sqrt(hits.distance**2 / 2 + hits.furthest**2) / hits.radius,
    "the last, 0 where proven": lambda hits: hits.strain,
}

Rescore = Callable[[NDArray[np.float32], Float32Matrix, Slots], Floats]


def rescoring_us(data: Paraphrases, before: Searched, kept: int, score: Rescore) -> float:
    """Microseconds to score the candidates of one query again, median over queries."""
    times = []
    for query, slots in zip(data.new[:300], before.slots[:300, :kept], strict=True):
        start = time.perf_counter()
        score(query, data.base, slots)
        times.append(time.perf_counter() - start)
    return float(np.median(times)) * 1e6


def all_in_float64(query: NDArray[np.float32], base: Float32Matrix, slots: Slots) -> Floats:
    return pair_scores(Metric.COSINE, np.broadcast_to(query, (len(slots), len(query))), base[slots])


def best_in_float64(query: NDArray[np.float32], base: Float32Matrix, slots: Slots) -> Floats:
    """All in float32, and again the 2 k best."""
    rough = np.einsum("ij,j->i", base.take(slots, axis=0), query)
    best = rough.argpartition(len(slots) - 2 * K)[-2 * K :]
    return all_in_float64(query, base, slots[best])


def explained(values: Floats, recall: Floats, bins: int = 18) -> float:
    """The part of recall's variance between bins of some figure, of about equal counts."""
    distinct, which = np.unique(values, return_inverse=True)
    counts = np.bincount(which, minlength=len(distinct))
    middles = np.cumsum(counts) - counts / 2  # equal values share a place
    place = (middles[which] * bins / len(values)).astype(np.intp)
    within = sum(float(recall[place == n].var() * (place == n).sum()) for n in np.unique(place))
    return 1.0 - within / float(recall.var() * len(recall))


def table(head: Sequence[str], rows: Iterator[Sequence[str]]) -> None:
    print("| " + " | ".join(head) + " |")
    print("| --- |" + " ---: |" * (len(head) - 1))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print(flush=True)


def by_cosine(data: Paraphrases, found: dict[int, Hits]) -> Iterator[Sequence[str]]:
    for kept, hits in found.items():
        for low, high in BANDS:
            part = (data.cosines >= low) & (data.cosines < high)
            recall = hits.recall[part]
            yield (
                f"{kept}",
                f"{max(low, 0.0):.2f} to {min(high, 1.0):.2f}",
                f"{part.sum():,}",
                f"{recall.mean():.4f}",
                f"{np.quantile(recall, 0.05):.2f}",
                f"{hits.proven[part].mean():.3f}",
                f"{hits.by_chords[part].mean():.3f}",
                f"{(hits.proven[part] == 1).mean():.3f}",
            )


def by_strain(found: dict[tuple[int, int], Hits]) -> Iterator[Sequence[str]]:
    for (kept, k), hits in found.items():
        cells = []
        for low, high in pairwise(STRAINS):
            part = (hits.strain > low) & (hits.strain <= high)
            cells.append(f"{hits.recall[part].mean():.3f}" if part.sum() >= 20 else "–")
        yield f"{kept}, k {k}", *cells


def calibration(data: Paraphrases, found: dict[int, Hits], seeds: int) -> Iterator[Sequence[str]]:
    """Rows of the table of streams: sums over seeds, checkpoint by checkpoint."""
    sums = [Streamed() for _ in CHECKPOINTS]
    for seed in range(seeds):
        for place, seen in enumerate(stream(data, found, seed)):
            sums[place].add(seen)
    for start, until, seen in zip((0, *CHECKPOINTS), CHECKPOINTS, sums, strict=False):
        yield (
            f"{start:,} to {until:,}",
            f"{seen.served / seen.hits:.3f}",
            ratio(seen.recall, seen.served, 4),
            f"{seen.close_served / seen.close:.3f}",
            ratio(seen.close_recall, seen.close_served, 4),
            ratio(seen.audits, seen.served, 2),
            f"{seen.too_high} of {seen.checked:,}",
        )


def ratio(part: float, whole: int, digits: int) -> str:
    return f"{part / whole:.{digits}f}" if whole else "–"


def show_neighbourhoods(
    data: Paraphrases, before: Searched, found: dict[tuple[int, int], Hits]
) -> None:
    """Tables of single near hits."""
    usual = {kept: hits for (kept, k), hits in found.items() if k == K}
    head = ("candidates", "cosine", "pairs", "recall", "worst 5 %", "proven", "by chords")
    table((*head, "proven whole"), by_cosine(data, usual))

    proven = sum(round(hits.proven.sum() * k) for (_, k), hits in found.items())
    refuted = sum(hits.refuted for hits in found.values())
    print(f"Of {proven:,} proven results (k 1, 10, 50), full searches refute {refuted}.\n")

    dim = data.base.shape[1]
    table(
        ("candidates", "re-scoring, µs", "rough first, µs", "bytes", "with the query, twice"),
        (
            (
                f"{kept}",
                f"{rescoring_us(data, before, kept, all_in_float64):.0f}",
                f"{rescoring_us(data, before, kept, best_in_float64):.0f}",
                f"{12 * kept:,}",
                f"{12 * kept + 8 * dim:,}",
            )
            for kept in usual
        ),
    )
    table(
        ("k", "candidates", *FIGURES),
        (
            (
                f"{k}",
                f"{kept}",
                *(f"{explained(of(hits), hits.recall):.2f}" for of in FIGURES.values()),
            )
            for (kept, k), hits in found.items()
        ),
    )
    table(("recall by strain up to", *(f"{edge:g}" for edge in STRAINS[1:])), by_strain(found))


def show_streams(data: Paraphrases, found: dict[tuple[int, int], Hits], seeds: int) -> None:
    """Tables of streams: for each number of candidates, and with several numbers of results."""
    cases = {f"{kept} candidates": {K: hits} for (kept, k), hits in found.items() if k == K}
    cases["100 candidates, k 1, 10 or 50"] = {
        k: hits for (kept, k), hits in found.items() if kept == 100
    }
    for name, hits in cases.items():
        if hits:
            print(f"{name}, MINRECALL {MIN_RECALL} ESTIMATED, {seeds} streams:\n")
            table(STREAM_HEAD, calibration(data, hits, seeds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=absolute, default=Path("../shared").resolve())
    parser.add_argument("--pairs", type=positive, default=4000)
    parser.add_argument("--kept", type=positive, nargs="+", default=[50, 100, 200, 400])
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--streams", type=positive, default=10, help="that are averaged")
    arguments = parser.parse_args()
    if min(arguments.kept) < 2 * K:
        parser.error(f"at least {2 * K} candidates are to be kept")

    data = load(arguments.shared, arguments.pairs, arguments.seed)
    print(f"{data.description}; k {K}, COSINE, {data.base.shape[1]} dimensions\n")
    index = faiss.IndexFlatIP(data.base.shape[1])
    index.add(data.base)
    before = search(index, data.base, data.cached, max(arguments.kept))
    truth = search(index, data.base, data.new, max(KS)).slots
    again = rescored(data.base, data.new, before.slots)
    found = {
        (kept, k): near_hits(data, before, again, truth, kept, k)
        for kept in arguments.kept
        for k in KS
        if kept > k
    }
    show_neighbourhoods(data, before, found)
    show_streams(data, found, arguments.streams)


if __name__ == "__main__":
    main()
