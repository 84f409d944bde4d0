"""Batches of searches: what shares a native call, and who gets which answer."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pyrope.engine.base import Neighbours, SearchOptions
from pyrope.engine.batcher import Piece
from pyrope.engine.filter import Filter, compile_filter
from pyrope.engine.head_tail import HeadTailIndex
from pyrope.service.search import Found, Search, SearchRequest, run_batch
from pyrope.types import Float32Matrix, Mask, Metric

DIM = 6
ROWS: NDArray[np.float32] = np.random.default_rng(3).standard_normal((80, DIM)).astype("<f4")
QUERIES: NDArray[np.float32] = np.random.default_rng(4).standard_normal((40, DIM)).astype("<f4")
EVEN: Mask = np.arange(len(ROWS)) % 2 == 0


class Rows:
    def view(self) -> Float32Matrix:
        return ROWS


class Recorder(HeadTailIndex):
    """An engine that notes how many queries each native call had, and for how many hits."""

    def __init__(self) -> None:
        super().__init__(Metric.L2, DIM, Rows())
        self.append(np.arange(len(ROWS)), ROWS)
        self.calls: list[tuple[int, int]] = []

    def search(
        self, queries: Float32Matrix, k: int, options: SearchOptions, allowed: Mask | None = None
    ) -> Neighbours:
        self.calls.append((len(queries), k))
        if options.nprobe == 13:
            raise ValueError("thirteen lists")
        return super().search(queries, k, options, allowed)


def even(_: Filter) -> Mask:
    return EVEN


def run(engine: HeadTailIndex, *asked: Search) -> list[Found | BaseException]:
    """The answers to the first queries, one for each."""
    pieces = [
        Piece(SearchRequest("test", QUERIES[n].tobytes(), 1, each, 0.0), 0, 1)
        for n, each in enumerate(asked)
    ]
    return run_batch(pieces, engine, even, lambda: 0.0)


def nearest(query: int, asked: Search) -> list[int]:
    distances = np.linalg.norm(ROWS.astype(np.float64) - QUERIES[query], axis=1)
    order = [n for n in np.argsort(distances).tolist() if asked.filter is None or EVEN[n]]
    if asked.epsilon is not None:
        order = [n for n in order if distances[n] <= asked.epsilon]
    return order[: asked.count]


def slots(answers: list[Found | BaseException]) -> list[list[int]]:
    found = []
    for answer in answers:
        assert isinstance(answer, Found)
        found += answer.slots
    return found


def test_searches_that_differ_only_in_small_counts_share_a_native_call() -> None:
    engine = Recorder()
    asked = [Search(count, SearchOptions(ef=64)) for count in (1, 10, 32)]
    assert slots(run(engine, *asked)) == [nearest(n, each) for n, each in enumerate(asked)]
    assert engine.calls == [(3, 32)]


def test_a_count_for_which_a_beam_would_have_to_be_wider_goes_alone() -> None:
    engine = Recorder()
    run(engine, *(Search(count, SearchOptions(ef=64)) for count in (10, 33, 70, 70)))
    assert sorted(engine.calls) == [(1, 10), (1, 33), (2, 70)]


def test_each_set_of_options_has_a_native_call_of_its_own() -> None:
    engine = Recorder()
    few = SearchOptions(max_scans=5)
    answers = run(engine, Search(3), Search(3, few), Search(3), Search(3, few))
    assert engine.calls == [(2, 3), (2, 3)]
    first, bounded, third, _ = answers
    assert isinstance(first, Found)
    assert isinstance(bounded, Found)
    assert slots([first, *([third] if third else [])]) == [nearest(n, Search(3)) for n in (0, 2)]
    assert first.exact
    assert not bounded.exact


def test_a_group_that_fails_gives_its_error_to_its_own_requests_only() -> None:
    answers = run(Recorder(), Search(2), Search(2, SearchOptions(nprobe=13)), Search(2))
    assert isinstance(answers[1], ValueError)
    assert slots([answers[0], answers[2]]) == [nearest(0, Search(2)), nearest(2, Search(2))]


def test_pieces_of_one_request_make_up_its_outcome_in_order() -> None:
    engine = Recorder()
    request = SearchRequest("test", QUERIES.tobytes(), len(QUERIES), Search(4), 0.0)
    pieces = [Piece(request, 25, 40), Piece(request, 0, 10), Piece(request, 10, 25)]
    found: dict[int, list[list[int]]] = {}
    for piece in pieces:
        (answer,) = run_batch([piece], engine, even, lambda: 0.0)
        found[piece.start] = slots([answer])
    rows = [row for start in sorted(found) for row in found[start]]
    assert rows == [nearest(n, Search(4)) for n in range(len(QUERIES))]


EFFORTS = st.sampled_from([SearchOptions(ef=64), SearchOptions(ef=10), SearchOptions()])
ASKED = st.builds(
    Search,
    st.integers(1, 90),
    EFFORTS,
    st.booleans(),
    st.sampled_from([None, compile_filter(b".even", max_bytes=100)]),
    st.sampled_from([None, 1.5, 3.0]),
)


@settings(deadline=None, max_examples=60)
@given(st.lists(ASKED, min_size=1, max_size=12))
def test_whoever_shares_a_batch_each_gets_the_answer_to_its_own_question(
    asked: list[Search],
) -> None:
    assert slots(run(Recorder(), *asked)) == [nearest(n, each) for n, each in enumerate(asked)]
