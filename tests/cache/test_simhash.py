"""Codes whose differing bits tell angles."""

from __future__ import annotations

from math import pi

import numpy as np
import pytest
from numpy.typing import NDArray

from pyrope.cache.simhash import SimHash


def pair_at(angle: float, dim: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Two unit vectors at an angle in radians, shape (2, dim)."""
    plane, _ = np.linalg.qr(rng.standard_normal((dim, 2)))
    other = np.cos(angle) * plane[:, 0] + np.sin(angle) * plane[:, 1]
    return np.stack([plane[:, 0], other]).astype(np.float32)


def gap(codes: NDArray[np.uint64]) -> int:
    return int(np.bitwise_count(codes[0] ^ codes[1]))


def test_equal_seeds_give_equal_codes_and_others_do_not() -> None:
    vectors = np.random.default_rng(0).standard_normal((50, 96), dtype=np.float32)
    codes = SimHash(96, 7).codes(vectors)
    assert codes.dtype == np.uint64
    assert np.array_equal(codes, SimHash(96, 7).codes(vectors))
    assert not np.array_equal(codes, SimHash(96, 8).codes(vectors))
    assert len(set(codes.tolist())) == 50


def test_codes_of_many_are_those_of_each() -> None:
    vectors = np.random.default_rng(1).standard_normal((20, 33), dtype=np.float32)
    simhash = SimHash(33, 7)
    assert simhash.codes(vectors).tolist() == [int(simhash.code(vector)) for vector in vectors]
    assert simhash.codes(vectors[:0]).shape == (0,)


def test_length_does_not_matter_and_opposite_vectors_differ_in_every_bit() -> None:
    vector = np.random.default_rng(2).standard_normal(384).astype(np.float32)
    simhash = SimHash(384, 7)
    assert simhash.code(vector) == simhash.code(vector * np.float32(1024.0))
    assert gap(simhash.codes(np.stack([vector, -vector]))) == 64


@pytest.mark.parametrize("bits", [1, 7, 16, 64])
def test_a_code_has_so_many_bits(bits: int) -> None:
    vectors = np.random.default_rng(3).standard_normal((200, 8), dtype=np.float32)
    simhash = SimHash(8, 7, bits)
    used = np.bitwise_or.reduce(simhash.codes(vectors))
    assert int(np.bitwise_count(used)) == bits


@pytest.mark.parametrize("bits", [0, 65, -1])
def test_other_numbers_of_bits_are_refused(bits: int) -> None:
    with pytest.raises(ValueError, match="1 to 64 bits"):
        SimHash(8, 7, bits)


@pytest.mark.parametrize("angle", [0.1, 0.45, 1.0, pi / 2, 2.5])
def test_the_part_of_bits_that_differ_is_the_angle_over_pi(angle: float) -> None:
    rng = np.random.default_rng(4)
    gaps = [gap(SimHash(32, seed).codes(pair_at(angle, 32, rng))) for seed in range(400)]
    # The standard error of the mean is at most 0.2 bits.
    assert abs(np.mean(gaps) - 64 * angle / pi) < 0.8


@pytest.mark.parametrize("angle", [0.05, 0.2, 0.45, 0.8])
def test_pairs_up_to_an_angle_differ_in_no_more_bits_than_its_radius(angle: float) -> None:
    rng = np.random.default_rng(5)
    radius = SimHash(32, 0).radius(angle)
    gaps = np.array([gap(SimHash(32, seed).codes(pair_at(angle, 32, rng))) for seed in range(1000)])
    assert (gaps > radius).mean() <= 0.006
    assert radius < 64


def test_radii_grow_from_hardly_any_bit_to_all() -> None:
    simhash = SimHash(8, 7)
    radii = [simhash.radius(angle) for angle in np.linspace(0.0, pi, 50)]
    assert radii[0] == 1
    assert radii[-1] == 64
    assert radii == sorted(radii)
