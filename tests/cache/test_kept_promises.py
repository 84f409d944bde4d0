"""What was promised and what was kept, apart for what was asked for."""

from __future__ import annotations

import pytest

from pyrope.cache.kept_promises import KeptPromises, Promised


def record(promises: KeptPromises, times: int, floor: float, recall: float) -> int:
    """How often a band went off or on."""
    return sum(promises.record(floor, recall) for _ in range(times))


def test_a_floor_that_nothing_is_known_about_is_trusted() -> None:
    promises = KeptPromises()
    assert all(promises.is_trusted(floor) for floor in (0.0, 0.001, 0.5, 0.95, 1.0))
    assert promises.statistics() == []


@pytest.mark.parametrize("strict", [0.95, 0.98, 0.999])
def test_a_floor_that_cannot_be_kept_is_off_and_a_lower_one_is_not(strict: float) -> None:
    promises = KeptPromises()
    for _ in range(100):
        promises.record(strict, 0.9)
        promises.record(0.8, 0.9)
    assert not promises.is_trusted(strict)
    assert promises.is_trusted(0.8)
    assert promises.is_trusted(0.5)


def test_what_falls_short_for_little_says_nothing_about_what_is_kept_for_much() -> None:
    promises = KeptPromises()
    record(promises, 100, 0.8, 0.7)
    record(promises, 100, 0.99, 1.0)
    assert not promises.is_trusted(0.8)
    assert promises.is_trusted(0.99)


def test_each_answer_is_held_against_the_floor_of_its_own_search() -> None:
    promises = KeptPromises()
    # Of one band. The mean of recalls is above one floor and below the other.
    for _ in range(40):
        promises.record(0.8, 0.82)
        promises.record(0.84, 0.84)
    assert promises.is_trusted(0.8)
    assert promises.is_trusted(0.84)
    record(promises, 256, 0.84, 0.82)
    assert not promises.is_trusted(0.84)


def test_thirty_two_answers_condemn_or_acquit() -> None:
    promises = KeptPromises()
    assert record(promises, 31, 0.9, 0.5) == 0
    assert promises.is_trusted(0.9)
    assert record(promises, 1, 0.9, 0.5) == 1
    assert not promises.is_trusted(0.9)
    assert record(promises, 31, 0.9, 1.0) == 0
    assert record(promises, 1, 0.9, 1.0) == 1
    assert promises.is_trusted(0.9)


def test_a_band_comes_back_only_if_a_quarter_of_what_may_be_missing_is_not() -> None:
    promises = KeptPromises()
    record(promises, 32, 0.9, 0.5)
    assert record(promises, 300, 0.9, 0.92) == 0
    assert record(promises, 300, 0.9, 0.926) == 1
    assert record(promises, 300, 0.9, 0.9) == 0


def test_statistics_tell_each_band_that_was_asked_for() -> None:
    promises = KeptPromises()
    record(promises, 3, 0.92, 1.0)
    record(promises, 1, 0.91, 0.8)
    record(promises, 33, 0.999, 0.5)
    first, second = promises.statistics()
    assert (first.floor, first.is_off, first.answers) == (0.9, False, 4)
    assert first.recall == pytest.approx(0.95)
    assert second == Promised(0.999, is_off=True, answers=1, recall=0.5)
