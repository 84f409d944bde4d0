"""The queue against a plain model: a list, looked through from one end to the other."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pyrope.llm.job import Dropped, Job, JobKind
from pyrope.llm.queue import JOB_OVERHEAD_BYTES, JobQueue
from pyrope.testing.clock import ManualClock

TENANTS = ("red", "green", "blue")
UNIT = 512

tenants = st.sampled_from(TENANTS)
keys = st.integers(0, 7)
values = st.sampled_from([0.0, 1.0, 2.0, 3.0, -1.5])
spans = st.sampled_from([0.5, 3.0, 20.0, 1000.0])
sizes = st.sampled_from([0, 100, 600, 3000])
tokens = st.sampled_from([1.0, 50.0, 100.0])


@dataclass(eq=False)
class Known:
    """A job that waits, or is taken (`order` is 0 then)."""

    job: Job
    value: float
    deadline: float
    order: int
    due: float = 0.0

    @property
    def nbytes(self) -> int:
        return self.job.nbytes + JOB_OVERHEAD_BYTES

    @property
    def room(self) -> int:
        return -(-self.nbytes // UNIT)


class AgainstAModel(RuleBasedStateMachine):
    @initialize(max_jobs=st.integers(1, 8), rooms=st.integers(2, 20))
    def make(self, max_jobs: int, rooms: int) -> None:
        self.clock = ManualClock()
        self.max_jobs, self.max_bytes = max_jobs, rooms * UNIT
        self.queue = JobQueue(
            self.clock, max_jobs=self.max_jobs, max_bytes=self.max_bytes, drop=self.dropped
        )
        self.known: list[Known] = []
        self.orders = 0
        self.told: list[tuple[Job, Dropped]] = []
        # Tokens by virtual time, and the last turn, of tenants that have wanted something since
        # nothing waited or ran.
        self.served: dict[str, float] = {}
        self.turn: dict[str, int] = {}
        self.turns = 0
        self.virtual = 0.0
        self.ready_before: set[str] = set()

    def dropped(self, job: Job, reason: Dropped) -> None:
        self.told.append((job, reason))

    # The model.

    @property
    def now(self) -> float:
        return self.clock.monotonic()

    @property
    def waiting(self) -> list[Known]:
        return [one for one in self.known if one.order]

    @property
    def taken(self) -> list[Known]:
        return [one for one in self.known if not one.order]

    def of(self, job: Job) -> Known:
        (found,) = [one for one in self.known if one.job is job]
        return found

    def ready(self, tenant: str) -> list[Known]:
        return [one for one in self.waiting if one.job.tenant == tenant and not one.due]

    def room(self, tenant: str) -> int:
        return sum(one.room for one in self.waiting if one.job.tenant == tenant)

    def expire(self, found: list[tuple[Job, Dropped]]) -> None:
        for job, reason in found:
            assert reason is Dropped.EXPIRED
            assert self.of(job).deadline <= self.now
            self.remove(job)

    def remove(self, job: Job) -> None:
        self.known.remove(self.of(job))
        self.ready_before = set(filter(self.ready, self.ready_before))
        self.begin_anew()
        self.forget_those_who_owe_nothing()

    def begin_anew(self) -> None:
        if not self.known:
            self.served.clear()
            self.turn.clear()
            self.virtual = 0.0

    def forget_those_who_owe_nothing(self) -> None:
        for tenant in TENANTS:
            wants = any(one.job.tenant == tenant for one in self.known)
            if not wants and self.served.get(tenant, 0.0) <= self.virtual:
                self.served.pop(tenant, None)
                self.turn.pop(tenant, None)

    def enter(self, known: Known) -> None:
        tenant = known.job.tenant
        if tenant not in self.turn:
            self.turns += 1
            self.turn[tenant] = self.turns
        self.orders += 1
        known.order = self.orders

    def shed(self, found: list[tuple[Job, Dropped]]) -> None:
        """What was dropped for overload is what a look at everything says."""
        for job, reason in found:
            assert reason is Dropped.OVERLOAD
            waiting = self.waiting
            assert (
                len(waiting) > self.max_jobs or sum(one.nbytes for one in waiting) > self.max_bytes
            )
            most = max(map(self.room, TENANTS))
            assert self.room(job.tenant) == most
            mine = [one for one in waiting if one.job.tenant == job.tenant]
            assert min(mine, key=lambda one: (one.value, -one.order)).job is job
            self.remove(job)

    def told_now(self) -> list[tuple[Job, Dropped]]:
        told, self.told = self.told, []
        return told

    # What happens.

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 5.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(tenant=tenants, key=keys, value=values, span=spans, nbytes=sizes)
    def offer(self, tenant: str, key: int, value: float, span: float, nbytes: int) -> None:
        deadline = self.now + span
        job = Job(JobKind.NEXT, tenant, key, value, deadline, None, nbytes)
        waits = self.queue.offer(job)
        told = self.told_now()
        late = [pair for pair in told if pair[1] is Dropped.EXPIRED]
        assert len(late) <= 2
        self.expire(late)
        rest = told[len(late) :]
        same = [one for one in self.known if (one.job.tenant, one.job.key) == (job.tenant, job.key)]
        if same:
            assert rest == [(job, Dropped.DUPLICATE)]
            if same[0].order:
                same[0].value = max(same[0].value, value)
                same[0].deadline = max(same[0].deadline, deadline)
        elif nbytes + JOB_OVERHEAD_BYTES > self.max_bytes:
            assert rest == [(job, Dropped.OVERLOAD)]
        else:
            known = Known(job, value, deadline, 0)
            self.known.append(known)
            self.enter(known)
            self.note_ready()
            self.shed(rest)
        assert waits == any(one.job is job for one in self.known)

    @rule()
    def take(self) -> None:
        for one in self.waiting:
            if one.due <= self.now:
                one.due = 0.0
        self.note_ready()
        job = self.queue.take()
        self.expire(self.told_now())
        if job is None:
            assert not any(map(self.ready, TENANTS))
            return
        known = self.of(job)
        assert known.deadline > self.now
        tenant = job.tenant
        # Its turn, and no other's; those that were late may have left nothing to take a turn for.
        for other in TENANTS:
            if other != tenant and self.ready(other):
                mine = (self.served.get(tenant, 0.0), self.turn[tenant])
                assert mine < (self.served.get(other, 0.0), self.turn[other])
        best = max(self.ready(tenant), key=lambda one: (one.value, -one.order))
        assert best is known
        known.order = 0
        self.virtual = max(self.virtual, self.served.get(tenant, 0.0))
        self.turns += 1
        self.turn[tenant] = self.turns

    @precondition(lambda self: self.taken)
    @rule(which=st.integers(0, 10), paid=tokens, back=st.booleans())
    def pay(self, which: int, paid: float, *, back: bool) -> None:
        job = self.taken[which % len(self.taken)].job
        amount = -paid / 2 if back else paid
        self.queue.pay(job.tenant, amount)
        self.served[job.tenant] = self.served.get(job.tenant, 0.0) + amount

    @precondition(lambda self: self.taken)
    @rule(which=st.integers(0, 10))
    def done(self, which: int) -> None:
        job = self.taken[which % len(self.taken)].job
        self.queue.done(job)
        self.remove(job)

    @precondition(lambda self: self.taken)
    @rule(which=st.integers(0, 10), seconds=st.sampled_from([0.0, 0.5, 2.0]))
    def put_back(self, which: int, seconds: float) -> None:
        known = self.taken[which % len(self.taken)]
        due = self.now + seconds
        waits = self.queue.put_back(known.job, due)
        told = self.told_now()
        if known.deadline <= due:
            self.expire_early(known, told)
        else:
            known.due = due
            self.enter(known)
            self.note_ready()
            self.shed(told)
        assert waits == (known in self.known)

    def expire_early(self, known: Known, told: list[tuple[Job, Dropped]]) -> None:
        assert told == [(known.job, Dropped.EXPIRED)]
        self.remove(known.job)

    @rule(most=st.integers(1, 5))
    def sweep(self, most: int) -> None:
        more = self.queue.sweep(most)
        told = self.told_now()
        self.expire(told)
        late = [one for one in self.waiting if one.deadline <= self.now]
        assert more == (len(told) == most)
        assert more or not late

    def note_ready(self) -> None:
        """Whoever comes, or comes back, starts at virtual time."""
        ready = {tenant for tenant in TENANTS if self.ready(tenant)}
        for tenant in ready - self.ready_before:
            self.served[tenant] = max(self.served.get(tenant, 0.0), self.virtual)
        self.ready_before = ready

    @invariant()
    def it_holds_what_the_model_holds(self) -> None:
        if not hasattr(self, "queue"):
            return
        self.ready_before = {tenant for tenant in TENANTS if self.ready(tenant)}
        self.forget_those_who_owe_nothing()
        waiting = self.waiting
        assert len(self.queue) == len(waiting) <= self.max_jobs
        assert self.queue.nbytes == sum(one.nbytes for one in waiting) <= self.max_bytes
        assert {job: (job.value, job.deadline) for job in self.queue.waiting()} == {
            one.job: (one.value, one.deadline) for one in waiting
        }
        assert self.queue.late_at() == min((one.deadline for one in waiting), default=None)
        later = [one.due for one in waiting if one.due]
        assert self.queue.due_at() == min(later, default=None)
        assert set(self.queue._flows) == set(self.turn)


TestAgainstAModel = AgainstAModel.TestCase
TestAgainstAModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
