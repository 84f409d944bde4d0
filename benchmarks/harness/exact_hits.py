"""Hits of the exact level beside Redis GET: replies of the same size, one request at a time."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.harness import cache_runs
from benchmarks.harness import figures as fig
from benchmarks.harness.data import Float32Matrix
from benchmarks.harness.figures import Round
from benchmarks.harness.generator import LoadGenerator
from benchmarks.harness.load import Job
from benchmarks.harness.measure import WARMUP_SECONDS
from benchmarks.harness.servers import K, Pyrope, Redis, Server, ServerError
from benchmarks.harness.wire import Field, Recipe, Template, pack

CONNECTIONS = 50
FIRST_ID = 1_000_000
"""All ids have seven digits, so that all replies have the same size."""

_CRLF = 2


@dataclass(slots=True)
class HitFigures:
    """Rounds of both.

    Attributes:
        reply_bytes: of each reply, of either server.
        queries: distinct ones, gone round.
        search_bytes, get_bytes: of a request.
    """

    reply_bytes: int
    queries: int
    search_bytes: int
    get_bytes: int
    pyrope: list[Round] = field(default_factory=list)
    redis: list[Round] = field(default_factory=list)

    @property
    def ratio(self) -> float | None:
        mine, theirs = fig.rate(self.pyrope), fig.rate(self.redis)
        return None if mine is None or not theirs else mine / theirs


class ExactHits:
    """The two servers, filled, and a load for each."""

    def __init__(
        self,
        pyrope: Pyrope,
        redis: Redis | None,
        base: Float32Matrix,
        queries: Float32Matrix,
        folder: Path,
    ) -> None:
        """Fill both, and ask every query once, so that each later one is a hit.

        Args:
            redis: None: Pyrope is measured alone.
            folder: for the vectors' files.

        Raises:
            LoadError, ServerError, OSError, hiredis.HiredisError: they could not be filled.
        """
        self._pyrope, self._redis = pyrope, redis
        self._queries = folder / "hit-queries.npy"
        np.save(self._queries, queries)
        stored = folder / "hit-base.npy"
        np.save(stored, base)
        cache_runs.fill(pyrope, stored, FIRST_ID)
        search = (b"VECTOR.SEARCH", pyrope.index, b"FP32", Field.VECTORS, b"COUNT", b"%d" % K)
        self._search: Template = search
        self._get: Template = (b"GET", Field.ID)
        sizes = set()
        with pyrope.client() as client:
            for query in queries:
                words = [query.tobytes() if isinstance(word, Field) else word for word in search]
                sizes.add(len(pack(client.call(*words))))
        if len(sizes) != 1:
            raise ServerError(f"replies have different sizes: {sorted(sizes)}")
        self.figures = HitFigures(
            sizes.pop(),
            len(queries),
            search_bytes=len(Recipe(search, self._queries, rows=1).encode()[0]),
            get_bytes=len(Recipe(self._get, self._queries, rows=1, first_id=FIRST_ID).encode()[0]),
        )
        if redis is not None:
            value = bytes(value_bytes(self.figures.reply_bytes))
            with redis.client() as client:
                for number in range(len(queries)):
                    client.call(b"SET", b"%d" % (FIRST_ID + number), value)

    def round(self, seconds: float, *, redis_first: bool) -> None:
        """One measurement of each.

        Raises:
            ServerError: something was not a hit.
            LoadError, OSError, hiredis.HiredisError: the load failed.
        """
        turns = [self._measure_redis, self._measure_pyrope]
        for measure in turns if redis_first else reversed(turns):
            measure(seconds)

    def _measure_pyrope(self, seconds: float) -> None:
        before = cache_runs.counters(self._pyrope)
        found, asked = self._loaded(self._pyrope, self._search, seconds)
        after = cache_runs.counters(self._pyrope)
        hits = after["hits_exact"] - before["hits_exact"]
        if hits != asked:
            raise ServerError(f"{asked - hits:.0f} of {asked} searches were no exact hits")
        self.figures.pyrope.append(found)

    def _measure_redis(self, seconds: float) -> None:
        if self._redis is not None:
            self.figures.redis.append(self._loaded(self._redis, self._get, seconds)[0])

    def _loaded(self, server: Server, template: Template, seconds: float) -> tuple[Round, int]:
        recipe = Recipe(template, self._queries, first_id=FIRST_ID)
        job = Job(server.port, recipe, CONNECTIONS, seconds, WARMUP_SECONDS)
        before = server.cpu_seconds()
        with LoadGenerator() as generator:
            result = generator.run(job)
        cpu_us = (server.cpu_seconds() - before) / result.total_requests * 1e6
        found = Round(result.rate, result.p50_us, result.p99_us, result.cpu_us, cpu_us)
        return found, result.total_requests


def value_bytes(reply_bytes: int) -> int:
    """Length of the value whose bulk string takes so many bytes.

    Raises:
        ServerError: no value's does, as its length has one digit more or less just there.
    """
    for digits in range(1, 10):
        value = reply_bytes - 1 - digits - 2 * _CRLF
        if value >= 0 and len(str(value)) == digits:
            return value
    raise ServerError(f"no value makes a reply of {reply_bytes} bytes")
