"""What is known of pairs of prompts: whether the two deserve the same answer.

Labels come from a language model that was asked, or from people who say so. Whoever learns how far
nearness can be trusted learns from them, by the score that the two had.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

# Of a label beside its keys (CPython 3.11): objects, and a place in the table.
_LABEL_BYTES = 400


class LabelSource(StrEnum):
    """Who says so: a language model, a person."""

    LLM = "llm"
    FEEDBACK = "feedback"


@dataclass(frozen=True, slots=True)
class Label:
    """What was said about a pair.

    Attributes:
        same: whether one answer serves both.
        confidence: that this is right, 0 to 1.
        score: how near the two were, as the metric of the index has it, or NaN if nobody knows.
        at: Unix time in seconds.
    """

    same: bool
    confidence: float
    score: float
    source: LabelSource
    at: float


@dataclass(frozen=True, slots=True)
class LabelStatistics:
    """What a `Labels` holds and was told.

    Attributes:
        entries_current, bytes_current: labels, and the memory they take.
        same_total, different_total: labels that came, those that took another's place included.
    """

    entries_current: int
    bytes_current: int
    same_total: int
    different_total: int


class Labels:
    """Labels of one index, by pair; a pair has no order, and the last label is what counts.

    Past a bound those go that came first. For the event loop; each call is O(1).

    Args:
        max_entries, max_bytes: at least 1 of each; a label that does not fit alone is counted, and
            not kept.
    """

    def __init__(self, *, max_entries: int, max_bytes: int) -> None:
        if max_entries < 1 or max_bytes < 1:
            raise ValueError(f"no room for {max_entries} labels in {max_bytes} bytes")
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._labels: OrderedDict[tuple[bytes, bytes], Label] = OrderedDict()
        self._bytes = 0
        self._same_total = 0
        self._different_total = 0

    def __len__(self) -> int:
        return len(self._labels)

    @property
    def nbytes(self) -> int:
        """Memory that the labels take, in bytes."""
        return self._bytes

    def add(self, one: bytes, other: bytes, label: Label) -> None:
        """Take a label in, in place of what was known of the pair.

        Args:
            one, other: identities of the prompts, which tell them from others of the index.
        """
        if label.same:
            self._same_total += 1
        else:
            self._different_total += 1
        pair = _pair(one, other)
        if self._labels.pop(pair, None) is not None:
            self._bytes -= _bytes_of(pair)
        self._labels[pair] = label
        self._bytes += _bytes_of(pair)
        while len(self._labels) > self._max_entries or self._bytes > self._max_bytes:
            gone, _ = self._labels.popitem(last=False)
            self._bytes -= _bytes_of(gone)

    def get(self, one: bytes, other: bytes) -> Label | None:
        return self._labels.get(_pair(one, other))

    def __iter__(self) -> Iterator[tuple[tuple[bytes, bytes], Label]]:
        """Pairs with their labels, those that came last at the end."""
        return iter(self._labels.items())

    def clear(self) -> None:
        """Forget all labels, but not how many there were."""
        self._labels.clear()
        self._bytes = 0

    def statistics(self) -> LabelStatistics:
        return LabelStatistics(
            len(self._labels), self._bytes, self._same_total, self._different_total
        )


def _pair(one: bytes, other: bytes) -> tuple[bytes, bytes]:
    return (one, other) if one <= other else (other, one)


def _bytes_of(pair: tuple[bytes, bytes]) -> int:
    return _LABEL_BYTES + len(pair[0]) + len(pair[1])
