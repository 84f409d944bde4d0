"""Which question the worker asks next, and which it never will.

**Turns.** Tenants take turns by what their calls have cost, in tokens: next is the one that has
been served least. This is start-time fair queueing (Goyal, Vin and Cheng, "Start-Time Fair
Queueing", SIGCOMM 1996, section 2): virtual time is what the tenant whose turn it was last had been
served before that turn; a tenant that comes, or comes back, starts there, so that nobody saves up
turns while it wants nothing; and when nothing waits or runs any more, everybody begins anew. The
one difference: a tenant pays what is reserved for a call when the call begins and the rest, or gets
some back, when it has ended. Hence a tenant with one question waits for the calls that are under
way and not for another one's ten thousand. Of those served alike, whose last turn is longest ago.

**Within a tenant** the most valuable goes first; of the same value, the oldest.

**Overload.** When more wait than may, by number or by bytes, the tenant that takes most room loses
its least valuable one, of the same value the youngest; that may be the one which has just come.

**Again.** A job whose call has failed waits until it is due, and then for its turn like any other;
meanwhile it takes room, can be dropped, and holds up nobody.

A job waits, or is *taken* until `done` or `put_back`. There is one of each kind, tenant and key.
For the event loop; offering and taking cost O(log n).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator
from itertools import count

from pyrope.clock import Clock
from pyrope.llm.fullest import Fullest
from pyrope.llm.job import Dropped, Job, JobKind
from pyrope.llm.lazy_heap import Entry, LazyHeap

JOB_OVERHEAD_BYTES = 800
"""What a job takes beside its question: 750 as measured, 1,280 with its tenant where that has no
other; more while entries of heaps are dead (benchmarks/micro_llm_queue.py)."""

# The room of tenants is compared in units of so many bytes.
_UNIT_BYTES = 512

# Jobs looked at for being late whenever one comes: two, so that they go faster than they come.
_LATE_AT_ONCE = 2

_Identity = tuple[JobKind, str, Hashable]


def _is_first_alive(entry: Entry) -> bool:
    job: Job = entry[2]
    return job.number == entry[1] and job.value == -entry[0]


def _is_least_alive(entry: Entry) -> bool:
    job: Job = entry[2]
    return job.number == -entry[1] and job.value == entry[0]


def _is_deadline_alive(entry: Entry) -> bool:
    job: Job = entry[2]
    return job.number == entry[1] and job.deadline == entry[0]


def _is_due_alive(entry: Entry) -> bool:
    job: Job = entry[2]
    return job.number == entry[1] and job.due == entry[0]


def _is_place_alive(entry: Entry) -> bool:
    flow: _Flow = entry[2]
    return flow.place is entry


class _Flow:
    """The jobs of a tenant.

    Attributes:
        ready: those whose turn it may be, by value, the highest first.
        least: all that wait, by value, the lowest first.
        taken: how many are taken.
        served: tokens, in virtual time.
        turn: of its last turn; the older ones are lower.
        place: its entry among those whose turn it may be, or among those at rest.
        listed: it is among the former.
    """

    __slots__ = ("least", "listed", "place", "ready", "served", "taken", "tenant", "turn")

    def __init__(self, tenant: str, served: float, turn: int) -> None:
        self.tenant = tenant
        self.ready = LazyHeap(_is_first_alive)
        self.least = LazyHeap(_is_least_alive)
        self.taken = 0
        self.served = served
        self.turn = turn
        self.place: Entry | None = None
        self.listed = False


class JobQueue:
    """What waits for the worker.

    Args:
        clock: its monotonic side is what deadlines go by.
        max_jobs: that may wait, at least 1.
        max_bytes: that they may take, `JOB_OVERHEAD_BYTES` for each included.
        drop: told of each job that is not going to be asked, and why.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        max_jobs: int,
        max_bytes: int,
        drop: Callable[[Job, Dropped], None],
    ) -> None:
        self._monotonic = clock.monotonic
        self._max_jobs = max_jobs
        self._max_bytes = max_bytes
        self._drop = drop
        self._nbytes = 0
        self._numbers = count(1)
        self._turns = count(1)
        # All that wait or are taken.
        self._known: dict[_Identity, Job] = {}
        self._flows: dict[str, _Flow] = {}
        self._fullest: Fullest[str] = Fullest()
        self._virtual = 0.0
        # Flows with a job whose turn it may be, and flows with none that have been served more
        # than virtual time says: what they owe must not be forgotten.
        self._turns_of = LazyHeap(_is_place_alive)
        self._resting = LazyHeap(_is_place_alive)
        self._deadlines = LazyHeap(_is_deadline_alive)
        self._later = LazyHeap(_is_due_alive)

    def __len__(self) -> int:
        """Jobs that wait."""
        return len(self._deadlines)

    @property
    def nbytes(self) -> int:
        """Bytes that those take, `JOB_OVERHEAD_BYTES` for each included."""
        return self._nbytes

    def waiting(self) -> Iterator[Job]:
        """All that wait, in no order."""
        return (job for job in self._known.values() if job.number)

    def offer(self, job: Job) -> bool:
        """Have a job wait, if there is room for it.

        One that waits already, of the same kind, tenant and key, takes on the higher value and the
        later deadline of the two.

        Returns:
            Whether this one waits now; else `drop` has been told.

        Raises:
            ValueError: its value is not finite, its deadline no number, or its bytes are negative.
        """
        if not math.isfinite(job.value) or math.isnan(job.deadline) or job.nbytes < 0:
            raise ValueError(
                f"no job is worth {job.value}, until {job.deadline}, and has {job.nbytes} bytes"
            )
        self.sweep(_LATE_AT_ONCE)
        now = self._monotonic()
        reason = self._reason_against(job, now)
        if reason is not None:
            self._drop(job, reason)
            return False
        job.submitted_at = now
        job.due = 0.0
        self._known[job.kind, job.tenant, job.key] = job
        self._enter(job)
        self._shed()
        return job.number != 0

    def take(self) -> Job | None:
        """The job whose turn it is; None: none is ready.

        What is late is dropped when it is seen; `sweep` first, where it may be a lot.
        """
        now = self._monotonic()
        self._ripen(now)
        while (place := self._turns_of.peek()) is not None:
            flow: _Flow = place[2]
            job: Job = flow.ready.first()[2]
            if job.deadline <= now:
                self._lose(job, Dropped.EXPIRED)
                continue
            flow.taken += 1
            self._virtual = max(self._virtual, flow.served)
            flow.turn = next(self._turns)
            self._leave(job)
            self._place(flow)
            self._forgive()
            return job
        return None

    def pay(self, tenant: str, tokens: float) -> None:
        """Have a tenant pay for a job that is taken; what is below 0 it gets back."""
        flow = self._flows[tenant]
        flow.served += tokens
        self._place(flow)

    def put_back(self, job: Job, due: float) -> bool:
        """A job that was taken waits once more.

        Args:
            due: monotonic time in seconds, before which it is nobody's turn.

        Returns:
            Whether it does; else `drop` has been told: its deadline is not after that, or there is
            no room.
        """
        flow = self._flows[job.tenant]
        flow.taken -= 1
        if job.deadline <= due:
            del self._known[job.kind, job.tenant, job.key]
            self._drop(job, Dropped.EXPIRED)
            self._place(flow)
            self._end()
            return False
        job.due = due
        self._enter(job)
        self._shed()
        return job.number != 0

    def done(self, job: Job) -> None:
        """A job that was taken has ended."""
        flow = self._flows[job.tenant]
        flow.taken -= 1
        del self._known[job.kind, job.tenant, job.key]
        self._place(flow)
        self._end()

    def due_at(self) -> float | None:
        """Monotonic time at which the next one of those put back is due; None: none waits."""
        entry = self._later.peek()
        return None if entry is None else entry[0]

    def late_at(self) -> float | None:
        """The next deadline, in monotonic time; None: nothing waits."""
        entry = self._deadlines.peek()
        return None if entry is None else entry[0]

    def sweep(self, most: int) -> bool:
        """Drop up to so many jobs that are late. Returns whether there may be more."""
        now = self._monotonic()
        for _ in range(most):
            entry = self._deadlines.peek()
            if entry is None or entry[0] > now:
                return False
            self._lose(entry[2], Dropped.EXPIRED)
        return True

    def _reason_against(self, job: Job, now: float) -> Dropped | None:
        if job.deadline <= now:
            return Dropped.EXPIRED
        known = self._known.get((job.kind, job.tenant, job.key))
        if known is not None:
            if known.number:
                self._raise(known, job)
            return Dropped.DUPLICATE
        # Nobody's jobs are to make room for one that has none whatever they do.
        return Dropped.OVERLOAD if _bytes_of(job) > self._max_bytes else None

    def _raise(self, job: Job, other: Job) -> None:
        flow = self._flows[job.tenant]
        if other.value > job.value:
            job.value = other.value
            self._list(flow, job)
            flow.least.bury()
            if not job.due:
                flow.ready.bury()
        if other.deadline > job.deadline:
            job.deadline = other.deadline
            self._deadlines.push((job.deadline, job.number, job))
            self._deadlines.bury()

    def _enter(self, job: Job) -> None:
        """Have a job wait that does not."""
        flow = self._flows.get(job.tenant)
        if flow is None:
            flow = _Flow(job.tenant, self._virtual, next(self._turns))
            self._flows[job.tenant] = flow
        job.number = next(self._numbers)
        self._nbytes += _bytes_of(job)
        self._fullest.add(job.tenant, _room_of(job))
        self._deadlines.push((job.deadline, job.number, job))
        if job.due:
            self._later.push((job.due, job.number, job))
        self._list(flow, job)
        self._place(flow)

    def _list(self, flow: _Flow, job: Job) -> None:
        flow.least.push((job.value, -job.number, job))
        if not job.due:
            flow.ready.push((-job.value, job.number, job))

    def _leave(self, job: Job) -> None:
        """Have a job that waits wait no more. Its flow is to be placed anew."""
        flow = self._flows[job.tenant]
        job.number = 0
        self._nbytes -= _bytes_of(job)
        self._fullest.add(job.tenant, -_room_of(job))
        self._deadlines.bury()
        flow.least.bury()
        (self._later if job.due else flow.ready).bury()

    def _lose(self, job: Job, reason: Dropped) -> None:
        """Drop a job that waits."""
        del self._known[job.kind, job.tenant, job.key]
        self._leave(job)
        self._place(self._flows[job.tenant])
        self._end()
        self._drop(job, reason)

    def _shed(self) -> None:
        """Drop until no more wait than may."""
        while len(self) > self._max_jobs or self._nbytes > self._max_bytes:
            flow = self._flows[self._fullest.first()]
            self._lose(flow.least.first()[2], Dropped.OVERLOAD)

    def _ripen(self, now: float) -> None:
        """Those that were put back and are due may be next."""
        while (entry := self._later.peek()) is not None and entry[0] <= now:
            job: Job = entry[2]
            flow = self._flows[job.tenant]
            job.due = 0.0
            self._later.bury()
            flow.ready.push((-job.value, job.number, job))
            self._place(flow)

    def _place(self, flow: _Flow) -> None:
        """Put a flow where it belongs: among those whose turn it may be, at rest, or nowhere."""
        place = flow.place
        if flow.ready:
            if not flow.listed:
                flow.served = max(flow.served, self._virtual)
            elif place is not None and place[:2] == (flow.served, flow.turn):
                return
            self._unplace(flow)
            flow.listed = True
            flow.place = (flow.served, flow.turn, flow)
            self._turns_of.push(flow.place)
            return
        self._unplace(flow)
        if flow.least or flow.taken:
            return
        if flow.served > self._virtual:
            flow.place = (flow.served, flow.turn, flow)
            self._resting.push(flow.place)
        else:
            del self._flows[flow.tenant]

    def _unplace(self, flow: _Flow) -> None:
        if flow.place is not None:
            flow.place = None
            (self._turns_of if flow.listed else self._resting).bury()
        flow.listed = False

    def _forgive(self) -> None:
        """Forget those at rest who owe nothing any more."""
        while (place := self._resting.peek()) is not None and place[0] <= self._virtual:
            self._place(place[2])

    def _end(self) -> None:
        """Begin anew if nothing waits and nothing is taken."""
        if self._known:
            return
        self._flows.clear()
        self._turns_of = LazyHeap(_is_place_alive)
        self._resting = LazyHeap(_is_place_alive)
        self._virtual = 0.0


def _bytes_of(job: Job) -> int:
    return job.nbytes + JOB_OVERHEAD_BYTES


def _room_of(job: Job) -> int:
    return -(-_bytes_of(job) // _UNIT_BYTES)
