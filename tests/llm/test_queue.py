"""What waits, whose turn it is, and what is dropped."""

from __future__ import annotations

import math
import time
import tracemalloc
from collections import Counter

import pytest

from pyrope.llm.job import Dropped, Job, JobKind
from pyrope.llm.queue import JOB_OVERHEAD_BYTES, JobQueue
from pyrope.testing.clock import ManualClock

TOKENS = 100.0


def job(
    tenant: str,
    key: object,
    value: float = 1.0,
    *,
    deadline: float = math.inf,
    nbytes: int = 100,
    kind: JobKind = JobKind.CANONICAL,
) -> Job:
    assert isinstance(key, (str, int))
    return Job(kind, tenant, key, value, deadline, None, nbytes)


class Queue:
    """A queue, and what it has dropped."""

    def __init__(self, clock: ManualClock, max_jobs: int = 1000, max_bytes: int = 10**9) -> None:
        self.dropped: list[tuple[object, Dropped]] = []
        self.queue = JobQueue(
            clock,
            max_jobs=max_jobs,
            max_bytes=max_bytes,
            drop=lambda job, reason: self.dropped.append((job.key, reason)),
        )

    def offer(self, *jobs: Job) -> list[bool]:
        return [self.queue.offer(one) for one in jobs]

    def serve(self, most: int = 10_000, tokens: float = TOKENS) -> list[Job]:
        """Take jobs one after the other, each of which costs as much, and is done."""
        served: list[Job] = []
        while len(served) < most and (one := self.queue.take()) is not None:
            self.queue.pay(one.tenant, tokens)
            self.queue.done(one)
            served.append(one)
        return served


@pytest.fixture
def tested(clock: ManualClock) -> Queue:
    return Queue(clock)


def keys(jobs: list[Job]) -> list[object]:
    return [one.key for one in jobs]


def test_the_most_valuable_goes_first_and_of_the_same_value_the_oldest(tested: Queue) -> None:
    tested.offer(*(job("a", key, value) for key, value in enumerate([1.0, 3.0, 2.0, 3.0, 1.0])))
    assert keys(tested.serve()) == [1, 3, 2, 0, 4]


def test_ten_thousand_jobs_of_one_tenant_do_not_hold_up_the_first_of_another(
    clock: ManualClock,
) -> None:
    tested = Queue(clock, max_jobs=20_000)
    tested.offer(*(job("flood", number, 1e6) for number in range(10_000)))
    tested.serve(5000)
    tested.offer(job("other", "first", 0.1))
    assert keys(tested.serve(1)) == ["first"]


def test_tenants_that_always_want_more_get_the_same_number_of_tokens(tested: Queue) -> None:
    costs = {"small": 50.0, "medium": 200.0, "large": 1000.0}
    paid: Counter[str] = Counter()
    number = 0
    for tenant in costs:
        tested.offer(*(job(tenant, number := number + 1) for _ in range(3)))
    for _ in range(500):
        taken = tested.queue.take()
        assert taken is not None
        tenant = taken.tenant
        # More than it took is reserved first, and given back at the end.
        tested.queue.pay(tenant, 2 * costs[tenant])
        tested.queue.pay(tenant, -costs[tenant])
        tested.queue.done(taken)
        paid[tenant] += int(costs[tenant])
        tested.offer(job(tenant, number := number + 1))
    assert max(paid.values()) - min(paid.values()) <= 2 * 1000


def test_a_tenant_that_wanted_nothing_for_long_has_saved_up_no_turns(tested: Queue) -> None:
    tested.offer(*(job("busy", number) for number in range(500)))
    tested.offer(job("rare", "early"))
    tested.serve(400)
    tested.offer(*(job("rare", f"late {number}") for number in range(50)))
    turns = Counter(one.tenant for one in tested.serve(20))
    assert 9 <= turns["rare"] <= 11


def test_who_asks_for_one_job_at_a_time_gets_no_more_than_its_share(tested: Queue) -> None:
    tested.offer(*(job("flood", number) for number in range(500)))
    turns: Counter[str] = Counter()
    for number in range(100):
        tested.offer(job("sly", f"one {number}"))
        (taken,) = tested.serve(1)
        turns[taken.tenant] += 1
        if turns["sly"] > 60:
            break
    assert 45 <= turns["sly"] <= 55


def test_a_tenant_that_is_alone_runs_up_no_debt(tested: Queue) -> None:
    tested.offer(*(job("alone", number) for number in range(100)))
    tested.serve()
    assert not tested.queue._flows
    tested.offer(*(job("alone", number) for number in range(10)))
    tested.offer(*(job("new", f"new {number}") for number in range(10)))
    assert Counter(one.tenant for one in tested.serve(10)) == {"alone": 5, "new": 5}


def test_tenants_that_are_gone_are_forgotten(tested: Queue) -> None:
    tested.offer(*(job("stays", f"s{number}") for number in range(900)))
    for number in range(400):
        tested.offer(job(f"passing {number}", number))
        tested.serve(2)
    assert len(tested.queue._flows) < 10


def test_there_is_one_job_of_a_kind_tenant_and_key(tested: Queue) -> None:
    assert tested.offer(job("a", "k"), job("a", "k"), job("b", "k")) == [True, False, True]
    assert tested.offer(job("a", "k", kind=JobKind.VERIFY)) == [True]
    assert tested.dropped == [("k", Dropped.DUPLICATE)]
    assert len(tested.queue) == 3


def test_a_duplicate_raises_the_value_of_the_one_that_waits_and_its_deadline(
    clock: ManualClock, tested: Queue
) -> None:
    tested.offer(job("a", "middle", 2.0), job("a", "raised", 1.0, deadline=10.0))
    tested.offer(job("a", "raised", 3.0, deadline=50.0), job("a", "raised", 0.5, deadline=5.0))
    clock.advance(20.0)
    assert keys(tested.serve()) == ["raised", "middle"]
    assert len(tested.queue) == tested.queue.nbytes == 0


def test_a_duplicate_of_what_is_being_asked_is_dropped_until_that_has_ended(tested: Queue) -> None:
    tested.offer(job("a", "k"))
    taken = tested.queue.take()
    assert taken is not None
    assert tested.offer(job("a", "k")) == [False]
    tested.queue.done(taken)
    assert tested.offer(job("a", "k")) == [True]


def test_what_is_late_is_dropped_when_it_comes_when_it_is_seen_and_by_sweeps(
    clock: ManualClock, tested: Queue
) -> None:
    clock.advance(1.0)
    assert tested.offer(job("a", "before", deadline=1.0)) == [False]
    tested.offer(*(job("a", number, 10 - number, deadline=2.0 + number) for number in range(10)))
    assert tested.queue.late_at() == 2.0
    clock.advance(5.5)
    assert tested.queue.sweep(2)
    assert len(tested.queue) == 8
    assert keys(tested.serve(1)) == [5]
    assert not tested.queue.sweep(100)
    assert [key for key, reason in tested.dropped if reason is Dropped.EXPIRED] == [
        "before",
        *range(5),
    ]


def test_jobs_that_come_push_out_those_that_are_late_without_a_sweep(
    clock: ManualClock, tested: Queue
) -> None:
    tested.offer(*(job("a", number, deadline=1.0) for number in range(100)))
    clock.advance(2.0)
    tested.offer(*(job("a", f"new {number}") for number in range(50)))
    assert len(tested.queue) == 50


def test_overload_drops_the_least_valuable_of_the_tenant_with_most(clock: ManualClock) -> None:
    tested = Queue(clock, max_jobs=5)
    tested.offer(*(job("most", f"m{value}", value) for value in (5.0, 1.0, 3.0)))
    tested.offer(job("few", "f1", 0.1), job("few", "f2", 0.2))
    assert tested.offer(job("third", "t", 0.01)) == [True]
    assert tested.dropped == [("m1.0", Dropped.OVERLOAD)]


def test_overload_drops_what_has_just_come_where_that_is_worth_least(clock: ManualClock) -> None:
    tested = Queue(clock, max_jobs=3)
    tested.offer(*(job("a", value, float(value)) for value in (5, 4, 3)))
    assert tested.offer(job("a", "less", 2.0), job("a", "same", 3.0)) == [False, False]
    assert tested.offer(job("a", "more", 4.5)) == [True]
    assert keys(tested.serve()) == [5, "more", 4]


def test_bytes_are_bounded_and_what_could_never_fit_pushes_nothing_out(clock: ManualClock) -> None:
    tested = Queue(clock, max_bytes=4 * (JOB_OVERHEAD_BYTES + 1000))
    tested.offer(*(job("a", number, nbytes=1000) for number in range(4)))
    assert tested.offer(job("b", "huge", 1e9, nbytes=10_000)) == [False]
    assert tested.dropped == [("huge", Dropped.OVERLOAD)]
    assert tested.offer(job("b", "large", nbytes=2500)) == [True]
    assert [key for key, _ in tested.dropped] == ["huge", 3, 2]
    assert tested.queue.nbytes <= 4 * (JOB_OVERHEAD_BYTES + 1000)


def test_what_is_put_back_waits_until_it_is_due_and_others_go_on_meanwhile(
    clock: ManualClock, tested: Queue
) -> None:
    tested.offer(job("a", "again", 9.0), job("a", "next", 1.0))
    taken = tested.queue.take()
    assert taken is not None
    assert tested.queue.put_back(taken, 5.0)
    assert tested.queue.due_at() == 5.0
    assert keys(tested.serve()) == ["next"]
    assert len(tested.queue) == 1
    clock.advance(4.9)
    assert tested.queue.take() is None
    clock.advance(0.1)
    assert keys(tested.serve()) == ["again"]
    assert tested.queue.due_at() is None


def test_what_is_put_back_keeps_its_place_among_the_known_and_can_be_raised(
    clock: ManualClock, tested: Queue
) -> None:
    tested.offer(job("a", "again", 1.0), job("a", "other", 2.0))
    tested.serve(1)
    taken = tested.queue.take()
    assert taken is not None
    tested.queue.put_back(taken, 5.0)
    assert tested.offer(job("a", "again", 3.0), job("a", "new", 2.0)) == [False, True]
    clock.advance(5.0)
    assert keys(tested.serve()) == ["again", "new"]


def test_what_is_due_after_its_deadline_is_dropped_at_once(
    clock: ManualClock, tested: Queue
) -> None:
    tested.offer(job("a", "k", deadline=5.0))
    taken = tested.queue.take()
    assert taken is not None
    assert not tested.queue.put_back(taken, 5.0)
    assert tested.dropped == [("k", Dropped.EXPIRED)]
    assert tested.offer(job("a", "k")) == [True]


def test_what_waits_for_another_attempt_can_be_dropped_too(clock: ManualClock) -> None:
    tested = Queue(clock, max_jobs=1)
    tested.offer(job("a", "again", 1.0))
    taken = tested.queue.take()
    assert taken is not None
    tested.queue.put_back(taken, 5.0)
    assert tested.offer(job("a", "better", 2.0)) == [True]
    assert tested.dropped == [("again", Dropped.OVERLOAD)]
    clock.advance(9.0)
    assert keys(tested.serve()) == ["better"]


@pytest.mark.parametrize(
    "impossible",
    [
        job("a", "k", math.nan),
        job("a", "k", math.inf),
        job("a", "k", deadline=math.nan),
        job("a", "k", nbytes=-1),
    ],
)
def test_an_impossible_job_is_refused(tested: Queue, impossible: Job) -> None:
    with pytest.raises(ValueError, match="no job is worth"):
        tested.offer(impossible)


@pytest.mark.parametrize("tenants", [1, 10_000])
def test_ten_thousand_jobs_take_less_than_20_mb(clock: ManualClock, tenants: int) -> None:
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    tested = Queue(clock, max_jobs=10_000)
    for number in range(10_000):
        question = f"{number:06}" + "x" * 500
        tenant = f"tenant {number % tenants}"
        one = Job(JobKind.CANONICAL, tenant, f"k{number}", number / 3, 1e6 + number, question, 506)
        assert tested.queue.offer(one)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 20e6
    if tenants == 1:
        assert after - before < tested.queue.nbytes


def test_to_offer_and_to_take_does_not_take_longer_the_more_there_is(clock: ManualClock) -> None:
    """Ten times the jobs, and less than 40 times the time: not quadratic."""

    def seconds(jobs: int) -> float:
        tested = Queue(clock, max_jobs=jobs // 2)
        offered = [job(f"t{number % 7}", number, number * 7919 % 1000) for number in range(jobs)]
        began = time.process_time()
        tested.offer(*offered)
        tested.serve()
        return time.process_time() - began

    seconds(100)
    few = min(seconds(1000) for _ in range(3))
    assert min(seconds(10_000) for _ in range(3)) < 40 * few
