"""From searches that miss to aliases that a model has found: what is asked, and what is linked."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from pyrope.cache.alias import AliasSource
from pyrope.cache.query_key import text_key
from pyrope.engine.filter import compile_filter
from pyrope.service.search import Search
from pyrope.testing.provider_outcomes import Answer, always, answer_json
from service.advising_bench import (
    OTHER,
    ROWS,
    A,
    B,
    Bench,
    C,
    aliases,
    answer,
    ask,
    dispatched,
    near_to,
    open_bench,
)


async def test_other_wordings_are_linked_and_then_hit() -> None:
    async with open_bench() as bench:
        index = await bench.create()
        assert await ask(index, A, near_to(0)) == "miss"
        assert await bench.questions() == []
        assert await ask(index, OTHER, near_to(0, 0.2)) == "miss"
        assert await ask(index, B, near_to(0, 0.05)) == "miss"
        first, second = [one["data"] for one in await bench.questions()]
        assert (first["query"], first["candidates"]) == (OTHER, [{"number": 1, "text": A}])
        # Only what came before it, the nearest first.
        assert second["query"] == B
        assert second["candidates"] == [{"number": 1, "text": A}, {"number": 2, "text": OTHER}]
        assert aliases(index) == {B: A}
        found = await answer(index, B, near_to(0, 0.05))
        assert found.source.level == "alias"
        assert await ask(index, OTHER, near_to(0, 0.2)) == "exact"


async def test_what_is_kept_for_a_canonical_has_neighbours_enough_for_its_aliases() -> None:
    async with open_bench() as bench:
        index = await bench.create(candidates=30)
        five = Search(5)
        unit = ROWS / np.linalg.norm(ROWS, axis=1)[:, None]
        for turn in range(3):
            if turn == 1:
                index.cache.flush()
                await ask(index, A, near_to(0), asked=five)
            elif turn == 0:
                await ask(index, A, near_to(0), asked=five)
                await ask(index, B, near_to(0, 0.4), asked=five)
                await bench.questions()
                assert aliases(index) == {B: A}
            async with asyncio.timeout(10):
                while index.busy:
                    await asyncio.sleep(0)
            found = await answer(index, B, near_to(0, 0.4), asked=five)
            assert found.source.level == "alias"
            scores = unit @ np.frombuffer(near_to(0, 0.4), "<f4")
            assert found.hits.ids == [b"v%d" % row for row in np.argsort(-scores)[:5]]


async def test_a_canonical_is_answered_from_what_is_kept_for_an_alias_of_it() -> None:
    async with open_bench() as bench:
        index = await bench.create()
        await ask(index, A, near_to(0))
        await ask(index, B, near_to(0, 0.05))
        await bench.questions()
        index.cache.flush()
        assert await ask(index, A, near_to(0), near=None) == "miss"
        index.cache.flush()
        assert await ask(index, B, near_to(0, 0.05)) == "miss"
        assert await ask(index, A, near_to(0)) == "alias"
        await index.aliases.remove(text_key(B.encode()))
        index.cache.flush()
        assert await ask(index, B, near_to(0, 0.05)) == "miss"
        assert await ask(index, A, near_to(0)) == "miss"


async def test_only_what_misses_often_and_costs_enough_is_worth_a_question() -> None:
    async with open_bench(min_count=3) as bench:
        index = await bench.create()
        for turn in range(4):
            index.cache.flush()
            await ask(index, A, near_to(0))
            await ask(index, B, near_to(0, 0.05))
            assert len(await bench.questions()) == (1 if turn == 2 else 0)
        # A is another's canonical now, and B is linked: nothing is left to ask.
        assert aliases(index) in ({A: B}, {B: A})
    async with open_bench(min_cost=1e9) as bench:
        index = await bench.create()
        for text in (A, B):
            await ask(index, text, near_to(0))
        assert await bench.questions() == []


async def test_what_was_not_linked_is_asked_about_again_only_when_it_has_come_much_more_often() -> (
    None
):
    async with open_bench() as bench:
        index = await bench.create()
        await ask(index, OTHER, near_to(0, 0.1))
        numbers = []
        for turn in range(1, 21):
            index.cache.flush()
            await ask(index, A, near_to(0))
            if await bench.questions():
                numbers.append(turn)
        assert numbers == [1, 4, 16]


async def test_a_text_too_long_for_a_prompt_is_never_in_one() -> None:
    async with open_bench(text_bytes=100) as bench:
        index = await bench.create()
        long = A + " " + "x" * 100
        for number, text in enumerate((long, A, B, long)):
            await ask(index, text, near_to(0, number / 50))
        assert long not in str(await bench.questions())
        assert set(aliases(index)) | set(aliases(index).values()) == {A, B}


async def test_candidates_are_of_the_same_index_and_filter_only() -> None:
    async with open_bench() as bench:
        red = Search(10, filter=compile_filter(b".x == 1"))
        mine, same_name = await bench.create(), await bench.create(tenant="beta")
        beside = await bench.create("j")
        await ask(mine, A, near_to(0))
        await ask(mine, "A under a filter", near_to(0), asked=red)
        await ask(same_name, "of beta", near_to(0))
        await ask(beside, "beside it", near_to(0))
        assert await bench.questions() == []
        await ask(mine, B, near_to(0, 0.1))
        await ask(same_name, "of beta too", near_to(0, 0.1))
        documents = await bench.questions()
        shown = [
            (one["data"]["query"], [each["text"] for each in one["data"]["candidates"]])
            for one in documents
        ]
        assert sorted(shown) == [("of beta too", ["of beta"]), (B, [A])]


async def test_no_chain_is_made() -> None:
    async with open_bench() as bench:
        index = await bench.create()
        for number, text in enumerate((A, B, C)):
            await ask(index, text, near_to(0, number / 50))
            await bench.questions()
        assert aliases(index) == {B: A, C: A}
        assert [one["text"] for one in bench.oracle.asked[-1]["data"]["candidates"]] == [A]


@pytest.mark.parametrize("first", [B, C])
async def test_links_that_are_found_at_the_same_time_lead_to_one_canonical(first: str) -> None:
    async with open_bench(concurrency=2) as bench:
        index = await bench.create()
        answered = asyncio.Event()

        async def chat(asked: Any) -> Answer:
            # Both are asked about before either is linked.
            bench.oracle(asked)
            data = bench.oracle.asked[-1]["data"]
            number = next(
                one["number"]
                for one in data["candidates"]
                if one["text"] == (B if data["query"] == C else A)
            )
            if data["query"] != first:
                await answered.wait()
            return answer_json({"match": number, "canonical": "", "confidence": 0.95})

        bench.stand_in.chat = chat
        for apart, text in ((0.0, A), (0.05, B), (0.1, C)):
            await ask(index, text, near_to(0, apart))
        asking = asyncio.create_task(bench.questions())
        async with asyncio.timeout(10):
            while not aliases(index):
                await asyncio.sleep(0.001)
        answered.set()
        await asking
        assert aliases(index) == ({B: A, C: A} if first == B else {A: B, C: B})
        assert dispatched(bench)["refused"] == 0


async def test_what_was_set_by_hand_stays() -> None:
    async with open_bench() as bench:
        index = await bench.create()
        key = text_key(B.encode())
        await ask(index, A, near_to(0))
        await ask(index, B, near_to(0, 0.05))
        bench.stand_in.chat = setting_it_meanwhile(bench, index, key)
        await bench.questions()
        assert aliases(index) == {B: "by hand"}
        found = index.aliases.get(key)
        assert found is not None
        assert found.canonical.source is AliasSource.MANUAL
        assert dispatched(bench)["refused"] == 1


def setting_it_meanwhile(bench: Bench, index: Any, key: Any) -> Any:
    async def chat(asked: Any) -> Any:
        await index.aliases.set(
            key, text_key(b"by hand"), confidence=1.0, source=AliasSource.MANUAL
        )
        return bench.oracle(asked)

    return chat


async def test_an_alias_expires() -> None:
    async with open_bench(alias_ttl_s=60) as bench:
        index = await bench.create()
        await ask(index, A, near_to(0))
        await ask(index, B, near_to(0, 0.05))
        await bench.questions()
        bench.clock.advance(59)
        assert await ask(index, B, near_to(0, 0.05)) == "alias"
        bench.clock.advance(1)
        assert await ask(index, B, near_to(0, 0.05)) == "exact"


async def test_a_wording_of_the_models_own_links_those_it_is_found_for() -> None:
    async with open_bench() as bench:
        index = await bench.create()
        coined = "age of Berlin"

        def chat(asked: Any) -> Answer:
            bench.oracle(asked)
            data = bench.oracle.asked[-1]["data"]
            numbers = [one["number"] for one in data["candidates"] if one["text"] == coined]
            return answer_json(
                {
                    "match": numbers[0] if numbers else 0,
                    "canonical": "" if numbers else coined,
                    "confidence": 0.95,
                }
            )

        bench.stand_in.chat = chat
        await ask(index, OTHER, near_to(0, 0.2))
        await ask(index, A, near_to(0))
        await bench.questions()
        assert dispatched(bench)["coined"] >= 1
        assert aliases(index) == {}
        await ask(index, B, near_to(0, 0.05))
        await bench.questions()
        linked = aliases(index)
        assert linked[B] == coined
        assert len(linked) == 2
        for text in linked:
            assert await ask(index, text, near_to(0, 0.05)) == "alias"


async def test_texts_that_the_model_words_alike_are_linked_as_if_it_had_chosen() -> None:
    async with open_bench() as bench:
        index = await bench.create()
        bench.stand_in.chat = always(
            answer_json({"match": 0, "canonical": "Berlin: Age", "confidence": 0.95})
        )
        far = np.asarray(-ROWS[0], "<f4").tobytes()
        for text, query in ((A, near_to(0)), (B, near_to(0, 0.05)), (C, near_to(0, 0.1))):
            await ask(index, text, query)
            await bench.questions()
        assert aliases(index) == {B: "Berlin: Age", C: "Berlin: Age"}
        for text in (B, C):
            assert await ask(index, text, near_to(0, 0.07)) == "alias"
        # Nothing far off is linked by its wording.
        for number in range(2):
            await ask(index, f"far off {number}", far)
        await bench.questions()
        assert set(aliases(index)) == {B, C}


async def test_a_wording_that_somebody_has_asked_for_is_that_query() -> None:
    async with open_bench() as bench:
        index = await bench.create()
        bench.stand_in.chat = always(
            answer_json({"match": 0, "canonical": A.upper(), "confidence": 0.95})
        )
        await ask(index, A, near_to(0))
        await ask(index, B, near_to(0, 0.05))
        await bench.questions()
        assert aliases(index) == {B: A}
        assert dispatched(bench)["coined"] == 0
