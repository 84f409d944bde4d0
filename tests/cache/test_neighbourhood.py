"""Cached neighbourhoods that catch up with writes, against a search of everything."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyrope.cache.neighbourhood import Neighbourhood, Repair
from pyrope.cache.write_log import WriteLog

SLOTS = 24


class World:
    """An index of numbers: a slot's score is its number, and even numbers match the filter."""

    def __init__(self, *, higher: bool) -> None:
        self.higher = higher
        self.log = WriteLog(200)
        self.numbers: dict[int, float] = {}
        # What is still there of those that were removed, too.
        self.rows: dict[int, float] = {}
        self.matching: set[int] = set()

    def put(self, slot: int, number: float, *, matches: bool = True) -> None:
        if slot in self.numbers:
            self.remove(slot)
        self.numbers[slot] = self.rows[slot] = number
        if matches:
            self.matching.add(slot)
        self.log.added(np.array([slot]))

    def remove(self, slot: int) -> None:
        if self.numbers.pop(slot, None) is not None:
            self.matching.discard(slot)
            self.log.gone([slot])

    def change(self, slot: int) -> None:
        if slot in self.numbers:
            self.matching ^= {slot}
            self.log.changed([slot])

    def search(self, width: int, *, filtered: bool) -> tuple[list[int], list[float]]:
        sign = -1 if self.higher else 1
        part = [s for s in self.numbers if not filtered or s in self.matching]
        best = sorted(part, key=lambda s: (sign * self.numbers[s], s))[:width]
        return best, [self.numbers[s] for s in best]

    def neighbourhood(self, width: int, position: int, *, filtered: bool = False) -> Neighbourhood:
        slots, scores = self.search(width, filtered=filtered)
        part = len(self.matching) if filtered else len(self.numbers)
        return Neighbourhood(
            b"",
            np.array(slots, np.int64),
            np.array(scores, np.float32),
            width,
            position=position,
            exact=True,
            exhaustive=part < width,
            filtered=filtered,
        )

    def catch_up(self, kept: Neighbourhood, most: int = 1000) -> Repair:
        def takes_part(slots: Any) -> Any:
            part = self.matching if kept.filtered else self.numbers
            return np.array([s for s in slots.tolist() if s in part], np.int64)

        def live(slots: Any) -> Any:
            return np.array([s for s in slots.tolist() if s in self.rows], np.int64)

        return kept.catch_up(
            self.log,
            lambda slots: np.array([self.rows[s] for s in slots.tolist()], np.float32),
            live,
            takes_part,
            higher_is_nearer=self.higher,
            most=most,
        )


steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, SLOTS - 1), st.integers(0, 12), st.booleans()),
        st.tuples(st.just("remove"), st.integers(0, SLOTS - 1)),
        st.tuples(st.just("change"), st.integers(0, SLOTS - 1)),
    ),
    max_size=40,
)


def run(world: World, todo: list[tuple[Any, ...]]) -> None:
    for name, *arguments in todo:
        if name == "put":
            slot, number, matches = arguments
            world.put(slot, number, matches=matches)
        else:
            getattr(world, name)(*arguments)


@settings(max_examples=400, deadline=None)
@given(
    steps,
    st.lists(steps, min_size=1, max_size=4),
    st.tuples(st.booleans(), st.booleans()),
    st.data(),
)
def test_what_is_served_is_what_a_search_finds_now(
    before: list[Any], after: list[list[Any]], kinds: tuple[bool, bool], data: Any
) -> None:
    higher, filtered = kinds
    world = World(higher=higher)
    run(world, before)
    # Writes that come while the search is under way may be in what it finds.
    position = world.log.position
    run(world, data.draw(steps))
    kept = world.neighbourhood(data.draw(st.integers(1, 8)), position, filtered=filtered)
    for todo in after:
        run(world, todo)
        outcome = world.catch_up(kept)
        if outcome is Repair.IMPOSSIBLE:
            return
        for count in range(1, kept.width + 1):
            if kept.serves(count):
                slots, scores = world.search(count, filtered=filtered)
                assert kept.slots[:count].tolist() == slots
                assert kept.scores[:count].tolist() == scores


def test_a_vector_that_comes_near_joins_and_the_furthest_leaves() -> None:
    world = World(higher=True)
    for slot in range(10):
        world.put(slot, slot, matches=True)
    kept = world.neighbourhood(3, world.log.position)
    world.put(20, 8.5, matches=True)
    assert world.catch_up(kept) is Repair.DONE
    assert kept.slots.tolist() == [9, 20, 8]
    assert world.catch_up(kept) is Repair.NOTHING


def test_what_loses_a_neighbour_serves_fewer() -> None:
    world = World(higher=True)
    for slot in range(10):
        world.put(slot, slot, matches=True)
    kept = world.neighbourhood(3, world.log.position)
    world.remove(9)
    assert world.catch_up(kept) is Repair.DONE
    assert kept.serves(2)
    assert not kept.serves(3)


def test_a_vector_far_away_changes_nothing_but_the_position() -> None:
    world = World(higher=False)
    for slot in range(10):
        world.put(slot, slot, matches=True)
    kept = world.neighbourhood(3, world.log.position)
    world.put(20, 100, matches=True)
    world.remove(7)
    assert world.catch_up(kept) is Repair.DONE
    assert kept.slots.tolist() == [0, 1, 2]
    assert kept.position == world.log.position


@pytest.mark.parametrize("filtered", [False, True])
def test_changed_attributes_count_only_where_there_is_a_filter(*, filtered: bool) -> None:
    world = World(higher=True)
    for slot in range(6):
        world.put(slot, slot, matches=slot != 5)
    kept = world.neighbourhood(4, world.log.position, filtered=filtered)
    world.change(5)
    assert world.catch_up(kept) is Repair.DONE
    assert kept.slots.tolist() == [5, 4, 3, 2]


def test_more_writes_than_are_worth_scoring_are_not_caught_up_with() -> None:
    world = World(higher=True)
    kept = world.neighbourhood(4, world.log.position)
    for slot in range(9):
        world.put(slot, slot, matches=True)
    assert world.catch_up(kept, most=8) is Repair.IMPOSSIBLE
