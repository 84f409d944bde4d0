"""What scans, beams and lists cost, and which of them a search will be.

`pyrope.tenants.cost` explains the formulas and the unit. Each class has worked out what depends on
the index alone, so that a search takes a microsecond to price. The engines decide by numbers which
way is cheaper or finds more; the same rules stand here, as this room does not import the engines
(tests/tenants/test_cost.py holds the two against one another).
"""

from __future__ import annotations

from math import cbrt, ceil, expm1, log2, sqrt

from pyrope.tenants.coefficients import Coefficients

# Queries that a scan compares with a row at a time.
_CHUNK = 64
# Of a second-level cache: vectors of graphs that are larger come from further away.
_CACHE_BYTES = 2.0**21
# Candidates by code, where fewer results are wanted than that, as `pyrope.engine.ivf` has it.
_FEWEST_BY_CODE = 4
# Values that a segment of a code can have.
_CODES_OF_A_SEGMENT = 16

# What `pyrope.engine.beam` and `pyrope.engine.probing` go by, in rows.
_SCAN_FIXED, _SCAN_GATHERING, _SCAN_SEVERAL, _SCAN_EACH = 400.0, 1.2, 1.6, 0.05
_BEAM_CANDIDATE = 14.0
_MOST, _MOST_LINKS, _MOST_DESCENT, _MOST_GROWTH = 17.0, 0.85, 1.5, 0.75
_LISTS_CALL, _LISTS_QUERY, _LISTS_CENTROID, _LISTS_LIST = 450.0, 100.0, 0.2, 3.0
_LISTS_CODE, _LISTS_VECTOR, _LISTS_SIFTED, _LISTS_RERANKED = 0.02, 0.6, 0.01, 2.2

# See `distances`.
_LINKS_OF, _LINKS = 16, 0.45
_FREE, _DESCENT, _GROWTH, _LEVELS = 33.0, 1.5, 0.75, 5.5


def distances(beam: float, m: int, nodes: int) -> float:
    """Distances that a search in a graph computes, on average.

    A beam of b candidates meets ``f = 33 (m / 16)^0.45 (b + 1.5)^0.75`` nodes where there are many;
    of n nodes, each of which counts once, ``n (1 - exp(-f / n))``, as f random draws would. The
    upper levels add ``5.5 (m / 16)^0.45 log2(n / m)``. The numbers were fitted to what FAISS counts
    (`hnsw_stats.ndis`) on generated clusters with 32 to 384 dimensions, 1,000 to 60,000 vectors, M
    8 to 32 and beams of 1 to 512: it counted 0.7 to 1.2 times that. (What a search takes at the
    most is a few times as much: `pyrope.engine.beam.beam_distances`.)

    Args:
        beam: candidates kept.
        m: links of a node on the upper levels, at least 2; twice that on level 0.
        nodes: of the graph, at least 1.
    """
    links: float = (m / _LINKS_OF) ** _LINKS
    free = links * _FREE * (beam + _DESCENT) ** _GROWTH
    return -nodes * expm1(-free / nodes) + _LEVELS * links * log2(max(nodes / m, 1.0))


def scan_rows(rows: int, total: int, queries: int) -> float:
    """What the engines take a scan of `rows` rows among `total` to cost, in rows."""
    gathering = 0.0 if 2 * rows > total else _SCAN_GATHERING
    scoring = 1.0 if queries == 1 else _SCAN_SEVERAL + _SCAN_EACH * queries
    return _SCAN_FIXED + rows * (gathering + scoring)


def beam_rows(beam: float, queries: int) -> float:
    """What the engines take beams to cost, in rows."""
    return queries * beam * _BEAM_CANDIDATE


def lists_rows(
    queries: int,
    probes: int,
    nlist: int,
    entries: int,
    matching: int,
    reranked: int,
    *,
    compressed: bool,
) -> float:
    """What the engines take visits to `probes` lists for each query to cost, in rows."""
    visited = entries * probes / nlist
    compared = _LISTS_CODE * visited if compressed else _LISTS_VECTOR * visited * matching / entries
    fixed = _LISTS_QUERY + _LISTS_CENTROID * nlist + _LISTS_LIST * probes
    sifted = _LISTS_SIFTED * visited + _LISTS_RERANKED * reranked
    return _LISTS_CALL + queries * (fixed + sifted + compared)


def most_per_growth(m: int) -> float:
    """The first factor of the most distances that a beam takes, for `widest_beam`."""
    most: float = _MOST * m**_MOST_LINKS
    return most


def widest_beam(max_scans: int, most: float, nodes: int) -> int:
    """The widest beam that the engines hold to keep within a bound on distances; 0: there is none.

    Args:
        max_scans: the bound.
        most: of `most_per_growth`.
        nodes: of the graph.
    """
    if max_scans >= nodes + most * (1 + _MOST_DESCENT) ** _MOST_GROWTH:
        return nodes
    return min(max(int((max_scans / most) ** (1 / _MOST_GROWTH) - _MOST_DESCENT), 0), nodes)


class ScanCosts:
    """Of scans.

    Args:
        dim: as of the index.
        coefficients: what each thing costs.
    """

    __slots__ = ("_gathered", "_pair", "_query", "_result", "_row", "_start")

    def __init__(self, dim: int, coefficients: Coefficients) -> None:
        c = coefficients
        self._start, self._query = c.scan, c.query
        self._row = c.row + dim * c.stream
        self._gathered = dim * c.gather
        self._pair = c.pair + dim * c.product
        self._result = c.result + dim * c.result_component

    def units(self, rows: float, k: int, queries: int, *, scattered: bool) -> float:
        """Of a scan.

        Args:
            rows: to scan.
            k: results wanted of each query.
            queries: how many.
            scattered: the rows lie among others, so that they are gathered first.
        """
        row = self._row
        if scattered:
            row += self._gathered
        units = self._start + queries * (self._query + min(k, rows) * self._result)
        if queries == 1:
            return units + rows * row
        return units + rows * (row * -(-queries // _CHUNK) + queries * self._pair)


class GraphCosts:
    """Of beams in a graph.

    Args:
        dim, m, ef_construction: as of the index.
        compressed: the graph holds codes of a byte a component.
        rerank_factor: candidates scored again for each result, at least 1; without codes: 1.
        coefficients: what each thing costs.
        scans: of the same index.
    """

    __slots__ = (
        "_bytes",
        "_candidate",
        "_ef_construction",
        "_far",
        "_free",
        "_hop",
        "_levels",
        "_linking",
        "_m",
        "_most",
        "_ranked",
        "_rerank_factor",
        "_scans",
        "_sieved",
        "_sized",
        "_start",
        "_wide",
    )

    def __init__(
        self,
        dim: int,
        m: int,
        ef_construction: int,
        *,
        compressed: bool,
        rerank_factor: float,
        coefficients: Coefficients,
        scans: ScanCosts,
    ) -> None:
        c = coefficients
        self._candidate, self._wide = c.candidate, c.wide
        self._sieved = c.code_sieved if compressed else c.sieved
        links = (m / _LINKS_OF) ** _LINKS
        self._m = m
        self._free, self._levels = links * _FREE, links * _LEVELS
        self._most = most_per_growth(m)
        self._rerank_factor = rerank_factor
        self._scans = scans
        self._ef_construction = ef_construction
        self._linking = c.code_linking if compressed else c.linking
        # For so many nodes: distances on the upper levels, and units of a distance.
        self._sized = (0, 0.0, 0.0)
        self._start = c.code_search if compressed else 0.0
        self._bytes = (dim if compressed else 4 * dim) / _CACHE_BYTES
        self._hop = c.hop
        self._far = dim * (c.code_far if compressed else c.far)
        self._ranked = c.ranked + dim * c.ranked_component if compressed else 0.0

    def beam_units(self, beam: float, nodes: int) -> float:
        """Of one query's beam."""
        known, levels, distance = self._sized
        if known != nodes:
            levels = self._levels * log2(max(nodes / self._m, 1.0))
            distance = self._hop + self._far * log2(1.0 + self._bytes * nodes)
            self._sized = nodes, levels, distance
        free = self._free * (beam + _DESCENT) ** _GROWTH
        compared = levels - nodes * expm1(-free / nodes)
        return compared * distance + beam * self._candidate

    def units(
        self,
        nodes: int,
        matching: int,
        k: int,
        ef: int,
        max_scans: int | None,
        queries: int,
    ) -> float:
        """Of a search.

        Args:
            nodes: of the graph, at least 1.
            matching: those that take part, at least 1.
            k: results wanted of each query.
            ef: effort.
            max_scans: bound on the distances of each query.
            queries: how many.
        """
        width = min(k, matching)
        wanted = min(ceil(width * self._rerank_factor), matching)
        beam: float = max(ef, wanted)
        units = 0.0
        if matching < nodes:
            units = nodes * self._sieved
            beam = max(ef, wanted + 3.0 * sqrt(wanted)) * nodes / matching
        beam = min(beam, nodes)
        rows, found_by_scan, found_by_beam = matching, 1.0, 1.0
        if max_scans is not None:
            beam = min(beam, widest_beam(max_scans, self._most, nodes))
            # The shares of the true neighbours that each will find.
            found_by_beam = beam * matching / (nodes * wanted)
            if max_scans < matching:
                rows, found_by_scan = max_scans, max_scans / matching
        if found_by_beam < found_by_scan or (
            found_by_scan == 1.0 and beam_rows(beam, queries) >= scan_rows(rows, nodes, queries)
        ):
            scattered = 2 * matching <= nodes
            return units + self._scans.units(rows, k, queries, scattered=scattered)
        each = self.beam_units(beam, nodes) + wanted * self._ranked
        if matching < nodes:
            each += beam * self._wide
        return units + self._start + queries * each

    def insertion(self, nodes: int) -> float:
        """Of a vector that is inserted into a graph of so many nodes, at least 1."""
        return self._linking * self.beam_units(min(self._ef_construction, nodes), nodes)


class ListCosts:
    """Of visits to inverted lists.

    Attributes:
        insertion: units of a vector that is put into a list.

    Args:
        dim: as of the index.
        nlist: lists there are, at least 1.
        pqm: segments of a code; 0: lists hold vectors.
        rerank_factor: candidates scored again for each result, at least 1; without codes: 1.
        coefficients: what each thing costs.
        scans: of the same index.
    """

    __slots__ = (
        "_c",
        "_centroids",
        "_compressed",
        "_entry",
        "_fewest",
        "_nlist",
        "_ranked",
        "_rerank_factor",
        "_scans",
        "insertion",
    )

    def __init__(
        self,
        dim: int,
        nlist: int,
        pqm: int,
        *,
        rerank_factor: float,
        coefficients: Coefficients,
        scans: ScanCosts,
    ) -> None:
        c = self._c = coefficients
        compressed = self._compressed = pqm > 0
        self._nlist = nlist
        self._rerank_factor = rerank_factor
        self._fewest = _FEWEST_BY_CODE if compressed else 1
        self._scans = scans
        self._centroids = nlist * (c.centroid + dim * c.centroid_component)
        if compressed:
            # The tables of codes cost as much whatever is visited.
            self._centroids += _CODES_OF_A_SEGMENT * dim * c.table
        self._entry = c.entry + (pqm * c.segment if compressed else dim * c.entry_component)
        self._ranked = c.ranked + dim * c.ranked_component
        assigning = nlist * c.assigned
        self.insertion = c.appended + dim * (c.appended_component + assigning)

    def units(
        self,
        entries: int,
        matching: int,
        k: int,
        nprobe: int,
        max_scans: int | None,
        queries: int,
    ) -> float:
        """Of a search.

        Args:
            entries: in all lists, at least 1.
            matching: those that take part, at least 1.
            k: results wanted of each query.
            nprobe: effort, at least 1.
            max_scans: bound on the distances of each query.
            queries: how many.
        """
        nlist = self._nlist
        width = min(k, matching)
        scattered = 2 * matching <= entries
        if max_scans is not None and max_scans <= nlist:
            rows = min(max_scans, matching)
            return self._scans.units(rows, k, queries, scattered=scattered)
        candidates = min(ceil(self._rerank_factor * max(width, self._fewest)), entries)
        probes = min(nprobe, nlist)
        needed = (width + 3.0 * sqrt(width)) * nlist / matching
        if matching < entries:
            needed = max(needed, probes * cbrt(entries / matching))
        if needed > probes:
            probes = min(nlist, ceil(needed - 1e-6))
        visited = entries * probes / nlist
        bounded = 0.0
        if max_scans is None or max_scans >= matching:
            rule = lists_rows(
                queries, probes, nlist, entries, matching, candidates, compressed=self._compressed
            )
            if rule >= scan_rows(matching, entries, queries):
                return self._scans.units(matching, k, queries, scattered=scattered)
        if max_scans is not None:
            budget = max_scans - nlist
            candidates = min(candidates, budget // 2)
            visited = min(visited, budget - candidates)
            bounded = probes * self._c.list_bounded
        compared = visited if self._compressed else visited * matching / entries
        each = self._centroids + compared * self._entry + candidates * self._ranked
        return self._c.lists + bounded + queries * each
