"""The bound on norms: never too low, and tight again soon after the longest have gone."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pyrope.engine.head_tail import HeadTailIndex
from pyrope.engine.norm_bound import NormBound
from pyrope.engine.slot_table import SlotTable
from pyrope.types import Metric

DIM = 2
# Two in each block, more or less.
SLOTS = [2000 * number for number in range(16)]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["put", "remove", "ask"]), st.sampled_from(SLOTS), st.floats(0, 1e3)
        ),
        max_size=40,
    )
)
def test_no_vector_is_longer_and_one_is_as_long(steps: list[tuple[str, int, float]]) -> None:
    table = SlotTable()
    bound = NormBound(table)
    model: dict[int, float] = {}
    for step, slot, norm in steps:
        slots = np.array([slot])
        if step == "put":
            bound.remove(table.remove(slots))
            table.put(slots, np.array([norm]))
            bound.put(slots, np.array([norm]))
            model[slot] = norm
        elif step == "remove":
            bound.remove(table.remove(slots))
            model.pop(slot, None)
        else:
            assert np.isclose(bound.value(), max(model.values(), default=0.0), rtol=1e-7)
    assert np.isclose(bound.value(), max(model.values(), default=0.0), rtol=1e-7)


def test_many_blocks_are_looked_through_a_few_at_a_time() -> None:
    table = SlotTable()
    bound = NormBound(table)
    slots = 4096 * np.arange(100)
    norms = np.arange(100.0)
    table.put(slots, norms)
    bound.put(slots, norms)
    bound.remove(table.remove(slots[1:]))
    seen = [bound.value() for _ in range(8)]
    assert seen == sorted(seen, reverse=True)
    assert seen[-1] == 0.0
    assert bound.value() == 0.0


class Rows:
    def __init__(self, count: int) -> None:
        rng = np.random.default_rng(1)
        self.rows = rng.standard_normal((count, DIM)).astype(np.float32)

    def view(self) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return self.rows


def test_an_index_of_inner_products_knows_its_longest_vector_and_the_average() -> None:
    source = Rows(50)
    norms = np.linalg.norm(source.rows.astype(np.float64), axis=1)
    index = HeadTailIndex(Metric.IP, DIM, source)
    assert (index.norm_bound, index.mean_norm()) == (0.0, 0.0)
    index.append(np.arange(50), source.rows)
    assert np.isclose(index.norm_bound, norms.max())
    assert np.isclose(index.mean_norm(), norms.mean())
    left = np.argsort(norms)[:-3]
    index.delete(np.argsort(norms)[-3:])
    assert np.isclose(index.norm_bound, norms[left].max())
    assert np.isclose(index.mean_norm(), norms[left].mean())
    again = HeadTailIndex(Metric.IP, DIM, source)
    again.restore(np.sort(left), None)
    assert np.isclose(again.norm_bound, norms[left].max())


def test_other_metrics_have_no_use_for_it() -> None:
    source = Rows(5)
    index = HeadTailIndex(Metric.L2, DIM, source)
    index.append(np.arange(5), source.rows)
    assert index.norm_bound == float("inf")
