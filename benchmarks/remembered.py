"""How many answers a semantic cache serves, and how many of them are wrong.

    python -m benchmarks.remembered [--data DIR] [--embedder NAME] [--only PART ...]

In process, against the classes that the server uses; see ``docs/remembered.md``. Parts:

pairs   the first of each labelled pair is remembered, the second recalled, then the label shown.
stream  questions that come again and again in other words, with a verifier that answers later.
shift   pairs again, with labels changed at random, so that the prior is far off.
plain   pairs that plainly differ (``--plain FILE``), which guards have to refuse.

Nothing is fitted on what it is measured on: pairs are split into halves by connected components,
so that no question is in both; for each half, a prior is fitted to the other. With ``--data`` it is
the folder that ``benchmarks.fit_prior`` takes, without, questions are made up, which only shows
that all of it works. Writes Markdown and JSON to ``benchmarks/results``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.fit_prior import fit, wordllama_vectors
from benchmarks.harness.labelled_pairs import LabelledPairs, load_pairs
from benchmarks.harness.made_questions import made_pairs
from benchmarks.harness.remembered_pairs import (
    CURVE,
    ERRORS,
    TEACHINGS,
    THRESHOLDS,
    WARM,
    PairsPart,
    best_threshold,
    part_of,
    replay,
    served,
)
from benchmarks.harness.remembered_report import page
from benchmarks.harness.remembered_stream import play, requests_of, topics_of
from benchmarks.harness.shares import share
from pyrope.semantic import prior
from pyrope.semantic.guards import GUARDS, check
from pyrope.semantic.guards.comparison import Comparison
from pyrope.semantic.prompt_facts import PromptFacts, facts_of

RESULTS = Path(__file__).parent / "results"
PLAIN = Path(__file__).parent.parent / "tests" / "semantic" / "plainly_different.tsv"
PARTS = ("pairs", "stream", "shift", "plain")
EMBEDDERS = ("all-minilm-l6-v2", "wordllama")
SHIFTS = (("40 % of the right made wrong", 0.6, 0.0), ("60 % of the wrong made right", 1.0, 0.6))
"""What happens to labels: which share of right ones is kept, which of wrong ones becomes right."""
SHIFT_ERROR = 0.1
SOON = 500
STREAMS = ((0.1, 1.0), (0.01, 1.0), (0.1, 0.9), (0.05, 0.9))
"""What is asked for, and how often the verifier is right."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures remembered responses.")
    parser.add_argument("--data", type=Path, help="labelled pairs; without, some are made up")
    parser.add_argument("--embedder", choices=EMBEDDERS, default=EMBEDDERS[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--plain", type=Path, default=PLAIN, help="pairs that plainly differ")
    parser.add_argument("--requests", type=int, default=20_000, help="of the stream")
    parser.add_argument("--exponent", type=float, default=0.9, help="of the stream's popularity")
    parser.add_argument("--made", type=int, default=1500, help="pairs to make up without --data")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--name", default="remembered")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    started = time.perf_counter()
    result = measured(arguments)
    result["seconds"] = round(time.perf_counter() - started, 1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    text = page(result)
    (arguments.out / f"{arguments.name}.json").write_text(json.dumps(result, indent=1) + "\n")
    (arguments.out / f"{arguments.name}.md").write_text(text)
    print(text)


def measured(arguments: argparse.Namespace) -> dict[str, object]:
    """All parts that were asked for, as a record for JSON."""
    seed: int = arguments.seed
    made = arguments.data is None
    pairs = made_pairs(arguments.made, seed) if made else load_pairs(arguments.data)
    if arguments.embedder == "wordllama" and not made:
        vectors = wordllama_vectors(pairs.questions)
        pairs = LabelledPairs(pairs.questions, vectors, pairs.rows, pairs.labels)
    facts = [facts_of(question) for question in pairs.questions]
    result: dict[str, object] = {
        "command": "python -m benchmarks.remembered " + " ".join(_shown(sys.argv[1:])),
        "data": "made up" if made else "labelled pairs",
        "embedder": "made up" if made else arguments.embedder,
        "pairs": len(pairs.labels),
        "same": int(pairs.labels.sum()),
    }
    if "plain" in arguments.only:
        result["plain"] = plain(arguments.plain, pairs, facts)
    if {"pairs", "stream", "shift"}.intersection(arguments.only):
        halves = pairs.folds(2, seed)
        # One half is enough for the others.
        parts = [
            _part(pairs, facts, halves, half, arguments)
            for half in ((0, 1) if "pairs" in arguments.only else (0,))
        ]
        if "pairs" in arguments.only:
            result["rows"], result["curve"] = over_pairs(parts, seed)
        if "stream" in arguments.only:
            result["stream"] = over_stream(parts[0], arguments)
        if "shift" in arguments.only:
            result["shift"] = over_shifted(parts[0], seed)
    return result


def _part(
    pairs: LabelledPairs,
    facts: list[PromptFacts],
    halves: NDArray[np.int64],
    half: int,
    arguments: argparse.Namespace,
) -> PairsPart:
    """One half, and a prior from the other."""
    others = pairs.part(halves != half)
    similarities = others.similarities(pairs.vectors)
    record = fit(arguments.embedder, others, facts, [similarities], arguments.seed)
    these = pairs.part(halves == half)
    return part_of(
        these,
        facts,
        these.similarities(pairs.vectors),
        prior.from_record(record),
        seed=arguments.seed,
    )


def over_pairs(parts: list[PairsPart], seed: int) -> tuple[list[object], list[object]]:
    """Rows of the table, and points of the curve of hits against error; both halves together."""
    similarities = np.concatenate([part.similarities for part in parts])
    right = np.concatenate([part.right for part in parts])
    # Components of the two halves are other ones.
    groups = np.concatenate([part.groups for part in parts])
    rows = [
        served("fixed threshold", f"cosine {at}", similarities >= at, right, groups)
        for at in THRESHOLDS
    ]
    curve: list[object] = []
    for error in ERRORS:
        # With hindsight over each half, as an operator of that half would have it.
        best = [best_threshold(part.similarities, part.right, error) for part in parts]
        serves = np.concatenate(
            [part.similarities >= at for part, at in zip(parts, best, strict=True)]
        )
        name = "best fixed threshold, hindsight"
        rows.append(served(name, f"error {error:.0%}", serves, right, groups))
    right_late = np.concatenate([part.right[WARM:] for part in parts])
    groups_late = np.concatenate([part.groups[WARM:] for part in parts])
    for teaching in TEACHINGS:
        needed = [replay(part, teaching, seed) for part in parts]
        everything = np.concatenate(needed)
        name = f"ours, {teaching.name}"
        rows += [
            served(name, f"MAXERROR {error}", everything <= error, right, groups)
            for error in ERRORS
        ]
        if teaching.source is not None:
            late = np.concatenate([of[WARM:] for of in needed])
            name = f"{name}, after {WARM:,} pairs"
            rows += [
                served(name, f"MAXERROR {error}", late <= error, right_late, groups_late)
                for error in ERRORS
            ]
        curve += [
            _point(f"ours, {teaching.name}", error, everything <= error, right) for error in CURVE
        ]
    curve += [
        _point("fixed threshold", round(at, 3), similarities >= at, right)
        for at in np.arange(0.7, 1.0, 0.02).tolist()
    ]
    return [row.record() for row in rows], curve


def over_shifted(part: PairsPart, seed: int) -> list[object]:
    """Rows: how it goes where right answers are rarer, or more frequent, than the prior has it."""
    rows: list[object] = []
    for name, kept, added in SHIFTS:
        shifted = part.shifted(kept=kept, added=added, seed=seed)
        for teaching in TEACHINGS:
            needed = replay(shifted, teaching, seed)
            for first, last in ((0, SOON), (SOON, WARM), (WARM, len(needed))):
                serves = needed[first:last] <= SHIFT_ERROR
                wrong = serves & ~shifted.right[first:last]
                rows.append(
                    {
                        "shift": name,
                        "teaching": teaching.name,
                        "requests": f"{first:,} to {last:,}",
                        "hits": share(int(serves.sum()), len(serves)).record(),
                        "errors": share(int(wrong.sum()), int(serves.sum())).record(),
                    }
                )
    return rows


def _point(
    policy: str, asked: float, serves: NDArray[np.bool_], right: NDArray[np.bool_]
) -> dict[str, object]:
    return {
        "policy": policy,
        "asked": asked,
        "hits": share(int(serves.sum()), len(serves)).record(),
        "errors": share(int((serves & ~right).sum()), int(serves.sum())).record(),
    }


def over_stream(part: PairsPart, arguments: argparse.Namespace) -> list[object]:
    """A stream over the topics of one half, with the prior of the other."""
    topics = topics_of(part.pairs)
    requests = requests_of(topics, arguments.requests, arguments.exponent, arguments.seed)
    rows: list[object] = []
    for max_error, accuracy in STREAMS:
        result = play(
            part.pairs,
            topics,
            part.facts,
            requests,
            part.prior,
            max_error,
            accuracy,
            arguments.seed,
        )
        rows.append(
            {
                "max_error": max_error,
                "verifier": accuracy,
                "requests": len(requests),
                "topics": len(topics.wordings),
                "hits": result.hits.record(),
                "possible": result.possible,
                "of_possible": round(result.of_possible, 4),
                "errors": result.errors.record(),
                "exact": result.exact,
                "verified": result.verified,
                "near": result.near,
                "asked_verifier": result.asked_verifier,
                "verifier_accuracy": round(result.verifier_accuracy, 3),
            }
        )
    return rows


def plain(file: Path, pairs: LabelledPairs, facts: list[PromptFacts]) -> dict[str, object]:
    """How many of the cases guards stop, and how many pairs that are the same they refuse."""
    stopped: Counter[str] = Counter()
    cases: Counter[str] = Counter()
    for line in file.read_text(encoding="utf-8").splitlines():
        kind, one, other = line.split("\t")
        cases[kind] += 1
        stopped[kind] += check(facts_of(one), facts_of(other)) is not None
    same = pairs.rows[pairs.labels == 1].tolist()
    refused = {
        name: sum(differ(Comparison(facts[a], facts[b])) for a, b in same)
        for name, differ in GUARDS.items()
    }
    return {
        "cases": {kind: share(stopped[kind], cases[kind]).record() for kind in cases},
        "all": share(stopped.total(), cases.total()).record(),
        "refused_by": {name: share(count, len(same)).record() for name, count in refused.items()},
        "refused": share(
            sum(check(facts[a], facts[b]) is not None for a, b in same), len(same)
        ).record(),
    }


def _shown(words: list[str]) -> list[str]:
    """Arguments without folders, which tell about a machine."""
    return [Path(word).name if "/" in word else word for word in words]


if __name__ == "__main__":
    main()
