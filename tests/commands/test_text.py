"""TEXT in place of a vector, at a real server that embeds by wordllama."""

from __future__ import annotations

import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from pyrope.embed.wordllama import WordLlamaEmbedder
from pyrope.testing.provider_servers import OpenAIServer
from servers import RunningServer, encode, exchange, running_server
from stand_ins import on_its_own_loop
from tenancy import administrator, as_map, signed_in, tenant, tenant_server, usage

_DIM = 256
_DOGS = ("a dog runs in the park", "two dogs play outside", "my puppy likes to walk")
_MONEY = ("how do I open a bank account", "the interest rate of a loan", "pay by credit card")


@pytest.fixture
def texts(client: redis.Redis) -> redis.Redis:
    """A client of a server that has the index t for texts."""
    assert client.execute_command("VECTOR.CREATE", "t", "EMBEDDER", "wordllama") == b"OK"
    return client


def told(client: redis.Redis, index: str) -> dict[str, Any]:
    return as_map(client.execute_command("VECTOR.INFO", index))


def vector(client: redis.Redis, index: str, id_: str) -> Any:
    found = as_map(client.execute_command("VECTOR.GET", index, id_, "WITHVECTOR", "FP32"))
    return np.frombuffer(found["vector"], "<f4")


# -- indexes ---------------------------------------------------------------------------------------


def test_an_embedder_gives_the_dimension_and_its_identity_is_shown(texts: redis.Redis) -> None:
    info = told(texts, "t")
    assert info["dim"] == _DIM
    name, dim, digest = info["embedder"].decode().split(":")
    assert (name, dim) == ("wordllama", "256")
    assert len(digest) == 12


def test_a_dimension_that_is_the_embedders_may_be_given(client: redis.Redis) -> None:
    created = ("VECTOR.CREATE", "t", "EMBEDDER", "WordLlama", "DIM", _DIM, "TYPE", "FLAT")
    assert client.execute_command(*created) == b"OK"
    assert client.execute_command(*created, "NX") == b"OK"
    with pytest.raises(redis.ResponseError, match=r"another definition"):
        client.execute_command("VECTOR.CREATE", "t", "DIM", _DIM, "TYPE", "FLAT", "NX")


def test_another_dimension_is_an_error(client: redis.Redis) -> None:
    with pytest.raises(redis.ResponseError, match=r"^DIM .* DIM is 8 but .* have 256"):
        client.execute_command("VECTOR.CREATE", "t", "DIM", 8, "EMBEDDER", "wordllama")
    assert client.execute_command("VECTOR.LIST") == []


def test_an_embedder_whose_vectors_are_larger_than_any_is_refused() -> None:
    with (
        running_server(limits={"dim": 100}) as server,
        server.client() as client,
        pytest.raises(redis.ResponseError, match=r"^DIM .* the limit is 100"),
    ):
        client.execute_command("VECTOR.CREATE", "t", "EMBEDDER", "wordllama")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nobody", "invalid EMBEDDER: one of wordllama, gemini, openai"),
        (b"\xff" * 1000, "invalid EMBEDDER"),
        ("gemini", "embed.gemini_model is empty"),
        ("openai", "embed.openai_model is empty"),
    ],
    ids=["unknown", "bytes", "gemini", "openai"],
)
def test_an_embedder_that_is_not_there_is_an_error(
    client: redis.Redis, name: Any, message: str
) -> None:
    for dim in ((), ("DIM", 4)):
        with pytest.raises(redis.ResponseError, match=message):
            client.execute_command("VECTOR.CREATE", "t", *dim, "EMBEDDER", name)
    assert client.execute_command("VECTOR.LIST") == []


def test_the_embedder_of_an_index_is_not_altered(texts: redis.Redis) -> None:
    with pytest.raises(redis.ResponseError, match="syntax error"):
        texts.execute_command("VECTOR.ALTER", "t", "EMBEDDER", "wordllama")


def test_an_index_without_one_takes_no_texts(client: redis.Redis) -> None:
    client.execute_command("VECTOR.CREATE", "i", "DIM", 2)
    assert told(client, "i")["embedder"] is None
    for command in (("ADD", "i", "a", "TEXT", "hello"), ("SEARCH", "i", "TEXT", "hello")):
        with pytest.raises(redis.ResponseError, match="has no embedder"):
            client.execute_command(f"VECTOR.{command[0]}", *command[1:])


def test_without_texts_nothing_of_any_embedder_is_loaded() -> None:
    program = (
        "import sys\n"
        "from servers import running_server\n"
        "with running_server() as server, server.client() as client:\n"
        "    client.execute_command('VECTOR.CREATE', 'i', 'DIM', 2)\n"
        "heavy = {'wordllama', 'openai', 'google.genai', 'tokenizers', 'httpx', 'httpx2'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parent.parent, check=True)


# -- writing and searching -------------------------------------------------------------------------


def test_texts_are_found_by_texts(texts: redis.Redis) -> None:
    for number, text in enumerate((*_DOGS, *_MONEY)):
        added = texts.execute_command("VECTOR.ADD", "t", number, "TEXT", text, "SETATTR", "{}")
        assert added == 1
    found = texts.execute_command("VECTOR.SEARCH", "t", "TEXT", "a walk with a dog", "COUNT", 3)
    assert set(found) == {b"0", b"1", b"2"}
    found = texts.execute_command("VECTOR.SEARCH", "t", "text", "money in the bank", "COUNT", 3)
    assert set(found) == {b"3", b"4", b"5"}


def test_text_and_its_vector_are_the_same_search(texts: redis.Redis) -> None:
    for number, text in enumerate(_DOGS):
        texts.execute_command("VECTOR.ADD", "t", number, "TEXT", text)
    blob = vector(texts, "t", "1").tobytes()
    by_text = texts.execute_command("VECTOR.SEARCH", "t", "TEXT", _DOGS[1], "WITHSCORES")
    by_blob = texts.execute_command("VECTOR.SEARCH", "t", "FP32", blob, "WITHSCORES")
    assert by_text == by_blob
    assert by_text[0] == b"1"


def test_options_apply_as_with_a_vector(texts: redis.Redis) -> None:
    texts.execute_command("VECTOR.ADD", "t", "a", "TEXT", _DOGS[0], "SETATTR", '{"n": 1}')
    texts.execute_command("VECTOR.ADD", "t", "b", "TEXT", _DOGS[1], "SETATTR", '{"n": 2}')
    assert texts.execute_command("VECTOR.ADD", "t", "a", "TEXT", "another", "NX") is None
    assert texts.execute_command("VECTOR.ADD", "t", "a", "TEXT", _DOGS[0], "XX", "EX", 100) == 0
    asked = ("VECTOR.SEARCH", "t", "TEXT", "dogs", "FILTER", ".n == 2", "WITHATTRIBS", "TRUTH")
    assert texts.execute_command(*asked) == [b"b", b'{"n": 2}']
    with pytest.raises(redis.ResponseError, match="syntax error"):
        texts.execute_command("VECTOR.SEARCH", "t", "TEXT", "dogs", "NONSENSE")
    with pytest.raises(redis.ResponseError, match="FP32, VALUES, TEXT or ELE is expected"):
        texts.execute_command("VECTOR.SEARCH", "t", "TEXTS", "dogs")


def test_both_protocols_have_their_shapes(any_client: redis.Redis) -> None:
    any_client.execute_command("VECTOR.CREATE", "t", "EMBEDDER", "wordllama")
    yes = any_client.execute_command("VECTOR.ADD", "t", "a", "TEXT", _DOGS[0])
    assert yes in (1, True)
    for text in (_DOGS[0], _DOGS[1], _DOGS[1]):  # kept; not kept; kept
        by_text = any_client.execute_command("VECTOR.SEARCH", "t", "TEXT", text, "WITHSCORES")
        assert type(by_text) is type(
            any_client.execute_command("VECTOR.SEARCH", "t", "ELE", "a", "WITHSCORES")
        )


def test_clusters_are_told_of_texts(texts: redis.Redis) -> None:
    texts.execute_command("VECTOR.ADD", "t", "a", "TEXT", _DOGS[0])
    blob = vector(texts, "t", "a").tobytes()
    other = np.roll(np.frombuffer(blob, "<f4"), 1).tobytes()
    assert texts.execute_command("VECTOR.CLUSTER", "SET", "t", "FP32", other + blob) == b"OK"
    for words in (("TEXT", _DOGS[0]), ("TEXT", _DOGS[1]), ("FP32", blob)):
        cluster, score = texts.execute_command("VECTOR.CLUSTER", "NEAREST", "t", *words)
        assert cluster == 1
        assert texts.execute_command("VECTOR.CLUSTER", "TTL", "t", *words)[0] == 1
    assert abs(float(score) - 1) < 1e-6


def test_the_text_is_that_of_the_query_too(texts: redis.Redis) -> None:
    for number, text in enumerate((*_DOGS, *_MONEY)):
        texts.execute_command("VECTOR.ADD", "t", number, "TEXT", text)
    canonical, other = "walking a dog", "opening an account"
    first = texts.execute_command("VECTOR.SEARCH", "t", "TEXT", canonical, "WITHINFO")
    assert as_map(first[1])["cache"] == b"miss"
    texts.execute_command("VECTOR.ALIAS", "SET", "t", "TAKE the dog out", canonical)
    asked = ("VECTOR.SEARCH", "t", "TEXT", "take the dog  out", "WITHINFO")
    assert as_map(texts.execute_command(*asked)[1])["cache"] == b"alias"
    # A QUERY of one's own is what counts then.
    with_query = ("VECTOR.SEARCH", "t", "TEXT", "take the dog out", "QUERY", other, "WITHINFO")
    assert as_map(texts.execute_command(*with_query)[1])["cache"] == b"miss"


def test_a_text_that_is_asked_again_is_a_hit(texts: redis.Redis) -> None:
    texts.execute_command("VECTOR.ADD", "t", "a", "TEXT", _DOGS[0])
    asked = ("VECTOR.SEARCH", "t", "TEXT", "dogs in parks", "WITHINFO")
    assert as_map(texts.execute_command(*asked)[1])["cache"] == b"miss"
    assert as_map(texts.execute_command(*asked)[1])["cache"] == b"exact"


# -- hostile texts ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "empty, or nothing but white space"),
        (b" \t\r\n\x0b", "empty, or nothing but white space"),
        ("\u2003\u3000".encode(), "empty, or nothing but white space"),
        (b"\xff\xfe", "UTF-8 is expected"),
        ("\ud800".encode("utf-8", "surrogatepass"), "UTF-8 is expected"),
        (b"a" * 1_000_000, "it has 1000000 bytes, at most 32768 are embedded"),
    ],
    ids=["empty", "blank", "unicode blank", "not UTF-8", "surrogate", "1 MB"],
)
def test_what_is_no_text_is_refused(texts: redis.Redis, text: bytes, message: str) -> None:
    for command in (("VECTOR.ADD", "t", "a"), ("VECTOR.SEARCH", "t")):
        with pytest.raises(redis.ResponseError, match=message):
            texts.execute_command(*command, "TEXT", text)
    assert texts.execute_command("VECTOR.CARD", "t") == 0


@pytest.mark.parametrize(
    "text",
    [
        b"\x00",
        b"\x01\x02\x1b[31m\x7f",
        b"a\r\n+OK\r\n",
        "\u200b".encode(),
        "\u202e\ufeff👩‍👩‍👧".encode(),
        "e\u0301".encode() * 1000,
        b"\x00" * 32_768,
        "😀".encode() * 8192,
        b"TEXT",
        b"*1\r\n$4\r\nPING\r\n",
    ],
    ids=[
        "nul", "controls", "line ends", "zero width", "joined", "combining", "long nuls",
        "long emoji", "word", "command",
    ],
)  # fmt: skip
def test_any_other_text_has_a_vector(texts: redis.Redis, text: bytes) -> None:
    assert texts.execute_command("VECTOR.ADD", "t", "a", "TEXT", text) == 1
    assert abs(float(np.linalg.norm(vector(texts, "t", "a"))) - 1) < 1e-6
    hits = texts.execute_command("VECTOR.SEARCH", "t", "TEXT", text, "WITHSCORES")
    assert hits[0] == b"a"
    assert abs(float(hits[1]) - 1) < 1e-5


# Long enough that a thread embeds it; shorter texts are embedded at once.
_MORE = " and more" * 100
_LENGTHS = pytest.mark.parametrize("more", ["", _MORE], ids=["short", "long"])

# -- order -----------------------------------------------------------------------------------------


@_LENGTHS
def test_replies_come_in_order(texts: redis.Redis, more: str) -> None:
    pipeline = texts.pipeline(transaction=False)
    for number in range(50):
        text = f"the text number {number}{more}"
        pipeline.execute_command("VECTOR.ADD", "t", number, "TEXT", text)
        pipeline.execute_command("VECTOR.SEARCH", "t", "TEXT", f"or {text}", "COUNT", 99)
        pipeline.execute_command("VECTOR.CARD", "t")
    replies = pipeline.execute()
    for number in range(50):
        assert replies[3 * number] == 1
        assert len(replies[3 * number + 1]) == replies[3 * number + 2] == number + 1


@_LENGTHS
def test_the_last_write_of_an_id_wins_whatever_it_is_given_as(
    server: RunningServer, more: str
) -> None:
    with server.client() as client:
        client.execute_command("VECTOR.CREATE", "t", "EMBEDDER", "wordllama")
        client.execute_command("VECTOR.ADD", "t", "kept", "TEXT", f"kept{more}")
        unit = struct.pack("<256f", 1.0, *[0.0] * 255)
        kept = vector(client, "t", "kept").tobytes()
        # In one packet: texts that are to be embedded, one that is not, vectors, removals.
        commands = [
            encode("VECTOR.ADD", "t", "a", "TEXT", f"one{more}"),
            encode("VECTOR.ADD", "t", "a", "FP32", unit),
            encode("VECTOR.ADD", "t", "b", "FP32", unit),
            encode("VECTOR.ADD", "t", "b", "TEXT", f"two{more}"),
            encode("VECTOR.ADD", "t", "b", "TEXT", f"kept{more}"),
            encode("VECTOR.ADD", "t", "c", "TEXT", f"three{more}"),
            encode("VECTOR.DEL", "t", "c"),
            encode("VECTOR.ADD", "t", "d", "TEXT", f"four{more}"),
            encode("VECTOR.SETATTR", "t", "d", '{"x": 1}'),
            encode("VECTOR.GETATTR", "t", "d"),
            encode("PING"),
        ]
        with server.connect() as connection:
            replies = exchange(connection, b"".join(commands), replies=b"PONG\r\n")
        assert replies == (
            b':1\r\n:0\r\n:1\r\n:0\r\n:0\r\n:1\r\n:1\r\n:1\r\n:1\r\n$8\r\n{"x": 1}\r\n+PONG\r\n'
        )
        assert vector(client, "t", "a").tobytes() == unit
        assert vector(client, "t", "b").tobytes() == kept
        assert client.execute_command("VECTOR.EXISTS", "t", "c") == 0


@_LENGTHS
def test_a_write_that_fails_does_not_hold_up_those_behind_it(
    server: RunningServer, more: str
) -> None:
    with server.client() as client, server.connect() as connection:
        client.execute_command("VECTOR.CREATE", "t", "EMBEDDER", "wordllama")
        client.execute_command("VECTOR.CREATE", "i", "DIM", 2)
        commands = [
            encode("VECTOR.ADD", "t", "a", "TEXT", f"first{more}"),
            encode("VECTOR.ADD", "i", "a", "TEXT", "first"),
            encode("VECTOR.ADD", "t", "b", "TEXT", b"\xff"),
            encode("VECTOR.ADD", "t", "c", "TEXT", f"second{more}"),
            encode("VECTOR.DEL", "t", "a"),
            encode("PING"),
        ]
        replies = exchange(connection, b"".join(commands), replies=b"PONG\r\n").split(b"\r\n")
        assert [reply[:1] for reply in replies[:6]] == [b":", b"-", b"-", b":", b":", b"+"]
        assert client.execute_command("VECTOR.CARD", "t") == 1


def test_clients_that_go_away_leave_nothing(server: RunningServer) -> None:
    with server.client() as client:
        client.execute_command("VECTOR.CREATE", "t", "EMBEDDER", "wordllama")
        for round_ in range(5):
            with server.connect() as connection:
                connection.sendall(
                    b"".join(
                        encode("VECTOR.ADD", "t", f"{n}", "TEXT", f"a text {round_} {n}{_MORE}")
                        for n in range(200)
                    )
                )
        assert client.execute_command("VECTOR.ADD", "t", "last", "TEXT", "the last one") == 1
        assert client.execute_command("VECTOR.SEARCH", "t", "TEXT", "the last one")[0] == b"last"


def test_index_dropped_meanwhile_is_no_index(server: RunningServer) -> None:
    with server.client() as client, server.connect() as connection:
        client.execute_command("VECTOR.CREATE", "t", "EMBEDDER", "wordllama")
        replies = exchange(
            connection,
            encode("VECTOR.SEARCH", "t", "TEXT", f"somebody drops the index{_MORE}")
            + encode("VECTOR.DROP", "t")
            + encode("VECTOR.SEARCH", "t", "TEXT", "somebody drops the index")
            + encode("PING"),
            replies=b"PONG\r\n",
        )
        assert replies == b"*0\r\n:1\r\n-NOINDEX no such index 't'\r\n+PONG\r\n"


# -- tenants ---------------------------------------------------------------------------------------


def test_texts_are_metered_and_those_that_are_kept_cost_nothing() -> None:
    with tenant_server(embed={"wordllama_price": 5000}) as server, administrator(server) as admin:
        keys = {name: tenant(admin, "CREATE", name) for name in ("acme", "other")}
        with (
            signed_in(server, "acme", keys["acme"]) as acme,
            signed_in(server, "other", keys["other"]) as other,
        ):
            for client in (acme, other):
                client.execute_command("VECTOR.CREATE", "t", "EMBEDDER", "wordllama")
            before = usage(admin, "acme")["compute_units"]
            acme.execute_command("VECTOR.ADD", "t", "a", "TEXT", "ten words or so of text")
            acme.execute_command("VECTOR.ADD", "t", "b", "TEXT", "another one")
            spent = usage(admin, "acme")
            assert spent["embeddings"] == 2
            tokens = server.run(_tokens_of("ten words or so of text", "another one"))
            # The units of the two writes come on top.
            assert spent["compute_units"] - before >= 5 * sum(tokens)
            for _ in range(3):
                acme.execute_command("VECTOR.SEARCH", "t", "TEXT", "another one")
            assert usage(admin, "acme")["embeddings"] == 2
            # What one tenant has had embedded is another one's to pay for again.
            other.execute_command("VECTOR.SEARCH", "t", "TEXT", "another one")
            assert usage(admin, "other")["embeddings"] == 1


async def _tokens_of(*texts: str) -> list[int]:
    async def run(function: Any, *args: Any) -> Any:
        return function(*args)

    embedder = WordLlamaEmbedder(run)
    await embedder.start()
    return (await embedder.embed(texts)).tokens


# -- restarts --------------------------------------------------------------------------------------


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """A data directory with the index t, which has two texts."""
    with running_server(tmp_path) as server, server.client() as client:
        client.execute_command("VECTOR.CREATE", "t", "EMBEDDER", "wordllama", "CACHE", "OFF")
        client.execute_command("VECTOR.ADD", "t", "a", "TEXT", _DOGS[0])
        client.execute_command("VECTOR.ADD", "t", "b", "TEXT", _MONEY[0])
    return tmp_path


def test_a_restart_keeps_the_embedder(stored: Path) -> None:
    with running_server(stored) as server, server.client() as client:
        assert told(client, "t")["embedder"].startswith(b"wordllama:256:")
        found = client.execute_command("VECTOR.SEARCH", "t", "TEXT", "a dog", "COUNT", 1)
        assert found == [b"a"]
        assert client.execute_command("VECTOR.ADD", "t", "c", "TEXT", _DOGS[1]) == 1


def test_vectors_of_two_models_are_not_mixed(tmp_path: Path) -> None:
    with on_its_own_loop(OpenAIServer()) as provider:
        embed = {"openai_base_url": provider.base_url, "openai_model": "model-1"}
        with running_server(tmp_path, embed=embed) as server, server.client() as client:
            client.execute_command("VECTOR.CREATE", "t", "EMBEDDER", "openai")
            assert told(client, "t")["embedder"] == b"openai:model-1:8"
            client.execute_command("VECTOR.ADD", "t", "a", "TEXT", "hello")
        embed["openai_model"] = "model-2"
        with running_server(tmp_path, embed=embed) as server, server.client() as client:
            for command in (("ADD", "t", "c"), ("SEARCH", "t"), ("CLUSTER", "NEAREST", "t")):
                with pytest.raises(redis.ResponseError, match="was created with the") as said:
                    client.execute_command(f"VECTOR.{command[0]}", *command[1:], "TEXT", "hello")
                assert "openai:model-2:8" in str(said.value)
            assert told(client, "t")["embedder"] == b"openai:model-1:8"
            assert client.execute_command("VECTOR.CARD", "t") == 1
            # All the rest works, and so does a new index.
            assert client.execute_command("VECTOR.SEARCH", "t", "ELE", "a") == [b"a"]
            given = ("VALUES", 8, *range(8))
            assert client.execute_command("VECTOR.ADD", "t", "b", *given) == 1
            client.execute_command("VECTOR.CREATE", "u", "EMBEDDER", "openai")
            assert client.execute_command("VECTOR.ADD", "u", "a", "TEXT", "hello") == 1
        del embed["openai_model"]
        with running_server(tmp_path, embed=embed) as server, server.client() as client:
            with pytest.raises(redis.ResponseError, match=r"embed\.openai_model is empty"):
                client.execute_command("VECTOR.SEARCH", "t", "TEXT", "hello")
            assert client.execute_command("VECTOR.SEARCH", "t", "ELE", "a", "COUNT", 1) == [b"a"]


def test_stopping_leaves_no_thread_and_no_task(stored: Path) -> None:
    before = set(threading.enumerate())
    with running_server(stored) as server, server.client() as client:
        client.execute_command("VECTOR.SEARCH", "t", "TEXT", "a dog")
    assert server.left_tasks == []
    assert set(threading.enumerate()) <= before
