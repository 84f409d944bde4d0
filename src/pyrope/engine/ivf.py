"""IVF_FLAT and IVF_PQ: inverted lists on FAISS, with whole answers and exact scores.

A search visits the lists whose centroids are nearest to the query. What that leaves to do here:

- *Scores* come from the raw float32 rows (`pyrope.engine.rerank`): codes only choose candidates, a
  few times as many as are wanted.
- *Deletes* leave a place in a list behind. While there are any, or a filter, a selector lets the
  others through. A slot that comes again loses its old place (`InvertedLists.forget`).
- *Filters*: the fewer vectors take part, the more lists are visited
  (`pyrope.engine.probing.first_probes`).
- *Too few found*: the next lists are visited for the queries concerned, until there are enough or
  a scan costs less. What costs less from the start is scanned at once.
- *A bound on distance computations* is kept by choosing lists that are short enough, nearest first
  (`pyrope.engine.probing.fit_lists`). FAISS' own bound, `max_codes`, is looked at within a list by
  one of the two kinds and after it by the other. Where the bound is lower than the number of
  centroids, or than the length of every list, some of the rows are scanned.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyrope.engine.base import (
    DamagedIndexError,
    EngineStatistics,
    Neighbours,
    PreparedUpsert,
    SearchOptions,
    VectorSource,
)
from pyrope.engine.exact import ExactScan
from pyrope.engine.faiss_file import Definition, read_file, write_file
from pyrope.engine.forked import write_forked
from pyrope.engine.inverted_lists import NONE, InvertedLists
from pyrope.engine.ivf_training import (
    check_pqm,
    choose_nlist,
    choose_nprobe,
    most_lists,
    training_size,
)
from pyrope.engine.list_search import Aim, ListSearch
from pyrope.engine.normalise import row_norms, unit_rows
from pyrope.engine.probing import first_probes
from pyrope.engine.query_counters import QueryCounters
from pyrope.engine.rerank import Reranker
from pyrope.engine.selectors import selector_of
from pyrope.engine.slot_table import SlotTable
from pyrope.types import Float32Matrix, Mask, Metric, Slots

# Of rerank_factor: for few results, the best by code must be looked for among more (recall of the
# nearest one: 0.975 among 4 candidates, 0.995 among 16).
_FEW = 4
_RERANK_FACTOR = 4.0
# Squared norms of queries of which no product with a vector or a centroid leaves float32.
_ORDINARY = (1e-20, 1e20)
# When what was learnt does not fit any more.
_UNEVEN = 2.0
_GROWN = 4
_JUDGED_PER_LIST = 4


class IvfIndex:
    """The engine of `IndexType.IVF_FLAT` and `IndexType.IVF_PQ` (see `TailIndex`).

    Of the numbers, 0 stands for one that is chosen here.

    Args:
        metric: as of the index.
        dim: as of the index.
        source: the raw rows.
        compressed: lists hold codes of vectors instead of vectors.
        nlist: lists.
        nprobe: lists that a search visits which does not say.
        pqm: segments of a code.
        rerank_factor: candidates by code for each result wanted.
        expected: vectors that the index will hold after it was filled for the first time.

    Raises:
        ValueError: `pqm` does not divide `dim`.
    """

    honours = frozenset({"nprobe", "max_scans"})

    def __init__(  # noqa: PLR0913 - as many numbers shape it
        self,
        metric: Metric,
        dim: int,
        source: VectorSource,
        *,
        compressed: bool,
        nlist: int,
        nprobe: int,
        pqm: int,
        rerank_factor: float,
        expected: int,
    ) -> None:
        check_pqm(dim, pqm)
        self.metric = metric
        self.dim = dim
        self.nprobe = nprobe
        self._compressed = compressed
        self._nlist = nlist
        self._pqm = pqm
        self._rerank_factor, self._fewest = 1.0, 1
        if compressed:
            self._rerank_factor, self._fewest = max(rerank_factor or _RERANK_FACTOR, 1.0), _FEW
        self._expected = expected
        self._source = source
        self._table = SlotTable()
        self._scan = ExactScan(metric, dim, source, self._table)
        self._reranker = Reranker(metric, source, self._table, self._scan)
        self._lists: InvertedLists | None = None
        # How uneven the lists were when they held what was expected; 0 until then. (Lists of the
        # sample are no measure: what k-means has not seen may flock to a few of the centroids.)
        self._unevenness = 0.0
        # Of the live slots, until one comes or goes.
        self._selector: Any = None
        self._counters = QueryCounters()

    def __len__(self) -> int:
        return len(self._table)

    @property
    def live(self) -> Mask:
        return self._table.live

    @property
    def deleted_count(self) -> int:
        return 0 if self._lists is None else max(0, self._lists.entries - len(self._table))

    @property
    def memory_bytes(self) -> int:
        return self._table.nbytes + (0 if self._lists is None else self._lists.nbytes)

    def statistics(self) -> EngineStatistics:
        return self._counters.read()

    # -- training ---------------------------------------------------------------------------------

    @property
    def training_size(self) -> int:
        return training_size(self._nlist, self._expected)

    def train(self, sample: Float32Matrix) -> None:
        self._expected = max(self._expected, len(sample))
        nlist = self._nlist or min(choose_nlist(self._expected), most_lists(len(sample)))
        rows = self._own_form(sample, None)
        pqm = self._pqm if self._compressed else None
        self._lists = InvertedLists.trained(self.metric, sample, rows, nlist, pqm)
        self._unevenness = 0.0

    def centroids(self) -> Float32Matrix | None:
        """A copy of the centroids of the lists, shape (nlist, dim); None before the training.

        They lie among the vectors, for COSINE among vectors of norm 1. May run beside anything but
        `train` and `load`.
        """
        return None if self._lists is None else self._lists.centroids()

    @property
    def parameters(self) -> dict[str, int]:
        """What clients may know; 0: not chosen yet, or no codes."""
        if (lists := self._lists) is None:
            return {"nlist": 0, "nprobe": self.nprobe, "pqm": 0}
        return {"nlist": lists.nlist, "nprobe": self._probes_of(lists, None), "pqm": lists.pqm}

    @property
    def worn(self) -> bool:
        if (lists := self._lists) is None:
            return False
        count = lists.entries
        if count > _GROWN * self._expected and (self._nlist or choose_nlist(count)) > lists.nlist:
            return True
        judged = self._unevenness > 0 and count >= _JUDGED_PER_LIST * lists.nlist
        return judged and lists.unevenness() > _UNEVEN * max(self._unevenness, 1.0)

    # -- searching --------------------------------------------------------------------------------

    def search_exact(
        self, queries: Float32Matrix, k: int, allowed: Mask | None = None
    ) -> Neighbours:
        self._counters.add(scan=len(queries))
        return self._scan.search(queries, k, allowed)

    def search(
        self, queries: Float32Matrix, k: int, options: SearchOptions, allowed: Mask | None = None
    ) -> Neighbours:
        lists, table, most = self._lists, self._table, options.max_scans
        part = None if allowed is None else table.taking_part(allowed)
        matches = len(table) if part is None else int(np.count_nonzero(part))
        width = min(k, matches)
        if lists is None or width == 0 or len(queries) == 0:
            return Neighbours.nothing(len(queries), width)
        if most is not None and most <= lists.nlist:
            self._counters.add(scan=len(queries))
            return self._scan.search(queries, width, allowed, limit=most)
        nprobe = self._probes_of(lists, options.nprobe)
        aim = Aim(
            width=width,
            matches=matches,
            candidates=min(ceil(self._rerank_factor * max(width, self._fewest)), lists.entries),
            selector=self._selector_for(lists, part),
            total=len(table.live),
            max_scans=most,
        )
        search = ListSearch(lists, self._reranker, queries, self._plain(queries), aim)
        probes = first_probes(nprobe, width, matches, lists.entries, lists.nlist)
        if (most is None or most >= matches) and not search.pays(len(queries), probes):
            return self.search_exact(queries, width, allowed)
        scans = list(search.scans(search.run(probes)))
        scanned_count = sum(len(rows) for rows, _ in scans)
        self._counters.add(
            graph=len(queries) - scanned_count,
            scan=scanned_count,
            widened=search.widened,
            fallback=scanned_count,
        )
        found = search.found
        for rows, limit in scans:
            scanned = self._scan.search(queries[rows], width, allowed, limit=limit)
            found.slots[rows], found.scores[rows] = scanned.slots, scanned.scores
        return found

    def _probes_of(self, lists: InvertedLists, asked: int | None) -> int:
        return min(asked or self.nprobe or choose_nprobe(lists.nlist), lists.nlist)

    def _selector_for(self, lists: InvertedLists, part: Mask | None) -> Any:
        """None where whatever is in the lists takes part."""
        if part is not None:
            return selector_of(part)
        if lists.entries == len(self._table):
            return None
        if (selector := self._selector) is None:
            selector = self._selector = selector_of(self._table.live)
        return selector

    def _plain(self, queries: Float32Matrix) -> Float32Matrix:
        """Queries to compare with centroids and codes, where only their direction counts."""
        if self.metric is Metric.L2:
            return queries
        squares = np.einsum("ij,ij->i", queries, queries)
        ordinary = ((squares > _ORDINARY[0]) & (squares < _ORDINARY[1])).all()
        return queries if ordinary else unit_rows(queries)

    # -- writing ----------------------------------------------------------------------------------

    def prepare_upsert(self, slots: Slots, vectors: Float32Matrix) -> PreparedUpsert:
        if (lists := self._lists) is None:
            raise RuntimeError("inverted lists must be trained before anything is added")
        if not len(slots):
            return PreparedUpsert(slots, vectors)
        norms = row_norms(vectors)
        lists.make_room(int(slots.max()) + 1)
        lists.forget(slots[lists.lists[slots] != NONE])
        self._table.put(slots, norms)
        self._selector = None
        return PreparedUpsert(slots, self._own_form(vectors, norms))

    def _own_form(self, vectors: Float32Matrix, norms: NDArray[np.float64] | None) -> Float32Matrix:
        return unit_rows(vectors, norms) if self.metric is Metric.COSINE else vectors

    def insert(self, part: PreparedUpsert) -> None:
        if len(part) and (lists := self._lists) is not None:
            lists.add(part.slots, part.vectors)
            if not self._unevenness and lists.entries >= self._expected:
                self._unevenness = lists.unevenness()
                # Filled for the first time, nobody searches it yet.
                lists.shrink()

    def upsert(self, slots: Slots, vectors: Float32Matrix) -> None:
        self.insert(self.prepare_upsert(slots, vectors))

    def delete(self, slots: Slots) -> None:
        if len(self._table.remove(slots)):
            self._selector = None
            if not len(self._table) and self._lists is not None:
                self._lists.clear()

    # -- files ------------------------------------------------------------------------------------

    @property
    def _definition(self) -> Definition:
        return {
            "structure": "codes in lists" if self._compressed else "vectors in lists",
            "metric": self.metric.value,
            "dim": self.dim,
            "nlist": self._nlist,
            "pqm": self._pqm,
        }

    def save(self, path: str) -> None:
        if (lists := self._lists) is None:
            write_file(path, None, self._definition, {})
            return
        arrays = {
            "lists": lists.lists,
            "sizes": lists.sizes,
            "norms": self._table.norms,
            "live": self._table.live,
            "unevenness": np.array([self._unevenness]),
            "expected": np.array([self._expected]),
        }
        write_file(path, lists.index, self._definition, arrays)

    def save_forked(self, path: str, forked: Callable[[], None]) -> None:
        write_forked(self.save, path, None, forked)

    def load(self, path: str, live: Slots, unchanged: Slots) -> Slots:
        index, arrays = read_file(path, self._definition)
        if index is None:
            return np.sort(live)
        try:
            lists = InvertedLists(self.metric, self.dim, index, compressed=self._compressed)
            lists.adopt(arrays["lists"], arrays["sizes"])
            norms, was_live = arrays["norms"], arrays["live"]
            self._unevenness = float(arrays["unevenness"][0])
            self._expected = int(arrays["expected"][0])
        except (KeyError, IndexError, ValueError) as error:
            raise DamagedIndexError(f"'{path}' does not hold inverted lists: {error}") from error
        known = unchanged[unchanged < min(len(lists.lists), len(norms))]
        # A slot may have been deleted, and used again for what had not come here yet.
        held = known[(lists.lists[known] != NONE) & was_live[known]]
        self._lists = lists
        self._table.put(held, norms[held].astype(np.float64))
        if not len(held):
            lists.clear()
        return np.setdiff1d(live, held)
