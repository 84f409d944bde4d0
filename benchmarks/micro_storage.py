"""Storage alone: what commits, loads, checks and drops cost on this disk.

``python benchmarks/micro_storage.py [--vectors 100000] [--dim 384] [--directory DIR]`` prints one
line a figure: the median, and the worst, of the runs. The disk decides; compare runs of one disk.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
import zlib
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import xxhash

from pyrope.storage.chained_log import ChainedLog
from pyrope.storage.chained_verify import verify
from pyrope.storage.codec import damaged_rows
from pyrope.storage.graph_file import GraphMeta, save_graph, verify_graph
from pyrope.storage.lmdb_store import LmdbStore
from pyrope.storage.store import DropIndex, PutIndex, PutMeta, Record, WriteBatch
from pyrope.types import Float32Matrix

BATCH = 10_000


def measure(what: str, call: Callable[[], object], runs: int = 1) -> None:
    """Time `call`, `runs` times, and print the figure in milliseconds."""
    seconds = []
    for _ in range(runs):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    median, worst = statistics.median(seconds), max(seconds)
    print(f"{what:<58}{1e3 * median:10.2f} ms   worst {1e3 * worst:9.2f} ms", flush=True)


def batch(uid: int, first: int, vectors: Float32Matrix) -> WriteBatch:
    slots = range(first, first + len(vectors))
    puts = [Record(slot, b"id:%d" % slot, slot, 0, b'{"year":1980}') for slot in slots]
    return WriteBatch(uid, slots.stop, puts, vectors)


def measure_checksums(vectors: Float32Matrix) -> None:
    rows = [row.tobytes() for row in vectors]
    measure(f"crc32 of {len(rows)} rows", lambda: list(map(zlib.crc32, rows)), 5)
    measure(f"XXH32 of {len(rows)} rows", lambda: list(map(xxhash.xxh32_intdigest, rows)), 5)
    measure(f"XXH3-64 of {len(rows)} rows", lambda: list(map(xxhash.xxh3_64_intdigest, rows)), 5)


def measure_growth(directory: Path, row: bytes) -> None:
    """One row and fdatasync: where ftruncate left a hole, and where fallocate reserved blocks."""
    size = 64 * 2**20
    for name, reserve in (("sparse", os.ftruncate), ("allocated", _allocate)):
        descriptor = os.open(directory / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        reserve(descriptor, size)
        os.fsync(descriptor)
        offsets = count(0, len(row))

        def write(descriptor: int = descriptor, offsets: count[int] = offsets) -> None:
            os.pwrite(descriptor, row, next(offsets))
            os.fdatasync(descriptor)

        measure(f"one row and fdatasync, {name} file", write, 50)
        os.close(descriptor)


def _allocate(descriptor: int, size: int) -> None:
    os.posix_fallocate(descriptor, 0, size)


def measure_store(directory: Path, total: int, vectors: Float32Matrix) -> None:
    store = LmdbStore.open(directory)
    dim = vectors.shape[1]
    uid = store.next_uid()
    store.commit([PutIndex(uid, b"")])
    firsts = count(0, BATCH)
    measure(
        f"make and commit a batch of {BATCH} vectors",
        lambda: store.commit([batch(uid, next(firsts), vectors)]),
        total // BATCH,
    )
    slots = count(next(firsts))
    measure("commit of 1 vector", lambda: store.commit([batch(uid, next(slots), vectors[:1])]), 50)
    measure(
        "commit of 32 vectors, one index",
        lambda: store.commit([batch(uid, next(slots), vectors[:1]) for _ in range(32)]),
        30,
    )
    others = [store.next_uid() for _ in range(32)]
    store.commit([PutIndex(other, b"") for other in others])
    store.commit([batch(other, 0, vectors[:1]) for other in others])
    measure(
        "commit of 32 vectors, 32 indexes",
        lambda: store.commit([batch(other, next(slots), vectors[:1]) for other in others]),
        10,
    )
    store.close()
    store = LmdbStore.open(directory)
    measure(f"load {total} records", lambda: store.load(uid), 3)
    columns, file = store.load(uid), store.vectors(uid, dim)
    measure(f"check {total} rows", lambda: damaged_rows(columns, file.view()), 3)
    measure_graph(store.graph_path(uid), vectors)
    measure("drop the index", lambda: store.commit([DropIndex(uid)]))
    measure("collect 5000 of its records", store.collect_garbage, max(1, total // 5_000))
    store.close()


def measure_metas(directory: Path, total: int = 100_000) -> None:
    """A ledger: every tenant's record is there, and some change."""
    store = LmdbStore.open(directory)
    keys = [b"tenant-%06d/2024-05" % number for number in range(total)]
    store.commit([PutMeta("ledger", key, bytes(200)) for key in keys])
    store.close()
    store = LmdbStore.open(directory)
    measure(f"first load of {total} meta records", lambda: store.load_meta("ledger"))
    measure(f"load of {total} meta records", lambda: store.load_meta("ledger"), 5)
    rng = np.random.default_rng(0)
    for amount in (1, 1_000, 3_000):

        def commit(amount: int = amount) -> None:
            picks = rng.choice(total, amount, replace=False).tolist()
            store.commit([PutMeta("ledger", keys[number], bytes(200)) for number in picks])

        measure(f"commit of {amount} of {total} meta records", commit, 20)
    store.close()


def measure_chained_log(folder: Path) -> None:
    log = ChainedLog.open(folder, rotate_bytes=16 * 2**20, at=0.0)
    payload = {"tenant": "tenant-000001", "units": 1.25, **{f"field_{n}": n for n in range(10)}}
    for lines in (1, 1_000):

        def append(lines: int = lines) -> None:
            log.append([payload] * lines, 0.0)

        measure(f"append {lines} lines to a chained log", append, 50)
    head = log.head
    log.close()

    def reopen() -> None:
        ChainedLog.open(folder, rotate_bytes=16 * 2**20, at=0.0, expect=head).close()

    measure("open the log", reopen, 10)
    measure(f"verify its {head.seq} lines", lambda: verify(folder, head))


def measure_graph(path: Path, vectors: Float32Matrix) -> None:
    content = vectors.tobytes() * 10
    meta = GraphMeta(1, 1, 1, "HNSW", vectors.shape[1], "COSINE", 16, 200)
    size = f"{len(content) / 1e6:.0f} MB"

    def save() -> None:
        save_graph(path, lambda target: _write(target, content), meta)

    measure(f"save a graph of {size}", save)
    saved = save_graph(path, lambda target: _write(target, content), meta)
    measure(f"verify a graph of {size}", lambda: verify_graph(saved, meta), 3)


def _write(target: str, content: bytes) -> None:
    Path(target).write_bytes(content)


def main() -> None:
    parser = argparse.ArgumentParser(description="Storage alone, on the disk of a directory.")
    parser.add_argument("--vectors", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--directory", type=Path, default=None, help="default: the system's /tmp")
    arguments = parser.parse_args()
    if arguments.vectors < BATCH or arguments.dim < 1:
        parser.error(f"expected at least {BATCH} vectors and one dimension")
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((BATCH, arguments.dim), dtype=np.float32)
    measure_checksums(vectors)
    with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
        measure_growth(Path(directory), vectors[0].tobytes())
        measure_store(Path(directory, "data"), arguments.vectors, vectors)
        measure_metas(Path(directory, "metas"))
        measure_chained_log(Path(directory, "log"))


if __name__ == "__main__":
    main()
