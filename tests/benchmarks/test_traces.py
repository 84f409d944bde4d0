"""Traces, and the harness' own model of what an index held at each moment of one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from benchmarks.harness import data, traces
from benchmarks.harness.history import History
from benchmarks.harness.paraphrases import imitated
from benchmarks.harness.servers import K
from benchmarks.harness.traces import Kind, Trace


@pytest.fixture(scope="module")
def dataset() -> data.Dataset:
    return data.generated(count=120, queries=20, seed=3, dim=8)


def zipf(
    dataset: data.Dataset, *, writes: float = 0.3, searches: int = 400, seed: int = 7
) -> Trace:
    return traces.zipf(dataset, searches, 1.0, writes, seed)


def states(trace: Trace) -> list[dict[int, np.ndarray]]:
    """What is stored before the first write, and after each: a plain replay."""
    held = dict(enumerate(trace.base))
    found, vectors = [dict(held)], iter(trace.written)
    for kind, id_ in zip(trace.kinds.tolist(), trace.what.tolist(), strict=True):
        if kind == Kind.SEARCH:
            continue
        if kind == Kind.DELETE:
            del held[id_]
        else:
            assert (id_ in held) == (kind == Kind.UPDATE)
            held[id_] = next(vectors)
        found.append(dict(held))
    assert next(vectors, None) is None
    return found


def best_of(state: dict[int, np.ndarray], query: np.ndarray) -> tuple[list[int], list[float]]:
    scores = {id_: float(vector @ query) for id_, vector in state.items()}
    ids = sorted(scores, key=lambda one: -scores[one])[:K]
    return ids, [scores[one] for one in ids]


# -- traces -------------------------------------------------------------------------------------


def test_a_trace_comes_from_its_seed_alone(dataset: data.Dataset) -> None:
    one, same, other = zipf(dataset), zipf(dataset), zipf(dataset, seed=8)
    assert np.array_equal(one.kinds, same.kinds)
    assert np.array_equal(one.what, same.what)
    assert np.array_equal(one.written, same.written)
    assert not np.array_equal(one.what, other.what)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_so_many_steps_are_writes_and_all_kinds_of_them(
    dataset: data.Dataset, share: float
) -> None:
    trace = zipf(dataset, writes=share)
    assert trace.searches == 400
    assert trace.writes == round(len(trace.kinds) * share)
    kinds = set(trace.kinds.tolist()) - {Kind.SEARCH}
    assert kinds == ({Kind.ADD, Kind.UPDATE, Kind.DELETE} if share else set())
    assert len(states(trace)) == trace.writes + 1, "writes make sense in their order"


def test_writes_do_not_change_what_is_asked(dataset: data.Dataset) -> None:
    plain, written = zipf(dataset, writes=0.0), zipf(dataset, writes=0.2)
    asked = written.what[written.kinds == Kind.SEARCH]
    assert np.array_equal(plain.what, asked)


def test_popularity_falls_by_rank(dataset: data.Dataset) -> None:
    trace = traces.zipf(dataset, 20_000, 1.0, 0.0, 7)
    times = np.sort(np.bincount(trace.what, minlength=20))[::-1]
    expected = 1 / np.arange(1, 21)
    np.testing.assert_allclose(times / 20_000, expected / expected.sum(), atol=0.01)


def test_what_follows_in_a_session_depends_on_what_was_asked_last(dataset: data.Dataset) -> None:
    trace = traces.sessions(dataset, 4000, 1.0, 0.0, 7)
    followers: dict[int, set[int]] = {}
    last: dict[int, int] = {}
    for tag, query in zip(trace.tags.tolist(), trace.what.tolist(), strict=True):
        if tag in last:
            followers.setdefault(last[tag], set()).add(query)
        last[tag] = query
    assert max(len(found) for found in followers.values()) <= len(traces.SUCCESSORS)
    assert len(last) == pytest.approx(4000 / traces.SESSION_LENGTH, rel=0.3)


def test_the_second_of_a_pair_comes_after_the_first() -> None:
    pairs = imitated(100, 30, seed=3)
    trace = traces.paraphrased(pairs, (b"MINRECALL", b"0.9"), 0.1, 7)
    asked = trace.what[trace.kinds == Kind.SEARCH].tolist()
    assert sorted(asked) == list(range(60))
    for pair in range(30):
        assert asked.index(pair) < asked.index(30 + pair)
    seconds = trace.tags >= 0
    assert np.array_equal(trace.what[seconds], trace.tags[seconds] + 30)
    assert np.array_equal(trace.queries[:30], pairs.cached)
    assert np.array_equal(trace.queries[30:], pairs.new)


# -- what the index held --------------------------------------------------------------------------


def test_the_exact_answer_of_each_moment_is_that_of_a_plain_replay(dataset: data.Dataset) -> None:
    # Most of what is there goes, so that the nearest are not enough and everything is scanned.
    few = replace(dataset, base=dataset.base[:K])
    for trace in (zipf(dataset, writes=0.5), zipf(few, writes=0.5)):
        history = History(trace)
        for moment, state in enumerate(states(trace)):
            for query in range(0, 20, 7):
                ids, scores = best_of(state, trace.queries[query])
                np.testing.assert_allclose(history.exact(query, moment), scores, atol=1e-5)
                verdict = history.judge(query, moment, moment, ids, scores)
                assert verdict.exact
                assert verdict.honest


def test_an_answer_of_another_moment_is_wrong_unless_it_overlapped(dataset: data.Dataset) -> None:
    trace = zipf(dataset, writes=0.5)
    history, found = History(trace), states(trace)
    before, after = best_of(found[0], trace.queries[0]), best_of(found[-1], trace.queries[0])
    assert before[0] != after[0], "the writes have changed the answer"
    last = len(found) - 1
    assert not history.judge(0, last, last, *before).exact
    assert not history.judge(0, 0, 0, *after).exact
    assert history.judge(0, 0, last, *before).exact
    assert history.judge(0, 0, last, *after).exact


def test_an_answer_may_mix_writes_under_way_but_none_that_were_acknowledged() -> None:
    axes = np.eye(16, dtype=np.float32)
    base = data.normalised(axes[0] + np.arange(1, 16, dtype=np.float32)[:, None] * axes[1:] / 4)
    dataset = data.Dataset("", base, axes[:1])
    # The nearest is updated to be the furthest, then the second is deleted.
    trace = Trace(
        "",
        base,
        dataset.queries,
        -axes[:1],
        np.array([Kind.UPDATE, Kind.DELETE, Kind.SEARCH]),
        np.array([0, 1, 0]),
        np.full(3, -1),
    )
    history = History(trace)
    only_second = {id_: vector for id_, vector in enumerate(base) if id_ != 1}
    ids, scores = best_of(only_second, axes[0])
    mixed = history.judge(0, 0, 2, ids, scores)
    assert (mixed.exact, mixed.honest, mixed.reordered) == (True, True, True)
    for first, last in ((1, 2), (2, 2), (0, 1)):
        assert not history.judge(0, first, last, ids, scores).exact
    assert not history.judge(0, 0, 2, [*ids[:-1], 14], [*scores[:-1], float(base[14, 0])]).exact
    for moment, state in enumerate(states(trace)):
        assert not history.judge(0, 0, 2, *best_of(state, axes[0])).reordered
        assert history.judge(0, moment, moment, *best_of(state, axes[0])).exact


def test_a_near_answer_is_honest_as_long_as_its_scores_are_its_own(dataset: data.Dataset) -> None:
    history = History(zipf(dataset, writes=0.0))
    state = dict(enumerate(dataset.base))
    query = dataset.queries[0]
    ids, scores = best_of(state, query)
    far = sorted(state, key=lambda one: float(state[one] @ query))[0]
    near = history.judge(0, 0, 0, [*ids[:-1], far], [*scores[:-1], float(state[far] @ query)])
    assert (near.exact, near.honest, near.right) == (False, True, K - 1)

    foreign = history.judge(0, 0, 0, ids, best_of(state, dataset.queries[1])[1])
    twice = history.judge(0, 0, 0, [ids[0], *ids[:-1]], [scores[0], *scores[:-1]])
    unknown = history.judge(0, 0, 0, [*ids[:-1], 999], scores)
    more = history.judge(0, 0, 0, [*ids, far], [*scores, float(state[far] @ query)])
    for verdict in (foreign, twice, unknown, more):
        assert not verdict.honest
        assert not verdict.exact
    fewer = history.judge(0, 0, 0, ids[:-1], scores[:-1])
    assert (fewer.exact, fewer.honest, fewer.right) == (False, True, K - 1)


def test_either_of_two_equal_vectors_will_do(dataset: data.Dataset) -> None:
    # Of ten places among threes, the last is for any of three.
    triplets = replace(dataset, base=np.vstack([dataset.base] * 3))
    history = History(zipf(triplets, writes=0.0))
    ids, scores = best_of(dict(enumerate(triplets.base)), triplets.queries[0])
    others = [(one + 120) % 360 for one in ids]
    assert set(others) != set(ids)
    verdict = history.judge(0, 0, 0, others, scores)
    assert verdict.exact
    assert verdict.right == K
