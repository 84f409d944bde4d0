"""What it costs a request that it is counted, timed, and may be traced.

    python -m benchmarks.micro_metrics

Each line is what the server does for a kind of request for the sake of metrics, the slow log and
tracing, with the very objects that it uses; the loop around it is taken off. Beside it stands what
the handler of the request takes in all. Medians of runs, one thread, one process.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import struct
import time
from collections.abc import Callable
from typing import Any

from pyrope.clock import SystemClock
from pyrope.commands.context import Client, Context, Server
from pyrope.commands.latency import LatencyMonitor
from pyrope.commands.slowlog import SlowLog
from pyrope.commands.table import build_table
from pyrope.config import Settings
from pyrope.engine.base import SearchOptions
from pyrope.engine.batcher import Piece
from pyrope.metrics import CommandStats, Durations, ServerCounters
from pyrope.resp.writer import encode_bulk
from pyrope.service.answers import MISS, Answer
from pyrope.service.cacheable import CacheStatistics
from pyrope.service.definition import IndexDefinition
from pyrope.service.search import Found, Hits, Search, SearchRequest
from pyrope.service.service import Service
from pyrope.tenants.budget import Charged
from pyrope.tracing.tracer import WriteTracer
from pyrope.types import IndexType, Metric

Work = Callable[[int], None]

LIMIT_NS = 1000
"""What all of it together may cost a request."""


def median_ns(work: Work, times: int, repeat: int = 9) -> float:
    """Nanoseconds for each time that `work` does it."""

    def seconds(one: Work) -> float:
        start = time.thread_time()
        one(times)
        return time.thread_time() - start

    def nothing(times: int) -> None:
        for _ in range(times):
            pass

    return statistics.median(seconds(work) - seconds(nothing) for _ in range(repeat)) / times * 1e9


# -- what is added to requests -------------------------------------------------------------------

HITS = Hits(
    [b"a"], [1.0], [], exact=True, queue_seconds=0.0, search_seconds=0.0, slots=[0], whole=True
)


class Added:
    """The additions, each as it stands in the source."""

    def __init__(self) -> None:
        self.counters = ServerCounters()
        self.get_counters: Callable[[], ServerCounters] = lambda: self.counters
        self.statistics = CacheStatistics(hits={})
        self.charged = Charged()
        self.monotonic = SystemClock().monotonic
        self.answer = Answer(HITS, MISS)
        self.args = [b"VECTOR.SEARCH"]
        self.answered: Any = None
        self.tracer: WriteTracer | None = None
        request = SearchRequest(1, b"", 1, Search(10, SearchOptions()), 0.0)
        self.batch = [Piece(request, 0, 1)]
        self.found = [Found([[0]], [[1.0]], True, [True], 1.0, 2.0, None)]  # noqa: FBT003 - a tuple

    def repeated_by_words(self, times: int) -> None:
        """A hit whose reply is sent again after its words were read (commands.search)."""
        for _ in range(times):
            began = self.monotonic()
            self.statistics.saved += 1.0
            self.charged.compute_micro += 1
            self.counters.answered["exact"].record(self.monotonic() - began)

    def answered_query(self, times: int) -> None:
        """Whatever a `Renderer` makes the reply of: hits of all levels, and misses."""
        for _ in range(times):
            self.statistics.saved += 1.0
            self.charged.compute_micro += 1
            now = self.monotonic()
            self.counters.answered["miss"].record(now - 1.0)
            hits = self.answer.hits
            self.answered = (
                self.args,
                "index",
                "miss",
                hits.queue_seconds,
                hits.search_seconds,
                1.0,
                now,
            )

    def lone_batch(self, times: int) -> None:
        """A batch of a single request (service.index)."""
        for _ in range(times):
            counters = self.get_counters()
            if len(self.batch) == 1:
                (_, start, stop), found = self.batch[0], self.found[0]
                counters.batch_sizes.record(stop - start)
                if type(found) is Found:
                    counters.queued.record(found.began_at - self.batch[0].request.queued_at)
                    counters.searched.record(found.ended_at - found.began_at)

    def batch_of_32(self, times: int) -> None:
        """A batch of as many requests, of one native call."""
        batch, answers = self.batch * 32, self.found * 32
        for _ in range(times):
            counters = self.get_counters()
            waited = counters.queued.record
            queries = 0
            calls: list[float] = []
            for (request, start, stop), found in zip(batch, answers, strict=True):
                queries += stop - start
                if type(found) is Found:
                    began_at = found.began_at
                    waited(began_at - request.queued_at)
                    if began_at not in calls:
                        calls.append(began_at)
                        counters.searched.record(found.ended_at - began_at)
            counters.batch_sizes.record(queries)

    def write(self, times: int) -> None:
        """A write, alone in its commit (service.index, service.writer, storage.group_commit)."""
        durations, sizes = Durations(), self.counters.batch_sizes
        for _ in range(times):
            if self.tracer is not None:
                raise AssertionError("nothing is traced")
            self.monotonic()
            if self.tracer is not None:
                raise AssertionError("nothing is traced")
            durations.record(0.001)
            sizes.record(1)

    def shortcuts(self, times: int) -> None:
        """A round of 64 hits told by the bytes of their packets: 64 times as many requests."""
        stats = CommandStats()
        for _ in range(times):
            self.charged.compute_micro += 64
            self.statistics.saved += 64 * 1.0
            stats.alike.record_alike(1e-6, 64)


# -- what requests take --------------------------------------------------------------------------


async def handlers(times: int) -> dict[str, float]:
    """Nanoseconds of whole handlers, of a server in memory."""
    clock = SystemClock()
    settings = Settings(in_memory=True, http_port=0)
    service = Service(settings, clock, encode_bulk)
    await service.start()
    await service.loaded()
    table = build_table()
    server = Server(
        settings=settings,
        clock=clock,
        service=service,
        commands=table,
        slow_log=SlowLog(),
        latency=LatencyMonitor(),
        run_id="0" * 40,
        started_at=clock.monotonic(),
        started_at_wall=clock.wall(),
        request_shutdown=_never,
        counters=service.counters,
    )
    client = Client(1, "127.0.0.1:1", "127.0.0.1:2", True, _NoLink(), 0.0, 0.0)  # noqa: FBT003 - local
    context = Context(client, server)
    definition = IndexDefinition("i", 64, Metric.COSINE, IndexType.FLAT)
    await service.create_index("default", definition)
    blob = struct.pack("<64f", *range(1, 65))
    search = table[b"VECTOR.SEARCH"].handler
    if search is None:
        raise AssertionError("VECTOR.SEARCH has a handler")
    plain = [b"VECTOR.SEARCH", b"i", b"FP32", blob]
    told = [*plain, b"WITHINFO"]

    def run(args: list[bytes]) -> Any:
        context.account = service.tenancy.enforcer.enter("default")
        context.account.admit()
        try:
            return search(context, args)
        finally:
            context.account.leave()

    first = run(plain)
    first.render(await first.future, 2)
    run(plain)

    def again(args: list[bytes]) -> Work:
        def work(times: int) -> None:
            for _ in range(times):
                run(args)

        return work

    found = {
        "hit by its words": median_ns(again(plain), times),
        "hit with WITHINFO": median_ns(again(told), times),
    }
    await service.stop()
    return found


class _NoLink:
    input_buffered = output_buffered = in_flight = 0

    def close_after_reply(self) -> None: ...

    def kill(self) -> None: ...


def _never(*, save: bool) -> None:
    raise AssertionError(save)


def measure(times: int) -> list[tuple[str, float]]:
    """What is added to each kind of request, in nanoseconds."""
    added = Added()
    answered, batch = median_ns(added.answered_query, times), median_ns(added.lone_batch, times)
    shared = median_ns(added.batch_of_32, times // 32)
    return [
        (
            "hit told by the bytes of its packet, 64 in a round",
            median_ns(added.shortcuts, times) / 64,
        ),
        ("hit by its words", median_ns(added.repeated_by_words, times)),
        ("hit of any level, looked up", answered),
        ("search, alone in its batch", answered + batch),
        ("search, in a batch of 32", answered + shared / 32),
        ("write, alone in its commit", median_ns(added.write, times)),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--times", type=int, default=20_000)
    times = parser.parse_args().times
    print("added for metrics, slow log and tracing (off):")
    found = measure(times)
    for name, nanoseconds in found:
        print(f"  {name:52} {nanoseconds:7.0f} ns")
    print("handlers, in all:")
    for name, nanoseconds in asyncio.run(handlers(times // 4)).items():
        print(f"  {name:52} {nanoseconds:7.0f} ns")
    worst = max(nanoseconds for _, nanoseconds in found)
    print(f"the most is {worst:.0f} ns of the {LIMIT_NS} ns that there are")
    return 0 if worst <= LIMIT_NS else 1


if __name__ == "__main__":
    raise SystemExit(main())
