"""FAISS' inverted lists, and what FAISS does not tell about them.

Two kinds. Of vectors: `IndexIVFFlat`. Of codes: `IndexIVFPQFastScan`, whose product quantiser has
sixteen values a segment, so that a vector register holds the distances of a segment to all of them
(André, Kermarrec and Le Scouarnec, Cache locality is not enough, PVLDB 9(4), 2015); codes lie in
blocks of 32 vectors. For COSINE and IP they are of what remains when the centroid is taken away,
which on generated clusters (`benchmarks.harness.clusters`, 128 dimensions, 64 segments) raises
recall from 0.884 to 0.932 and costs nothing; for L2 they are of the vectors themselves, as there
would be a table of distances for each query and list (513 us a query instead of 101).

What was compared, on 100,000 sentence embeddings (384 dimensions, COSINE, 1024 lists, 64 visited),
in queries/s of two threads, the best 40 re-ranked: this 16,500 at recall 0.970; 8-bit codes of 48
segments 10,900 at 0.933; 8-bit scalars 5,200 at 0.970; RaBitQ with fast scan 9,400 at 0.960;
the vectors themselves 3,000 at 0.970.

Lists are chosen here rather than by FAISS: one matrix product and a partition take 20 us a query in
batches of 16, and 48 us for one, where `IndexFlat.search` takes 28 and 200; and how many vectors
will be compared is known beforehand.
"""

from __future__ import annotations

import threading
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from pyrope.engine.free_memory import MAPPED_BYTES
from pyrope.engine.ivf_training import default_pqm, train_centroids, train_codes
from pyrope.engine.slot_table import grown
from pyrope.types import Float32Matrix, Metric, Slots

_faiss: Any = faiss

# FAISS compares vectors with centroids one by one below this many components (it counts those of
# the vectors), and by a matrix product from there on. Its own 128,000 makes a vector in a batch of
# 256 take 23 us instead of 4.5 (384 dimensions, 1024 centroids). There is one such variable for the
# whole process, and nothing else here that it bears on.
_faiss.cvar.distance_compute_blas_threshold = 4096

NONE = -1
"""No list, and no slot."""

# A list's vectors of ids and codes: 24 or 32 bytes each, and malloc's 16 for what they point to.
_LIST_BYTES = 88
# FAISS' AlignedTable: powers of two, from here.
_SMALLEST_TABLE = 256
_BLOCK = 32


class InvertedLists:
    """Lists around trained centroids. Labels are slots; a slot is in one list at most.

    `add` may run at the same time as itself, `affinities` and `scan` at the same time as one
    another; what else there is, alone.

    Args:
        metric: as of the index.
        dim: as of the index.
        index: FAISS' index, trained, as it comes from `trained` or from a file.
        compressed: the lists hold codes.

    Raises:
        ValueError: it is another kind of index.

    Attributes:
        nlist: how many.
        compressed: they hold codes.
        index: FAISS' part.
        entries: places taken in all lists.
        sizes: int64, shape (nlist,): vectors in each list, with those of which `forget` has left
            the place.
        lists: int32, by slot: the list that it is in, or `NONE`.
    """

    def __init__(self, metric: Metric, dim: int, index: Any, *, compressed: bool) -> None:
        expected = _faiss.IndexIVFPQFastScan if compressed else _faiss.IndexIVFFlat
        native = _native_metric(metric)
        if not isinstance(index, expected) or (index.d, index.metric_type) != (dim, native):
            raise ValueError(f"not the lists that were expected: {type(index).__name__}")
        self.metric = metric
        self.nlist: int = index.nlist
        self.index = index
        self.lists = np.full(0, NONE, dtype=np.int32)
        self.sizes = np.zeros(self.nlist, dtype=np.int64)
        self.entries = 0
        self._room = np.zeros(self.nlist, dtype=np.int64)
        self.compressed = compressed
        self._code_size: int = index.code_size
        self._lock = threading.Lock()
        self._dim = dim
        self._quantizer = _faiss.downcast_index(index.quantizer)
        has_bias = metric is Metric.L2
        centroids = self.centroids()
        self._transform = _faiss.LinearTransform(dim, self.nlist, has_bias)
        faiss.copy_array_to_vector(centroids.ravel(), self._transform.A)
        if has_bias:
            # The nearest centroid has the largest xc - |c|^2 / 2.
            norms = np.einsum("ij,ij->i", centroids, centroids)
            faiss.copy_array_to_vector(-0.5 * norms, self._transform.b)
        self._transform.is_trained = True

    @classmethod
    def trained(
        cls, metric: Metric, sample: Float32Matrix, rows: Float32Matrix, nlist: int, pqm: int | None
    ) -> InvertedLists:
        """Empty lists.

        Args:
            metric: as of the index.
            sample: raw vectors, shape (n, dim), n at least 1.
            rows: the sample in the form in which vectors will be added.
            nlist: as of `train_centroids`.
            pqm: segments of a code, 0 for `default_pqm`; None: keep the vectors themselves.
        """
        dim = sample.shape[1]
        native = _native_metric(metric)
        quantizer = train_centroids(metric, sample, nlist)
        count = quantizer.ntotal
        if pqm is None:
            index = _faiss.IndexIVFFlat(quantizer, dim, count, native)
        else:
            bits = 4
            index = _faiss.IndexIVFPQFastScan(
                quantizer, dim, count, pqm or default_pqm(dim), bits, native
            )
            index.by_residual = metric is not Metric.L2
            train_codes(index, rows)
        return cls(metric, dim, index, compressed=pqm is not None)

    def centroids(self) -> Float32Matrix:
        """A copy of the points that vectors are compared with, shape (nlist, dim)."""
        points: Float32Matrix = self._quantizer.reconstruct_n(0, self.nlist)
        return points

    @property
    def pqm(self) -> int:
        """Segments of a code; 0 without codes."""
        return int(self.index.pq.M) if self.compressed else 0

    @property
    def nbytes(self) -> int:
        """Memory held, with the room that FAISS' structures have made for more.

        Of room that was never filled, only pages that something has touched are memory. In blocks
        that malloc maps for themselves, none are. Tables of codes are small and come from where
        smaller ones were freed: all are (16.0 of 16.6 MB, with 300 lists of 330 codes). Of vectors'
        room it was all in lists of 25 KB, and all or half in those of 150 KB, depending on what had
        been freed before: three quarters keep within 12 % of either.
        """
        room = self._room
        if self.compressed:
            filled = -(-self.sizes // _BLOCK) * (_BLOCK * self._code_size)
            taken = np.where(filled > 0, _table_room(filled), 0)
            touched = taken
        else:
            filled, taken = self.sizes * self._code_size, room * self._code_size
            touched = (filled + 3 * taken) // 4
        codes = np.where(taken < MAPPED_BYTES, touched, filled)
        centroids = 2 * self.nlist * self._dim * 4
        lists = self.nlist * (_LIST_BYTES + self.sizes.itemsize + room.itemsize)
        return int(codes.sum() + room.sum() * 8) + centroids + lists + self.lists.nbytes

    def unevenness(self) -> float:
        """How many times longer the list of a random vector is than if all were equally long.

        FAISS calls ``nlist sum(size^2) / n^2`` the imbalance factor. Pairs are counted instead,
        ``nlist sum(size (size - 1)) / (n (n - 1))``: that expects the same for a few vectors as
        for many.
        """
        sizes = self.sizes
        count = int(sizes.sum())
        pairs = int((sizes * (sizes - 1)).sum())
        return self.nlist * pairs / max(count * (count - 1), 1)

    def assign(self, rows: Float32Matrix) -> NDArray[np.int64]:
        """The lists to which vectors belong, shape (n,)."""
        assigned: NDArray[np.int64] = self._quantizer.search(rows, 1)[1][:, 0]
        return assigned

    # -- searching --------------------------------------------------------------------------------

    def affinities(self, queries: Float32Matrix) -> NDArray[np.float32]:
        """How near lists are to queries, higher is nearer; shape (n, nlist).

        Args:
            queries: in the form of the vectors, shape (n, dim), C-contiguous.
        """
        out = np.empty((len(queries), self.nlist), dtype=np.float32)
        self._transform.apply_noalloc(len(queries), *map(_faiss.swig_ptr, (queries, out)))
        return out

    def scan(
        self,
        queries: Float32Matrix,
        probes: NDArray[np.int64],
        nearness: NDArray[np.float32],
        k: int,
        selector: Any,
    ) -> Slots:
        """The k best of the vectors in some lists, by code if there are codes.

        Args:
            queries: in the form of the vectors, shape (n, dim), C-contiguous.
            probes: the lists for each query, shape (n, p), none twice; `NONE` is passed over.
            nearness: the affinities of these lists, shape (n, p); finite also where there is none.
            k: at least 1.
            selector: of `pyrope.engine.selectors`; None: all count.

        Returns:
            Shape (n, k), nearest first, `NONE` where there are fewer.
        """
        count, width = probes.shape
        slots = np.empty((count, k), dtype=np.int64)
        distances = np.empty((count, k), dtype=np.float32)
        stores_pairs = False
        parameters = _faiss.SearchParametersIVF(nprobe=width, sel=selector)
        self.index.search_preassigned_c(
            count,
            _faiss.swig_ptr(queries),
            k,
            *map(_faiss.swig_ptr, (probes, nearness, distances, slots)),
            stores_pairs,
            parameters,
        )
        return slots

    # -- writing ----------------------------------------------------------------------------------

    def make_room(self, slots: int) -> None:
        """Have room in `lists` for slots below this number."""
        if (size := grown(len(self.lists), slots)) > len(self.lists):
            more = np.full(size - len(self.lists), NONE, dtype=np.int32)
            self.lists = np.concatenate([self.lists, more])

    def add(self, slots: Slots, rows: Float32Matrix) -> None:
        """Put vectors into their lists.

        Args:
            slots: distinct, in no list; `make_room` has been called for them.
            rows: in the form of the sample's.
        """
        assigned = self.assign(rows)
        with self._lock:
            if self.compressed:
                # Assigns once more, which is a quarter of the time that this takes, with the same
                # result: it is the same computation on the same batch.
                self.index.add_with_ids(rows, slots)
            else:
                self.index.add_core(
                    len(slots), *map(_faiss.swig_ptr, (rows, slots, assigned)), None
                )
            self.lists[slots] = assigned
            self._enlarge(np.bincount(assigned, minlength=self.nlist))

    def forget(self, slots: Slots) -> None:
        """Take slots from their lists, so that they can come again; their places stay.

        A place is found by looking through its list. It gets a label that no selector lets
        through, so that from then on `scan` must be called with one.

        Args:
            slots: distinct, each in a list.
        """
        of = self.lists[slots]
        for number in np.unique(of).tolist():
            labels = self.labels(number)
            labels[np.isin(labels, slots[of == number])] = NONE
        self.lists[slots] = NONE

    def labels(self, number: int) -> Slots:
        """The slots in a list, which may be written to; `NONE` where one was forgotten."""
        native = self.index.invlists
        size = native.list_size(number)
        if not size:
            return np.empty(0, dtype=np.int64)
        labels: Slots = faiss.rev_swig_ptr(native.get_ids(number), size)
        return labels

    def shrink(self) -> None:
        """Give back the room that lists of vectors have for more, about a third of what they take.

        Takes the memory of all that is in them once more meanwhile: FAISS can make a vector's room
        fit only when it makes the vector. Tables of codes have the size that they have.
        """
        with self._lock:
            if self.compressed or (self._room == self.sizes).all():
                return
            old = self.index.invlists
            lists = _faiss.ArrayInvertedLists(self.nlist, self._code_size)
            for number, size in enumerate(self.sizes.tolist()):
                if size:
                    lists.add_entries(number, size, old.get_ids(number), old.get_codes(number))
            owned_by_the_index = True
            self.index.replace_invlists(lists, owned_by_the_index)
            lists.this.disown()
            self._room = self.sizes.copy()

    def clear(self) -> None:
        """Empty all lists; what was learnt stays."""
        self.index.reset()
        self.sizes = np.zeros(self.nlist, dtype=np.int64)
        self.entries = 0
        self.lists = np.full(0, NONE, dtype=np.int32)

    def adopt(self, lists: NDArray[np.int32], sizes: NDArray[np.int64]) -> None:
        """Take over what was saved beside a FAISS index that has been read from a file.

        Raises:
            ValueError: it does not belong to that index.
        """
        if sizes.shape != (self.nlist,) or int(sizes.sum()) != self.index.ntotal:
            raise ValueError("the sizes of the lists are others")
        if lists.ndim != 1 or not NONE <= lists.min(initial=0) <= lists.max(initial=0) < self.nlist:
            raise ValueError("there are slots in lists that do not exist")
        self.lists, self.sizes, self.entries = lists, sizes, self.index.ntotal
        self._room = sizes.copy()

    def _enlarge(self, added: NDArray[np.intp]) -> None:
        """Keep count of the sizes, and of the room that std::vector makes: it doubles."""
        sizes = self.sizes + added
        if self.compressed:
            # Grown by all that is added at once; else by one vector at a time.
            jump = self.sizes + np.maximum(self.sizes, added)
            self._room = np.where(sizes > self._room, jump, self._room)
        else:
            while (short := sizes > self._room).any():
                self._room = np.where(short, np.maximum(2 * self._room, 1), self._room)
        self.sizes = sizes
        self.entries = int(sizes.sum())


def _native_metric(metric: Metric) -> int:
    native: int = _faiss.METRIC_L2 if metric is Metric.L2 else _faiss.METRIC_INNER_PRODUCT
    return native


def _table_room(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """The powers of two that FAISS' AlignedTable reserves for so many bytes."""
    room: NDArray[np.int64] = 2 ** np.ceil(np.log2(np.maximum(sizes, _SMALLEST_TABLE))).astype(
        np.int64
    )
    return room
