"""Which lists are visited, how many, and when a scan costs less."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pyrope.engine.beam import scan_cost
from pyrope.engine.inverted_lists import NONE
from pyrope.engine.probing import first_probes, fit_lists, lists_cost, nearest_lists


def test_without_a_filter_as_many_lists_are_visited_as_was_asked_for() -> None:
    assert first_probes(96, 10, 100_000, 100_000, 1024) == 96


def test_a_filter_widens_by_the_cube_root_of_its_inverse_share() -> None:
    assert first_probes(96, 10, 12_500, 100_000, 1024) == 192
    assert first_probes(96, 10, 100, 100_000, 1024) == 960
    assert first_probes(96, 10, 1, 100_000, 1024) == 1024


def test_lists_are_expected_to_hold_all_that_is_wanted() -> None:
    probes = first_probes(1, 1000, 100_000, 100_000, 1024)
    assert probes * 100_000 / 1024 > 1000 + 2.9 * 1000**0.5


def test_the_nearest_lists_are_those_of_the_largest_affinities() -> None:
    affinities = np.random.default_rng(0).random((5, 40)).astype(np.float32)
    nearest = nearest_lists(affinities, 7)
    assert nearest.flags.c_contiguous
    for row, lists in zip(affinities, nearest, strict=True):
        assert set(lists.tolist()) == set(np.argsort(row)[-7:].tolist())
    assert np.sort(nearest_lists(affinities, 40)).tolist() == [list(range(40))] * 5


@given(
    sizes=st.lists(st.integers(0, 50), min_size=1, max_size=12),
    most=st.integers(0, 200),
    seed=st.integers(0, 100),
)
def test_lists_are_taken_nearest_first_as_long_as_they_fit(
    sizes: list[int], most: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    count = len(sizes)
    affinities = rng.random((1, count)).astype(np.float32)
    probes = rng.permutation(count)[None]
    taken, compared = fit_lists(affinities, probes, np.array(sizes), np.array([most]))
    expected, left = [], most
    for number in np.argsort(-affinities[0]).tolist():
        if sizes[number] <= left:
            expected.append(number)
            left -= sizes[number]
    assert taken[taken != NONE].tolist() == expected
    assert compared.tolist() == [most - left]


def test_codes_are_cheaper_than_vectors_and_few_vectors_than_either() -> None:
    def cost(*, matching: int, compressed: bool) -> float:
        return lists_cost(
            16,
            96,
            nlist=1024,
            entries=100_000,
            matching=matching,
            reranked=40,
            compressed=compressed,
        )

    codes, vectors = (cost(matching=100_000, compressed=kind) for kind in (True, False))
    assert codes < vectors < scan_cost(100_000, 100_000, 16)
    assert cost(matching=500, compressed=True) > scan_cost(500, 100_000, 16)
