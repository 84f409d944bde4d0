"""TEXT with an embedder behind an API: a real server, the real client, a stand-in."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from pyrope.testing.provider_servers import (
    Asked,
    Hang,
    OpenAIServer,
    Outcome,
    Problem,
    Script,
    Vectors,
    always,
    approximate_tokens,
)
from servers import RunningServer, encode, exchange, running_server
from stand_ins import on_its_own_loop
from tenancy import administrator, as_map, signed_in, tenant, tenant_server, usage

_KEY = "sk-a-very-secret-key"


@pytest.fixture
def provider() -> Iterator[OpenAIServer]:
    stand_in = OpenAIServer(key=_KEY)
    with on_its_own_loop(stand_in):
        yield stand_in


def embed_settings(provider: OpenAIServer, **others: Any) -> dict[str, Any]:
    return {
        "openai_model": "model-1",
        "openai_base_url": provider.base_url,
        "openai_api_key": _KEY,
        **others,
    }


@pytest.fixture
def server(provider: OpenAIServer) -> Iterator[RunningServer]:
    with running_server(embed=embed_settings(provider, timeout_s=2)) as running:
        yield running


@pytest.fixture
def client(server: RunningServer) -> Iterator[redis.Redis]:
    with server.client() as client:
        yield client


@pytest.fixture
def texts(client: redis.Redis) -> redis.Redis:
    assert client.execute_command("VECTOR.CREATE", "t", "EMBEDDER", "openai") == b"OK"
    return client


def refuse_bad(asked: Asked) -> Outcome:
    return Problem(400) if any("bad" in text for text in asked.texts) else Vectors()


# -- creating --------------------------------------------------------------------------------------


def test_the_dimension_is_what_the_provider_has(texts: redis.Redis) -> None:
    info = as_map(texts.execute_command("VECTOR.INFO", "t"))
    assert (info["dim"], info["embedder"]) == (8, b"openai:model-1:8")


def test_another_dimension_is_an_error(client: redis.Redis) -> None:
    with pytest.raises(redis.ResponseError, match=r"^DIM .* DIM is 9 but .* openai have 8"):
        client.execute_command("VECTOR.CREATE", "t", "DIM", 9, "EMBEDDER", "openai")


def test_a_dimension_may_be_asked_of_the_provider(provider: OpenAIServer) -> None:
    settings = embed_settings(provider, openai_dim=5)
    with running_server(embed=settings) as server, server.client() as client:
        client.execute_command("VECTOR.CREATE", "t", "DIM", 5, "EMBEDDER", "openai")
        client.execute_command("VECTOR.ADD", "t", "a", "TEXT", "hello")
        assert {asked.dim for asked in provider.asked} == {5}


@pytest.mark.parametrize(
    ("outcome", "message"),
    [
        (Problem(503), "^BUSY the embedder openai is not reachable: HTTP 503; retry"),
        (Hang(), "^BUSY the embedder openai is not reachable: no answer within 0.3 s"),
        (Problem(401), r"the embedder openai cannot do this: its key is .* \(HTTP 401\)"),
        (Problem(404), "no such model or address"),
    ],
    ids=["down", "hangs", "key", "model"],
)
def test_an_index_is_not_created_for_an_embedder_that_does_not_work(
    provider: OpenAIServer, outcome: Outcome, message: str
) -> None:
    settings = embed_settings(provider, timeout_s=0.3)
    with running_server(embed=settings) as server, server.client(retry=None) as client:
        provider.embed = always(outcome)
        with pytest.raises(redis.ResponseError, match=message):
            client.execute_command("VECTOR.CREATE", "t", "EMBEDDER", "openai")
        assert client.execute_command("VECTOR.LIST") == []
        provider.embed = always(Vectors())
        assert client.execute_command("VECTOR.CREATE", "t", "EMBEDDER", "openai") == b"OK"


# -- calls -----------------------------------------------------------------------------------------


def test_texts_of_a_pipeline_share_calls(texts: redis.Redis, provider: OpenAIServer) -> None:
    before = len(provider.asked)
    pipeline = texts.pipeline(transaction=False)
    for number in range(200):
        pipeline.execute_command("VECTOR.ADD", "t", number, "TEXT", f"the text number {number}")
    assert pipeline.execute() == [1] * 200
    sent = [text for asked in provider.asked[before:] for text in asked.texts]
    assert sorted(sent) == sorted(f"the text number {number}" for number in range(200))
    assert len(provider.asked) - before <= 10


def test_what_passes_is_tried_again(texts: redis.Redis, provider: OpenAIServer) -> None:
    provider.embed = Script(Problem(503), Problem(429, retry_after="0.1"), Vectors())
    assert texts.execute_command("VECTOR.ADD", "t", "a", "TEXT", "hello") == 1
    assert [asked.texts for asked in provider.asked[1:]] == [("hello",)] * 3


def test_a_provider_that_wants_to_be_left_alone_is(
    server: RunningServer, texts: redis.Redis, provider: OpenAIServer
) -> None:
    provider.embed = always(Problem(429, retry_after="3600"))
    began = time.monotonic()
    refused = pytest.raises(redis.ResponseError, match=r"^BUSY .* asked too often .* after 3600 s")
    with server.client(retry=None) as client, refused:
        client.execute_command("VECTOR.ADD", "t", "a", "TEXT", "hello")
    assert time.monotonic() - began < 1.5
    assert texts.execute_command("VECTOR.CARD", "t") == 0


def test_a_text_that_is_refused_spoils_no_other(texts: redis.Redis, provider: OpenAIServer) -> None:
    provider.embed = refuse_bad
    pipeline = texts.pipeline(transaction=False)
    for number in range(20):
        text = "bad" if number == 7 else f"good {number}"
        pipeline.execute_command("VECTOR.ADD", "t", number, "TEXT", text)
    replies = pipeline.execute(raise_on_error=False)
    assert [type(reply) for reply in replies].count(redis.ResponseError) == 1
    assert "does not accept the text (HTTP 400)" in str(replies[7])
    assert texts.execute_command("VECTOR.CARD", "t") == 19


def test_too_many_texts_that_wait_are_shed(provider: OpenAIServer) -> None:
    settings = embed_settings(provider, queued_texts=5, timeout_s=0.5)
    with running_server(embed=settings) as server, server.client() as client:
        client.execute_command("VECTOR.CREATE", "t", "EMBEDDER", "openai")
        provider.embed = always(Hang())
        pipeline = client.pipeline(transaction=False)
        for number in range(8):
            pipeline.execute_command("VECTOR.ADD", "t", number, "TEXT", f"{number}")
        replies = [str(reply) for reply in pipeline.execute(raise_on_error=False)]
        assert all(reply.startswith("BUSY") for reply in replies)
        assert ["5 texts wait" in reply for reply in replies] == [False] * 5 + [True] * 3


# -- time ------------------------------------------------------------------------------------------


def test_a_search_gives_up_in_time_and_others_are_not_held_up(
    server: RunningServer, texts: redis.Redis, provider: OpenAIServer
) -> None:
    texts.execute_command("VECTOR.ADD", "t", "a", "TEXT", "hello")
    provider.embed = always(Hang())
    with server.connect() as connection, server.client(retry=None) as other:
        connection.sendall(encode("VECTOR.SEARCH", "t", "TEXT", "slow"))
        assert other.execute_command("VECTOR.SEARCH", "t", "ELE", "a") == [b"a"]
        # What is kept needs nobody.
        assert other.execute_command("VECTOR.SEARCH", "t", "TEXT", "hello") == [b"a"]
        began = time.monotonic()
        with pytest.raises(redis.ResponseError, match=r"^BUSY timeout"):
            other.execute_command("VECTOR.SEARCH", "t", "TEXT", "another", "TIMEOUT", 50)
        assert time.monotonic() - began < 1
        assert exchange(connection, b"", replies=b"\r\n").startswith(b"-BUSY ")


def test_writes_of_others_do_not_wait_for_a_text_and_those_behind_it_do(
    server: RunningServer, texts: redis.Redis, provider: OpenAIServer
) -> None:
    blob = struct.pack("<8f", *range(8))
    texts.execute_command("VECTOR.ADD", "t", "a", "FP32", blob)
    release = Script(then=always(Problem(503)))
    provider.embed = release
    with server.connect() as connection, server.client() as other:
        connection.sendall(
            encode("VECTOR.ADD", "t", "a", "TEXT", "one") + encode("VECTOR.DEL", "t", "a")
        )
        while len(provider.asked) < 2:
            time.sleep(0.001)
        assert other.execute_command("VECTOR.ADD", "t", "b", "FP32", blob) == 1
        assert other.execute_command("VECTOR.EXISTS", "t", "a") == 1
        provider.embed = always(Vectors())
        replies = b""
        while replies.count(b"\r\n") < 2:
            replies += connection.recv(100)
        assert replies == b":0\r\n:1\r\n"
        assert other.execute_command("VECTOR.EXISTS", "t", "a") == 0


def test_stopping_while_a_call_hangs_is_quick_and_closes_everything(
    provider: OpenAIServer,
) -> None:
    settings = embed_settings(provider, timeout_s=60)
    with (
        running_server(embed=settings, shutdown_timeout_s=0) as server,
        server.client() as client,
        server.connect() as connection,
    ):
        client.execute_command("VECTOR.CREATE", "t", "EMBEDDER", "openai")
        provider.embed = always(Hang())
        for number in range(20):
            connection.sendall(encode("VECTOR.ADD", "t", number, "TEXT", f"{number}"))
        while len(provider.asked) < 2:
            time.sleep(0.001)
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < 2
        assert server.left_tasks == []
    deadline = time.monotonic() + 5
    while provider.http.connections_current and time.monotonic() < deadline:
        time.sleep(0.001)
    assert provider.http.connections_current == 0


# -- money and secrets -----------------------------------------------------------------------------


def test_what_is_charged_is_what_the_provider_has_counted(provider: OpenAIServer) -> None:
    settings = embed_settings(provider, openai_price=1e9)
    with tenant_server(embed=settings) as server, administrator(server) as admin:
        key = tenant(admin, "CREATE", "acme")
        with signed_in(server, "acme", key) as acme:
            acme.execute_command("VECTOR.CREATE", "t", "EMBEDDER", "openai")
            before = usage(admin, "acme")["compute_units"]
            first = provider.tokens_embedded
            pipeline = acme.pipeline(transaction=False)
            for number in range(30):
                pipeline.execute_command("VECTOR.ADD", "t", number, "TEXT", "text " * (number + 1))
                pipeline.execute_command("VECTOR.ADD", "t", number, "TEXT", "text " * (number + 1))
            pipeline.execute()
            spent = usage(admin, "acme")
            tokens = provider.tokens_embedded - first
            assert tokens == sum(approximate_tokens("text " * (n + 1)) for n in range(30))
            assert spent["embeddings"] == 30
            # A million units a token: the writes themselves are a hundred or so each.
            assert (spent["compute_units"] - before) // 1e6 == tokens


def test_info_tells_what_the_embedders_have_done(
    texts: redis.Redis, provider: OpenAIServer
) -> None:
    first = provider.tokens_embedded
    provider.embed = Script(Problem(503), Vectors())
    for _ in range(2):
        texts.execute_command("VECTOR.SEARCH", "t", "TEXT", "hello there")
    info = texts.info("embedders")
    assert info["embedder0"] == {
        "embedder": "openai:model-1:8",
        "queued": 0,
        "calls_running": 0,
        "texts": 1,
        "tokens": provider.tokens_embedded - first,
        "tokens_estimated": 0,
        "shared": 0,
        "calls": 2,
        "retries": 1,
        "failed": 0,
        "shed": 0,
    }
    assert info["embedder0_last_error"] == "HTTP 503"
    assert (info["text_cache_entries"], info["text_cache_hits"]) == (1, 1)


def test_the_key_is_nowhere_to_be_seen(
    provider: OpenAIServer, capfd: pytest.CaptureFixture[str]
) -> None:
    provider.key = "another"
    with running_server(embed=embed_settings(provider)) as server, server.client() as client:
        seen: list[Any] = []
        with pytest.raises(redis.ResponseError) as said:
            client.execute_command("VECTOR.CREATE", "t", "EMBEDDER", "openai")
        seen.append(str(said.value))
        assert "Incorrect" not in seen[0]  # the provider's words, which quote the key
        provider.key = _KEY
        client.execute_command("VECTOR.CREATE", "t", "EMBEDDER", "openai")
        provider.embed = always(Problem(500, message=f"key {_KEY} has failed"))
        with pytest.raises(redis.ResponseError) as said:
            client.execute_command("VECTOR.SEARCH", "t", "TEXT", "hello", "TIMEOUT", 300)
        seen.append(str(said.value))
        commands = ("INFO", "CONFIG GET *", "VECTOR.INFO t", "SLOWLOG GET")
        seen += [client.execute_command(*command.split()) for command in commands]
        assert _KEY not in repr(seen)
    written = capfd.readouterr()
    assert _KEY not in written.out + written.err


# -- restarts --------------------------------------------------------------------------------------


def test_a_server_starts_without_its_provider_and_finds_it_again(
    provider: OpenAIServer, tmp_path: Path
) -> None:
    settings = embed_settings(provider, timeout_s=2)
    with running_server(tmp_path, embed=settings) as server, server.client() as client:
        client.execute_command("VECTOR.CREATE", "t", "EMBEDDER", "openai")
        client.execute_command("VECTOR.ADD", "t", "a", "TEXT", "hello")
    provider.embed = always(Problem(503))
    with running_server(tmp_path, embed=settings) as server, server.client(retry=None) as client:
        assert client.execute_command("VECTOR.SEARCH", "t", "ELE", "a") == [b"a"]
        with pytest.raises(redis.ResponseError, match=r"^BUSY the embedder openai is not reach"):
            client.execute_command("VECTOR.SEARCH", "t", "TEXT", "hello")
        provider.embed = always(Vectors())
        assert client.execute_command("VECTOR.SEARCH", "t", "TEXT", "hello") == [b"a"]


def test_an_embedder_that_the_settings_do_not_name_any_more_is_needed_for_texts_only(
    provider: OpenAIServer, tmp_path: Path
) -> None:
    blob = struct.pack("<8f", *range(8))
    with (
        running_server(tmp_path, embed=embed_settings(provider)) as server,
        server.client() as client,
    ):
        client.execute_command("VECTOR.CREATE", "t", "EMBEDDER", "openai")
        client.execute_command("VECTOR.ADD", "t", "a", "TEXT", "hello")
    with running_server(tmp_path) as server, server.client() as client:
        pipeline = client.pipeline(transaction=False)
        pipeline.execute_command("VECTOR.ADD", "t", "b", "TEXT", "hello again")
        pipeline.execute_command("VECTOR.ADD", "t", "c", "FP32", blob)
        pipeline.execute_command("VECTOR.SEARCH", "t", "TEXT", "hello")
        pipeline.execute_command("VECTOR.SEARCH", "t", "FP32", blob, "COUNT", 1)
        refused, added, unknown, found = pipeline.execute(raise_on_error=False)
        for error in (refused, unknown):
            assert "the embedder openai is not configured" in str(error)
        assert (added, found) == (1, [b"c"])
        info = as_map(client.execute_command("VECTOR.INFO", "t"))
        assert info["embedder"] == b"openai:model-1:8"


def test_a_model_that_has_another_dimension_now_is_another_model(
    provider: OpenAIServer, tmp_path: Path
) -> None:
    settings = embed_settings(provider)
    with running_server(tmp_path, embed=settings) as server, server.client() as client:
        client.execute_command("VECTOR.CREATE", "t", "EMBEDDER", "openai")
    provider.dim = 9
    with running_server(tmp_path, embed=settings) as server, server.client() as client:
        with pytest.raises(redis.ResponseError, match="stand for openai:model-1:9 now"):
            client.execute_command("VECTOR.ADD", "t", "a", "TEXT", "hello")
        assert client.execute_command("VECTOR.ADD", "t", "a", "VALUES", 8, *range(8)) == 1
