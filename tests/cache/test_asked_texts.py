"""Texts with their vectors: the nearest are found, within bounds, and within their group."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pyrope.cache.asked_texts import AskedText, AskedTexts, ByteBudget
from pyrope.cache.query_key import text_key

DIM = 6
PLENTY = 2**30


def made(number: int, group: Any = ("g",), seed: int = 1) -> AskedText:
    vector = np.random.default_rng([seed, number]).standard_normal(DIM).astype("<f4")
    return AskedText(text_key(b"text %d" % number), group, vector.tobytes())


def texts(
    max_texts: int = 100,
    max_bytes: int = PLENTY,
    budget: ByteBudget | None = None,
    kept: set[bytes] | None = None,
) -> AskedTexts:
    return AskedTexts(
        DIM,
        max_texts=max_texts,
        max_bytes=max_bytes,
        budget=budget or ByteBudget(PLENTY),
        is_kept=lambda one: one.text.identity in (kept or set()),
    )


def names(found: list[tuple[AskedText, float]]) -> list[bytes]:
    return [one.text.content for one, _ in found]


def cosine(one: bytes, other: bytes) -> float:
    a, b = np.frombuffer(one, "<f4").astype(float), np.frombuffer(other, "<f4").astype(float)
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


@pytest.mark.parametrize("count", [1, 7, 90])
def test_the_nearest_are_those_of_a_full_comparison(count: int) -> None:
    table, all_of_them = texts(), [made(number, ("g", number % 2)) for number in range(count)]
    for one in all_of_them:
        assert table.add(one)
    query = made(1000).query
    expected = sorted(
        (one for one in all_of_them if one.group == ("g", 0)),
        key=lambda one: -cosine(query, one.query),
    )[:5]
    found = table.nearest(query, ("g", 0), 5)
    assert [(one.text, one.query) for one, _ in found] == [
        (one.text, one.query) for one in expected
    ]
    assert [score for _, score in found] == pytest.approx(
        [cosine(query, one.query) for one in expected], abs=1e-6
    )
    assert table.nearest(query, ("other",), 5) == []


def test_length_does_not_matter_and_what_has_no_direction_is_passed_over() -> None:
    table = texts()
    far = np.array([3e38, 0, 0, 0, 0, 0], "<f4").tobytes()
    near = np.array([1e-38, 0, 0, 0, 0, 0], "<f4").tobytes()
    assert table.add(made(1)._replace(query=far))
    assert not table.add(made(2)._replace(query=bytes(4 * DIM)))
    ((_, score),) = table.nearest(near, ("g",), 3)
    assert score == pytest.approx(1.0)
    assert table.nearest(bytes(4 * DIM), ("g",), 3) == []


def test_a_text_that_comes_again_is_there_once_with_its_last_vector() -> None:
    table = texts()
    first, again = made(1), made(1, seed=2)
    table.add(first)
    table.add(again)
    assert len(table) == 1
    found = table.get(first.text.identity, ("g",))
    assert found is not None
    assert found.query == again.query
    assert table.nearest(again.query, ("g",), 1)[0][1] == pytest.approx(1.0)


def test_the_same_text_in_another_group_is_another_one() -> None:
    table = texts()
    table.add(made(1))
    table.add(made(1, ("h",)))
    assert len(table) == 2


def test_past_its_bounds_the_oldest_goes_but_not_before_one_whose_answer_is_gone() -> None:
    kept = {made(0).text.identity}
    table = texts(max_texts=3, kept=kept)
    for number in range(4):
        assert table.add(made(number))
    everything = names(table.nearest(made(0).query, ("g",), 10))
    assert sorted(everything) == [b"text 0", b"text 2", b"text 3"]
    # Where all are kept, somebody goes all the same.
    kept |= {made(number).text.identity for number in range(10)}
    for number in range(4, 10):
        assert table.add(made(number))
        assert len(table) == 3


def test_bytes_are_bounded_and_given_back() -> None:
    budget = ByteBudget(PLENTY)
    table = texts(max_bytes=3000, budget=budget)
    for number in range(50):
        table.add(made(number))
        assert table.nbytes <= 3000
        assert budget.taken == table.nbytes
    assert 2 <= len(table) <= 4
    large = AskedText(text_key(b"x" * 4000), ("g",), made(1).query)
    assert not table.add(large)
    table.clear()
    assert (budget.taken, table.nbytes, len(table)) == (0, 0, 0)
    assert table.add(made(1))


def test_where_others_have_taken_the_shared_bytes_one_takes_anothers_place() -> None:
    budget = ByteBudget(5000)
    one, other = texts(budget=budget), texts(budget=budget)
    while budget.take(0) and len(one) < 50 and one.nbytes + 1500 < 5000:
        one.add(made(len(one)))
    assert other.add(made(1))
    before = len(one)
    for number in range(100, 110):
        one.add(made(number))
    assert budget.taken <= 5000
    assert len(one) >= before - 1
    assert one.latest(1)[0].text == made(109).text


def test_the_latest_come_first() -> None:
    table = texts()
    for number in range(5):
        table.add(made(number))
    table.add(made(1))
    assert [one.text.content for one in table.latest(3)] == [b"text 1", b"text 4", b"text 3"]


def test_those_that_came_earlier_have_lower_numbers_also_when_they_come_again() -> None:
    table = texts()
    for number in (1, 2, 1):
        table.add(made(number))
    one, other = (table.get(made(number).text.identity, ("g",)) for number in (1, 2))
    assert one is not None
    assert other is not None
    assert 0 < one.number < other.number
    # Whoever brings a number keeps it.
    table.add(made(3)._replace(number=one.number))
    third = table.get(made(3).text.identity, ("g",))
    assert third is not None
    assert third.number == one.number
