"""Whose job a thread takes next."""

from __future__ import annotations

import heapq
import threading
from collections import Counter
from collections.abc import Callable
from itertools import count

from hypothesis import given, settings
from hypothesis import strategies as st

from pyrope.engine.fair_queue import QUANTUM_SECONDS, FairQueue, Flow, Job


def nothing() -> None:
    pass


class Threads:
    """Threads of a simulation: a job takes as long as its first argument says, in seconds."""

    def __init__(self, threads: int, left_free: int = 0) -> None:
        self.queue = FairQueue(threads)
        self.queue.leave_free(left_free)
        self.threads = threads
        self.now = 0.0
        self.taken: list[tuple[float, Job]] = []
        self.used: Counter[Flow] = Counter()
        self._order = count()
        self._running: list[tuple[float, int, Job]] = []
        self.after: Callable[[Job], None] = lambda _: None

    def put(self, flow: Flow | None, seconds: float, cost: float | None = None) -> None:
        paid = seconds if cost is None else cost
        self.queue.put(Job(nothing, (seconds,), None, flow, paid if flow else 0.0))

    def take(self) -> None:
        """Have idle threads take what they may."""
        while len(self._running) < self.threads and not self.queue._tokens.empty():
            self.queue._tokens.get()
            job = self.queue._redeem()
            if job is not None:
                self.taken.append((self.now, job))
                heapq.heappush(self._running, (self.now + job.args[0], next(self._order), job))

    def step(self) -> bool:
        """Until a job ends; False: none runs."""
        self.take()
        if not self._running:
            return False
        self.now, _, job = heapq.heappop(self._running)
        if job.flow is not None:
            self.used[job.flow] += job.args[0]
            self.queue.settle(job.flow, job.args[0] - job.cost)
        self.after(job)
        return True

    def run(self, until: float = float("inf")) -> None:
        while self.now < until and self.step():
            pass

    @property
    def running(self) -> Counter[Flow | None]:
        return Counter(job.flow for _, _, job in self._running)


SECONDS = st.floats(0.001, 0.05)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4), SECONDS, SECONDS, st.booleans()), max_size=60),
    st.integers(1, 4),
    st.integers(0, 4),
)
def test_every_job_is_taken_once_and_a_flow_s_in_their_order(
    jobs: list[tuple[int, float, float, bool]], threads: int, left_free: int
) -> None:
    simulation = Threads(threads, left_free)
    flows: list[Flow | None] = [None, Flow(1), Flow(2), Flow(4), Flow(1)]
    expected: dict[Flow | None, list[float]] = {flow: [] for flow in flows}
    for who, seconds, cost, pause in jobs:
        simulation.put(flows[who], seconds, cost)
        expected[flows[who]].append(seconds)
        if pause:
            simulation.step()
    simulation.run()
    found: dict[Flow | None, list[float]] = {flow: [] for flow in flows}
    for _, job in simulation.taken:
        found[job.flow].append(job.args[0])
    assert found == expected
    assert simulation.queue._held == 0


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), SECONDS, st.booleans()), max_size=60),
    st.integers(1, 4),
)
def test_no_thread_is_idle_while_a_job_waits(
    jobs: list[tuple[int, float, bool]], threads: int
) -> None:
    simulation = Threads(threads)
    flows = [Flow(1), Flow(2), Flow(4), Flow(1)]
    for who, seconds, pause in jobs:
        simulation.put(flows[who], seconds)
        if pause:
            simulation.step()
        simulation.take()
        waiting = sum(len(flow.waiting) for flow in flows)
        assert not waiting or simulation.running.total() == threads


def backlogged(simulation: Threads, flow: Flow, seconds: float, cost: float, depth: int) -> None:
    """Keep so many jobs of a flow waiting or running."""
    for _ in range(depth):
        simulation.put(flow, seconds, cost)
    others = simulation.after

    def again(job: Job) -> None:
        others(job)
        if job.flow is flow:
            simulation.put(flow, seconds, cost)

    simulation.after = again


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.tuples(st.sampled_from([1, 2, 4]), SECONDS, SECONDS, st.integers(2, 8)),
        min_size=2,
        max_size=4,
    ),
    st.integers(1, 3),
)
def test_flows_that_always_want_more_get_time_by_their_weights(
    wanted: list[tuple[int, float, float, int]], threads: int
) -> None:
    """Whatever their jobs take, whatever was estimated, and however many each keeps waiting."""
    simulation = Threads(threads)
    flows = []
    for weight, seconds, cost, depth in wanted:
        flows.append(Flow(weight))
        # Enough for every thread: the flow is never without a job that waits.
        backlogged(simulation, flows[-1], seconds, cost, depth + threads)
    simulation.run(until=4.0)
    largest = max(max(seconds, cost) for _, seconds, cost, _ in wanted)
    shares = [simulation.used[flow] / flow.weight for flow in flows]
    # Of each: what runs when we look, what it has been let before the others, and its debt.
    assert max(shares) - min(shares) <= 2 * (threads + 1) * largest + 4 * QUANTUM_SECONDS


def test_a_flow_of_one_job_at_a_time_gets_no_more_than_its_share_by_long_jobs() -> None:
    simulation = Threads(1)
    short, long = Flow(1), Flow(1)
    backlogged(simulation, short, 0.001, 0.001, 4)
    backlogged(simulation, long, 0.1, 0.001, 1)
    simulation.run(until=20.0)
    assert abs(simulation.used[short] - simulation.used[long]) < 0.3


def test_a_job_of_a_flow_that_has_asked_for_little_is_the_next() -> None:
    simulation = Threads(1)
    flood, little = Flow(4), Flow(1)
    backlogged(simulation, flood, 0.002, 0.002, 100)
    asked = [number * 0.1 for number in range(1, 50)]
    for at in asked:
        simulation.run(until=at)
        simulation.take()
        simulation.put(little, 0.0004)
    simulation.run(until=5.0)
    begun = [at for at, job in simulation.taken if job.flow is little]
    waited = [after - before for before, after in zip(asked, begun, strict=True)]
    # It is asked up to a job after the moment, and then waits for the one that runs.
    assert max(waited) <= 2 * 0.002 + 1e-9


def test_many_floods_make_a_flow_of_few_requests_wait_for_one_job_and_not_for_a_round() -> None:
    simulation = Threads(1)
    for _ in range(50):
        backlogged(simulation, Flow(2), 0.004, 0.004, 20)
    little = Flow(2)
    simulation.run(until=3.0)
    simulation.take()
    simulation.put(little, 0.001)
    asked_at = simulation.now
    simulation.run(until=3.1)
    (begun,) = [at for at, job in simulation.taken if job.flow is little]
    assert begun - asked_at <= 0.004 + 1e-9


def test_a_flow_that_is_alone_runs_up_no_debt() -> None:
    simulation = Threads(1)
    alone, newcomer = Flow(2), Flow(2)
    backlogged(simulation, alone, 0.01, 0.001, 4)
    simulation.run(until=60.0)
    backlogged(simulation, newcomer, 0.01, 0.001, 4)
    before = simulation.used[alone]
    simulation.run(until=61.0)
    assert simulation.used[alone] - before > 0.4


def test_one_flow_cannot_take_the_thread_that_is_left_free() -> None:
    simulation = Threads(3, left_free=1)
    flood, other = Flow(4), Flow(1)
    backlogged(simulation, flood, 1.0, 1.0, 10)
    simulation.take()
    assert simulation.running == {flood: 2}
    simulation.put(other, 0.5)
    simulation.take()
    assert simulation.running == {flood: 2, other: 1}
    simulation.run(until=5.0)
    simulation.take()
    assert simulation.running[flood] == 2


def test_when_nothing_is_left_free_any_more_what_was_held_back_begins() -> None:
    simulation = Threads(3, left_free=2)
    flood = Flow(1)
    backlogged(simulation, flood, 1.0, 1.0, 10)
    simulation.take()
    assert simulation.running == {flood: 1}
    simulation.queue.leave_free(0)
    simulation.take()
    assert simulation.running == {flood: 3}


def test_a_single_thread_is_kept_from_nobody() -> None:
    simulation = Threads(1, left_free=1)
    simulation.put(Flow(1), 1.0)
    simulation.take()
    assert simulation.running.total() == 1


def test_help_with_a_job_that_runs_goes_before_all_but_not_into_what_is_left_free() -> None:
    queue = FairQueue(2)
    flow, other = Flow(1), Flow(1)
    queue.put(Job(nothing, ("job",), None, flow))
    queue.put(Job(nothing, ("other",), None, other))
    queue.put(Job(nothing, ("help",), None, flow, helps=True))
    taken = [queue.get() for _ in range(3)]
    assert [job.args[0] for job in taken if job] == ["help", "job", "other"]
    for job in taken:
        assert job
        assert job.flow
        queue.settle(job.flow, 0.0)
    queue.leave_free(1)
    queue.put(Job(nothing, ("job",), None, flow))
    queue.put(Job(nothing, ("help",), None, flow, helps=True))
    first = queue.get()
    assert first
    assert first.args == ("help",)
    queue.put(Job(nothing, ("help again",), None, flow, helps=True))
    queue.put(Job(nothing, ("other",), None, other))
    second = queue.get()
    assert second
    assert second.args == ("other",)


def test_threads_end_when_nothing_waits_any_more() -> None:
    queue = FairQueue(3)
    queue.leave_free(1)
    flow = Flow(1)
    for _ in range(50):
        queue.put(Job(nothing, (), None, flow))
    for _ in range(3):
        queue.put(None)
    done: list[Job] = []

    def work() -> None:
        while (job := queue.get()) is not None:
            done.append(job)
            assert job.flow
            queue.settle(job.flow, 0.0)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert len(done) == 50
