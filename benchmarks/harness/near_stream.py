"""A stream of near hits, from which a server learns by audits what it may serve."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from benchmarks.harness.near_hits import Hits
from benchmarks.harness.paraphrases import Paraphrases
from pyrope.cache.audited_recall import AuditedRecall
from pyrope.testing.clock import ManualClock

LEVEL = "quantized"
MIN_RECALL = 0.95
CHECKPOINTS = (100, 200, 400, 800, 1600, 3200, 6400)


@dataclass(slots=True)
class Streamed:
    """What a server that learns makes of a stream of near hits, since the last checkpoint.

    Attributes:
        hits: near hits.
        served: those that were served.
        recall: the sum of their recalls.
        close: hits whose queries have a cosine of at least 0.9.
        close_served: those that were served.
        close_recall: the sum of their recalls.
        audits: full searches for the sake of learning; misses search anyway.
        checked: bounds that could be compared with the truth.
        too_high: those that were above it.
    """

    hits: int = 0
    served: int = 0
    recall: float = 0.0
    close: int = 0
    close_served: int = 0
    close_recall: float = 0.0
    audits: int = 0
    checked: int = 0
    too_high: int = 0

    def add(self, other: Streamed) -> None:
        for name in Streamed.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


def stream(data: Paraphrases, found: dict[int, Hits], seed: int) -> Iterator[Streamed]:
    """Pairs, and numbers of results, drawn with replacement; gives what was seen at checkpoints.

    A hit is served if what is proven or the bound reaches `MIN_RECALL` and the level is trusted.
    What is not served is searched in full for its own sake, and taken as an audit.

    Args:
        data: the pairs.
        found: by number of results.
        seed: of the stream and of the audits.
    """
    rng = np.random.default_rng(seed)
    recall = AuditedRecall(ManualClock(), random.Random(seed))
    close, seen = data.cosines >= 0.9, Streamed()
    ks = rng.choice(list(found), CHECKPOINTS[-1]).tolist()
    pairs = rng.integers(len(close), size=CHECKPOINTS[-1]).tolist()
    for number, (k, pair) in enumerate(zip(ks, pairs, strict=True), 1):
        hits = found[k]
        strain, true = float(hits.strain[pair]), float(hits.recall[pair])
        bound = recall.lower_bound(LEVEL, strain, k)
        good = max(bound, float(hits.proven[pair])) >= MIN_RECALL
        served = good and recall.level_is_trusted(LEVEL, MIN_RECALL)
        seen.hits += 1
        seen.close += int(close[pair])
        if served:
            seen.served += 1
            seen.recall += true
            seen.close_served += int(close[pair])
            seen.close_recall += true * int(close[pair])
        if not served or recall.should_audit(LEVEL, strain, k):
            seen.audits += int(served)
            promised = MIN_RECALL if good else None
            recall.record(LEVEL, strain, round(true * k), k, promised=promised)
        if number in CHECKPOINTS:
            check_bounds(recall, found, seen)
            yield seen
            seen = Streamed()


def check_bounds(recall: AuditedRecall, found: dict[int, Hits], seen: Streamed) -> None:
    """Compare each bound with the mean recall of all pairs in its bin."""
    for k, hits in found.items():
        low = -1.0
        for some in recall.statistics(LEVEL)[2 ** (k.bit_length() - 1)]:
            part = (hits.strain > low) & (hits.strain <= some.up_to)
            low = some.up_to
            # What may be recalled in a bin is known only where there are enough pairs.
            if part.sum() >= 30 and some.lower_bound > 0:
                seen.checked += 1
                seen.too_high += int(some.lower_bound > hits.recall[part].mean())
