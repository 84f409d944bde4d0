"""Cyclic garbage is looked for among what is new, and among everything when there is time."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from pyrope.server.garbage import WORTH_A_LOOK, GarbageCollection


class Ring:
    """Refers to itself."""

    def __init__(self) -> None:
        self.itself = self


class Waste:
    """Counts what may have become garbage."""

    def __init__(self) -> None:
        self.total = 0

    def __call__(self) -> int:
        return self.total


@pytest.fixture
def waste() -> Waste:
    return Waste()


@pytest.fixture
def garbage(waste: Waste) -> Iterator[GarbageCollection]:
    garbage = GarbageCollection(waste)
    garbage.start()
    yield garbage
    garbage.stop()


def dropped() -> weakref.ref[Ring]:
    return weakref.ref(Ring())


def test_what_survives_a_full_collection_is_not_visited_again(garbage: GarbageCollection) -> None:
    kept = [[number] for number in range(10_000)]
    gc.collect()
    assert gc.get_freeze_count() > len(kept)
    assert len(gc.get_objects(generation=2)) < 1000
    assert garbage.look(0, 0) is False


def test_what_is_new_and_cyclic_goes_with_the_next_full_collection(
    garbage: GarbageCollection,
) -> None:
    ring = dropped()
    gc.collect()
    assert ring() is None
    assert garbage.look(0, 0) is False


def test_what_was_frozen_goes_once_there_is_enough_of_it_and_nobody_asks(
    garbage: GarbageCollection, waste: Waste
) -> None:
    ring = Ring()
    gc.collect()
    seen = weakref.ref(ring)
    del ring
    gc.collect()
    assert seen() is not None
    waste.total = WORTH_A_LOOK - 1
    assert not garbage.look(100, 0)
    waste.total = WORTH_A_LOOK
    assert not garbage.look(100, 99.5)
    assert seen() is not None
    assert garbage.look(101, 99.5)
    assert seen() is None
    assert not garbage.look(1000, 0)


def test_a_server_that_is_always_asked_is_held_up_once_in_a_minute_at_most(
    garbage: GarbageCollection, waste: Waste
) -> None:
    looked = []
    for second in range(200):
        waste.total += WORTH_A_LOOK
        if garbage.look(second, second):
            looked.append(second)
    assert looked == [60, 121, 182]


def test_stopping_leaves_the_interpreter_as_it_was(waste: Waste) -> None:
    thresholds, callbacks = gc.get_threshold(), list(gc.callbacks)
    garbage = GarbageCollection(waste)
    garbage.start()
    assert gc.get_threshold() != thresholds
    garbage.stop()
    garbage.stop()
    assert gc.get_threshold() == thresholds
    assert gc.callbacks == callbacks
    assert gc.get_freeze_count() == 0
