"""Texts that were asked for, with their vectors: what other wordings are compared with.

Bounded in texts and bytes. Past a bound the one goes that came first, but for those whose answer is
kept still: these get a second chance, as the clock of CLOCK gives (Corbató, "A Paging Experiment
with the Multics System", 1968), a bounded number of times for each that comes.

How near two texts are is the cosine of their vectors, whatever the metric of the index: only which
of them a language model is shown depends on it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from math import sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pyrope.cache.query_key import QueryKey
from pyrope.types import Float32Matrix

# Of a text beside its bytes and its row (CPython 3.11): objects, and places in three tables.
_TEXT_BYTES = 600
_SMALLEST = 16
_SECOND_CHANCES = 8

Group = tuple[Hashable, ...]


class ByteBudget:
    """Bytes that several tables share.

    Args:
        max_bytes: that they may take together.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.taken = 0

    def take(self, nbytes: int) -> bool:
        """Take bytes, if there are as many. Returns whether there were."""
        if self.taken + nbytes > self.max_bytes:
            return False
        self.taken += nbytes
        return True

    def give_back(self, nbytes: int) -> None:
        self.taken -= nbytes


class AskedText(NamedTuple):
    """A text, and how it was asked for.

    Attributes:
        group: what else its answer depends on; only texts of the same one are compared.
        query: its vector, little-endian float32.
        number: those that came earlier have lower ones; 0: the table gives it one.
    """

    text: QueryKey
    group: Group
    query: bytes
    number: int = 0

    @property
    def key(self) -> Group:
        """What its answer depends on, the query included."""
        return (self.query, *self.group)


class AskedTexts:
    """Of one index. For the event loop; a look takes time by the number of texts.

    Args:
        dim: of the vectors.
        max_texts, max_bytes: that are kept, at least 1 of each; one that would not fit into the
            bytes alone is passed over.
        budget: shared with other indexes. Where it is used up, a text takes the place of another
            one of this index, or none.
        is_kept: whether the answer to a text is kept still.
    """

    def __init__(
        self,
        dim: int,
        *,
        max_texts: int,
        max_bytes: int,
        budget: ByteBudget,
        is_kept: Callable[[AskedText], bool],
    ) -> None:
        self._row_bytes = 2 * 4 * dim + _TEXT_BYTES
        self._max_texts = max_texts
        self._max_bytes = max_bytes
        self._is_kept = is_kept
        self._budget = budget
        self._rows: Float32Matrix = np.zeros((0, dim), np.float32)
        # Of the texts in the rows; -1: there is none.
        self._groups: NDArray[np.int64] = np.zeros(0, np.int64)
        self._group_numbers: dict[Group, list[int]] = {}  # [number, texts]
        self._next_group = 0
        self._texts: list[AskedText | None] = []
        self._places: OrderedDict[tuple[bytes, Group], int] = OrderedDict()
        self._free: list[int] = []
        self._numbers = 0
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._places)

    @property
    def nbytes(self) -> int:
        """Memory that texts and vectors take, in bytes."""
        return self._bytes

    def add(self, asked: AskedText) -> bool:
        """Take a text in, or take note of its vector anew. Returns whether it is here now."""
        name = asked.text.identity, asked.group
        row = self._places.get(name)
        if row is not None:
            self._put(row, asked)
            self._places.move_to_end(name)
            return True
        unit = _unit(asked.query)
        if unit is None:
            return False
        needed = self._bytes_of(asked)
        while (
            len(self._places) >= self._max_texts
            or self._bytes + needed > self._max_bytes
            or not self._budget.take(needed)
        ):
            if not self._places:
                return False
            self._take_one()
        row = self._free.pop() if self._free else self._new_row()
        self._places[name] = row
        number = self._group_numbers.get(asked.group)
        if number is None:
            number = self._group_numbers[asked.group] = [self._next_group, 0]
            self._next_group += 1
        number[1] += 1
        self._groups[row] = number[0]
        self._bytes += needed
        if not asked.number:
            self._numbers += 1
            asked = asked._replace(number=self._numbers)
        self._texts[row] = asked
        self._rows[row] = unit
        return True

    def get(self, identity: bytes, group: Group) -> AskedText | None:
        row = self._places.get((identity, group))
        return None if row is None else self._texts[row]

    def nearest(self, query: bytes, group: Group, limit: int) -> list[tuple[AskedText, float]]:
        """The texts of a group that are nearest to a vector, and their cosines; nearest first.

        Args:
            limit: of texts, at least 1.
        """
        number, unit = self._group_numbers.get(group), _unit(query)
        if number is None or unit is None:
            return []
        rows = np.flatnonzero(self._groups[: len(self._texts)] == number[0])
        # A copy of a part costs more than the products of the whole.
        cosines = (self._rows[: len(self._texts)] @ unit)[rows]
        count = min(limit, len(rows))
        best = np.argpartition(-cosines, count - 1)[:count]
        found = []
        for place in best[np.lexsort((rows[best], -cosines[best]))].tolist():
            asked = self._texts[rows[place]]
            if asked is not None:
                found.append((asked, float(cosines[place])))
        return found

    def latest(self, limit: int) -> list[AskedText]:
        """The texts that came last, of all groups; the last one first."""
        found = []
        for row in reversed(self._places.values()):
            asked = self._texts[row]
            if asked is not None:
                found.append(asked)
            if len(found) >= limit:
                break
        return found

    def clear(self) -> None:
        """Forget all texts, and give their memory back."""
        self._budget.give_back(self._bytes)
        self._bytes = 0
        self._rows, self._groups = self._rows[:0].copy(), self._groups[:0].copy()
        self._group_numbers.clear()
        self._texts.clear()
        self._places.clear()
        self._free.clear()

    def _bytes_of(self, asked: AskedText) -> int:
        return self._row_bytes + len(asked.text.identity) + len(asked.text.content)

    def _put(self, row: int, asked: AskedText) -> None:
        """Take note of another vector of a text that is here; its wording stays as it was."""
        before = self._texts[row]
        if before is None or before.query == asked.query:
            return
        unit = _unit(asked.query)
        if unit is not None:
            self._texts[row] = before._replace(query=asked.query)
            self._rows[row] = unit

    def _new_row(self) -> int:
        row = len(self._texts)
        if row == len(self._rows):
            size = min(max(_SMALLEST, 2 * row), self._max_texts)
            rows = np.zeros((size, self._rows.shape[1]), np.float32)
            rows[:row] = self._rows
            groups = np.full(size, -1, np.int64)
            groups[:row] = self._groups
            self._rows, self._groups = rows, groups
        self._texts.append(None)
        return row

    def _take_one(self) -> None:
        """Take out the one that came first, but for those whose answer is kept still."""
        for _ in range(_SECOND_CHANCES):
            name, row = next(iter(self._places.items()))
            asked = self._texts[row]
            if asked is None or not self._is_kept(asked):
                break
            self._places.move_to_end(name)
        name, row = self._places.popitem(last=False)
        asked = self._texts[row]
        self._texts[row] = None
        self._groups[row] = -1
        self._free.append(row)
        if asked is not None:
            self._bytes -= self._bytes_of(asked)
            self._budget.give_back(self._bytes_of(asked))
        number = self._group_numbers[name[1]]
        number[1] -= 1
        if not number[1]:
            del self._group_numbers[name[1]]


def _unit(query: bytes) -> NDArray[np.float32] | None:
    """The direction of a vector; None for one that has none."""
    vector = np.frombuffer(query, "<f4").astype(np.float64)
    norm = sqrt(float(np.dot(vector, vector)))
    return (vector / norm).astype(np.float32) if norm else None
