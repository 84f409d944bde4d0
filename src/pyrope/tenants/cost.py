"""What a request costs, from what it will touch: never from how long it took.

**The unit** is one microsecond of one core of the machine on which `Coefficients` was measured (a
virtual x86 core with AVX-512): 30 days of such a core are 2.6e12 units. What a bill
says depends on the request, the index's size and settings, and nothing else, so that it can be
tested, foreseen, and is the same for the same request whatever else the server does.

**A search** costs ``REQUEST`` (reading, replying) and its work. With n vectors in the tail, of
dimension d, k results, for q queries in one request, and the names of `Coefficients`::

    work   = call + sifted (if filtered or bounded) + filter + head + one of scan, graph, lists
    filter = slot live + attribute values
    head   = head + h (head_row + d head_component + (q - 1) head_pair)
    scan   = scan + q (query + k (result + d result_component))
             + r (row + d stream + d gather (if scattered)) ceil(q / 64)
             + r q (pair + d product) (if q > 1)
    graph  = code_search (if codes) + n sieved (if filtered) + q (D distance + b candidate
             + b wide (if filtered) + ranked k rerank_factor (if codes))
             distance = hop + d far log2(1 + bytes of the graph's vectors / 2 MiB)
    lists  = lists + p list_bounded (if bounded) + q (nlist (centroid + d centroid_component)
             + v entry + ranked k rerank_factor + 16 d table (if codes))
             entry = entry + d entry_component, or entry + pqm segment
             ranked = ranked + d ranked_component

*Filter*: a bit for each live vector, and each attribute value that is looked at.

*Scan* of r rows (FLAT, TRUTH, and wherever the engine prefers one): ``r d`` components read once
for every 64 queries, ``r d q`` multiplied, k results for each query scored again in float64. Rows
that lie scattered are gathered first.

*Graph* (HNSW, HNSW_SQ8): D distances (`search_costs.distances`) of d components, and b candidates
kept in heaps, for a beam of b, which is ef, k, or what a filter widens it to. Malkov and
Yashunin (IEEE TPAMI 42, 2020; arXiv 1603.09320, 2018), section 4.2.1: on the upper levels O(log n)
steps of a bounded number of neighbours each, below a number that depends on ef more than on n.
Each distance reads a vector from anywhere: the further from the core, the larger the graph, which
is taken to go by the logarithm of its size (measured; no paper). HNSW_SQ8 reads one byte a
component instead of four, and scores ``rerank_factor k`` again in float32.

*Lists* (IVF_FLAT, IVF_PQ): the query is compared with nlist centroids and with ``v = n p / nlist``
entries of p lists (Jégou, Douze and Schmid, IEEE TPAMI 33, 2011, section 4). An entry of IVF_FLAT
has d components; one of IVF_PQ takes a look into a register for each of its pqm segments (Quick
ADC: André, Kermarrec and Le Scouarnec, ICMR 2017), for which tables of 16 d elements are filled
first, and ``rerank_factor k`` are scored again.

*Head*: vectors not yet merged into the tail are scanned, whatever the type.

*Effort*: `max_scans` bounds scans, beams and lists as in the engines. A filter that lets through a
share s widens beams by 1 / s and lists by the cube root of that. Where the engine would rather
scan, by its own rules, the price is that of a scan. What nobody can know before is not charged: a
beam that finds too few that match and is widened, tombstones, lists of uneven length. And a query
costs the same whether or not the server answers it in one batch with others, which mostly takes it
less than this.

**An answer from a cache** costs ``REQUEST``, and what it takes to score its candidates again where
it is another query's. **A write** costs ``WRITE``, and for each vector ``STORED`` and its insertion
into the tail, now or later: for a graph, a beam of ef_construction, times a factor that was
measured and has the choice of links in it (Malkov and Yashunin, algorithms 1 and 4); for lists, the
distances to all centroids.

How well this ranks what searches take is measured by ``python -m benchmarks.cost_model``, which
also fits `Coefficients`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from pyrope.tenants.coefficients import MEASURED, Coefficients
from pyrope.tenants.search_costs import GraphCosts, ListCosts, ScanCosts
from pyrope.types import IndexType

REQUEST = 50.0
"""Units of a request beside its work: the event loop's share (docs/performance.md: 49 us)."""

WRITE = 100.0
"""Units of a write request beside its vectors: journal and reply. A guess."""

STORED = 30.0
"""Units to store a vector and its attributes, durably. A guess."""

RECALL = 200.0
"""Units to look a prompt up by its vector among remembered ones, beside `REQUEST`: what search,
guards and calibration take, however many there are (benchmarks/micro_remembered.py)."""

CHANGED = 10.0
"""Units to delete a vector, or to change its attributes. A guess."""


class Search(NamedTuple):
    """What decides the cost of a search.

    Attributes:
        live: vectors in the index, at least 0.
        k: results wanted of each query, at least 1.
        head: of the live vectors, those not in the tail yet.
        ef, nprobe: effort in force; None: the index's own.
        max_scans: bound on distances of each query, at least 1; None: there is none.
        matching: live vectors that a filter lets through, or about how many; None: no filter.
        exact: scan everything.
        queries: in the request, at least 1.
        attributes: values that the filter is evaluated on; 0 where its mask was at hand.
    """

    live: int
    k: int
    head: int = 0
    ef: int | None = None
    nprobe: int | None = None
    max_scans: int | None = None
    matching: int | None = None
    exact: bool = False
    queries: int = 1
    attributes: int = 0


@dataclass(frozen=True, slots=True)
class Prices:
    """What a provider of models charges, in units; all finite and at least 0.

    A unit is a microsecond of a core: where an hour of one costs 0.04 dollars, a dollar is 9e10
    units.

    Attributes:
        tokens_in, tokens_out: of 1,000 tokens that a language model reads, and writes.
        embedded: of 1,000 tokens that are embedded.

    Raises:
        ValueError: a price is negative or not finite.
    """

    tokens_in: float
    tokens_out: float
    embedded: float

    def __post_init__(self) -> None:
        for name, price in (
            ("tokens_in", self.tokens_in),
            ("tokens_out", self.tokens_out),
            ("embedded", self.embedded),
        ):
            if not 0.0 <= price < inf:
                raise ValueError(f"the price {name} cannot be {price}")

    def of_tokens(self, tokens_in: int, tokens_out: int) -> float:
        """Units of a call of a language model, by the provider's own count of tokens."""
        return (tokens_in * self.tokens_in + tokens_out * self.tokens_out) / 1000

    def of_embedding(self, tokens: int) -> float:
        """Units to embed text of so many tokens."""
        return tokens * self.embedded / 1000


class CostModel:
    """Prices of requests to one index, as its engine is now; for the event loop.

    To price a search takes 1 to 2 us, `Search` included. Another model is made when the type in
    force changes, or what training has chosen: that takes 3 us.

    Args:
        kind: the type in force, not AUTO; FLAT while there is no tail.
        dim: as of the index, at least 1.
        m, ef_construction, ef: of a graph, as of the index.
        nlist, nprobe, pqm: of lists, as training has chosen them (`TailIndex.parameters`); at
            least 1, but for `pqm` without codes.
        rerank_factor: candidates scored again for each result, of HNSW_SQ8 and IVF_PQ; at least 1.
        coefficients: what each thing costs.

    Raises:
        ValueError: an argument that `kind` needs is not as it says here.
    """

    __slots__ = (
        "_c",
        "_dim",
        "_ef",
        "_graph",
        "_head_row",
        "_lists",
        "_nprobe",
        "_scans",
    )

    def __init__(  # noqa: PLR0913 - as many numbers shape an index
        self,
        kind: IndexType,
        dim: int,
        *,
        m: int = 16,
        ef_construction: int = 200,
        ef: int = 64,
        nlist: int = 0,
        nprobe: int = 0,
        pqm: int = 0,
        rerank_factor: float = 1.0,
        coefficients: Coefficients = MEASURED,
    ) -> None:
        if kind is IndexType.AUTO:
            raise ValueError("AUTO is no type in force")
        for name, number, least in (
            ("dim", dim, 1),
            ("m", m, 2),
            ("ef_construction", ef_construction, 1),
            ("ef", ef, 1),
            ("nlist", nlist, kind.has_lists),
            ("nprobe", nprobe, kind.has_lists),
            ("pqm", pqm, kind is IndexType.IVF_PQ),
            ("rerank_factor", rerank_factor, 1),
        ):
            if not least <= number < inf:
                raise ValueError(f"no {kind} index has a {name} of {number}")
        c = self._c = coefficients
        self._dim, self._ef, self._nprobe = dim, ef, nprobe
        self._scans = scans = ScanCosts(dim, c)
        self._head_row = c.head_row + dim * c.head_component
        self._graph: GraphCosts | None = None
        self._lists: ListCosts | None = None
        if kind.has_lists:
            self._lists = ListCosts(
                dim,
                nlist,
                pqm if kind is IndexType.IVF_PQ else 0,
                rerank_factor=rerank_factor if kind is IndexType.IVF_PQ else 1.0,
                coefficients=c,
                scans=scans,
            )
        elif kind is not IndexType.FLAT:
            codes = kind is IndexType.HNSW_SQ8
            self._graph = GraphCosts(
                dim,
                m,
                ef_construction,
                compressed=codes,
                rerank_factor=rerank_factor if codes else 1.0,
                coefficients=c,
                scans=scans,
            )

    def search(self, asked: Search) -> float:
        """Units of a search that no cache answers."""
        return REQUEST + self.work(asked)

    def work(self, asked: Search) -> float:
        """Units of a search without those of the request: what is saved if a cache answers it."""
        live, k, head, ef, nprobe, max_scans, matching, exact, queries, attributes = asked
        c = self._c
        units = c.call
        if matching is None:
            matching = live
        else:
            units += live * c.slot + attributes * c.attribute
        graph, lists, tail = self._graph, self._lists, live - head
        if exact or tail <= 0 or (graph is None and lists is None):
            rows = matching
            if max_scans is not None and not exact:
                rows = min(rows, max_scans)
            scattered = 2 * matching <= live
            return units + self._scans.units(rows, k, queries, scattered=scattered)
        if matching < live or max_scans is not None:
            units += c.sifted
        if head > 0:
            rows = head
            if max_scans is not None:
                rows = min(head, max_scans // 2)
                max_scans -= rows
            units += c.head + rows * (self._head_row + (queries - 1) * c.head_pair)
            matching = matching * tail // live
        if not matching:
            return units
        if graph is not None:
            return units + graph.units(tail, matching, k, ef or self._ef, max_scans, queries)
        if lists is not None:
            effort = nprobe or self._nprobe
            return units + lists.units(tail, matching, k, effort, max_scans, queries)
        return units

    def cached(self, rescored: int = 0) -> float:
        """Units of an answer from a cache, at whatever level.

        Args:
            rescored: candidates that are scored again for another query, or after writes; 0 where
                the answer is given as it was kept.
        """
        if not rescored:
            return REQUEST
        return REQUEST + self.rescoring(rescored)

    def rescoring(self, candidates: int) -> float:
        """Units to score the candidates of a near hit again."""
        c = self._c
        return c.rescoring + candidates * self._dim * c.rescored_component

    def add(self, live: int, vectors: int = 1) -> float:
        """Units to add or replace vectors in one request, with their later way into the tail.

        Args:
            live: vectors in the index before.
            vectors: how many come, at least 1.
        """
        return WRITE + vectors * (STORED + self.insertion(live))

    def delete(self, vectors: int = 1) -> float:
        """Units to delete vectors, or change their attributes, in one request."""
        return WRITE + vectors * CHANGED

    def insertion(self, live: int) -> float:
        """Units to insert one vector into the tail; 0 without one."""
        if self._graph is not None:
            return self._graph.insertion(max(live, 1))
        if self._lists is not None:
            return self._lists.insertion
        return 0.0
