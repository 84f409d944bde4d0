"""Single measurements: each takes a running server and returns a record."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from benchmarks.harness.bare import BareEngine
from benchmarks.harness.data import Dataset
from benchmarks.harness.figures import Ingest, Point, Round
from benchmarks.harness.generator import LoadGenerator
from benchmarks.harness.load import Job, Result
from benchmarks.harness.progress import Progress
from benchmarks.harness.servers import K, Pyrope, Server, ServerError
from benchmarks.harness.truth import Truth, recall
from benchmarks.harness.wire import Recipe

INGEST_CONNECTIONS = 32
BATCH_CONNECTIONS = 2
BATCH_ROWS = 1000
SWEEP_CONNECTIONS = 32
PING_CONNECTIONS = 50
WARMUP_SECONDS = 0.5

RESTART_RECALL_SLACK = 0.01
"""A rebuilt graph is another graph, whose recall at the same EF differs in the third decimal."""


class Measure:
    """The measurements over one dataset, with one load generator."""

    def __init__(
        self,
        dataset: Dataset,
        truth: Truth,
        folder: Path,
        generator: LoadGenerator,
        progress: Progress,
        seconds: float,
    ) -> None:
        """Write the vectors where the load generator finds them.

        Args:
            truth: the exact K nearest of the dataset's queries.
            folder: takes the vectors as files, for the load generator.
            seconds: length of each timed measurement.
        """
        self._dataset = dataset
        self._truth = truth
        self._generator = generator
        self._progress = progress
        self._seconds = seconds
        self._base_file = folder / "base.npy"
        self._query_file = folder / "queries.npy"
        np.save(self._base_file, dataset.base)
        np.save(self._query_file, dataset.queries)

    def ping(self, server: Server) -> Round:
        """PING, one at a time on each connection."""
        recipe = Recipe((b"PING",))
        job = Job(server.port, recipe, PING_CONNECTIONS, self._seconds, WARMUP_SECONDS)
        result, cpu_us = self._loaded(server, job)
        return _round(result, cpu_us)

    def ingest(self, server: Server) -> Ingest:
        """Every vector by itself, in row order as far as the connections keep it."""
        return self._store(server, Recipe(server.add(), self._base_file), INGEST_CONNECTIONS)

    def ingest_batches(self, server: Pyrope) -> Ingest:
        """Every vector, `BATCH_ROWS` to a request."""
        recipe = Recipe(server.add_batch(), self._base_file, BATCH_ROWS)
        return self._store(server, recipe, BATCH_CONNECTIONS)

    def ingest_bare(self, bare: BareEngine) -> Ingest:
        """Every vector into the engine in this process."""
        rate = len(self._dataset.base) / bare.ingest()
        return Ingest(acknowledged=rate, indexed=rate)

    def probe(self, server: Server, ef: int) -> Point:
        """Every query once."""
        recipe = Recipe(server.search(ef), self._query_file)
        job = Job(server.port, recipe, SWEEP_CONNECTIONS, ids_per_reply=K)
        result = self._generator.run(job, self._progress.part)
        return Point(ef, self._recall(result), result.rate)

    def probe_bare(self, bare: BareEngine, ef: int) -> Point:
        """Every query once."""
        found, rate = bare.search_all(ef)
        return Point(ef, recall(found, self._dataset, self._truth), rate)

    def search(self, server: Server, ef: int, connections: int) -> Round:
        """Go round the queries."""
        recipe = Recipe(server.search(ef), self._query_file)
        job = Job(server.port, recipe, connections, self._seconds, WARMUP_SECONDS, ids_per_reply=K)
        result, cpu_us = self._loaded(server, job)
        return _round(result, cpu_us, self._recall(result))

    def search_bare(self, bare: BareEngine, ef: int) -> Round:
        """Go round the queries."""
        return Round(bare.search_for(ef, self._seconds))

    def check(self, server: Server, ef: int, least_recall: float) -> None:
        """See that a server that has started again has every vector and finds them as before.

        Raises:
            ServerError: it does not.
        """
        self._check_count(server)
        found = self.probe(server, ef).recall
        if found < least_recall - RESTART_RECALL_SLACK:
            raise ServerError(f"{server.label} came back with a recall of {found:.4f} at EF {ef}")

    def _check_count(self, server: Server) -> None:
        rows = len(self._dataset.base)
        if (count := server.count()) != rows:
            raise ServerError(f"{server.label} holds {count} of {rows} acknowledged vectors")

    def _store(self, server: Server, recipe: Recipe, connections: int) -> Ingest:
        rows = len(self._dataset.base)
        server.create(self._dataset.base.shape[1])
        result = self._generator.run(Job(server.port, recipe, connections), self._progress.part)
        began = time.perf_counter()
        server.settle()
        settling = time.perf_counter() - began
        self._check_count(server)
        return Ingest(
            acknowledged=rows / result.seconds,
            indexed=rows / (result.seconds + settling),
            p50_us=result.p50_us,
            p99_us=result.p99_us,
            generator_cpu_us=result.cpu_us,
        )

    def _loaded(self, server: Server, job: Job) -> tuple[Result, float]:
        """The job's result, and the server's CPU time per request in microseconds."""
        before = server.cpu_seconds()
        result = self._generator.run(job)
        return result, (server.cpu_seconds() - before) / result.total_requests * 1e6

    def _recall(self, result: Result) -> float:
        return recall(result.found, self._dataset, self._truth, result.answered)


def _round(result: Result, server_cpu_us: float, reached: float | None = None) -> Round:
    return Round(
        rate=result.rate,
        p50_us=result.p50_us,
        p99_us=result.p99_us,
        generator_cpu_us=result.cpu_us,
        server_cpu_us=server_cpu_us,
        recall=reached,
    )
