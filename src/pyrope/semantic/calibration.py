"""How likely a stored answer is wrong for a prompt that is near: learned, and bounded.

The log-odds that a candidate is right are

    z = z_0 + d . phi + c + b

``z_0``: of the prior, from all that is known of the two prompts (`prior`).
``d``: a correction that is learned, with a normal prior around nought, on few things (`_phi`): an
    intercept and a slope for ``z_0``, for a domain where it is too bold or too shy; similarity,
    margin to the runner-up and density, whose worth depends on the index; a few differences.
``c``, ``b``: the offsets of the cluster and of the entry (`evidence`).

All are updated label by label, by one Newton step each that also narrows the variance (online
Bayesian logistic regression: Spiegelhalter and Lauritzen, Networks 20, 1990, section 5), with a
label weighed by the accuracy of its source (`beliefs`, `sources`).

What comes out is an estimate. Served is by a bound (`risk`): of the average error among all that is
served at this score or a better one, with the uncertainty of what was learned in it. A pair that
somebody has judged is another matter: its own posterior decides, with the least accuracy of the
source that is likely.

No clock, no randomness, no I/O; for the event loop. A decision takes some 3 us, a label 0.1 ms; the
state takes 6 KB, whatever has been learned.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import exp, log1p
from typing import Final
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from pyrope.semantic.beliefs import Beliefs, weigh
from pyrope.semantic.evidence import CLUSTER_VARIANCE, ENTRY_VARIANCE, NOTHING, Evidence
from pyrope.semantic.features import NAMES, features
from pyrope.semantic.origin import Origin
from pyrope.semantic.prior import GENERIC, LEAST_LOG_ODDS, MOST_LOG_ODDS, Prior, load
from pyrope.semantic.prompt_facts import PromptFacts
from pyrope.semantic.risk import BINS, WORST_TIMES, TailRisk
from pyrope.semantic.sources import AT_FIRST, UNSAID, Source, Trust, Verdicts, mixed

Float64Vector = NDArray[np.float64]

_CONTENT_ONLY: Final = NAMES.index("content_only_all")
_NUMBERS: Final = NAMES.index("numbers_one_sided")
_NEGATION: Final = NAMES.index("negation_differs")
_FIRST_DEVIATIONS: Final = (0.5, 0.5, 0.5, 0.3, 0.5, 0.5)
# Who is right hardly more often than a coin teaches nothing.
_WORTHLESS: Final = 0.6
_WIDEST_MARGIN: Final = 0.2

_MAGIC: Final = b"PYCL"
_STATE_VERSION: Final = 2
_HEADER: Final = struct.Struct("<4sBBHI")
_TRUSTS: Final = struct.Struct("<18d")


class CalibrationError(Exception):
    """A state that cannot be read: of another version, another prior, or broken."""


@dataclass(frozen=True, slots=True, eq=False)
class Near:
    """A candidate: a stored prompt that is near the one that was asked.

    Attributes:
        phi: what the correction is learned on, shape (8,).
        prior_log_odds: of the answer being right, ``z_0``.
        score: the same with what was learned, ``z``.
        entry, cluster: what was known of those when the score was made.
    """

    phi: Float64Vector
    prior_log_odds: float
    score: float
    entry: Evidence
    cluster: Evidence


@dataclass(frozen=True, slots=True)
class Judgement:
    """What is believed of a candidate.

    Attributes:
        error: the estimated probability that its answer is wrong.
        bound: what is compared with ``MAXERROR``: with 90 % confidence, the average error of what
            is served at this score or better; of a verified pair, its own.
        verified: whether somebody has judged this very pair.
    """

    error: float
    bound: float
    verified: bool

    @property
    def least_max_error(self) -> float:
        """The least ``MAXERROR`` with which it is served."""
        return self.bound if self.verified else max(self.bound, self.error / WORST_TIMES)

    def serves(self, max_error: float) -> bool:
        """Whether it is good enough.

        Args:
            max_error: of answers, between 0 and 1.
        """
        return self.least_max_error <= max_error


@dataclass(frozen=True, slots=True)
class CalibrationStatistics:
    """What has been learned.

    Attributes:
        prior: name of the one in use.
        labels_total: by all sources.
        verifier_accuracy: as estimated.
        intercept, slope: of the correction: 0 and 0 are the prior's own.
        elsewhere: probability that the prior does not hold here.
        candidates_current: candidates that count in the traffic, the prior's among them.
    """

    prior: str
    labels_total: int
    verifier_accuracy: float
    intercept: float
    slope: float
    elsewhere: float
    candidates_current: float


class Calibrator:
    """The error of near hits of one index.

    Args:
        prior: of the index's embedder, `prior.prior_for`.
        dim: of its vectors. With it, and the generic prior, vectors that `meet` is shown are
            measured, and may be recognised; without, similarity is taken as it is.
    """

    def __init__(self, prior: Prior, dim: int | None = None) -> None:
        # If the prior holds here, and if it does not.
        self._trusts = (dict(AT_FIRST), dict(AT_FIRST))
        self._trust = dict(AT_FIRST)
        self._origin = Origin(dim) if dim is not None and prior.name == GENERIC else None
        self._adopt(prior)

    def _adopt(self, prior: Prior) -> None:
        self._prior = prior
        self._beliefs = Beliefs((prior.spread, prior.slope_spread, *_FIRST_DEVIATIONS))
        self._risk = TailRisk(prior.traffic, prior.pairs, self._beliefs.covariance)

    @property
    def prior(self) -> Prior:
        return self._prior

    def meet(self, facts: PromptFacts, vector: NDArray[np.float32]) -> None:
        """Look at a prompt and its vector, if it is not known who made it; 20 us.

        When it turns out to be a known embedder, its prior takes over, and what labels have taught
        of candidates so far is forgotten: it was learned of scores that nobody uses any more.

        Args:
            vector: of length 1, shape (dim,).
        """
        if self._origin is not None and (name := self._origin.meet(facts, vector)):
            self._origin = None
            self._adopt(load(name))

    def near(
        self,
        asked: PromptFacts,
        stored: PromptFacts,
        similarity: float,
        *,
        runner_up: float | None = None,
        neighbours: int = 0,
        entry: Evidence = NOTHING,
        cluster: Evidence = NOTHING,
    ) -> Near:
        """Look at a candidate; 40 us.

        Args:
            similarity: the cosine of the two vectors.
            runner_up: similarity of the next candidate, which has another answer; None: no such.
            neighbours: how many others are nearly as similar (by 0.1).
        """
        if self._origin is not None:
            if runner_up is not None:
                runner_up = self._origin.similarity(runner_up)
            similarity = self._origin.similarity(similarity)
        x = features(asked, stored, similarity)
        prior_log_odds = self._prior.log_odds(x)
        phi = _phi(x, prior_log_odds, similarity, runner_up, neighbours)
        score = prior_log_odds + float(self._beliefs.mean @ phi) + cluster.offset + entry.offset
        score = min(MOST_LOG_ODDS, max(LEAST_LOG_ODDS, score))
        return Near(phi, prior_log_odds, score, entry, cluster)

    def observe(self, near: Near) -> None:
        """Count a candidate that guards have let pass, once for each request, served or not."""
        self._risk.observe(near.score)

    def judge(self, near: Near, verdicts: Verdicts = UNSAID) -> Judgement:
        """Say how likely it is wrong; 2 us.

        Args:
            verdicts: what was said of this very pair.
        """
        if not verdicts:
            error, bound = self._risk.error(near.score), self._risk.bound(near.score)
            return Judgement(error, bound, verified=False)
        own = self._own_log_odds(near)
        error = _sigmoid(-own - verdicts.weight(self._trust, cautious=False))
        bound = _sigmoid(-own - verdicts.weight(self._trust, cautious=True))
        return Judgement(error, max(bound, error), verified=True)

    def learn(
        self, near: Near, source: Source, *, right: bool, before: Verdicts = UNSAID
    ) -> tuple[Evidence, Evidence]:
        """Take in that a source called a candidate right or wrong; 100 us.

        Args:
            near: made with the evidence that is there now, not when the prompt was asked.
            before: what had been said of the same pair. What one source repeats is not learned
                from again.

        Returns:
            What is known of the entry and of the cluster now, to be stored with them.
        """
        others = before.weight(self._trust, cautious=False, but=source)
        if getattr(before, source.value)[1]:
            return near.entry, near.cluster
        accuracies = (self._trusts[0][source].accuracy, self._trusts[1][source].accuracy)
        accuracy = self._trust[source].accuracy
        rest = near.prior_log_odds + near.entry.offset + near.cluster.offset
        elsewhere = self._beliefs.moderated(near.phi, rest)
        self._hear(
            source, right=right, beliefs=(self._own_log_odds(near) + others, elsewhere + others)
        )
        if accuracy < _WORTHLESS:
            return near.entry, near.cluster
        weighed = weigh(near.score, accuracy, right=right)
        # The better a source, the more of what it calls wrong is wrong: to be on the safe side, it
        # is as good as it may well be.
        most = self._trust[source].most_accuracy
        wrong = ((0.0 if right else 1.0) - (1 - most)) / (2 * most - 1)
        self._risk.label(near.score, weighed.certainty, weighed.certainty * wrong)
        of_entry = near.entry.variance(ENTRY_VARIANCE)
        of_cluster = near.cluster.variance(CLUSTER_VARIANCE)
        self._beliefs.learn(
            near.phi,
            rest,
            accuracies,
            right=right,
            other_variance=of_entry + of_cluster,
        )
        self._risk.believe(self._beliefs.covariance)
        self._mix_trusts()
        step = weighed.gradient / (1.0 + weighed.information * (of_entry + of_cluster))
        return (
            Evidence(
                near.entry.offset + of_entry * step, near.entry.information + weighed.information
            ),
            Evidence(
                near.cluster.offset + of_cluster * step,
                near.cluster.information + weighed.information,
            ),
        )

    def _hear(self, source: Source, *, right: bool, beliefs: tuple[float, float]) -> None:
        """Learn of a source by what is believed otherwise: log-odds if the prior holds, if not."""
        for trusts, log_odds in zip(self._trusts, beliefs, strict=True):
            trusts[source] = trusts[source].after(right, _sigmoid(log_odds))
        self._mix_trusts()

    def _mix_trusts(self) -> None:
        holds, other = self._trusts
        share = self._beliefs.elsewhere
        self._trust = {source: mixed(holds[source], other[source], share) for source in Source}

    def statistics(self) -> CalibrationStatistics:
        return CalibrationStatistics(
            prior=self._prior.name,
            labels_total=sum(trust.verdicts for trust in self._trust.values()),
            verifier_accuracy=self._trust[Source.VERIFIER].accuracy,
            intercept=float(self._beliefs.mean[0]),
            slope=float(self._beliefs.mean[1]),
            elsewhere=self._beliefs.elsewhere,
            candidates_current=float(self._risk.traffic.sum()),
        )

    def encode(self) -> bytes:
        """All that was learned, to be stored: 6 KB, and 8 bytes a dimension of unnamed vectors."""
        trusts = [
            number
            for either in self._trusts
            for source in Source
            for number in (
                either[source].log_odds,
                either[source].variance,
                float(either[source].verdicts),
            )
        ]
        body = (
            self._beliefs.numbers().astype("<f8").tobytes()
            + b"".join(
                part.astype("<f8").tobytes()
                for part in (self._risk.traffic, self._risk.labels, self._risk.wrong)
            )
            + _TRUSTS.pack(*trusts)
            + (b"" if self._origin is None else self._origin.encode())
        )
        name = self._prior.name.encode()
        header = _HEADER.pack(
            _MAGIC, _STATE_VERSION, len(name), self._prior.version, crc32(name + body)
        )
        return header + name + body

    def restore(self, state: bytes) -> None:
        """Take over what `encode` gave.

        Raises:
            CalibrationError: it is of another prior or version, or broken. Nothing is changed.
        """
        if len(state) < _HEADER.size:
            raise CalibrationError("the state of a calibration is cut off")
        magic, version, name_length, prior_version, checksum = _HEADER.unpack_from(state)
        rest = state[_HEADER.size :]
        if magic != _MAGIC or version != _STATE_VERSION:
            raise CalibrationError("the state of a calibration has another format")
        if crc32(rest) != checksum:
            raise CalibrationError("the state of a calibration is broken")
        name = rest[:name_length].decode()
        recognised = self._origin is not None and self._origin.could_be(name)
        prior = load(name) if recognised else self._prior
        if (name, prior_version) != (prior.name, prior.version):
            raise CalibrationError(f"it was learned on the prior {name}, version {prior_version}")
        sizes = (len(self._beliefs.numbers()), BINS, BINS, BINS)
        end = name_length + 8 * sum(sizes) + _TRUSTS.size
        origin = None if recognised else self._origin
        try:
            numbers = np.frombuffer(rest, "<f8", sum(sizes), name_length).astype(np.float64)
            trusts = _TRUSTS.unpack_from(rest, end - _TRUSTS.size)
            if origin is not None:
                origin.restore(rest[end:])
        except (ValueError, struct.error) as error:
            raise CalibrationError("it was learned on other vectors") from error
        self._adopt(prior)
        self._origin = origin
        beliefs, traffic, labels, wrong = np.split(numbers, np.cumsum(sizes)[:-1])
        self._beliefs.restore(beliefs)
        self._risk.restore(traffic, labels, wrong)
        self._risk.believe(self._beliefs.covariance)
        read = [
            Trust(trusts[at], trusts[at + 1], int(trusts[at + 2]))
            for at in range(0, len(trusts), 3)
        ]
        half = len(read) // 2
        self._trusts = (
            dict(zip(Source, read[:half], strict=True)),
            dict(zip(Source, read[half:], strict=True)),
        )
        self._mix_trusts()

    def _own_log_odds(self, near: Near) -> float:
        """Of a candidate as such, with what labels of its score have shown."""
        error = min(0.999, max(0.001, self._risk.error(near.score)))
        return float(np.log((1 - error) / error))


def _phi(
    x: Float64Vector,
    prior_log_odds: float,
    similarity: float,
    runner_up: float | None,
    neighbours: int,
) -> Float64Vector:
    margin = 0.0 if runner_up is None else 1.0 - min(_WIDEST_MARGIN, similarity - runner_up) * 10.0
    return np.array(
        (
            1.0,
            prior_log_odds,
            margin,
            log1p(neighbours) / 2.0,
            (similarity - 0.8) * 5.0,
            x[_CONTENT_ONLY] - 1.0,
            x[_NUMBERS],
            x[_NEGATION],
        )
    )


def _sigmoid(x: float) -> float:
    return 1.0 / (1.0 + exp(-x)) if x > -500 else 0.0
