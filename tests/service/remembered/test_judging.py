from __future__ import annotations

import pytest

from pyrope.service.remembered.judging import FactsCache


@pytest.mark.parametrize(("length", "stays"), [(30, True), (60_000, False)])
def test_facts_of_long_prompts_leave_room_for_fewer(length: int, stays: bool) -> None:  # noqa: FBT001 - a parameter of pytest's
    cache = FactsCache(max_words=1000)
    prompts = [(f"{number} " + "x" * length).encode() for number in range(10)]
    first = cache.of(prompts[0])
    for prompt in prompts[1:]:
        cache.of(prompt)
    assert (cache.of(prompts[0]) is first) == stays
