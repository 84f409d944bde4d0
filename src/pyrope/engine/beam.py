"""How wide to search a graph, and when a scan costs less.

Costs are in rows: what a scan for one query takes for a row that lies in line. Measured by
benchmarks/micro_engine.py on one core at 384 dimensions, 100,000 vectors: that is 0.135 us; a
gathered row 0.29 us; a row scored for q queries 0.22 + 0.007 q us; to begin a scan costs 50 us more
than to begin a beam; a candidate of a beam 2 us. Both ways do the same arithmetic on the same
dimensions, so that the ratios hold for others.
"""

from __future__ import annotations

from math import ceil, sqrt

_CANDIDATE = 14.0
_GATHERING = 1.2
_SEVERAL, _EACH = 1.6, 0.05
_FIXED = 400.0

# A quarter more than the most that was measured.
_DISTANCES = 17.0
_LINKS, _DESCENT, _GROWTH = 0.85, 1.5, 0.75

WIDEN = 4
"""Factor by which a beam grows that held too few nodes which take part."""


def first_beam(ef: int, wanted: int, matching: int, nodes: int) -> int:
    """Candidates to keep so that enough of them take part, if those that do are spread evenly.

    Of a beam of b candidates, ``b matching / nodes`` take part on average. There should be as
    many as an unfiltered search would consider, `ef`, and `wanted` with three standard
    deviations to spare (of a Poisson distribution).

    Args:
        ef: candidates that an unfiltered search would keep.
        wanted: nodes to find, at most `matching`.
        matching: nodes that take part, at least 1.
        nodes: all nodes of the graph.
    """
    if matching == nodes:
        return min(max(ef, wanted), nodes)
    needed = max(ef, wanted + 3 * sqrt(wanted))
    return min(ceil(needed * nodes / matching), nodes)


def beam_distances(beam: int, m: int, nodes: int) -> int:
    """Distances that a search in a FAISS graph computes, in practically every case at most.

    FAISS counts them (`hnsw_stats.ndis`) but knows no limit. Measured with M 4 to 64, beams of 1
    to 512, 16 to 384 dimensions, 10,000 to 100,000 vectors: sentence embeddings, clusters, and the
    worst case, normally distributed vectors, every neighbour of which leads on to others; queries
    near a vector, far from all, and zero. For each M and beam, the most that any query took was
    9.5 to 13.6 times ``m^0.85 (beam + 1.5)^0.75``; on average, one took a half to a fifth of that.

    Args:
        beam: candidates kept.
        m: links of a node on the upper levels, twice that on level 0.
        nodes: of the graph. Level 0 compares each once.
    """
    return ceil(min(_free(beam, m), nodes + _free(1, m)))


def _free(beam: int, m: int) -> float:
    """Distances where there are nodes enough."""
    distances: float = _DISTANCES * m**_LINKS * (beam + _DESCENT) ** _GROWTH
    return distances


def bounded_beam(max_scans: int, m: int, nodes: int) -> int:
    """The widest beam whose search computes at most `max_scans` distances; 0: there is none.

    See `beam_distances`. At most `nodes`.
    """
    if max_scans >= beam_distances(nodes, m, nodes):
        return nodes
    in_links = max(max_scans, 0) / (_DISTANCES * m**_LINKS)
    return min(max(int(in_links ** (1 / _GROWTH) - _DESCENT), 0), nodes)


def beam_cost(beam: int, queries: int) -> float:
    return queries * beam * _CANDIDATE


def scan_cost(rows: int, total: int, queries: int) -> float:
    """Of a scan of `rows` rows that are spread over `total`."""
    gathering = 0.0 if 2 * rows > total else _GATHERING
    scoring = 1.0 if queries == 1 else _SEVERAL + _EACH * queries
    return _FIXED + rows * (gathering + scoring)
