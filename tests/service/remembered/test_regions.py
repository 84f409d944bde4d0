from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from pyrope.semantic.evidence import NOTHING, Evidence
from pyrope.service.remembered.regions import MAX_REGIONS, Regions


def direction(number: int, dim: int = 64) -> NDArray[np.float32]:
    vector = np.random.default_rng(number).standard_normal(dim).astype(np.float32)
    return vector / np.float32(np.linalg.norm(vector))


def test_what_is_learnt_of_a_prompt_holds_near_by_and_nowhere_else() -> None:
    regions = Regions(64)
    assert regions.of(direction(1)) is NOTHING
    learnt = Evidence(-1.0, 2.0)
    regions.learn(direction(1), learnt)
    near = direction(1) + 0.3 * direction(2)
    near /= np.float32(np.linalg.norm(near))
    assert regions.of(near) == learnt
    assert regions.of(direction(3)) is NOTHING
    regions.learn(near, Evidence(-2.0, 3.0))
    assert len(regions) == 1
    assert regions.of(direction(1)) == Evidence(-2.0, 3.0)


def test_they_are_read_as_they_were_written() -> None:
    regions = Regions(64)
    for number in range(5):
        regions.learn(direction(number), Evidence(float(number), 1.0))
    again = Regions(64)
    again.restore(regions.encode())
    assert [again.of(direction(n)) for n in range(5)] == [
        regions.of(direction(n)) for n in range(5)
    ]
    empty = Regions(64)
    empty.restore(Regions(64).encode())
    assert len(empty) == 0
    with pytest.raises(ValueError, match="64 dimensions"):
        Regions(8).restore(regions.encode())


def test_the_least_known_one_gives_way_when_there_are_too_many() -> None:
    regions = Regions(512)
    for number in range(MAX_REGIONS):
        regions.learn(direction(number, 512), Evidence(1.0, 5.0 if number else 0.5))
    regions.learn(direction(9999, 512), Evidence(2.0, 1.0))
    assert len(regions) == MAX_REGIONS
    assert regions.of(direction(0, 512)) is NOTHING
    assert regions.of(direction(9999, 512)) == Evidence(2.0, 1.0)
