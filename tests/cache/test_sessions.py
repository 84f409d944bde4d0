from __future__ import annotations

import gc
import sys
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyrope.cache.sessions import Sessions, SessionStatistics
from pyrope.testing.clock import ManualClock

IDLE_S = 10.0


def sessions(
    clock: ManualClock, max_sessions: int = 4, max_bytes: int = 1_000_000
) -> Sessions[bytes]:
    return Sessions(clock, len, max_sessions=max_sessions, max_bytes=max_bytes, idle_s=IDLE_S)


ONE_BYTES = 240
"""What a session without a name and an empty key counts."""


def test_a_session_leads_from_each_query_to_the_next() -> None:
    known = sessions(ManualClock())
    assert known.follow(b"s", b"one") is None
    assert known.follow(b"other", b"four") is None
    assert known.follow(b"s", b"two") == b"one"
    assert known.follow(b"s", b"three") == b"two"


@pytest.mark.parametrize(("idle_s", "before"), [(9.99, b"one"), (10.0, None), (1e9, None)])
def test_a_session_is_over_when_it_was_idle(idle_s: float, before: bytes | None) -> None:
    clock = ManualClock()
    known = sessions(clock)
    known.follow(b"s", b"one")
    clock.advance(idle_s)
    assert known.follow(b"s", b"two") == before
    assert known.statistics().expired_total == (before is None)
    assert known.follow(b"s", b"three") == b"two"


def test_the_session_used_the_longest_time_ago_goes_for_a_new_one() -> None:
    known = sessions(ManualClock(), max_sessions=2)
    known.follow(b"a", b"1")
    known.follow(b"b", b"2")
    known.follow(b"a", b"3")
    known.follow(b"c", b"4")
    assert known.statistics().evicted_total == 1
    assert known.follow(b"a", b"5") == b"3"
    assert known.follow(b"b", b"6") is None


def test_large_keys_make_several_sessions_go() -> None:
    known = sessions(ManualClock(), max_bytes=3 * (ONE_BYTES + 1))
    for name in (b"a", b"b", b"c"):
        known.follow(name, b"")
    known.follow(b"d", bytes(ONE_BYTES + 1))
    assert known.statistics() == SessionStatistics(2, 3 * (ONE_BYTES + 1), 2, 0, 0)


def test_a_key_that_does_not_fit_is_not_remembered_and_costs_no_other_session() -> None:
    known = sessions(ManualClock(), max_bytes=2 * ONE_BYTES + 2)
    known.follow(b"a", b"")
    known.follow(b"b", b"")
    assert known.follow(b"b", bytes(ONE_BYTES + 2)) == b""
    assert known.follow(b"b", b"") is None
    assert known.follow(b"a", b"") == b""
    assert known.statistics().oversized_total == 1


def test_a_sweep_takes_out_what_has_expired_and_no_more_than_it_may() -> None:
    clock = ManualClock()
    known = sessions(clock, max_sessions=100)
    for number in range(7):
        known.follow(b"%d" % number, b"key")
    clock.advance(IDLE_S / 2)
    known.follow(b"young", b"key")
    clock.advance(IDLE_S / 2)
    assert [known.sweep(4), known.sweep(4), known.sweep(4)] == [4, 3, 0]
    assert len(known) == 1


def test_without_sweeps_expired_sessions_go_faster_than_new_ones_come() -> None:
    clock = ManualClock()
    known = sessions(clock, max_sessions=1000)
    for number in range(100):
        known.follow(b"old %d" % number, b"key")
    clock.advance(IDLE_S)
    for number in range(50):
        known.follow(b"new %d" % number, b"key")
    assert len(known) == 50
    assert known.statistics().expired_total == 100


@settings(deadline=None)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from([b"a", b"bb", b"ccc", b"dddd", b"eeeee"]),
            st.integers(0, 600).map(bytes),
            st.sampled_from([0.0, 1.0, 4.0, 10.0]),
        ),
        max_size=60,
    ),
    max_sessions=st.integers(1, 4),
    max_bytes=st.integers(1, 3000),
)
def test_sessions_agree_with_a_plain_dict_and_keep_their_bounds(
    steps: list[tuple[bytes, bytes, float]], max_sessions: int, max_bytes: int
) -> None:
    clock = ManualClock()
    known = sessions(clock, max_sessions, max_bytes)
    model: dict[bytes, tuple[bytes, float]] = {}  # the least lately used first
    for session, key, seconds in steps:
        clock.advance(seconds)
        now = clock.monotonic()
        model = {name: had for name, had in model.items() if now - had[1] < IDLE_S}
        before = model.pop(session, (None, 0.0))[0]
        # Expired ones may still be there, but go first.
        known.sweep(100)
        assert known.follow(session, key) == before
        if ONE_BYTES + len(session) + len(key) <= max_bytes:
            model[session] = key, now
        while len(model) > max_sessions or model_bytes(model) > max_bytes:
            del model[next(iter(model))]
        assert len(known) == len(model) <= max_sessions
        assert known.nbytes == model_bytes(model) <= max_bytes


def model_bytes(model: dict[bytes, tuple[bytes, float]]) -> int:
    return sum(ONE_BYTES + len(name) + len(key) for name, (key, _) in model.items())


@pytest.mark.parametrize("key_bytes", [20, 1536])
def test_the_bytes_counted_are_those_taken(key_bytes: int) -> None:
    clock = ManualClock()
    known: Sessions[bytes] = Sessions(
        clock, sys.getsizeof, max_sessions=10_000, max_bytes=100_000_000, idle_s=IDLE_S
    )
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(8000):
            clock.advance(0.001)
            known.follow(b"session %d" % number, bytes(key_bytes))
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert 0.8 * taken <= known.nbytes <= 1.3 * taken
    clock.advance(IDLE_S)
    known.sweep(8000)
    assert known.nbytes == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_sessions": 0},
        {"max_bytes": 0},
        {"idle_s": 0.0},
        {"idle_s": float("inf")},
        {"idle_s": float("nan")},
    ],
)
def test_impossible_bounds_are_refused(wrong: dict[str, Any]) -> None:
    bounds: dict[str, Any] = {"max_sessions": 1, "max_bytes": 1000, "idle_s": 1.0, **wrong}
    with pytest.raises(ValueError, match=r"no room|cannot be idle"):
        Sessions[bytes](ManualClock(), len, **bounds)
