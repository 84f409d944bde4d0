"""How wide to search a graph, and when a scan costs less.

Costs are in rows: what a scan for a single query takes for one row that lies in line (0.15 us at
384 dimensions). Both ways do the same arithmetic on the same dimensions, so the ratios hold for
others. Measured by benchmarks/micro_engine.py on one core at 384 dimensions: a beam costs 2 us
for each candidate; a scan of gathered rows 0.4 us a row; a scan for several queries 0.2 us a row
and 0.007 us for each query, and each scan 60 us to begin with.
"""

from __future__ import annotations

from math import ceil, sqrt

_CANDIDATE = 14.0
_GATHERED = 2.7
_SHARED, _EACH = 1.5, 0.05
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
    gathering = 0.0 if 2 * rows > total else _GATHERED - 1
    scoring = 1.0 if queries == 1 else _SHARED + _EACH * queries
    return _FIXED + rows * (gathering + scoring)
