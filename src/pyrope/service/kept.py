"""An answer that is kept, with what was made of it and what leads to it."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from pyrope.cache.neighbourhood import Neighbourhood
from pyrope.service.answers import Key

# Two arrays, the neighbourhood, its key and the replies' dictionary (CPython 3.11, NumPy 2).
_ENTRY_BYTES = 2 * 112 + 104 + 120 + 64
# Of a text that an answer is known by, and of a command: what refers to it.
_NAME_BYTES, _WORDS_BYTES = 300, 400
# Of a packet that is known by its bytes: what is kept of it beside the query.
_REPEATED_BYTES = 700
# Of a reply: the object and its form.
_REPLY_BYTES = 33 + 120


class Kept:
    """An answer that is kept.

    Attributes:
        replies: made of it, by form.
        group: near hits are only served from answers of the same one.
        number: in the table of its group; -1: it is in none.
        words: commands that it answers without their options being read.
        forget_repeated: called when its replies may not be sent again; see
            `pyrope.service.repeated`.
        names: texts that it answers.
        saved: cost units that the search would have taken.
        undecided_since: when it was kept, on the monotonic clock in seconds, if its time to live is
            the longest there may be until somebody asks; None: it is what it is to be.
    """

    __slots__ = (
        "forget_repeated",
        "group",
        "key",
        "names",
        "neighbourhood",
        "number",
        "replies",
        "saved",
        "undecided_since",
        "words",
    )

    def __init__(self, key: Key, neighbourhood: Neighbourhood) -> None:
        self.key = key
        self.neighbourhood = neighbourhood
        self.replies: dict[Any, bytes] = {}
        self.group: Key = key[1:]
        self.number = -1
        self.saved = 0.0
        self.undecided_since: float | None = None
        self.words: list[tuple[Hashable, ...]] = []
        self.forget_repeated: list[Callable[[], None]] = []
        self.names: list[tuple[bytes, Key]] = []

    @property
    def nbytes(self) -> int:
        """Bytes of it, and of what leads to it; but for the table of its group."""
        one = self.neighbourhood
        text = self.key[-1]
        total = (
            _ENTRY_BYTES
            + (2 * len(text) if isinstance(text, str) else 0)
            + len(one.query)
            + one.slots.nbytes
            + one.scores.nbytes
        )
        total += sum([len(reply) + _REPLY_BYTES for reply in self.replies.values()])
        total += _WORDS_BYTES * len(self.words) + _REPEATED_BYTES * len(self.forget_repeated)
        return total + sum([len(identity) + _NAME_BYTES for identity, _ in self.names])
