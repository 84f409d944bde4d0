"""Measure what a vector takes in each type of index: ``python -m benchmarks.memory --help``.

Truth is the anonymous memory of the server's process (RssAnon). A process also takes memory once,
for whichever index comes first: libraries, threads, the heap's own waste. So every type has a
server of its own that holds an index already, and what counts is by how much a second one makes it
grow, once it is merged and nothing more is given back. The buffers in which BLAS libraries multiply
matrices are no index's either; they are shown apart.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import hiredis

from benchmarks.harness import clusters
from benchmarks.harness.arguments import absolute, exit_on_signal, positive
from benchmarks.harness.generator import LoadGenerator
from benchmarks.harness.load import Job
from benchmarks.harness.memory import library_buffers
from benchmarks.harness.paced import LoadError
from benchmarks.harness.progress import Progress
from benchmarks.harness.report import number, table
from benchmarks.harness.servers import INDEX, TYPES, M, Pyrope, ServerError
from benchmarks.harness.wire import Recipe

FIRST = b"first"
BATCH_ROWS, CONNECTIONS = 1_000, 4
PARTS_OF_FIRST = 5
"""The first index holds one part in this many of the second's vectors."""

SETTLED_SECONDS, POLL_SECONDS, SETTLED_BYTES = 1.5, 0.1, 100_000
"""Memory that has changed by less than this for so long will not change until something is done."""


@dataclass(frozen=True, slots=True)
class Held:
    """What an index takes, in bytes.

    Attributes:
        index_type: its type.
        count: vectors in it.
        dim: theirs.
        nlist, pqm: as VECTOR.INFO has them.
        measured: by which the process grew.
        said: `memory_bytes`.
        once: what the process had taken before, over a server that has just started, that the
            `memory_bytes` of the first index does not explain.
        buffers: of BLAS libraries, at the end; in neither `measured` nor `once`.
    """

    index_type: str
    count: int
    dim: int
    nlist: int
    pqm: int
    measured: int
    said: int
    once: int
    buffers: int

    @property
    def vector(self) -> float:
        """Bytes of a vector or its code in the index's own structure; what FLAT scans is a file."""
        return {
            "HNSW": 4.0 * self.dim,
            "HNSW_SQ8": 1.0 * self.dim,
            "IVF_FLAT": 4.0 * self.dim,
            "IVF_PQ": self.pqm / 2,
        }.get(self.index_type, 0.0)

    @property
    def links(self) -> float:
        """Bytes of a vector's links, or its part of the centroids and its number in a list."""
        # A node rises to the next level with probability 1/m; each level has m places for links,
        # the lowest 2 m. hnswlib precedes each list of them by 4 bytes.
        if self.index_type == "HNSW":
            return 4 * (2 * M + 1) + 4 * (M + 1) / (M - 1)
        if self.index_type == "HNSW_SQ8":
            return 4 * 2 * M + 4 * M / (M - 1)
        if self.nlist:
            # Centroids are there twice: as FAISS assigns by them, and as searches choose lists.
            return 8 + 2 * 4 * self.dim * self.nlist / self.count
        return 0.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure type after type, and print a Markdown table."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    signal.signal(signal.SIGTERM, exit_on_signal)
    progress = Progress()
    progress.expect(len(options.dims) * len(options.types))
    found: list[Held] = []
    with contextlib.ExitStack() as cleanup:
        folder = Path(tempfile.mkdtemp(prefix="memory-", dir=options.work_dir))
        cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
        for dim in options.dims:
            base = folder / f"base-{dim}.npy"
            clusters.Clusters(dim, options.seed).write_base(options.count, base)
            for index_type in options.types:
                progress.begin(f"{index_type} {options.count:,} × {dim}")
                found.append(_measure(folder, base, index_type, options.count, dim))
                progress.done(f"{found[-1].measured / options.count:,.0f} bytes a vector")
    print(to_markdown(found))
    return 0


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.memory",
        description="Measure what a vector takes in each type of index; see benchmarks/README.md.",
    )
    types = [name for name in TYPES if name != "AUTO"]
    add = parser.add_argument
    add("--count", type=positive, default=100_000, metavar="N", help="vectors (default 100000)")
    add("--dims", type=positive, nargs="+", default=[128, 384], metavar="D")
    add("--types", nargs="+", choices=types, default=types, metavar="TYPE")
    add("--seed", type=int, default=7, help="of the generated vectors")
    add("--work-dir", type=absolute, metavar="FOLDER", help="for vectors and servers' data")
    options = parser.parse_args(arguments)
    if min(options.dims) < 2:
        parser.error("--dims must be at least 2")
    if options.count < PARTS_OF_FIRST:
        parser.error(f"--count must be at least {PARTS_OF_FIRST}")
    if options.work_dir is not None and not options.work_dir.is_dir():
        parser.error(f"--work-dir {options.work_dir} is not a folder")
    return options


def to_markdown(found: Sequence[Held]) -> str:
    """A line for each index; bytes are per vector where nothing else is said."""
    heads = ["", "measured", "`memory_bytes`", "ratio", "vector", "links or lists"]
    heads += ["ids and the rest", "once, MB", "BLAS, MB"]
    rows = [
        (
            f"{one.index_type} {one.count:,} × {one.dim}",
            number(one.measured / one.count),
            number(one.said / one.count),
            f"{one.said / one.measured:.2f}",
            number(one.vector),
            number(one.links),
            number(one.said / one.count - one.vector - one.links),
            f"{one.once / 1e6:.1f}",
            f"{one.buffers / 1e6:.1f}",
        )
        for one in found
    ]
    return table(heads, rows)


def _measure(folder: Path, base: Path, index_type: str, count: int, dim: int) -> Held:
    """One type, on a server of its own.

    Raises:
        ServerError, LoadError, OSError, hiredis.HiredisError: the measurement failed.
    """
    server = Pyrope(index_type, folder / f"{index_type}-{dim}", index_type=index_type)
    try:
        server.start()
        started = _settled(server)
        first = count // PARTS_OF_FIRST
        server.index = FIRST
        _fill(server, base, first, dim)
        before = _settled(server)
        said_first = int(server.describe()["memory_bytes"])
        server.index = INDEX
        _fill(server, base, count, dim)
        after = _settled(server)
        info = server.describe()
        return Held(
            index_type,
            count,
            dim,
            nlist=int(info["nlist"]),
            pqm=int(info["pqm"]),
            measured=after - before,
            said=int(info["memory_bytes"]),
            once=before - started - said_first,
            buffers=library_buffers(server.pid),
        )
    except (LoadError, ServerError, OSError, hiredis.HiredisError):
        print(server.log_tail(), file=sys.stderr)
        raise
    finally:
        server.kill()
        shutil.rmtree(server.folder, ignore_errors=True)


def _fill(server: Pyrope, base: Path, count: int, dim: int) -> None:
    """Make an index of the first `count` vectors."""
    server.create(dim)
    recipe = Recipe(server.add_batch(), base, BATCH_ROWS, rows=count, ahead=False)
    with LoadGenerator() as generator:
        generator.run(Job(server.port, recipe, CONNECTIONS))
    server.settle()


def _settled(server: Pyrope) -> int:
    """Anonymous memory, without buffers of BLAS, when it does not change any more."""
    last, since = 0, time.monotonic()
    while time.monotonic() - since < SETTLED_SECONDS:
        with server.client() as client:
            indexes = client.call(b"VECTOR.LIST")
        busy = server.index in indexes and bool(server.describe()["merging"])
        held = server.memory().anonymous - library_buffers(server.pid)
        if busy or abs(held - last) > SETTLED_BYTES:
            last, since = held, time.monotonic()
        time.sleep(POLL_SECONDS)
    return server.memory().anonymous - library_buffers(server.pid)


if __name__ == "__main__":
    sys.exit(main())
