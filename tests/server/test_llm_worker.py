"""The language model, from searches that miss to hits: real server, real client, local stand-in."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis

from plain_provider import TOKENS_IN, TOKENS_OUT, plain_provider
from processes import pyrope_process
from pyrope.testing.gemini_server import GeminiServer
from pyrope.testing.oracle import Oracle
from pyrope.testing.provider_outcomes import Asked, BreakOff, Hang, Problem, Raw, Script, always
from stand_ins import on_its_own_loop
from tenancy import add, administrator, as_map, searched, signed_in, tenant, tenant_server, usage

KEY = "the-key-of-the-model"
MEANINGS = {
    "how old is berlin": "age of berlin",
    "what is the age of berlin": "age of berlin",
    "berlin's age?": "age of berlin",
    "how big is berlin": "size of berlin",
}


def options(stand_in: GeminiServer, **more: Any) -> dict[str, Any]:
    return {
        "provider": "gemini",
        "model": "stand-in",
        "base_url": stand_in.base_url,
        "api_key": KEY,
        "prices": "stand-in=1000/3000",
        "min_count": 1,
        "min_cost": 0,
        "requests_per_minute": 0,
        "tokens_per_minute": 0,
        **more,
    }


@contextmanager
def model(chat: Callable[[Asked], Any]) -> Iterator[GeminiServer]:
    with on_its_own_loop(GeminiServer(chat=chat, key=KEY)) as stand_in:
        assert isinstance(stand_in, GeminiServer)
        yield stand_in


def until(condition: Callable[[], Any], what: str = "it") -> Any:
    """What a condition comes to, once it is true."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError(f"{what} did not come about")


def status(client: redis.Redis) -> dict[str, Any]:
    return as_map(client.execute_command("VECTOR.LLM", "STATUS"))


def aliases(client: redis.Redis, index: str = "i") -> dict[bytes, bytes]:
    found = [as_map(one) for one in client.execute_command("VECTOR.ALIAS", "LIST", index)[1]]
    return {one["alias"]: one["canonical"] for one in found}


def fill(client: redis.Redis, index: str = "i") -> None:
    client.execute_command("VECTOR.CREATE", index, "DIM", 2, "TYPE", "FLAT")
    for number in range(20):
        add(client, index, f"v{number}", 1.0, number / 20)


def ask(client: redis.Redis, text: str, x: float, index: str = "i", *more: Any) -> tuple[Any, Any]:
    hits, info = searched(client, index, 1.0, x, options=("COUNT", 5, "QUERY", text, *more))
    return hits, info["cache"]


def ready(client: redis.Redis) -> None:
    until(lambda: status(client)["state"] not in (b"stopped", b"off"), "the start of the worker")


def test_paraphrases_miss_are_linked_and_hit_and_the_ledger_is_what_the_provider_reported(
    tmp_path: Path,
) -> None:
    oracle = Oracle(lambda text: MEANINGS.get(text.lower()))
    with model(oracle) as stand_in:
        flags: list[str] = []
        for name, value in options(stand_in).items():
            flags += [f"--llm-{name.replace('_', '-')}", str(value)]
        with pyrope_process(tmp_path / "data", *flags) as process, process.client() as client:
            fill(client)
            ready(client)
            assert ask(client, "How old is Berlin", 0.30)[1] == b"miss"
            assert ask(client, "How big is Berlin", 0.40)[1] == b"miss"
            assert ask(client, "what is the age of Berlin", 0.31)[1] == b"miss"
            until(lambda: aliases(client), "the alias")
            first = {b"How old is Berlin", b"what is the age of Berlin"}
            assert set(aliases(client).items()) <= {(a, b) for a in first for b in first}
            (alias,) = aliases(client)
            hits, level = ask(client, alias.decode(), 0.305)
            assert level == b"alias"
            assert len(hits) == 5
            # The next wording joins them, and not the question that is only near.
            assert ask(client, "Berlin's age?", 0.32)[1] == b"miss"
            until(lambda: len(aliases(client)) == 2, "the second alias")
            assert ask(client, "Berlin's age?", 0.32)[1] == b"alias"
            assert ask(client, "How big is Berlin", 0.40)[1] == b"exact"
            until(lambda: status(client)["running"] == status(client)["queued"] == 0)
            told, used = status(client), usage(client, "default")
            assert told["succeeded"] == len(stand_in.asked) >= 3
            assert told["failed"] == told["dropped"] == 0
            assert (told["tokens_in"], told["tokens_out"]) == (
                stand_in.tokens_in,
                stand_in.tokens_out,
            )
            assert (used["llm_tokens_in"], used["llm_tokens_out"]) == (
                stand_in.tokens_in,
                stand_in.tokens_out,
            )
            cost = stand_in.tokens_in + 3 * stand_in.tokens_out
            assert used["llm_cost"] == cost
            assert float(told["cost"]) == cost
            everything = str([client.info("everything"), client.config_get("*"), told])
            assert KEY not in everything
            assert KEY not in process.output()
            assert process.terminate() == 0
            assert KEY not in process.output()


@pytest.mark.parametrize(
    ("provider", "base", "path"),
    [
        ("gemini", "", "/models/stand-in:generateContent"),
        ("gemini", "/", "/models/stand-in:generateContent"),
        ("openai", "", "/chat/completions"),
        ("openai", "/v1", "/v1/chat/completions"),
        ("openai", "/v1/", "/v1/chat/completions"),
    ],
)
def test_with_the_settings_as_they_are_one_miss_of_a_paraphrase_is_enough(
    provider: str, base: str, path: str
) -> None:
    said = {"match": 1, "canonical": "", "confidence": 0.95}
    with plain_provider(said) as stand_in:
        llm = {"provider": provider, "model": "stand-in", "api_key": KEY}
        with (
            tenant_server(llm=llm | {"base_url": stand_in.origin + base}) as server,
            administrator(server) as admin,
        ):
            fill(admin)
            ready(admin)
            assert ask(admin, "how old is Berlin", 0.30)[1] == b"miss"
            assert ask(admin, "Berlin's age?", 0.32)[1] == b"miss"
            until(lambda: aliases(admin), "the alias")
            assert ask(admin, "Berlin's age?", 0.32)[1] == b"alias"
            until(lambda: not status(admin)["running"])
            used = usage(admin, "default")
            (asked,) = stand_in.paths
            assert asked == path if provider == "openai" else asked.endswith(path)
            assert (used["llm_tokens_in"], used["llm_tokens_out"]) == (TOKENS_IN, TOKENS_OUT)


def test_what_goes_wrong_is_tried_again_and_counted() -> None:
    oracle = Oracle(lambda text: MEANINGS.get(text.lower()))
    failures = Script(
        Problem(429, retry_after="0.05"),
        Problem(500),
        BreakOff(Raw(b'{"candidates": []}' * 100)),
        Raw(b"not JSON at all"),
        then=oracle,
    )
    quick = {"backoff_base_s": 0.01, "backoff_max_s": 0.05, "max_attempts": 10}
    with (
        model(failures) as stand_in,
        tenant_server(llm=options(stand_in, breaker_failures=100, **quick)) as server,
        administrator(server) as admin,
    ):
        fill(admin)
        ready(admin)
        ask(admin, "how old is Berlin", 0.3)
        ask(admin, "Berlin's age?", 0.32)
        until(lambda: aliases(admin), "the alias")
        told = status(admin)
        assert (told["succeeded"], told["failed"], told["rate_limited"]) == (1, 0, 1)
        assert told["retried"] == 4
        assert len(stand_in.asked) == 5


def test_tenants_share_a_model_and_nothing_else() -> None:
    oracle = Oracle(lambda _: "all the same")
    with (
        model(oracle) as stand_in,
        tenant_server(llm=options(stand_in)) as server,
        administrator(server) as admin,
    ):
        ready(admin)
        for name in ("alpha", "beta"):
            tenant(admin, "CREATE", name, "KEY", "k")
            with signed_in(server, name, "k") as client:
                fill(client)
                ask(client, f"secret of {name}", 0.3)
                ask(client, f"another secret of {name}", 0.32)
                until(partial(aliases, client), "the alias")
                (link,) = aliases(client).items()
                assert all(name in text.decode() for text in link)
                for words in (("STATUS",), ("JOBS",), ("PAUSE",), ("RESUME",)):
                    with pytest.raises(redis.ResponseError, match="has no permissions"):
                        client.execute_command("VECTOR.LLM", *words)
                assert "month_tokens" not in client.info("everything")
        for document in oracle.asked:
            assert ("alpha" in str(document)) != ("beta" in str(document))
        used = [usage(admin, name) for name in ("alpha", "beta")]
        for name, total in (
            ("llm_tokens_in", stand_in.tokens_in),
            ("llm_tokens_out", stand_in.tokens_out),
        ):
            assert sum(one[name] for one in used) == total
            assert all(one[name] > 0 for one in used)


def test_operators_pause_resume_and_look_at_what_waits() -> None:
    oracle = Oracle(lambda text: MEANINGS.get(text.lower()))
    with (
        model(oracle) as stand_in,
        tenant_server(llm=options(stand_in)) as server,
        administrator(server) as admin,
    ):
        fill(admin)
        ready(admin)
        assert admin.execute_command("VECTOR.LLM", "PAUSE") == b"OK"
        assert status(admin)["state"] == b"paused"
        ask(admin, "how old is Berlin", 0.3)
        ask(admin, "Berlin's age?", 0.32)
        (job,) = until(lambda: admin.execute_command("VECTOR.LLM", "JOBS"), "a question")
        told = as_map(job)
        assert (told["kind"], told["tenant"]) == (b"canonical", b"default")
        assert b"Berlin" not in b"".join(one for one in job if isinstance(one, bytes))
        assert status(admin)["queued"] == 1
        assert stand_in.asked == []
        assert admin.execute_command("VECTOR.LLM", "RESUME") == b"OK"
        until(lambda: aliases(admin), "the alias")
        assert admin.execute_command("VECTOR.LLM", "JOBS", 5) == []
        section = admin.info("llm")
        assert (section["enabled"], section["provider"]) == (1, "gemini")
        assert section["succeeded"] == 1
        labels = as_map(admin.execute_command("VECTOR.CACHE", "STATS", "i"))
        assert (labels["labels"], labels["labels_same"], labels["labels_different"]) == (0, 0, 0)


def test_a_model_that_hangs_changes_nothing_for_searches_and_a_stop_is_quick() -> None:
    with (
        model(always(Hang())) as stand_in,
        tenant_server(llm=options(stand_in, grace_s=0.1)) as server,
        administrator(server) as admin,
    ):
        fill(admin)
        ready(admin)
        for number in range(40):
            assert ask(admin, f"text {number}", number / 40)[1] == b"miss"
            assert ask(admin, f"text {number}", number / 40)[1] == b"exact"
        until(lambda: stand_in.asked, "a question")
        assert status(admin)["running"] >= 1
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < 4
        assert server.left_tasks == []


def test_totals_of_the_month_outlast_a_kill(tmp_path: Path) -> None:
    oracle = Oracle(lambda text: MEANINGS.get(text.lower()))
    with model(oracle) as stand_in:
        flags: list[str] = []
        for name, value in options(stand_in, monthly_tokens=10**6).items():
            flags += [f"--llm-{name.replace('_', '-')}", str(value)]
        flags += ["--tenants-usage-flush-s", "0.1"]
        with pyrope_process(tmp_path / "data", *flags) as process, process.client() as client:
            fill(client)
            ready(client)
            ask(client, "How old is Berlin", 0.30)
            ask(client, "what is the age of Berlin", 0.31)
            until(lambda: aliases(client), "the alias")
            total = stand_in.tokens_in + stand_in.tokens_out
            assert status(client)["month_tokens"] == total
            # It is on disk after the next flush.
            flushed = client.info("persistence")["commits"] + 3
            until(lambda: _commits(client) >= flushed, "a flush")
            process.kill()
        with pyrope_process(tmp_path / "data", *flags) as process, process.client() as client:
            assert status(client)["month_tokens"] == total
            assert status(client)["tokens_in"] == 0
            assert len(aliases(client)) == 1


def _commits(client: redis.Redis) -> int:
    """Commits; something is used meanwhile, so that there is something to be written down."""
    client.execute_command("VECTOR.SEARCH", "i", "VALUES", 2, 1, 0.5, "CACHE", "OFF")
    return int(client.info("persistence")["commits"])
