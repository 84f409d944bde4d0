"""Wordllama: static token embeddings in this process (https://github.com/dleemiller/WordLlama).

A text's vector is the mean of its tokens' vectors, brought to length 1. The model comes with the
package (weights of 256 dimensions and the tokenizer), so that nothing is ever downloaded. Two
things are done here that the package does otherwise:

- It pads the texts of a batch to the longest one, so that one long text among 63 short ones would
  take a gigabyte. Here each text is added up by itself, which takes less time, too.
- `encode` holds the GIL while it works, 15 ms for 64 KiB; `encode_batch` lets it go. That one may
  start threads of its own, which nothing would end, and which a fork does not survive: its
  documented switch for that is an environment variable.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from pyrope.embed.embedder import Embedded, EmbedderError, Failure
from pyrope.embed.runner import Run
from pyrope.embed.unit import to_unit_rows
from pyrope.embed.words import Words
from pyrope.types import Float32Matrix

_CONFIG, _DIM = "l2_supercat", 256
_FILES = (f"weights/{_CONFIG}_{_DIM}.safetensors", f"tokenizers/{_CONFIG}_tokenizer_config.json")
# Of a long text so many tokens are added up at a time: 4 MiB of vectors.
_TOKENS_AT_ONCE = 4096
_DIGEST_BYTES = 6
# Embedded on the loop: in 0.1 ms at the most, and 0.03 ms for a sentence. To hand one to a thread,
# and to have its command go on afterwards, takes the loop twice that.
_AT_ONCE_CHARACTERS = 512


class WordLlamaEmbedder:
    """The embedder that needs nobody else.

    Args:
        run: has something done in a thread.
    """

    name = "wordllama"
    # Tokenizing takes most of the time, on one core; a second batch would fight for the GIL.
    parallel = 1
    batch_texts = 1000

    def __init__(self, run: Run) -> None:
        self._run = run
        self._matrix: Float32Matrix | None = None
        self._tokenizer: Any = None
        self._words: Words | None = None
        self._version = ""

    @property
    def dim(self) -> int:
        return 0 if self._matrix is None else self._matrix.shape[1]

    @property
    def identity(self) -> str:
        """With a digest of the weights and the tokenizer: ``wordllama:256:0123456789ab``."""
        return f"{self.name}:{_DIM}:{self._version}"

    async def start(self) -> None:
        if self._matrix is None:
            self._matrix, self._tokenizer, self._version = await self._run(_load)
            self._words = Words(self._tokenizer)

    def embed_now(self, text: str) -> Embedded | None:
        if len(text) > _AT_ONCE_CHARACTERS or self._words is None:
            return None
        return self._add_up([self._words.encode(text)])

    async def embed(self, texts: Sequence[str]) -> Embedded:
        return await self._run(self._embed, list(texts))

    async def close(self) -> None:
        self._matrix = self._tokenizer = self._words = None

    def _embed(self, texts: list[str]) -> Embedded:
        """In a thread: 7 us a sentence for its tokens, 3 us to add up their vectors."""
        tokenizer = self._tokenizer
        if tokenizer is None:
            raise EmbedderError(Failure.UNAVAILABLE, "it has been closed")
        encodings = tokenizer.encode_batch(texts, add_special_tokens=False)
        return self._add_up([encoding.ids for encoding in encodings])

    def _add_up(self, ids: list[list[int]]) -> Embedded:
        """The vectors of texts by their tokens."""
        matrix = self._matrix
        if matrix is None:
            raise EmbedderError(Failure.UNAVAILABLE, "it has been closed")
        sums = np.zeros((len(ids), matrix.shape[1]), np.float32)
        for row, of_text in enumerate(ids):
            for start in range(0, len(of_text), _TOKENS_AT_ONCE):
                rows = matrix.take(of_text[start : start + _TOKENS_AT_ONCE], axis=0)
                sums[row] += np.add.reduce(rows, axis=0)
        # The length of a mean is of no account, so that nothing is divided by the number of tokens.
        return Embedded(to_unit_rows(sums), [len(of_text) for of_text in ids])


def _load() -> tuple[Float32Matrix, Any, str]:
    """Token vectors, tokenizer and version; takes 0.3 s, in a thread."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        # It ships no annotations, and is imported by those who ask for it only.
        import wordllama  # noqa: PLC0415
    except ImportError as error:
        raise EmbedderError(Failure.UNKNOWN, "the package wordllama cannot be imported") from error
    finally:
        # It sets up logging as if it were an application.
        root.handlers[:] = handlers
        root.setLevel(level)
    # Both files are in folders of the package where its `cache_dir` is expected to have them.
    folder = Path(wordllama.__file__).parent
    try:
        model = wordllama.WordLlama.load(
            config=_CONFIG, dim=_DIM, cache_dir=folder, disable_download=True
        )
        digest = blake2b(digest_size=_DIGEST_BYTES)
        for file in _FILES:
            digest.update((folder / file).read_bytes())
    except (OSError, ValueError) as error:
        raise EmbedderError(Failure.UNKNOWN, "its weights cannot be loaded") from error
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    tokenizer = model.tokenizer
    tokenizer.no_padding()
    return model.embedding, tokenizer, digest.hexdigest()
