from __future__ import annotations

import gc
import sys
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pyrope.cache.transitions import TransitionTable
from pyrope.testing.clock import ManualClock

HALF_LIFE_S = 100.0
MASS = 2.0


def table(clock: ManualClock, **bounds: Any) -> TransitionTable[str]:
    chosen = {"max_rows": 100, "max_successors": 4, "max_bytes": 1_000_000, **bounds}
    return TransitionTable(clock, len, half_life_s=HALF_LIFE_S, prior_mass=MASS, **chosen)


def chances(known: TransitionTable[str], previous: str) -> dict[str, float]:
    return dict(known.likely(previous, 100))


# -- probabilities --------------------------------------------------------------------------------


def test_a_key_that_was_never_followed_leads_nowhere() -> None:
    known = table(ManualClock())
    known.seen("a", "b")
    assert known.likely("b", 5) == []
    assert known.likely("z", 5) == []


@pytest.mark.parametrize("times", [1, 2, 10])
def test_a_probability_is_the_smoothed_share_of_what_was_seen(times: int) -> None:
    known = table(ManualClock())
    for _ in range(times):
        known.seen("a", "b")
    known.seen("a", "c")
    # Three keys are known: each begins with a third of the prior mass.
    assert chances(known, "a") == pytest.approx(
        {"b": (times + 2 / 3) / (times + 3), "c": (1 + 2 / 3) / (times + 3)}
    )


def test_two_of_two_is_about_a_half_where_many_keys_are_known() -> None:
    known = table(ManualClock(), max_rows=10_000, max_bytes=100_000_000)
    for number in range(5000):
        known.seen(str(number), str(number + 1))
    known.seen("a", "b")
    assert chances(known, "a")["b"] == pytest.approx(1 / 3, abs=0.001)
    known.seen("a", "b")
    assert chances(known, "a")["b"] == pytest.approx(1 / 2, abs=0.001)


def test_the_most_probable_come_first_and_no_more_than_asked_for() -> None:
    known = table(ManualClock())
    for following in "bccdddbbbb":
        known.seen("a", following)
    assert [key for key, _ in known.likely("a", 10)] == ["b", "d", "c"]
    assert [key for key, _ in known.likely("a", 2)] == ["b", "d"]
    assert known.likely("a", 0) == []


def test_a_query_asked_again_at_once_is_no_transition() -> None:
    known = table(ManualClock())
    known.seen("a", "a")
    assert len(known) == 0
    assert known.statistics().seen_total == 0


# -- decay ----------------------------------------------------------------------------------------


def test_a_transition_counts_half_after_a_half_life() -> None:
    clock = ManualClock()
    known = table(clock)
    for _ in range(4):
        known.seen("a", "b")
    clock.advance(HALF_LIFE_S)
    known.seen("a", "c")
    assert chances(known, "a") == pytest.approx(
        {"b": (2 + 2 / 3) / (3 + MASS), "c": (1 + 2 / 3) / (3 + MASS)}
    )


@pytest.mark.parametrize("half_lives", [63.0, 65.0, 1e3, 1e6, 1e12])
def test_after_a_long_time_a_row_is_as_good_as_new(half_lives: float) -> None:
    clock = ManualClock()
    known = table(clock)
    for _ in range(50):
        known.seen("a", "b")
    clock.advance(half_lives * HALF_LIFE_S)
    assert chances(known, "a") == pytest.approx({"b": 1 / 2})  # nothing but the prior
    known.seen("a", "c")
    assert chances(known, "a") == pytest.approx({"c": (1 + 2 / 3) / 3, "b": 2 / 3 / 3})


# -- bounds ---------------------------------------------------------------------------------------


def test_the_successor_with_the_smallest_count_gives_its_place_to_a_new_one() -> None:
    known = table(ManualClock(), max_successors=2)
    for following in "bbbcd":
        known.seen("a", following)
    found = chances(known, "a")
    # d took over the count of c, but only what it has for certain makes it probable.
    assert found == pytest.approx({"b": (3 + 2 / 3) / 7, "d": (1 + 2 / 3) / 7})
    assert known.statistics().replaced_total == 1
    assert known.statistics().keys_current == 3


def test_new_habits_push_out_old_ones_that_were_more_frequent() -> None:
    clock = ManualClock()
    known = table(clock, max_successors=2)
    for _ in range(100):
        known.seen("a", "b")
        known.seen("a", "c")
    clock.advance(20 * HALF_LIFE_S)
    for following in "dede":
        known.seen("a", following)
    assert set(chances(known, "a")) == {"d", "e"}


def test_the_row_that_was_not_used_for_the_longest_time_goes_for_a_new_one() -> None:
    known = table(ManualClock(), max_rows=3)
    for previous in "abc":
        known.seen(previous, "z")
    known.seen("a", "y")
    known.likely("b", 1)
    known.seen("d", "z")
    assert [len(known.likely(previous, 9)) for previous in "abcd"] == [2, 1, 0, 1]
    assert known.statistics().evicted_total == 1


def test_a_key_that_is_too_large_for_a_full_row_is_not_taken_in() -> None:
    known = table(ManualClock(), max_bytes=10_000)
    fits, large = "x" * known.max_key_bytes, "y" * (known.max_key_bytes + 1)
    known.seen("a", large)
    known.seen(large, "a")
    assert (len(known), known.nbytes) == (0, 0)
    assert known.statistics().oversized_total == 2
    # A full row of keys as large as may be fits, so that the row at hand never goes.
    for number in range(10):
        known.seen(fits, str(number) + fits[1:])
    assert len(known.likely(fits, 9)) == 4
    assert known.nbytes <= 10_000


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_rows": 0},
        {"max_successors": 0},
        {"max_bytes": 500},
        {"half_life_s": 0.0},
        {"half_life_s": float("inf")},
        {"prior_mass": 0.0},
        {"prior_mass": float("nan")},
    ],
)
def test_impossible_bounds_are_refused(wrong: dict[str, Any]) -> None:
    bounds: dict[str, Any] = {"max_rows": 1, "max_successors": 4, "max_bytes": 10_000}
    with pytest.raises(ValueError, match=r"no table|half-life|do not suffice"):
        TransitionTable[str](ManualClock(), len, **{**bounds, "half_life_s": 1.0, **wrong})


@pytest.mark.parametrize("key_bytes", [20, 1536])
@pytest.mark.parametrize(
    ("rows", "successors", "keys"),
    [(4000, 1, 4000), (4000, 4, 4000), (4000, 8, 5000), (500, 8, 10**6)],
)
def test_the_bytes_counted_are_those_taken(
    rows: int, successors: int, keys: int, key_bytes: int
) -> None:
    clock = ManualClock()
    known: TransitionTable[bytes] = TransitionTable(
        clock,
        sys.getsizeof,
        max_rows=10_000,
        max_successors=8,
        max_bytes=1_000_000_000,
        half_life_s=HALF_LIFE_S,
    )
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(rows):
            previous = (b"%d" % number).ljust(key_bytes)
            for step in range(1, successors + 1):
                clock.advance(0.001)
                following = b"%d" % ((number + 997 * step) % keys)
                known.seen(previous, following.ljust(key_bytes))
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert 0.8 * taken <= known.nbytes <= 1.3 * taken


# -- against models -------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from("bcdefghi"), st.sampled_from([0.0, 30.0, 400.0, 9000.0])),
        min_size=1,
        max_size=80,
    ),
    places=st.integers(1, 4),
)
def test_a_bounded_row_keeps_what_space_saving_guarantees(
    steps: list[tuple[str, float]], places: int
) -> None:
    clock = ManualClock()
    known = table(clock, max_successors=places)
    true: dict[str, float] = {}
    for following, seconds in steps:
        clock.advance(seconds)
        true = {key: count * 0.5 ** (seconds / HALF_LIFE_S) for key, count in true.items()}
        true[following] = true.get(following, 0.0) + 1.0
        known.seen("a", following)
        total = sum(true.values())
        found = chances(known, "a")
        assert len(found) <= places
        assert following in found
        assert sum(found.values()) < 1
        row = known._rows["a"]
        scale = 0.5 ** ((clock.monotonic() - row.landmark) / HALF_LIFE_S)
        assert scale * sum(row.counts) == pytest.approx(total)
        for place, successor in enumerate(row.successors):
            count, sure = scale * row.counts[place], scale * row.sure[place]
            assert sure <= true[successor.key] + 1e-9
            assert true[successor.key] <= count + 1e-9
        for key, count in true.items():
            assert key in found or count <= total / places + 1e-9


class TableAgainstModel(RuleBasedStateMachine):
    """The model: for each previous key, least lately used first, the times of all transitions.

    There are as many places as keys, so that the model need not replace any.
    """

    keys = st.sampled_from(["a", "bb", "ccc", "dddd", "eeeee"])
    max_rows = 3

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.known = table(self.clock, max_rows=self.max_rows, max_successors=5)
        self.model: dict[str, list[tuple[str, float]]] = {}

    @rule(previous=keys, following=keys)
    def see(self, previous: str, following: str) -> None:
        self.known.seen(previous, following)
        if previous != following:
            times = self.model.pop(previous, [])
            self.model[previous] = [*times, (following, self.clock.monotonic())]
            if len(self.model) > self.max_rows:
                del self.model[next(iter(self.model))]

    @rule(previous=keys)
    def ask(self, previous: str) -> None:
        found = self.known.likely(previous, 9)
        assert [chance for _, chance in found] == sorted(
            (chance for _, chance in found), reverse=True
        )
        if previous not in self.model:
            assert found == []
            return
        times = self.model[previous] = self.model.pop(previous)
        counts: dict[str, float] = {}
        for key, at in times:
            weight = 0.5 ** ((self.clock.monotonic() - at) / HALF_LIFE_S)
            counts[key] = counts.get(key, 0.0) + weight
        total = sum(counts.values()) + MASS
        each = MASS / len(self.model_keys())
        assert dict(found) == pytest.approx(
            {key: (count + each) / total for key, count in counts.items()}
        )

    @rule(seconds=st.sampled_from([1.0, 70.0, 1000.0, 7000.0]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def model_keys(self) -> set[str]:
        return set(self.model) | {key for times in self.model.values() for key, _ in times}

    @invariant()
    def rows_keys_and_bytes_are_those_of_the_model(self) -> None:
        statistics = self.known.statistics()
        keys = self.model_keys()
        assert statistics.rows_current == len(self.known) == len(self.model) <= self.max_rows
        assert statistics.keys_current == len(keys)
        assert statistics.bytes_current == self.known.nbytes == recount(self.known)
        assert set(self.known._known) == keys

    @invariant()
    def all_rows_are_in_the_order_of_their_use(self) -> None:
        assert list(self.known._rows) == list(self.model)


def recount(known: TransitionTable[str]) -> int:
    """The bytes by what is in the table."""
    places = sum(len(row.successors) for row in known._rows.values())
    keys = {key for row in known._rows.values() for key in [row.previous, *row.successors]}
    assert {key.key for key in keys} == set(known._known)
    return 500 * len(known) + 24 * places + sum(110 + len(key.key) for key in keys)


TestTableAgainstModel = TableAgainstModel.TestCase
TestTableAgainstModel.settings = settings(deadline=None, max_examples=100, stateful_step_count=40)


@settings(deadline=None)
@given(
    steps=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=100),
    sizes=st.lists(st.integers(1, 400), min_size=21, max_size=21),
    max_rows=st.integers(1, 6),
    max_successors=st.integers(1, 3),
    max_bytes=st.integers(3000, 8000),
)
def test_no_bound_is_ever_exceeded(
    steps: list[tuple[int, int]],
    sizes: list[int],
    max_rows: int,
    max_successors: int,
    max_bytes: int,
) -> None:
    known = table(
        ManualClock(), max_rows=max_rows, max_successors=max_successors, max_bytes=max_bytes
    )
    keys = [chr(ord("a") + number) * size for number, size in enumerate(sizes)]
    for previous, following in steps:
        known.seen(keys[previous], keys[following])
        assert len(known) <= max_rows
        assert known.nbytes == recount(known) <= max_bytes
        if previous != following and not known.statistics().oversized_total:
            assert keys[following] in chances(known, keys[previous])
        assert len(known.likely(keys[previous], 99)) <= max_successors
