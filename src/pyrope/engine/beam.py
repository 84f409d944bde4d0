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


def beam_cost(beam: int, queries: int) -> float:
    return queries * beam * _CANDIDATE


def scan_cost(rows: int, total: int, queries: int) -> float:
    """Of a scan of `rows` rows that are spread over `total`."""
    gathering = 0.0 if 2 * rows > total else _GATHERING
    scoring = 1.0 if queries == 1 else _SEVERAL + _EACH * queries
    return _FIXED + rows * (gathering + scoring)
