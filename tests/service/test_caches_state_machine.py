"""Everything that the caches promise, against a dictionary: random commands in any order.

A search is held against what it may be answered from. A scan, or an answer kept of one, is what the
dictionary says and what the same search says without the caches, byte by byte. An answer of a graph
may lack vectors that the graph has overlooked, but none that was written since. Near hits and those
of aliases have scores of their own, and no less recall than they claim to be proven.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine

from plain_index import FILTERS, Asked
from pyrope.types import CacheLevel, IndexType, Metric
from service.caches_commands import (
    ATTRIBUTES,
    HAPPENINGS,
    LEVELS,
    MOST,
    NEARS,
    NUDGES,
    QUERIES,
    TEXTS,
    VECTORS,
    Beginning,
    Change,
    Policy,
    Put,
    Remove,
    Wish,
)
from service.caches_rules import CachesAgainstDictionary


class GraphsAgainstDictionary(CachesAgainstDictionary):
    kinds = (IndexType.HNSW, IndexType.HNSW)


class DurableAgainstDictionary(CachesAgainstDictionary):
    kinds = (IndexType.FLAT, IndexType.HNSW)
    durable = True


def case(machine: type[RuleBasedStateMachine], examples: int) -> Any:
    """The test of a machine."""
    test = machine.TestCase
    test.settings = settings(
        max_examples=examples,
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    return test


def began(**chosen: Any) -> CachesAgainstDictionary:
    """A machine for what is to happen for certain."""
    plain = Beginning(Metric.COSINE, False, 65_536, 2**28, MOST, 64, False, Policy(), [], [])  # noqa: FBT003
    machine = CachesAgainstDictionary()
    machine.begin(replace(plain, **chosen))
    return machine


@pytest.mark.parametrize("turns", [0, 1])
@pytest.mark.parametrize(("many", "batch_max"), [(False, 64), (True, 64), (True, 1)])
@pytest.mark.parametrize("close", ["add", "remove"])
@pytest.mark.parametrize("there", [[], VECTORS[:6]])
@pytest.mark.parametrize("attributes", [False, True])
def test_a_write_while_an_answer_is_on_its_way(
    *, turns: int, many: bool, batch_max: int, close: str, there: list[bytes], attributes: bool
) -> None:
    """In one batch or in several, to who asked for it and to others who wait for it too."""
    machine = began(many=there, batch_max=batch_max)
    try:
        both = [Wish(attributes=attributes), Wish()]
        machine.write_under_a_search(Asked(QUERIES[0], 3), both, turns, many, close)
        machine.budgets_are_kept()
        machine.every_search_is_counted_once()
    finally:
        machine.teardown()


@pytest.mark.parametrize("count", [3, MOST])
@pytest.mark.parametrize("first", HAPPENINGS)
@pytest.mark.parametrize("quiet", [False, True])
def test_two_things_happen_to_what_was_found(first: str, count: int, *, quiet: bool) -> None:
    """Whatever the second is, and whether or not somebody searches in between."""
    machine = began(many=VECTORS[:6])
    try:
        for second in HAPPENINGS:
            for filter_ in (None, *FILTERS):
                happen = [Change(0, first, VECTORS[2], ATTRIBUTES[2], quiet)]
                happen.append(Change(1, second, VECTORS[8], ATTRIBUTES[4], quiet))
                asked = Asked(QUERIES[0], count, filter_)
                machine.search_change_search(asked, Wish(), happen)
            machine.budgets_are_kept()
    finally:
        machine.teardown()


@pytest.mark.parametrize("metric", list(Metric))
@pytest.mark.parametrize("near", NEARS)
@pytest.mark.parametrize("taught", [False, True])
def test_queries_wander_away_from_one_that_was_asked(
    metric: Metric, near: tuple[float, bytes], *, taught: bool
) -> None:
    """Through a dense arc, with few neighbours kept, until what is kept says nothing any more."""
    machine = began(metric=metric, many=[*VECTORS[:2], *VECTORS[7:14]], candidates=4, taught=taught)
    try:
        for nudge in NUDGES:
            machine.flush()
            # One that is longer than all others comes on the way, and goes.
            long = Put((b"long",), (VECTORS[-1],), None)
            for write in (None, long, Remove(long.ids)):
                steps = [(nudge, write), (nudge, None), (nudge, None)]
                machine.search_nearby(Asked(QUERIES[0], 3), steps, Wish(), near)
    finally:
        machine.teardown()


@pytest.mark.parametrize("levels", list(dict.fromkeys(LEVELS)))
@pytest.mark.parametrize("truth", [False, True])
@pytest.mark.parametrize("is_text", [False, True])
def test_only_levels_that_are_on_answer(
    levels: frozenset[CacheLevel], *, truth: bool, is_text: bool
) -> None:
    policy = Policy(levels, minrecall=0.5)
    machine = began(many=VECTORS[:6], policy=policy, taught=True)
    try:
        asked = Asked(QUERIES[0], 3, truth=truth)
        machine.search_nearby(asked, [(nudge, None) for nudge in NUDGES], Wish(), NEARS[-1])
        other = replace(asked, query=QUERIES[3])
        key = (is_text, TEXTS[2] if is_text else QUERIES[2])
        machine.search_by_alias(asked, other, key, True, 1.0, 5, Wish())  # noqa: FBT003
    finally:
        machine.teardown()


TestScans = case(CachesAgainstDictionary, 45)
TestGraphs = case(GraphsAgainstDictionary, 30)
TestRestarts = case(DurableAgainstDictionary, 6)
