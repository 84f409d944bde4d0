"""What each thing that a request touches costs, in cost units (see `pyrope.tenants.cost`)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Coefficients:
    """Units of each thing that is touched; fitted by ``python -m benchmarks.cost_model --fit``.

    Attributes:
        call: any search.
        sifted: a search that is filtered or bounded, for the bookkeeping.
        slot: a slot of a mask.
        attribute: a value that a filter is evaluated on (by benchmarks/micro_filter.py: 0.0005 to
            0.0014 on a slot and operand; not fitted).
        scan: a scan, to begin.
        query: a query of a scan.
        row: a row of a scan, read for up to 64 queries.
        stream: a component of such a row.
        pair: a row compared with one of several queries.
        product: a component of such a pair.
        gather: a component of a row that is copied first, as it lies among others.
        result: a result of a scan.
        result_component: a component of it, in float64.
        candidate: a candidate of a beam.
        wide: a candidate of a beam that is looked at for what a filter lets through.
        hop: a distance in a graph.
        far: a component of it, for each doubling of the graph.
        sieved: a node that a filter is mapped to.
        code_sieved: the same, of codes.
        code_search: a search in a graph of codes, to begin.
        code_far: as `far`, of a code.
        lists: a search in lists, to begin.
        centroid: a centroid.
        centroid_component: a component of it.
        list_bounded: a list visited by a search that is bounded.
        entry: an entry of a list.
        entry_component: a component of it.
        segment: a segment of a code in a list.
        table: an element of the table that codes are looked up in.
        ranked: a candidate that is scored again.
        ranked_component: a component of it.
        head: a search in a head, to begin.
        head_row: a row of it.
        head_component: a component of that, read for all queries.
        head_pair: a row of it compared with a further query.
        rescoring: an answer of a cache whose candidates are scored again, to begin.
        rescored_component: a component of one of them.
        linking: an insertion into a graph, over the search of its neighbours.
        code_linking: the same, of codes.
        appended: an entry that is put into a list.
        appended_component: a component of it.
        assigned: a component of it compared with one of a centroid.
    """

    call: float = 11.8
    sifted: float = 16.7
    slot: float = 0.000267
    attribute: float = 0.001
    scan: float = 87.8
    query: float = 5.39
    row: float = 0.0215
    stream: float = 0.000262
    pair: float = 0.0022
    product: float = 0.0000318
    gather: float = 0.000531
    result: float = 0.257
    result_component: float = 0.00312
    candidate: float = 0.482
    wide: float = 0.391
    hop: float = 0.00127
    far: float = 0.0000669
    sieved: float = 0.000285
    code_sieved: float = 0.00195
    code_search: float = 50.5
    code_far: float = 0.0000807
    lists: float = 62.9
    centroid: float = 0.000281
    centroid_component: float = 0.00012
    list_bounded: float = 3.62
    entry: float = 0.00531
    entry_component: float = 0.000281
    segment: float = 0.000133
    table: float = 0.000186
    ranked: float = 0.106
    ranked_component: float = 0.000623
    head: float = 70.3
    head_row: float = 0.00427
    head_component: float = 0.000587
    head_pair: float = 0.00661
    rescoring: float = 14.7
    rescored_component: float = 0.000065
    linking: float = 1.06
    code_linking: float = 1.02
    appended: float = 1.8
    appended_component: float = 0.0152
    assigned: float = 0.0000466


MEASURED = Coefficients()
