"""What a model is asked beside aliases, who pays for it, and when it is asked no more."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pyrope.config import Settings
from pyrope.llm.job import Dropped
from pyrope.service.audit import SERVER
from pyrope.service.search import Search
from pyrope.service.service import Service
from pyrope.testing.clock import ManualClock
from pyrope.testing.oracle import Oracle
from pyrope.testing.provider_outcomes import Answer, Hang, always
from service.advising_bench import (
    OTHER,
    ROWS,
    A,
    B,
    Bench,
    C,
    aliases,
    ask,
    dispatched,
    meaning,
    near_to,
    open_bench,
)

# -- sessions, clusters ---------------------------------------------------------------------------


async def test_what_a_session_is_expected_to_ask_is_searched_for_before() -> None:
    async with open_bench() as bench:
        index = await bench.create()
        following = near_to(0, 0.2)
        await ask(index, "what comes next", following)
        for number in range(1, 20):
            # What clients ask for in sessions is what prefetches are paid with.
            await ask(index, f"something else {number}", near_to(number), session=b"%d" % number)
        await bench.questions()
        index.cache.flush()
        # What is expected while searches run is not searched for.
        bench.advisor.pause()
        for text, number in (("first", 1), ("second", 0)):
            await ask(index, text, near_to(number), session=b"s")
        bench.advisor.resume()
        documents = [one for one in await bench.questions() if "queries" in one["data"]]
        (document,) = documents
        assert document["data"]["queries"] == ["first", "second"]
        assert document["data"]["candidates"][0]["text"] == "what comes next"
        async with asyncio.timeout(10):
            while index.busy:
                await asyncio.sleep(0)
        # What was forgotten before is swept only now.
        bench.service.cache.sweep(1000)
        assert await ask(index, "what comes next", following) == "prefetch"


async def hot_index(bench: Bench) -> Any:
    """One whose only cluster is written to, and asked about."""
    index = await bench.create(ttl_s=1000.0, hot_writes=10.0)
    await ask(index, "news of today", near_to(0))
    bench.clock.advance(20)
    return index


async def test_advice_moves_times_to_live_and_values_and_can_be_taken_back() -> None:
    async with open_bench() as bench:
        index = await hot_index(bench)
        before = index.clusters.ttl(0)
        documents = await bench.questions()
        (document,) = [one for one in documents if "facts" in one]
        assert document["data"]["queries"] == ["news of today"]
        assert document["facts"]["writes"] == len(ROWS)
        advice = index.clusters.registry.advice
        assert index.clusters.ttl(0) == pytest.approx(max(before / 2, 100.0))
        assert index.clusters.value_factor(near_to(0)) == 2.0
        # What it is worth is what eviction goes by.
        await ask(index, None, near_to(7))
        (stored,) = [one for key, one in index.cache._owner.entries.items() if key[0] == near_to(7)]
        assert stored.saved == 2.0 * index.search_cost(Search(10))
        # It is not asked about again while there is advice.
        bench.clock.advance(20)
        assert [one for one in await bench.questions() if "facts" in one] == []
        assert advice.remove() == 1
        assert index.clusters.ttl(0) == pytest.approx(before, rel=0.2)


async def test_advice_stays_within_guardrails_and_expires() -> None:
    async with open_bench(advice_ttl_s=600) as bench:
        index = await hot_index(bench)
        bench.stand_in.chat = Oracle(
            meaning, advice={"nature": "volatile", "ttl_factor": 100.0, "value_factor": 100.0}
        )
        await bench.questions()
        (found,) = [one for _, one in index.clusters.registry.advice]
        assert (found.ttl_factor, found.value_factor) == (1.0, 4.0)
        bench.clock.advance(601)
        assert list(index.clusters.registry.advice) == []


async def test_advice_on_centroids_that_are_gone_is_dropped() -> None:
    async with open_bench() as bench:
        index = await hot_index(bench)

        async def chat(asked: Any) -> Answer:
            said = bench.oracle(asked)
            await index.clusters.push(ROWS[:2].copy())
            return said

        bench.stand_in.chat = chat
        await bench.questions()
        assert list(index.clusters.registry.advice) == []
        assert dispatched(bench)["advised"] == 0


# -- money ----------------------------------------------------------------------------------------


async def test_tokens_are_charged_to_the_tenant_whose_question_it_was() -> None:
    async with open_bench(prices="stand-in=1000/3000") as bench:
        for tenant in ("alpha", "beta"):
            index = await bench.create(tenant=tenant)
            await ask(index, A, near_to(0))
            await ask(index, B, near_to(0, 0.05))
            before = bench.stand_in.tokens_in, bench.stand_in.tokens_out
            await bench.questions()
            used = bench.service.tenancy.enforcer.enter(tenant)._entry
            tokens_in = bench.stand_in.tokens_in - before[0]
            tokens_out = bench.stand_in.tokens_out - before[1]
            assert (used.llm_tokens_in, used.llm_tokens_out) == (tokens_in, tokens_out)
            assert used.llm_cost == tokens_in + 3 * tokens_out > 0
        told = dispatched(bench)
        assert told["month_tokens"] == bench.stand_in.tokens_in + bench.stand_in.tokens_out


async def test_monthly_totals_outlast_a_restart_and_end_with_the_month(tmp_path: Path) -> None:
    clock_at = 1_700_000_000.0
    limit: dict[str, Any] = {"monthly_tokens": 6000, "thinking_tokens": 0}
    async with open_bench(tmp_path / "data", **limit) as bench:
        index = await bench.create()
        await ask(index, A, near_to(0))
        await ask(index, B, near_to(0, 0.05))
        bench.stand_in.chat = always(
            Answer('{"match": 1, "canonical": "", "confidence": 0.95}', 5000, 500)
        )
        await bench.questions()
        assert dispatched(bench)["month_tokens"] == 5500
    async with open_bench(tmp_path / "data", **limit) as bench:
        assert bench.clock.wall() == clock_at
        index = bench.service.index("default", b"i")
        assert dispatched(bench)["month_tokens"] == 5500
        assert dispatched(bench)["tokens_in"] == 0
        await ask(index, OTHER, near_to(0, 0.2))
        await ask(index, C, near_to(0, 0.1))
        await bench.questions()
        assert bench.stand_in.asked == []
        assert dispatched(bench)["budget_dropped"] == 1
        bench.clock.advance(31 * 86_400)
        index.cache.flush()
        for text in (OTHER, C):
            for _ in range(4):
                index.cache.flush()
                await ask(index, text, near_to(0, 0.1))
        await bench.questions()
        assert len(bench.stand_in.asked) >= 1


async def test_a_tenant_that_has_spent_its_budget_asks_nothing_and_others_go_on() -> None:
    async with open_bench() as bench:
        tenancy = bench.service.tenancy
        for tenant in ("poor", "rich"):
            await tenancy.create(SERVER, tenant, {"budget": 100_000.0}, None)
        tenancy.enforcer.enter("poor").charge(100_000.0)
        for tenant in ("poor", "rich"):
            index = await bench.create(tenant=tenant)
            await ask(index, A, near_to(0))
            await ask(index, B, near_to(0, 0.05))
            await bench.questions()
            assert len(aliases(index)) == (tenant == "rich")
        told = dispatched(bench)
        assert (told["succeeded"], told["budget_dropped"]) == (1, 1)


@pytest.mark.parametrize("concurrency", [1, 8])
async def test_calls_under_way_together_do_not_exceed_the_budget_of_a_tenant(
    concurrency: int,
) -> None:
    async with open_bench(
        prices="stand-in=1000/9000", concurrency=concurrency, thinking_tokens=0
    ) as bench:
        # Room for three calls: what a reply may take is 2,304 units of each.
        budget = 9000.0
        await bench.service.tenancy.create(SERVER, "poor", {"budget": budget}, None)
        index = await bench.create(tenant="poor")
        before = bench.service.tenancy.used_now("poor").used
        bench.stand_in.chat = always(
            Answer('{"match": 0, "canonical": "", "confidence": 0.9}', 400, 256)
        )
        for number in range(12):
            await ask(index, f"text {number}", near_to(0, number / 50))
        await bench.questions()
        used = bench.service.tenancy.used_now("poor").used
        assert before < used <= budget
        assert len(bench.stand_in.asked) == 3
        assert dispatched(bench)["budget_dropped"] == 8


# -- life -----------------------------------------------------------------------------------------


async def test_a_question_about_an_index_that_is_dropped_is_withdrawn() -> None:
    async with open_bench() as bench:
        index = await bench.create()
        bench.advisor.pause()
        await ask(index, A, near_to(0))
        await ask(index, B, near_to(0, 0.05))
        bench.advisor.tick()
        assert [one["kind"] for one in bench.advisor.jobs(5)] == ["canonical"]
        await bench.service.drop_index("default", b"i")
        bench.advisor.resume()
        await bench.questions()
        assert bench.stand_in.asked == []
        assert bench.advisor.worker.statistics().dropped[Dropped.WITHDRAWN] == 1


async def test_an_index_that_is_dropped_while_it_is_asked_about_is_left_alone() -> None:
    async with open_bench() as bench:
        index = await bench.create()
        await ask(index, A, near_to(0))
        await ask(index, B, near_to(0, 0.05))

        async def chat(asked: Any) -> Answer:
            await bench.service.drop_index("default", b"i")
            return bench.oracle(asked)

        bench.stand_in.chat = chat
        await bench.questions()
        assert dispatched(bench)["aliases_set"] == 0
        assert dispatched(bench)["succeeded"] == 1


async def test_a_provider_that_hangs_holds_up_nobody_and_is_left_at_a_stop() -> None:
    async with open_bench(grace_s=0.1) as bench:
        index = await bench.create()
        bench.stand_in.chat = always(Hang())
        await ask(index, A, near_to(0))
        await ask(index, B, near_to(0, 0.05))
        bench.advisor.tick()
        async with asyncio.timeout(10):
            while not bench.stand_in.asked:
                await asyncio.sleep(0.002)
        for number in range(1, 20):
            assert await ask(index, f"text {number}", near_to(number)) == "miss"
            assert await ask(index, f"text {number}", near_to(number)) == "exact"
        loop = asyncio.get_running_loop()
        began = loop.time()
        await bench.advisor.stop()
        assert loop.time() - began < 2.0
        async with asyncio.timeout(10):
            while bench.stand_in.http.connections_current:
                await asyncio.sleep(0.002)
        names = {task.get_name() for task in asyncio.all_tasks()}
        assert not [name for name in names if name.startswith("llm")]
        # After that signals come to nothing, and hurt nobody.
        await ask(index, "later", near_to(30))


async def test_where_no_model_is_configured_nothing_is_made(clock: ManualClock) -> None:
    service = Service(Settings(in_memory=True), clock, lambda id_: id_)
    await service.start()
    try:
        await service.loaded()
        assert service.advisor is None
    finally:
        await service.stop()


def test_where_no_model_is_configured_nothing_is_imported() -> None:
    script = (
        "import sys; import pyrope.server.lifecycle; import pyrope.commands.table; "
        "from pyrope.service.service import Service; from pyrope.config import Settings; "
        "from pyrope.clock import SystemClock; "
        "Service(Settings(in_memory=True), SystemClock(), bytes); "
        "print([name for name in sys.modules if name.startswith(('pyrope.llm', 'openai', "
        "'google.genai', 'tiktoken', 'pyrope.service.advi'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
