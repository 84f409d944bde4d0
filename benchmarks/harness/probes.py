"""Fits the probes that recognise an embedder's vectors."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pyrope.semantic.prompt_facts import PromptFacts
from pyrope.semantic.recognition import QUESTIONS, Probes, answers

_RIDGE = 1.0
_STEPS = 8


def fit_probes(name: str, facts: list[PromptFacts], vectors: NDArray[np.float32]) -> Probes:
    """Logistic regression with a ridge, by Newton's method, for each question.

    Args:
        vectors: of the texts, shape (texts, dim).
    """
    x = np.column_stack([vectors.astype(np.float64), np.ones(len(vectors))])
    told = np.array([answers(of) for of in facts], np.float64)
    fitted = np.array([_logistic(x, told[:, place]) for place in range(len(QUESTIONS))])
    return Probes(name, fitted[:, :-1], fitted[:, -1])


def record(probes: Probes) -> dict[str, object]:
    """For JSON; three digits are enough."""
    return {
        "name": probes.name,
        "questions": list(QUESTIONS),
        "bias": [float(f"{value:.3g}") for value in probes.bias],
        "weights": [[float(f"{value:.3g}") for value in row] for row in probes.weights],
    }


def _logistic(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    weights = np.zeros(x.shape[1])
    ridge = np.full(x.shape[1], _RIDGE)
    ridge[-1] = 1e-6
    for _ in range(_STEPS):
        p = 1.0 / (1.0 + np.exp(-np.clip(x @ weights, -30, 30)))
        gradient = x.T @ (y - p) - ridge * weights
        curvature = (x * (p * (1 - p))[:, None]).T @ x + np.diag(ridge)
        weights += np.linalg.solve(curvature, gradient)
    return weights
