"""What it costs to have a question wait for the language model, in time and in memory.

    python -m benchmarks.micro_llm_queue

Times are medians of runs, one thread, one process. `submit` is what the path of a request pays.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import time
import tracemalloc
from collections.abc import Callable
from random import Random

from pydantic import BaseModel

from pyrope.clock import SystemClock
from pyrope.llm.budget import BudgetLimits, MonthlyBudgets
from pyrope.llm.call import Hooks
from pyrope.llm.job import Dropped, Job, JobKind
from pyrope.llm.provider import Completion, Prompt
from pyrope.llm.queue import JOB_OVERHEAD_BYTES, JobQueue
from pyrope.llm.worker import LLMWorker
from pyrope.llm.worker_limits import WorkerLimits

QUESTION_BYTES = 500
LARGE = BudgetLimits(10**12, 1e12)


class Nothing(BaseModel):
    """An answer without content."""


class Silent:
    """A provider that never answers."""

    name = "silent"
    model = "none"

    async def start(self) -> None:
        pass

    async def complete(self, prompt: Prompt) -> Completion:
        await asyncio.Event().wait()
        raise AssertionError(prompt)

    async def close(self) -> None:
        pass


def jobs(count: int, tenants: int, seed: int = 1) -> list[Job]:
    random = Random(seed)
    deadline = SystemClock().monotonic() + 1e6
    return [
        Job(
            JobKind.CANONICAL,
            f"tenant{number % tenants}",
            f"key{number}",
            random.random(),
            deadline + number,
            f"{number:010}".ljust(QUESTION_BYTES, "x"),
            QUESTION_BYTES,
        )
        for number in range(count)
    ]


def queue_of(size: int) -> JobQueue:
    def drop(job: Job, reason: Dropped) -> None:
        pass

    return JobQueue(SystemClock(), max_jobs=size, max_bytes=1 << 40, drop=drop)


def microseconds(work: Callable[[Job], object], done: list[Job]) -> tuple[float, float]:
    """Mean and longest of calls."""
    longest = 0.0
    began = time.perf_counter()
    for job in done:
        start = time.perf_counter()
        work(job)
        longest = max(longest, time.perf_counter() - start)
    return (time.perf_counter() - began) / len(done) * 1e6, longest * 1e6


def worker() -> LLMWorker:
    return LLMWorker(
        Silent(),
        SystemClock(),
        WorkerLimits(max_queued=10_000, max_queue_bytes=1 << 30),
        Hooks(
            build=lambda _: Prompt("", "", Nothing, 1),
            deliver=lambda *_: None,
            charge=lambda *_: None,
            may_spend=lambda *_: None,
            count_tokens=len,
        ),
        MonthlyBudgets(lambda: 1, LARGE, lambda _: LARGE, lambda *_: 0.0),
        random=Random(1),
    )


async def submitted(done: list[Job]) -> tuple[float, float]:
    one = worker()
    await one.start()
    figures = microseconds(one.submit_nowait, done)
    await one.stop()
    return figures


def times(size: int, tenants: int, repeat: int) -> None:
    rows: dict[str, list[tuple[float, float]]] = {}

    def note(name: str, figures: tuple[float, float]) -> None:
        rows.setdefault(name, []).append(figures)

    for run in range(repeat):
        many = jobs(2 * size, tenants, run)
        queue = queue_of(size)
        note("offer, there is room", microseconds(queue.offer, many[:size]))
        note("offer, a duplicate", microseconds(queue.offer, jobs(size, tenants, run + 99)))
        note("offer, full: another is dropped", microseconds(queue.offer, many[size:]))

        def take(_: Job, queue: JobQueue = queue) -> None:
            job = queue.take()
            if job is None:
                raise AssertionError("nothing waits")
            queue.pay(job.tenant, 300.0)
            queue.done(job)

        note("take, pay, done", microseconds(take, many[:size]))
        note("submit to a worker, up to full", asyncio.run(submitted(jobs(size, tenants, run))))
    print(f"{size:,} jobs of {tenants:,} tenants\n")
    print("| operation | µs | longest, µs |\n| --- | ---: | ---: |")
    for name, figures in rows.items():
        means, longest = zip(*figures, strict=True)
        print(f"| {name} | {statistics.median(means):.2f} | {statistics.median(longest):.0f} |")


def memory(size: int, tenants: int) -> None:
    gc.collect()
    tracemalloc.start()
    queue = queue_of(size)
    before, _ = tracemalloc.get_traced_memory()
    for job in jobs(size, tenants):
        queue.offer(job)
    del job
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    print(
        f"{len(queue):,} jobs of {tenants:,} tenants with questions of {QUESTION_BYTES} bytes: "
        f"{(after - before) / 1e6:.1f} MB, {(after - before) / size - QUESTION_BYTES:.0f} bytes a "
        f"job beside its question ({JOB_OVERHEAD_BYTES} are counted)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000, help="that wait")
    parser.add_argument("--tenants", type=int, default=20)
    parser.add_argument("--repeat", type=int, default=5)
    arguments = parser.parse_args()
    times(arguments.jobs, arguments.tenants, arguments.repeat)
    print()
    for tenants in (1, arguments.tenants, arguments.jobs):
        memory(arguments.jobs, tenants)


if __name__ == "__main__":
    main()
