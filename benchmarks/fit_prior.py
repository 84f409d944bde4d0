"""Fits what is shipped as belief about near hits before any label: ``pyrope/semantic/priors``.

    python -m benchmarks.fit_prior ../shared/data/qqp --embedders all-minilm-l6-v2 wordllama

The folder holds ``questions.txt.gz``, one a line; ``pairs.npy``, int32, shape (n, 3): two rows and
whether people call them the same question (1); ``embeddings.f16.npy``: vectors of the questions,
made by all-MiniLM-L6-v2. Those of wordllama are made here, in this process.

The model is an ensemble of small networks, averaged and written as one. Pairs are split into folds
by connected components, so that no question is on both sides; the monotone map that makes log-odds
honest, the distribution of scores and the figures in the file come from pairs that the respective
networks had not seen. The networks that are shipped are then fitted to all pairs given.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import probes
from benchmarks.harness.labelled_pairs import LabelledPairs, load_pairs
from benchmarks.harness.network import fit_networks, isotonic_knots
from pyrope.embed.wordllama import WordLlamaEmbedder
from pyrope.semantic import prior, risk
from pyrope.semantic.features import NAMES, features
from pyrope.semantic.guards import check
from pyrope.semantic.prompt_facts import PromptFacts, facts_of

FOLDS = 8
VERSION = 2
MADE_BY = "python -m benchmarks.fit_prior"
PRIORS = Path(prior.__file__).parent / "priors"
# How far another domain may lie off, as a standard deviation of log-odds: known embedders, unknown.
SPREADS = {prior.GENERIC: (0.4, 0.15)}
SPREAD = (0.05, 0.02)

Float64Vector = NDArray[np.float64]
Float64Matrix = NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(description="Fits the priors that are shipped.")
    parser.add_argument("folder", type=Path, help="with questions.txt.gz, pairs.npy and embeddings")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=PRIORS)
    parser.add_argument("--data-name", default="QQP development pairs")
    arguments = parser.parse_args()
    pairs = load_pairs(arguments.folder)
    facts = [facts_of(question) for question in pairs.questions]
    arguments.out.mkdir(parents=True, exist_ok=True)
    similarities = {
        "all-minilm-l6-v2": pairs.similarities(pairs.vectors),
        "wordllama": pairs.similarities(wordllama_vectors(pairs.questions)),
    }
    for name in (*similarities, prior.GENERIC):
        of_pairs = [similarities[name]] if name in similarities else list(similarities.values())
        record = fit(name, pairs, facts, of_pairs, arguments.seed)
        record["provenance"]["data"] = arguments.data_name
        path = arguments.out / f"{name}.json"
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        print(f"{path.name}: {record['provenance']['served']}")
    known = probes.record(probes.fit_probes("all-minilm-l6-v2", facts, pairs.vectors))
    known["provenance"] = {"made_by": MADE_BY, "data": arguments.data_name}
    (arguments.out / "probes.json").write_text(json.dumps(known) + "\n", encoding="utf-8")


def fit(
    name: str,
    pairs: LabelledPairs,
    facts: list[PromptFacts],
    similarities: Sequence[Float64Vector],
    seed: int,
) -> dict[str, Any]:
    """A prior as a record for `pyrope.semantic.prior.from_record`.

    Args:
        similarities: of the pairs; by several embedders for a prior that is to serve for any.
    """
    parts = [matrix(pairs, facts, of_pairs) for of_pairs in similarities]
    x = np.vstack([part for part, _ in parts])
    passed = np.concatenate([part for _, part in parts])
    y = np.tile(pairs.labels.astype(np.float64), len(parts))
    folds = np.tile(pairs.folds(FOLDS, seed), len(parts))
    held_out = np.empty(len(y))
    for fold in range(FOLDS):
        network = fit_networks(x[folds != fold], y[folds != fold], seed=[seed, fold])
        held_out[folds == fold] = network.log_odds(x[folds == fold])
    knots = isotonic_knots(held_out[passed], y[passed])
    scores = np.interp(held_out, *knots)
    network = fit_networks(x, y, seed=[seed, FOLDS])
    bins = np.clip((scores[passed] - risk.LEAST) / risk.WIDTH, 0, risk.BINS - 1).astype(int)
    spread, slope_spread = SPREADS.get(name, SPREAD)
    return {
        "name": name,
        "version": VERSION,
        "provenance": {
            "made_by": MADE_BY,
            "pairs": len(pairs.labels),
            "pairs_that_guards_pass": int(parts[0][1].sum()),
            "seed": seed,
            "served": shares(np.where(passed, scores, -np.inf), y),
        },
        "features": list(NAMES),
        **network.record(),
        "raw_knots": rounded(knots[0]),
        "knots": rounded(knots[1]),
        "traffic": rounded(np.bincount(bins, minlength=risk.BINS) / len(bins)),
        "spread": spread,
        "slope_spread": slope_spread,
    }


def matrix(
    pairs: LabelledPairs, facts: list[PromptFacts], similarities: Float64Vector
) -> tuple[Float64Matrix, NDArray[np.bool_]]:
    """Features of all pairs, and which of them all guards let pass."""
    rows = pairs.rows.tolist()
    x = np.array(
        [
            features(facts[a], facts[b], similarity)
            for (a, b), similarity in zip(rows, similarities.tolist(), strict=True)
        ]
    )
    return x, np.array([check(facts[a], facts[b]) is None for a, b in rows])


def shares(scores: Float64Vector, y: Float64Vector) -> dict[str, float]:
    """By error: the largest share of pairs that the best threshold serves at that error."""
    order = np.argsort(-scores, kind="stable")
    served = np.arange(1, len(y) + 1)
    wrong = np.cumsum(1 - y[order]) / served
    return {
        str(error): round(float(served[wrong <= error].max(initial=0) / len(y)), 4)
        for error in (0.02, 0.05, 0.1, 0.2)
    }


def rounded(values: NDArray[np.floating]) -> list[float]:
    return [float(f"{value:.5g}") for value in values]


def wordllama_vectors(texts: list[str]) -> NDArray[np.float32]:
    """Of all texts, in their order."""

    async def run(function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)

    async def embed() -> NDArray[np.float32]:
        embedder = WordLlamaEmbedder(run)
        await embedder.start()
        step = embedder.batch_texts
        parts = [
            (await embedder.embed(texts[first : first + step])).vectors
            for first in range(0, len(texts), step)
        ]
        return np.concatenate(parts)

    return asyncio.run(embed())


if __name__ == "__main__":
    main()
