"""Sessions, transitions and budget together, on streams of queries, with the default limits."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest

from pyrope.cache.prefetch_budget import PrefetchBudget, PrefetchLimits
from pyrope.cache.prefetch_judge import PrefetchState
from pyrope.cache.sessions import Sessions
from pyrope.cache.transitions import TransitionTable
from pyrope.testing.clock import ManualClock


class Server:
    """Caches nothing but what it prefetches, and that until it is hit."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.sessions: Sessions[int] = Sessions(
            self.clock, lambda _: 32, max_sessions=100, max_bytes=10**6, idle_s=1800.0
        )
        self.transitions: TransitionTable[int] = TransitionTable(
            self.clock,
            lambda _: 32,
            max_rows=1000,
            max_successors=8,
            max_bytes=10**7,
            half_life_s=86_400.0,
        )
        self.budget: PrefetchBudget[int] = PrefetchBudget(self.clock, PrefetchLimits())
        self.cached: set[int] = set()
        self.hits = 0

    def search(self, session: bytes, key: int) -> None:
        self.clock.advance(0.1)
        before = self.sessions.follow(session, key)
        if before is not None:
            self.transitions.seen(before, key)
        if key in self.cached:
            self.cached.discard(key)
            self.hits += self.budget.use(key)
        else:
            self.budget.worked(100.0)
        for following, probability in self.transitions.likely(key, 2):
            if following not in self.cached and self.budget.try_issue(
                following, probability, 10.0, idle=True
            ):
                self.cached.add(following)


def habitual(random: Random) -> Iterator[int]:
    """Steps through 200 queries in their order, with a jump at every fifth, on average."""
    query = 0
    while True:
        yield query
        query = (query + 1) % 200 if random.random() < 0.8 else random.randrange(200)


def answers(random: Random, offset: int, rounds: int) -> Iterator[int]:
    """Each of 300 questions, in any order, is followed by the one that many further on."""
    for _ in range(rounds):
        for question in random.sample(range(300), 300):
            yield question
            yield question + offset


def unrelated(random: Random) -> Iterator[int]:
    """One query says nothing about the next."""
    while True:
        yield random.randrange(2000)


def test_a_stream_with_habits_gets_most_of_its_prefetches_used() -> None:
    server = Server()
    streams = [(b"session %d" % number, habitual(Random(number))) for number in range(5)]
    for _ in range(1000):
        for session, stream in streams:
            server.search(session, next(stream))
    seen = server.budget.statistics()
    assert seen.state is PrefetchState.ON
    assert seen.used_total == server.hits > 1500
    assert seen.used_total / seen.issued_total > 0.7


def test_habits_that_changed_turn_prefetching_off_until_the_new_ones_are_known() -> None:
    server = Server()
    random = Random(3)
    for query in answers(random, offset=1000, rounds=5):
        server.search(b"session", query)
    learnt = server.budget.statistics()
    assert (learnt.state, learnt.pauses_total) == (PrefetchState.ON, 0)
    assert learnt.used_total > 500
    for query in answers(random, offset=2000, rounds=5):
        server.search(b"session", query)
    server.clock.advance(300.0)
    server.budget.sweep(1000)
    changed = server.budget.statistics()
    assert changed.state is PrefetchState.PAUSED
    assert changed.used_total - learnt.used_total < 10
    assert changed.wasted_total > 100
    for query in answers(random, offset=2000, rounds=20):
        server.search(b"session", query)
    seen = server.budget.statistics()
    assert (seen.state, seen.pauses_total) == (PrefetchState.ON, 1)
    assert seen.used_total - changed.used_total > 1500


@pytest.mark.parametrize("seed", [1, 2])
def test_a_stream_without_order_gets_next_to_no_prefetches(seed: int) -> None:
    server = Server()
    stream = unrelated(Random(seed))
    for _ in range(20_000):
        server.search(b"session", next(stream))
    assert server.budget.statistics().issued_total < 20
