"""Token ids of plain texts, put together from those of their words.

The tokenizer of wordllama merges pairs of pieces until no merge is left (byte pair encoding:
Sennrich, Haddow and Birch, ACL 2016, section 3.2), over the whole text at once; but no piece of its
vocabulary goes across a space. So the tokens of a text are those of its words, one after another,
and words come again.
"""

from __future__ import annotations

from typing import Any

# At the most so many: 8 MB.
_KEPT = 30_000
_LONGEST = 32


class Words:
    """What words were split into. Not for two threads at once.

    Args:
        tokenizer: of the package ``tokenizers``; puts a mark before each word, has no token that
            holds one within, and adds no special tokens but where they are written out.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._ids: dict[str, tuple[int, ...]] = {}

    def __len__(self) -> int:
        return len(self._ids)

    def encode(self, text: str) -> list[int]:
        """The token ids of a text, as the tokenizer itself gives them."""
        # Two spaces, and whatever may be a special token, are more than their parts.
        if not text.isascii() or "<" in text or "  " in text or text[:1] in " " or text[-1] == " ":
            return self._split(text)
        known, found = self._ids, list[int]()
        for word in text.split(" "):
            ids = known.get(word)
            if ids is None:
                ids = self._keep(word)
            found += ids
        return found

    def _keep(self, word: str) -> tuple[int, ...]:
        ids = tuple(self._split(word))
        if len(word) <= _LONGEST:
            if len(self._ids) >= _KEPT:
                self._ids.clear()
            self._ids[word] = ids
        return ids

    def _split(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids
