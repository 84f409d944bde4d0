"""Whose job a thread takes next: fair among tenants, by the time that their jobs take.

This is deficit round robin (Shreedhar and Varghese, "Efficient Fair Queuing Using Deficit Round
Robin", IEEE/ACM Transactions on Networking 4(3), 1996, section III) with these changes:

- A job's cost is known only when it has run. A flow pays an estimate when a job of its is taken and
  the difference afterwards, so that its credit may fall below zero; it then waits for as many
  rounds as it takes to be paid back (surplus round robin: Adiseshu, Parulkar and Varghese, "A
  Reliable and Scalable Striping Protocol", SIGCOMM 1996).
- A flow that had nothing waiting, and no debts, goes before those that had, for one quantum (the
  new queues of FQ-CoDel: RFC 8290, section 4). What a tenant of few requests waits for is then the
  end of a job that runs, not a round of all the others. As there, a flow that has been let before
  the others takes part in a round of theirs before it is let before them again.
- A flow may be kept from some of the threads (`leave_free`), so that another one finds a thread at
  once. Such a job is not begun, whoever is idle; no job ever waits for another one to begin, so
  that nothing can come to a halt by it.

A flow that is alone owes nobody anything. Any thread may call any method.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from math import floor
from queue import SimpleQueue
from typing import Any, NamedTuple

QUANTUM_SECONDS = 0.0005
"""What a flow of weight 1 may take in one round: shorter than most jobs, so that a round is about
one job of each."""


class Job(NamedTuple):
    """What a thread is to do.

    Attributes:
        function, args: what to call.
        done: called on the loop with what came of it; None: nobody wants to know.
        flow: whose it is, which `FairQueue.settle` is to be told of when it has ended; None:
            nobody's, who together are a flow of weight 1 that nothing is kept from.
        cost: what it takes by estimate, in seconds.
        helps: it is part of a job that runs already, and has an index to itself perhaps: it goes
            before all.
    """

    function: Any
    args: tuple[Any, ...]
    done: Any
    flow: Flow | None = None
    cost: float = 0.0
    helps: bool = False


class Flow:
    """The jobs of one tenant. All but `weight` is the queue's business.

    Attributes:
        weight: its share of the time beside others that want it too, at least 1.
        credit: seconds that it may take before it is another's turn; below 0: what it owes.
        waiting: its jobs that no thread has taken.
        running: its jobs that threads have taken, and that have not been settled.
        listed: whether it is in one of the lists of the queue.
    """

    __slots__ = ("credit", "listed", "running", "waiting", "weight")

    def __init__(self, weight: int) -> None:
        self.weight = weight
        self.credit = 0.0
        self.waiting: deque[Job] = deque()
        self.running = 0
        self.listed = False

    @property
    def quantum(self) -> float:
        """What it may take in one round, in seconds."""
        return self.weight * QUANTUM_SECONDS


class FairQueue:
    """Jobs of many flows that wait for a few threads.

    Args:
        threads: that take jobs.
    """

    def __init__(self, threads: int) -> None:
        self._threads = self._most = threads
        self._lock = threading.Lock()
        # One for each job that waits, whosever it is, but for those that are held back, and one for
        # each thread that is to end.
        self._tokens: SimpleQueue[None] = SimpleQueue()
        self._held = 0
        self._closing = False
        # Jobs that no thread has taken.
        self._waiting = 0
        self._helping: deque[Job] = deque()
        self._nobodys = Flow(1)
        # A flow in neither has no job that waits, and no debt.
        self._new: deque[Flow] = deque()
        self._old: deque[Flow] = deque()

    def leave_free(self, threads: int) -> None:
        """Keep every flow from so many of the threads, so that others find one; not from all."""
        most = max(self._threads - threads, 1)
        if most == self._most:
            return
        with self._lock:
            self._most = most
            held, self._held = self._held, 0
        for _ in range(held):
            self._tokens.put(None)

    def put(self, job: Job | None) -> None:
        """Have a thread do this; None: have one thread end when nothing waits any more."""
        with self._lock:
            if job is None:
                self._closing = True
            elif job.helps:
                self._waiting += 1
                self._helping.append(job)
            else:
                self._waiting += 1
                flow = job.flow or self._nobodys
                flow.waiting.append(job)
                if not flow.listed:
                    flow.listed = True
                    flow.credit = flow.quantum
                    self._new.append(flow)
        self._tokens.put(None)

    def get(self) -> Job | None:
        """Wait for a job, and take it; None: this thread is to end."""
        while True:
            self._tokens.get()
            job = self._redeem()
            if job is not None or self._is_over:
                return job

    @property
    def _is_over(self) -> bool:
        return self._closing and not self._waiting

    def _redeem(self) -> Job | None:
        """What a token is good for: a job, or nothing yet, or nothing any more."""
        with self._lock:
            job = self._take()
            if job is not None:
                self._waiting -= 1
                if job.flow is not None:
                    job.flow.running += 1
            elif not self._is_over:
                # It is for a flow that runs as much as it may: until that has ended.
                self._held += 1
            return job

    def settle(self, flow: Flow, surplus: float) -> None:
        """A job has ended, and has taken so many seconds more than its `cost`."""
        with self._lock:
            flow.running -= 1
            flow.credit -= surplus
            if flow.credit <= 0 and not flow.listed and (self._new or self._old):
                # It pays while the others have their turns.
                flow.listed = True
                self._old.append(flow)
            freed = self._held if self._is_over else min(self._held, 1)
            self._held -= freed
        for _ in range(freed):
            self._tokens.put(None)

    def _take(self) -> Job | None:
        """The job that is to be taken next; None: none waits that may begin."""
        helping = self._helping
        if helping:
            flow = helping[0].flow
            if flow is None or flow.running < self._most:
                return helping.popleft()
        flow = self._next()
        if flow is None:
            return None
        job = flow.waiting.popleft()
        flow.credit -= job.cost
        return job

    def _next(self) -> Flow | None:
        """The flow whose turn it is; None: no job waits that may begin."""
        new, old = self._new, self._old
        # Flows that have been passed over since the last change.
        in_debt = at_most = 0
        while listed := new or old:
            flow = listed[0]
            if len(new) + len(old) == 1:
                flow.credit = flow.quantum
            if flow.credit > 0 and not flow.waiting:
                listed.popleft()
                if listed is new and old:
                    # Not new again before the others have had their turn.
                    old.append(flow)
                else:
                    flow.listed = False
                in_debt = at_most = 0
                continue
            if flow.running >= self._most:
                at_most += 1
                if at_most > len(new) + len(old):
                    return None
            elif flow.credit > 0:
                return flow
            else:
                flow.credit += flow.quantum
                at_most = 0
                in_debt += 1
            listed.popleft()
            old.append(flow)
            if in_debt > len(new) + len(old):
                self._pass_rounds()
                in_debt = 0
        return None

    def _pass_rounds(self) -> None:
        """Let rounds go by in which everybody pays debts, up to the last such one."""
        debtors = [flow for flow in self._flows() if flow.running < self._most]
        rounds = min(floor(-flow.credit / flow.quantum) for flow in debtors)
        if rounds > 0:
            for flow in debtors:
                flow.credit += rounds * flow.quantum

    def _flows(self) -> Iterator[Flow]:
        yield from self._new
        yield from self._old
