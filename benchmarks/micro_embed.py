"""Texts: what wordllama takes for a sentence, and what a server makes of it.

    python -m benchmarks.micro_embed [--shared FOLDER]

Sentences are questions of the QQP set if they are there, else generated ones. First the embedder
alone, in batches; then a server of its own (a data directory, default settings): texts added, and
searches by texts that are new, by texts whose vectors are kept, and by the vectors themselves, all
without the cache of answers. The load generator is in this process and shares the cores.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from benchmarks.harness.arguments import absolute
from benchmarks.harness.load import Job, Result, run
from benchmarks.harness.servers import Pyrope
from benchmarks.harness.wire import Recipe, pack
from pyrope.embed.wordllama import WordLlamaEmbedder

QUESTIONS = Path("data/qqp/questions.txt.gz")
STORED, ASKED = 10_000, 20_000
_BATCHES = (1, 8, 64)
_RUNS = 100

T = TypeVar("T")


def sentences(shared: Path, count: int) -> list[str]:
    """So many different ones."""
    file = shared / QUESTIONS
    if file.is_file():
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            found = dict.fromkeys(line.strip() for line in lines)
        found.pop("", None)
        if len(found) >= count:
            return list(found)[:count]
    random = np.random.default_rng(7)
    words = ["".join(chr(97 + letter) for letter in random.integers(0, 26, 5)) for _ in range(3000)]
    return [
        f"{number} " + " ".join(words[word] for word in random.integers(0, 3000, 10))
        for number in range(count)
    ]


async def in_place(function: Callable[..., T], *args: object) -> T:
    return function(*args)


async def alone(texts: Sequence[str]) -> list[bytes]:
    """Print what a sentence takes, in batches. Returns the vectors of all."""
    embedder = WordLlamaEmbedder(in_place)
    began = time.perf_counter()
    await embedder.start()
    print(f"{'importing and loading':<44}{time.perf_counter() - began:10.2f} s")
    for size in _BATCHES:
        taken = []
        for start in range(0, _RUNS * size, size):
            began = time.perf_counter()
            await embedder.embed(texts[start : start + size])
            taken.append((time.perf_counter() - began) / size)
        print(f"{f'a sentence, {size} at a time':<44}{1e6 * statistics.median(taken):10.1f} us")
    vectors = []
    tokens = 0
    for start in range(0, len(texts), 64):
        embedded = await embedder.embed(texts[start : start + 64])
        vectors += [row.tobytes() for row in embedded.vectors]
        tokens += sum(embedded.tokens)
    print(f"{'tokens of a sentence':<44}{tokens / len(texts):10.1f}")
    return vectors


def tell(what: str, server: Pyrope, cpu_before: float, result: Result) -> None:
    cpu = 1e6 * (server.cpu_seconds() - cpu_before) / result.total_requests
    print(
        f"{what:<44}{result.rate:10,.0f} /s   p50 {result.p50_us:7.0f} us   "
        f"p99 {result.p99_us:7.0f} us   CPU of the server {cpu:5.0f} us",
        flush=True,
    )


def served(server: Pyrope, stored: Sequence[str], asked: Sequence[str], blobs: list[bytes]) -> None:
    with server.client() as client:
        client.call(b"VECTOR.CREATE", b"t", b"EMBEDDER", b"wordllama", b"TYPE", b"HNSW")

    def measure(what: str, connections: int, requests: list[bytes]) -> None:
        before = server.cpu_seconds()
        job = Job(server.port, Recipe(()), connections)
        tell(f"{what}, {connections} connections", server, before, run(job, requests))

    texts = [text.encode() for text in stored]
    measure(
        "VECTOR.ADD by TEXT",
        32,
        [pack((b"VECTOR.ADD", b"t", b"%d" % n, b"TEXT", text)) for n, text in enumerate(texts)],
    )
    with server.client() as client:
        client.call(b"VECTOR.BUILD", b"t")

    def searches(kind: bytes, of: Sequence[bytes]) -> list[bytes]:
        return [pack((b"VECTOR.SEARCH", b"t", kind, one, b"CACHE", b"OFF")) for one in of]

    questions = [text.encode() for text in asked]
    half = len(questions) // 2
    for connections, part in ((1, slice(0, half // 4)), (32, slice(half // 4, half))):
        measure("SEARCH by TEXT, new", connections, searches(b"TEXT", questions[part]))
        measure("SEARCH by TEXT, kept", connections, searches(b"TEXT", questions[part]))
        measure("SEARCH by FP32", connections, searches(b"FP32", blobs[part]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=absolute, default=Path("../shared").resolve())
    arguments = parser.parse_args()
    texts = sentences(arguments.shared, STORED + ASKED)
    vectors = asyncio.run(alone(texts))
    with tempfile.TemporaryDirectory(prefix="pyrope-embed-") as folder:
        server = Pyrope("pyrope", Path(folder))
        server.start()
        try:
            served(server, texts[:STORED], texts[STORED:], vectors[STORED:])
        finally:
            server.stop()


if __name__ == "__main__":
    main()
