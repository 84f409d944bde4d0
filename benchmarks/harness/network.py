"""Small networks for two classes, fitted with numpy alone, and the map that makes them honest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Float64Vector = NDArray[np.float64]
Float64Matrix = NDArray[np.float64]

_MEMBERS = 3
_HIDDEN = 16
_EPOCHS = 20
_BATCH = 256
_RATE = 4e-3
_DECAY = 5e-4
_LIMIT = 5.0
_KNOTS = 24


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """One hidden layer of hyperbolic tangents; log-odds come out.

    Attributes:
        centre, scale: ``(x - centre) * scale`` is what goes in, cut off at 5.
    """

    centre: Float64Vector
    scale: Float64Vector
    hidden: Float64Matrix
    hidden_bias: Float64Vector
    output: Float64Vector
    output_bias: float

    def log_odds(self, x: Float64Matrix) -> Float64Vector:
        scaled = np.clip((x - self.centre) * self.scale, -_LIMIT, _LIMIT)
        return np.tanh(scaled @ self.hidden + self.hidden_bias) @ self.output + self.output_bias

    def record(self) -> dict[str, object]:
        """For JSON, with five digits."""

        def digits(values: Float64Vector) -> list[float]:
            return [float(f"{value:.5g}") for value in values]

        return {
            "centre": digits(self.centre),
            "scale": digits(self.scale),
            "hidden": [digits(row) for row in self.hidden],
            "hidden_bias": digits(self.hidden_bias),
            "output": digits(self.output),
            "output_bias": float(f"{self.output_bias:.5g}"),
        }


def fit_networks(x: Float64Matrix, y: Float64Vector, seed: Sequence[int]) -> Network:
    """Several networks that differ by their random beginning, averaged into one wider one."""
    centre, deviation = x.mean(axis=0), x.std(axis=0)
    scale = np.where(deviation > 1e-9, 1 / np.maximum(deviation, 1e-9), 0.0)
    scaled = np.clip((x - centre) * scale, -_LIMIT, _LIMIT)
    members = [
        _fit_one(scaled, y, np.random.default_rng([*seed, member])) for member in range(_MEMBERS)
    ]
    return Network(
        centre,
        scale,
        hidden=np.hstack([member[0] for member in members]),
        hidden_bias=np.concatenate([member[1] for member in members]),
        output=np.concatenate([member[2] for member in members]) / _MEMBERS,
        output_bias=float(np.mean([member[3][0] for member in members])),
    )


def _fit_one(
    x: Float64Matrix, y: Float64Vector, generator: np.random.Generator
) -> list[NDArray[np.float64]]:
    """Adam (Kingma and Ba, ICLR 2015) on the logarithmic loss; weights decay, rate by cosine."""
    count, width = x.shape
    parameters: list[NDArray[np.float64]] = [
        generator.standard_normal((width, _HIDDEN)) / np.sqrt(width),
        np.zeros(_HIDDEN),
        generator.standard_normal(_HIDDEN) / np.sqrt(_HIDDEN),
        np.array([np.log(y.mean() / (1 - y.mean()))]),
    ]
    first = [np.zeros_like(p) for p in parameters]
    second = [np.zeros_like(p) for p in parameters]
    steps = _EPOCHS * max(1, count // _BATCH)
    step = 0
    while step < steps:
        order = generator.permutation(count)
        for start in range(0, count - min(_BATCH, count) + 1, _BATCH):
            rows = order[start : start + _BATCH]
            gradients = _gradients(parameters, x[rows], y[rows])
            step += 1
            rate = _RATE * 0.5 * (1 + np.cos(np.pi * min(1.0, step / steps)))
            for place, gradient in enumerate(gradients):
                first[place] += 0.1 * (gradient - first[place])
                second[place] += 0.001 * (gradient * gradient - second[place])
                mean = first[place] / (1 - 0.9**step)
                deviation = np.sqrt(second[place] / (1 - 0.999**step))
                parameters[place] -= rate * mean / (deviation + 1e-8)
    return parameters


def _gradients(
    parameters: list[NDArray[np.float64]], x: Float64Matrix, y: Float64Vector
) -> list[NDArray[np.float64]]:
    hidden, hidden_bias, output, bias = parameters
    inner = np.tanh(x @ hidden + hidden_bias)
    error = (1 / (1 + np.exp(-(inner @ output + bias[0]))) - y) / len(y)
    back = np.outer(error, output) * (1 - inner * inner)
    return [
        x.T @ back + _DECAY * hidden,
        back.sum(axis=0),
        inner.T @ error + _DECAY * output,
        np.array([error.sum()]),
    ]


def isotonic_knots(scores: Float64Vector, y: Float64Vector) -> tuple[Float64Vector, Float64Vector]:
    """A monotone, piecewise linear map from scores to log-odds.

    Pool adjacent violators (Ayer et al., Annals of Mathematical Statistics 26, 1955) over groups of
    neighbours by score, finer towards the top, where answers are served.
    """
    order = np.argsort(scores)
    # Group borders, as shares from the top: 0.5 % first, each wider than the one before.
    shares = np.concatenate([[0.0], np.geomspace(0.005, 1.0, _KNOTS)])
    borders = np.unique(np.round((1 - shares[::-1]) * len(y)).astype(int))
    blocks: list[list[float]] = []
    for low, high in pairwise(borders.tolist()):
        rows = order[low:high]
        # Half a success and half a failure keep log-odds finite (Haldane, 1956).
        blocks.append([float(y[rows].sum()) + 0.5, float(high - low) + 1.0, scores[rows].mean()])
    pooled: list[list[float]] = []
    for successes, count, centre in blocks:
        block = [successes, count, centre * count]
        while pooled and pooled[-1][0] / pooled[-1][1] >= block[0] / block[1]:
            last = pooled.pop()
            block = [last[0] + block[0], last[1] + block[1], last[2] + block[2]]
        pooled.append(block)
    raw = np.array([weighted / count for _, count, weighted in pooled])
    rates = np.array([successes / count for successes, count, _ in pooled])
    return raw, np.log(rates / (1 - rates))
