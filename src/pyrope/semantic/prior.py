"""What is believed of a near hit before anything is known of an index: fitted beforehand.

A small network (one hidden layer of hyperbolic tangents) makes log-odds of "the stored answer is
right" from `features`; a monotone piecewise linear map makes them honest. Both were fitted by
``python -m benchmarks.fit_prior`` on pairs of questions that people have labelled, for one embedder
each; the files beside tell on what, and how well it did on pairs that it had not seen. Where it is
not known who made the vectors, the prior ``generic`` is used, which trusts similarity least.

No training data is in these files, only the fitted numbers.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pyrope.semantic.features import NAMES

Float64Vector = NDArray[np.float64]
Float64Matrix = NDArray[np.float64]

GENERIC: Final = "generic"
_BY_EMBEDDER: Final = {
    "wordllama": "wordllama",
    "all-minilm-l6-v2": "all-minilm-l6-v2",
}
# Beyond so many standard deviations a feature says no more.
_FURTHEST: Final = 5.0
LEAST_LOG_ODDS: Final = -6.0
MOST_LOG_ODDS: Final = 6.0


@dataclass(frozen=True, slots=True, eq=False)
class Prior:
    """A fitted model.

    Attributes:
        name: of its file; one name and one `version` always mean the same numbers.
        centre, scale: of the features, each shape (features,).
        hidden: weights of the hidden layer, shape (features, hidden); `hidden_bias` (hidden,).
        output: weights of the output, shape (hidden,); `output_bias` beside them.
        raw_knots, knots: the monotone map: log-odds of the network, and what they are worth.
        traffic: shares of log-odds among pairs that guards let pass, in `risk`'s bins.
        pairs: how many that were.
        spread: how far the log-odds of another domain may lie off all together: a standard
            deviation. `slope_spread`: by which factor they may be too bold or too shy, likewise.
    """

    name: str
    version: int
    centre: Float64Vector
    scale: Float64Vector
    hidden: Float64Matrix
    hidden_bias: Float64Vector
    output: Float64Vector
    output_bias: float
    raw_knots: tuple[float, ...]
    knots: tuple[float, ...]
    traffic: Float64Vector
    pairs: int
    spread: float
    slope_spread: float

    def raw_log_odds(self, x: Float64Vector) -> float:
        """Of the network alone, before the map."""
        scaled = (x - self.centre) * self.scale
        # Without the wrappers around them these take half the time that np.clip does.
        np.minimum(scaled, _FURTHEST, out=scaled)
        np.maximum(scaled, -_FURTHEST, out=scaled)
        hidden = scaled @ self.hidden
        hidden += self.hidden_bias
        np.tanh(hidden, out=hidden)
        return float(hidden @ self.output) + self.output_bias

    def log_odds(self, x: Float64Vector) -> float:
        """That the answer is right; 4 us.

        Args:
            x: `pyrope.semantic.features.features`, shape (features,).

        Returns:
            Natural logarithm of the odds, from `LEAST_LOG_ODDS` to `MOST_LOG_ODDS`.
        """
        mapped = _interpolated(self.raw_log_odds(x), self.raw_knots, self.knots)
        return min(MOST_LOG_ODDS, max(LEAST_LOG_ODDS, mapped))


def _interpolated(x: float, places: Sequence[float], values: Sequence[float]) -> float:
    """As np.interp, which lets the GIL go and waits for it, does for a single number.

    Args:
        places: ascending, two at least.
        values: at these.
    """
    at = bisect_right(places, x)
    if at == 0 or at == len(places):
        return values[at - (at > 0)]
    left, right = places[at - 1], places[at]
    below = values[at - 1]
    return below + (values[at] - below) / (right - left) * (x - left)


def prior_for(embedder: str) -> Prior:
    """The prior of an embedder by its name, or the generic one.

    Args:
        embedder: as ``wordllama:256:0123456789ab``, a model's name, or ``""`` if nobody knows.
    """
    name = embedder.rpartition("/")[2].partition(":")[0].casefold()
    return load(_BY_EMBEDDER.get(name, GENERIC))


@lru_cache(maxsize=8)
def load(name: str) -> Prior:
    """A shipped prior.

    Raises:
        FileNotFoundError: there is none of that name.
    """
    text = files("pyrope.semantic").joinpath("priors", f"{name}.json").read_text("utf-8")
    return from_record(json.loads(text))


def from_record(record: dict[str, Any]) -> Prior:
    """From what a file holds.

    Raises:
        ValueError: it was fitted to other features than there are.
    """
    if record["features"] != list(NAMES):
        raise ValueError(f"the prior {record['name']} was fitted to other features: fit it again")
    arrays = {
        field: np.array(record[field], np.float64)
        for field in (
            "centre",
            "scale",
            "hidden",
            "hidden_bias",
            "output",
            "traffic",
        )
    }
    return Prior(
        name=record["name"],
        version=record["version"],
        output_bias=record["output_bias"],
        pairs=record["provenance"]["pairs_that_guards_pass"],
        spread=record["spread"],
        slope_spread=record["slope_spread"],
        raw_knots=tuple(map(float, record["raw_knots"])),
        knots=tuple(map(float, record["knots"])),
        **arrays,
    )
