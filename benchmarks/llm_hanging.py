"""Searches beside a language model that hangs: ``python -m benchmarks.llm_hanging``.

Two servers, alike but for the settings: one asks nobody, the other one a model that takes every
question and answers none. Rounds in turn (A B, B A, ...), of searches with texts that all miss
(`CACHE REFRESH`), so that every one of them tells the advisor something; medians over rounds.
See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.harness import data, models
from benchmarks.harness.arguments import positive, positive_seconds
from benchmarks.harness.cache_runs import fill
from benchmarks.harness.generator import REPOSITORY, LoadGenerator
from benchmarks.harness.load import Job
from benchmarks.harness.servers import TYPES, K, Pyrope
from benchmarks.harness.wire import Field, Recipe
from pyrope.testing.provider_outcomes import Hang, always

DESCRIPTION = "Measure searches beside a language model that hangs, and without one."
_WARMUP_S = 0.5


@dataclass(slots=True)
class Rounds:
    """What one server did.

    Attributes:
        rates: searches per second, by round.
        p99_ms, cpu_us: of each round; the server's CPU time per search.
    """

    name: str
    rates: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.name:>8}: {median(self.rates):,.0f} searches/s "
            f"({min(self.rates):,.0f} to {max(self.rates):,.0f}), "
            f"p99 {median(self.p99_ms):.2f} ms "
            f"({min(self.p99_ms):.2f} to {max(self.p99_ms):.2f}), "
            f"{median(self.cpu_us):,.0f} µs of CPU each"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, and print the figures."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    dataset = data.load(options.shared, options.count, options.queries, options.seed)
    with contextlib.ExitStack() as cleanup:
        folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory()))
        base, queries = folder / "base.npy", folder / "queries.npy"
        np.save(base, dataset.base)
        np.save(queries, dataset.queries)
        stand_in = cleanup.enter_context(models.stand_in(always(Hang())))
        asks = models.configured(folder, stand_in, min_count=1, min_cost=0, timeout_s=600)
        servers = [
            Pyrope(name, folder / name, config, options.type)
            for name, config in (("off", None), ("hanging", asks))
        ]
        rounds = [Rounds(server.label) for server in servers]
        for server in servers:
            cleanup.callback(server.kill)
            server.start()
            fill(server, base)
        for turn in range(options.rounds):
            pairs = list(zip(servers, rounds, strict=True))
            for server, one in reversed(pairs) if turn % 2 else pairs:
                _round(server, queries, options, one)
        for one in rounds:
            print(one)
        off, hanging = rounds
        print(
            f"hanging / off: {median(hanging.rates) / median(off.rates):.3f} × searches/s, "
            f"{median(hanging.p99_ms) / median(off.p99_ms):.3f} × p99; "
            f"{len(stand_in.asked)} questions were taken"
        )
    return 0


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.llm_hanging", description=DESCRIPTION
    )
    add = parser.add_argument
    add("--count", type=positive, default=20_000, help="vectors (default 20000)")
    add("--queries", type=positive, default=2_000, help="distinct ones (default 2000)")
    add("--type", choices=list(TYPES), default="HNSW", help="of the index (default HNSW)")
    add("--connections", type=positive, default=32)
    add("--rounds", type=positive, default=5)
    add("--seconds", type=positive_seconds, default=3.0, help="of a round (default 3)")
    add("--seed", type=int, default=7)
    add("--shared", type=Path, default=REPOSITORY.parent / "shared", metavar="FOLDER")
    return parser.parse_args(arguments)


def _round(server: Pyrope, queries: Path, options: argparse.Namespace, rounds: Rounds) -> None:
    # The number of a query is its text.
    words = (b"COUNT", b"%d" % K, b"QUERY", Field.ID, b"CACHE", b"REFRESH")
    recipe = Recipe((b"VECTOR.SEARCH", server.index, b"FP32", Field.VECTORS, *words), queries)
    job = Job(server.port, recipe, options.connections, options.seconds, _WARMUP_S)
    before = server.cpu_seconds()
    with LoadGenerator() as generator:
        result = generator.run(job)
    rounds.rates.append(result.rate)
    rounds.p99_ms.append(result.p99_us / 1e3)
    rounds.cpu_us.append((server.cpu_seconds() - before) / result.total_requests * 1e6)


if __name__ == "__main__":
    sys.exit(main())
