"""The benchmark of the cost model: its statistics, its fit, and what it measures."""

from __future__ import annotations

from argparse import ArgumentTypeError
from dataclasses import replace

import numpy as np
import pytest
from benchmarks.cost_model import fit, ranks, report, size, spearman, units
from benchmarks.harness.cost_cases import TYPES, Case, Engines, Measured, Size, cases

from pyrope.tenants.coefficients import MEASURED
from pyrope.types import IndexType


def imagined(kind: IndexType) -> list[Measured]:
    """Cases that take exactly what the model makes of them, and half as much again."""
    chosen = {"nlist": 64, "nprobe": 16, "pqm": 64} if kind.has_lists else {}
    found = []
    for case in cases(kind, Size(5000, 64), chosen.get("nlist", 0)):
        one = Measured(case, chosen, 1.0)
        found.append(replace(one, seconds=1.5e-6 * one.units(one.model())))
    return found


def test_equal_values_share_the_mean_of_their_ranks() -> None:
    assert ranks(np.array([3.0, 1.0, 3.0, 2.0, 3.0])).tolist() == [4.0, 1.0, 4.0, 2.0, 4.0]


def test_only_the_order_counts_for_spearman() -> None:
    values = np.array([1.0, 5.0, 2.0, 9.0])
    assert spearman(values, np.exp(values)) == pytest.approx(1.0)
    assert spearman(values, -values) == pytest.approx(-1.0)
    assert spearman(values, np.array([5.0, 2.0, 1.0, 9.0])) == pytest.approx(0.4)


@pytest.mark.parametrize("kind", TYPES, ids=str)
def test_a_fit_comes_nearer_to_what_was_measured(kind: IndexType) -> None:
    measured = imagined(kind)[:8]
    spent = np.array([1e6 * one.seconds for one in measured])
    ratios = units(measured, fit(measured)) / spent
    assert np.abs(np.log(ratios)).mean() < 0.5 * np.log(1.5)
    assert units(measured, MEASURED) / spent == pytest.approx(1 / 1.5)


def test_the_report_names_types_and_the_worst(capsys: pytest.CaptureFixture[str]) -> None:
    report([*imagined(IndexType.HNSW), *imagined(IndexType.FLAT)], MEASURED)
    printed = capsys.readouterr().out
    assert "| all |" in printed
    assert "| HNSW |" in printed
    assert "| near hits |" in printed
    assert "nan" not in printed


@pytest.mark.parametrize("kind", [IndexType.FLAT, IndexType.IVF_PQ], ids=str)
def test_engines_are_measured_case_by_case(kind: IndexType) -> None:
    measured = list(Engines(Size(600, 16), 1).measure(kind, 1e-6))
    expected: list[Case] = list(cases(kind, Size(600, 16), 128))
    assert len(measured) == len(expected) + (kind is not IndexType.FLAT)
    assert all(one.seconds > 0 for one in measured)
    assert units(measured, MEASURED).min() > 0


@pytest.mark.parametrize("text", ["", "1000", "10x4", "1000x1", "1000x", "ax4"])
def test_sizes_that_are_none_are_refused(text: str) -> None:
    with pytest.raises((ValueError, ArgumentTypeError)):
        size(text)
