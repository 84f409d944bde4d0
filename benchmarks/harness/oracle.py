"""What a model that knows the labels is worth: hits of a trace of paraphrases, with it and without.

Every search draws a pair by Zipf's law, and one of its two wordings, each as likely; its text is
the name of that wording. The index may keep as many bytes of answers as hold a share of the
wordings, since with room for all of them each wording is found under its own vector, and nothing is
left to gain. The first half of the trace is for learning: after every few searches it waits until
nothing is left to be asked, as there would be hours for that. The second half is what is counted.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import models
from benchmarks.harness.cache_runs import fill
from benchmarks.harness.paraphrases import Paraphrases
from benchmarks.harness.servers import K, Pyrope, ServerError
from benchmarks.harness.wire import Client
from pyrope.testing.oracle import Oracle

SHARE_KEPT = 0.3
"""Of the wordings, those whose answers there is room for."""

_ANSWER_BYTES = 3_200
"""Of one answer with a text, at 384 dimensions."""

_TOGETHER = 50
"""Searches between two waits, in the half that is for learning."""

_PATIENCE_S = 60.0
Status = dict[bytes, Any]

_PAIR = re.compile(r"question (\d+), ")


@dataclass(slots=True)
class OracleRun:
    """One server on the trace; what is counted is its second half.

    Attributes:
        model: whether it asks one.
        levels: searches by where their answer came from.
        alias_recall: mean recall@K of hits by alias, against full scans; None: there were none.
        questions, tokens: that the model was asked, in and out, in both halves.
        aliases: there at the end.
    """

    model: bool
    pairs: int
    searches: int
    levels: dict[str, int]
    alias_recall: float | None
    questions: int
    tokens: int
    aliases: int

    @property
    def hit_ratio(self) -> float:
        return 1 - self.levels.get("miss", 0) / self.searches


def measure(
    pairs: Paraphrases, searches: int, exponent: float, seed: int, folder: Path
) -> list[OracleRun]:
    """The trace without a model, and with one that answers from the labels.

    Raises:
        ServerError, OSError, hiredis.HiredisError: a run failed.
    """
    folder.mkdir()
    base = folder / "base.npy"
    np.save(base, pairs.base)
    oracle = Oracle(_pair_of)
    with models.stand_in(oracle) as stand_in:
        # Every wording that misses is asked about: half of a trace is all there is to learn from.
        asks = models.configured(folder, stand_in, min_count=1, min_cost=0, concurrency=8)
        runs = []
        for number, config in enumerate((None, asks)):
            server = Pyrope("Pyrope", folder / f"server-{number}", config, "FLAT")
            server.start()
            try:
                fill(server, base)
                runs.append(
                    _play(server, pairs, searches, exponent, seed, model=config is not None)
                )
            finally:
                server.kill()
        return runs


def _pair_of(text: str) -> str | None:
    found = _PAIR.match(text)
    return found[1] if found else None


def _play(
    server: Pyrope,
    pairs: Paraphrases,
    searches: int,
    exponent: float,
    seed: int,
    *,
    model: bool,
) -> OracleRun:
    number = len(pairs.cached)
    generator = np.random.default_rng([seed, 9])
    weights = np.arange(1, number + 1) ** -float(exponent)
    drawn = generator.choice(number, size=2 * searches, p=weights / weights.sum())
    second = generator.random(2 * searches) < 0.5
    levels: dict[str, int] = {}
    recalls: list[float] = []
    with server.client() as client:
        kept = int(SHARE_KEPT * 2 * number * _ANSWER_BYTES)
        client.call(b"VECTOR.CACHE", b"POLICY", server.index, b"SET", b"MAXBYTES", b"%d" % kept)
        if model:
            _until(client, lambda told: told[b"state"] != b"stopped")
        for step, (pair, is_second) in enumerate(zip(drawn.tolist(), second.tolist(), strict=True)):
            vector = (pairs.new if is_second else pairs.cached)[pair]
            text = b"question %d, wording %d" % (pair, is_second)
            hits, info = client.call(
                b"VECTOR.SEARCH", server.index, b"FP32", vector.astype("<f4").tobytes(),
                b"COUNT", b"%d" % K, b"QUERY", text, b"WITHINFO",
            )  # fmt: skip
            if step < searches:
                if model and step % _TOGETHER == 0:
                    _until(client, _has_asked_all)
                continue
            level = info[info.index(b"cache") + 1].decode()
            levels[level] = levels.get(level, 0) + 1
            if level == "alias":
                recalls.append(_recall(pairs.base, vector, [int(one) for one in hits]))
        told = _status(client)
    return OracleRun(
        model,
        number,
        searches,
        levels,
        float(np.mean(recalls)) if recalls else None,
        questions=int(told[b"succeeded"]),
        tokens=int(told[b"tokens_in"]) + int(told[b"tokens_out"]),
        aliases=int(told.get(b"aliases_set", 0)) - int(told.get(b"aliases_removed", 0)),
    )


def _recall(base: NDArray[np.float32], query: NDArray[np.float32], ids: list[int]) -> float:
    scores = base @ query
    least = np.partition(scores, -K)[-K]
    # A rounding apart is as good.
    return float(np.count_nonzero(scores[ids] >= least - 1e-6)) / K


def _status(client: Client) -> Status:
    flat = client.call(b"VECTOR.LLM", b"STATUS")
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _has_asked_all(told: Status) -> bool:
    return not (told[b"pending"] or told[b"queued"] or told[b"running"])


def _until(client: Client, condition: Callable[[Status], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        if condition(_status(client)):
            return
        time.sleep(0.01)
    raise ServerError("the model was not asked everything in time")
