"""Single measurements: each takes a running server and returns a record."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from benchmarks.harness.bare import BareEngine
from benchmarks.harness.data import Dataset, Float32Matrix
from benchmarks.harness.figures import Ingest, Mixed, Point, Round
from benchmarks.harness.generator import LoadGenerator
from benchmarks.harness.load import Job, Result
from benchmarks.harness.paced import LoadError, Pace
from benchmarks.harness.progress import Progress
from benchmarks.harness.servers import K, Pyrope, Server, ServerError
from benchmarks.harness.truth import Truth, recall
from benchmarks.harness.wire import Recipe

INGEST_CONNECTIONS = 32
BATCH_CONNECTIONS = 4
BATCH_ROWS = 500
SEARCH_CONNECTIONS = 32
PING_CONNECTIONS = 50
WRITE_CONNECTIONS = 8
WARMUP_SECONDS = 0.5

IDLE_SHARE = 3
"""The idle index is searched for one part in this many of the time of the mixed measurement."""

RESTART_RECALL_SLACK = 0.03
"""A rebuilt graph is another graph, whose recall at the same EF differs in the third decimal. Lists
differ more, and a small index scans where a batch makes that cheaper, which raises its recall from
one run to the next."""


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
        newcomers: Float32Matrix,
    ) -> None:
        """Write the vectors where the load generator finds them.

        Args:
            truth: the exact K nearest of the dataset's queries.
            folder: takes the vectors as files, for the load generator.
            seconds: length of each timed measurement.
            newcomers: float32, shape (n, dim): what is written during the mixed measurement, under
                the ids that follow the dataset's.
        """
        self._dataset = dataset
        self._truth = truth
        self._generator = generator
        self._progress = progress
        self._seconds = seconds
        self._newcomers = newcomers
        self._base_file = dataset.base_file or _saved(dataset.base, folder / "base.npy")
        self._query_file = _saved(dataset.queries, folder / "queries.npy")
        self._newcomers_file = _saved(newcomers, folder / "newcomers.npy")

    def ping(self, server: Server) -> Round:
        """PING, one at a time on each connection."""
        recipe = Recipe((b"PING",))
        job = Job(server.port, recipe, PING_CONNECTIONS, self._seconds, WARMUP_SECONDS)
        result, cpu_us = self._loaded(server, job)
        return _round(result, cpu_us)

    def ingest(self, server: Server) -> Ingest:
        """Every vector by itself, in row order as far as the connections keep it."""
        rows = len(self._dataset.base)
        recipe = Recipe(server.add(), self._base_file, rows=rows)
        return self._store(server, recipe, INGEST_CONNECTIONS)

    def ingest_batches(self, server: Pyrope, rows_per_request: int = BATCH_ROWS) -> Ingest:
        """Every vector, many to a request, each request encoded when it is its turn."""
        recipe = Recipe(
            server.add_batch(),
            self._base_file,
            rows_per_request,
            rows=len(self._dataset.base),
            ahead=False,
        )
        return self._store(server, recipe, BATCH_CONNECTIONS)

    def ingest_bare(self, bare: BareEngine) -> Ingest:
        """Every vector into the engine in this process."""
        rate = len(self._dataset.base) / bare.ingest()
        return Ingest(acknowledged=rate, indexed=rate)

    def probe(self, server: Server, effort: int | None) -> Point:
        """Every query once."""
        recipe = Recipe(server.search(effort), self._query_file)
        job = Job(server.port, recipe, SEARCH_CONNECTIONS, ids_per_reply=K)
        result = self._generator.run(job, self._progress.part)
        return Point(effort, self._recall(result), result.rate)

    def probe_bare(self, bare: BareEngine, effort: int) -> Point:
        """Every query once."""
        found, rate = bare.search_all(effort)
        return Point(effort, recall(found, self._dataset, self._truth), rate)

    def search(self, server: Server, effort: int | None, connections: int) -> Round:
        """Go round the queries."""
        return self._search(server, effort, connections, self._seconds)

    def search_once(self, server: Server) -> None:
        """One query, once.

        Raises:
            LoadError: the answer was not one of a search that found something.
        """
        recipe = Recipe(server.search(None), self._query_file, rows=1)
        if (self._generator.run(Job(server.port, recipe, 1, ids_per_reply=K)).found < 0).all():
            raise LoadError(f"{server.label} found nothing")

    def search_bare(self, bare: BareEngine, effort: int, batch: int) -> Round:
        """Go round the queries."""
        return Round(bare.search_for(effort, self._seconds, batch))

    def mixed(self, server: Pyrope, effort: int | None, rate: float, seconds: float) -> Mixed:
        """Searches over 32 connections, first alone, then while vectors are written.

        The index is merged before, so that the idle measurement is of an index at rest. What the
        newcomers replace of an earlier call counts as updates.

        Args:
            rate: vectors written per second, each by a VECTOR.ADD of its own.
            seconds: measured length of the writes; the idle measurement takes a part of that.

        Raises:
            ServerError: a vector whose write was acknowledged is not there.
        """
        server.settle()
        idle = self._search(server, effort, SEARCH_CONNECTIONS, seconds / IDLE_SHARE)
        head_before = int(server.describe()["head_count"])
        stored = len(self._dataset.base)
        recipe = Recipe(server.add(), self._newcomers_file, first_id=stored)
        job = Job(
            server.port,
            Recipe(server.search(effort), self._query_file),
            SEARCH_CONNECTIONS,
            seconds,
            WARMUP_SECONDS,
            ids_per_reply=K,
            writes=Pace(recipe, rate, WRITE_CONNECTIONS),
        )
        result, cpu_us = self._loaded(server, job)
        head_after = int(server.describe()["head_count"])
        if result.writes is None:
            raise ServerError("the load generator has not written")
        if (count := server.count()) < stored + result.writes.sent:
            raise ServerError(
                f"{server.label} holds {count} vectors after {stored} and {result.writes.sent} more"
            )
        busy = _round(result, cpu_us, self._recall(result))
        return Mixed(idle, busy, rate, result.writes, head_before, head_after)

    def check(self, server: Server, effort: int | None, least_recall: float) -> None:
        """See that a server that has started again has every vector and finds them as before.

        Raises:
            ServerError: it does not.
        """
        self._check_count(server)
        found = self.probe(server, effort).recall
        if found < least_recall - RESTART_RECALL_SLACK:
            raise ServerError(f"{server.label} came back with a recall of {found:.4f}")

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

    def _search(
        self, server: Server, effort: int | None, connections: int, seconds: float
    ) -> Round:
        recipe = Recipe(server.search(effort), self._query_file)
        job = Job(server.port, recipe, connections, seconds, WARMUP_SECONDS, ids_per_reply=K)
        result, cpu_us = self._loaded(server, job)
        return _round(result, cpu_us, self._recall(result))

    def _loaded(self, server: Server, job: Job) -> tuple[Result, float]:
        """The job's result, and the server's CPU time per request in microseconds."""
        before = server.cpu_seconds()
        result = self._generator.run(job)
        return result, (server.cpu_seconds() - before) / result.total_requests * 1e6

    def _recall(self, result: Result) -> float:
        return recall(
            result.found, self._dataset, self._truth, result.answered, newcomers=self._newcomers
        )


def _saved(vectors: Float32Matrix, file: Path) -> Path:
    np.save(file, vectors)
    return file


def _round(result: Result, server_cpu_us: float, reached: float | None = None) -> Round:
    return Round(
        rate=result.rate,
        p50_us=result.p50_us,
        p99_us=result.p99_us,
        generator_cpu_us=result.cpu_us,
        server_cpu_us=server_cpu_us,
        recall=reached,
    )
