from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyrope.embed.embedder import Embedded, EmbedderError
from pyrope.embed.wordllama import WordLlamaEmbedder


async def in_place(function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)


@cache
def started() -> WordLlamaEmbedder:
    made = WordLlamaEmbedder(in_place)
    asyncio.run(made.start())
    return made


@pytest.fixture
def embedder() -> WordLlamaEmbedder:
    return started()


def embed(embedder: WordLlamaEmbedder, *texts: str) -> Embedded:
    return asyncio.run(embedder.embed(texts))


_SENTENCES = [
    "How do I reset my password?",
    "a",
    "Der Rosenkohl schmeckt nach nichts, außer mit Butter.",
    "東京は今日も雨です",
    "😀 \x00\x01 \u200b",
    "word " * 300,
]


def test_vectors_are_those_of_the_package(embedder: WordLlamaEmbedder) -> None:
    import wordllama  # noqa: PLC0415 - takes long to import

    folder = Path(wordllama.__file__).parent
    model = wordllama.WordLlama.load(cache_dir=folder, disable_download=True)
    ours = embed(embedder, *_SENTENCES)
    np.testing.assert_allclose(ours.vectors, model.embed(_SENTENCES, norm=True), atol=2e-6)
    assert ours.tokens == [sum(each.attention_mask) for each in model.tokenize(_SENTENCES)]
    assert not ours.estimated


def test_identity_has_the_dimension_and_a_digest(embedder: WordLlamaEmbedder) -> None:
    name, dim, digest = embedder.identity.split(":")
    assert (name, int(dim), embedder.dim) == ("wordllama", 256, 256)
    assert len(digest) == 12
    assert int(digest, 16)


@settings(max_examples=50)
@given(st.lists(st.text(min_size=1, max_size=40), min_size=1, max_size=12))
def test_a_texts_vector_is_the_same_to_the_bit_whatever_is_beside_it(texts: list[str]) -> None:
    embedder = started()
    assert embedder.embed_now("long " * 5000) is None
    together = embed(embedder, *texts, "long " * 5000, *texts[::-1])
    for row, text in enumerate(texts):
        alone = embed(embedder, text)
        assert together.vectors[row].tobytes() == alone.vectors[0].tobytes()
        assert together.vectors[-1 - row].tobytes() == alone.vectors[0].tobytes()
        assert together.tokens[row] == alone.tokens[0]
        at_once = embedder.embed_now(text)
        assert at_once is not None
        assert at_once.vectors.tobytes() == alone.vectors.tobytes()
        assert at_once.tokens == alone.tokens


@pytest.mark.parametrize("text", ["\x00" * 32_768, "😀" * 8192, "a" * 32_768, " " * 32_768])
def test_long_texts_are_vectors_of_length_1(embedder: WordLlamaEmbedder, text: str) -> None:
    embedded = embed(embedder, text, "short")
    np.testing.assert_allclose(np.linalg.norm(embedded.vectors, axis=1), 1, atol=1e-6)
    assert embedded.tokens[0] > 1000


def test_long_texts_are_the_mean_of_their_tokens(embedder: WordLlamaEmbedder) -> None:
    # 8,200 tokens in pieces of 4,096 point where 2 of them do: all are the same.
    short, long = embed(embedder, "\x00" * 2), embed(embedder, "\x00" * 8200)
    assert long.tokens == [8201]
    assert float(short.vectors[0] @ long.vectors[0]) > 0.8


def test_an_empty_text_has_no_vector(embedder: WordLlamaEmbedder) -> None:
    embedded = embed(embedder, "", "a")
    assert not embedded.vectors[0].any()
    assert embedded.vectors[1].any()
    assert embedded.tokens[0] == 0


def test_loading_leaves_the_logging_of_others_alone(embedder: WordLlamaEmbedder) -> None:
    assert embedder.dim
    assert logging.getLogger().level == logging.WARNING
    streams = [type(handler) for handler in logging.getLogger().handlers]
    assert logging.StreamHandler not in streams


def test_tokenizing_starts_no_threads_of_its_own() -> None:
    program = (
        "import asyncio, pathlib\n"
        "from pyrope.embed.wordllama import WordLlamaEmbedder\n"
        "async def run(function, *args): return function(*args)\n"
        "count = lambda: len(list(pathlib.Path('/proc/self/task').iterdir()))\n"
        "async def main():\n"
        "    embedder = WordLlamaEmbedder(run)\n"
        "    await embedder.start()\n"
        "    before = count()\n"
        "    await embedder.embed([f'text {n} ' * 50 for n in range(200)])\n"
        "    assert count() == before, (before, count())\n"
        "asyncio.run(main())\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_what_is_closed_embeds_nothing_and_may_be_started_again() -> None:
    async def life() -> None:
        made = WordLlamaEmbedder(in_place)
        await made.close()
        with pytest.raises(EmbedderError, match="closed"):
            await made.embed(["a"])
        await made.start()
        identity = made.identity
        first = await made.embed(["a"])
        await made.close()
        await made.close()
        assert made.dim == 0
        await made.start()
        assert made.identity == identity
        assert (await made.embed(["a"])).vectors.tobytes() == first.vectors.tobytes()
        await made.close()

    asyncio.run(life())
