"""Remembered responses: how long a RECALL takes, and how many there are in a second.

    python -m benchmarks.micro_remembered [--shared FOLDER] [--count N]

A server of its own (a data directory, default settings) remembers N responses by text, embedded in
process. Then, when it has finished whatever it does in the background, prompts are recalled: the
very same, and rephrased ones that nobody has asked before, so that each is embedded and compared
with all; by one connection, and by many. Prompts are questions of the QQP set if they are there,
filled up with generated ones. The load generator is in this process and shares the cores. What
compressing a response takes is measured first.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import zlib
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness.arguments import absolute
from benchmarks.harness.load import Job, Result, run
from benchmarks.harness.servers import Pyrope
from benchmarks.harness.wire import Recipe, pack
from benchmarks.micro_embed import sentences

COUNT = 100_000
_ASKED = 10_000
_QUESTIONS = 60_000
_SIZES = (512, 2048, 8192, 65_536, 2**20)
_THRESHOLD, _MAX_ERROR = (b"THRESHOLD", b"0.8"), (b"MAXERROR", b"0.2")
# Idle: less than so much of a core, in so many seconds.
_IDLE_SHARE, _WATCHED_S = 0.1, 2.0
_REPHRASED = ("{} please", "please tell me {}", "{} thanks", "quickly, {}")


def prompts(shared: Path, count: int) -> list[str]:
    """So many different ones, real ones first."""
    real = sentences(shared, min(count, _QUESTIONS))
    made = sentences(Path("nowhere"), count - len(real)) if count > len(real) else []
    return real + made


def compression(text: bytes) -> None:
    """Print what it takes to keep a response."""
    for size in _SIZES:
        response = (text * (size // len(text) + 1))[:size]
        began = time.perf_counter()
        packed = zlib.compress(response, 6)
        middle = time.perf_counter()
        zlib.decompress(packed)
        ended = time.perf_counter()
        print(
            f"{f'a response of {size:,} bytes':<44}to {len(packed) / size:5.1%}   "
            f"packed in {1e3 * (middle - began):6.2f} ms, unpacked in {1e3 * (ended - middle):5.2f}"
        )


def tell(what: str, server: Pyrope, cpu_before: float, result: Result) -> None:
    cpu = 1e6 * (server.cpu_seconds() - cpu_before) / result.total_requests
    print(
        f"{what:<44}{result.rate:10,.0f} /s   p50 {result.p50_us:7.0f} us   "
        f"p99 {result.p99_us:7.0f} us   CPU of the server {cpu:5.0f} us",
        flush=True,
    )


def measure(server: Pyrope, what: str, connections: int, requests: list[bytes]) -> None:
    before = server.cpu_seconds()
    job = Job(server.port, Recipe(()), connections)
    tell(f"{what}, {connections} connections", server, before, run(job, requests))


def fill(server: Pyrope, stored: Sequence[str]) -> None:
    """Remember a response to each prompt."""
    with server.client() as client:
        client.call(b"VECTOR.CREATE", b"t", b"EMBEDDER", b"wordllama")
    requests = [
        pack((b"VECTOR.REMEMBER", b"t", text.encode(), b"The answer to it: %d." % number))
        for number, text in enumerate(stored)
    ]
    measure(server, "REMEMBER by text", 32, requests)


def wait_until_idle(server: Pyrope) -> None:
    """Return when the server has nothing to do in the background any more."""
    began, before = time.perf_counter(), server.cpu_seconds()
    while True:
        time.sleep(_WATCHED_S)
        now = server.cpu_seconds()
        if now - before < _IDLE_SHARE * _WATCHED_S:
            break
        before = now
    print(f"idle after {time.perf_counter() - began:.0f} s")


def recalls(server: Pyrope, stored: Sequence[str]) -> None:
    """Ask for what is there, in its own words and in others."""
    step = max(1, min(len(stored), _QUESTIONS) // _ASKED)
    asked = stored[: min(len(stored), _QUESTIONS) : step][:_ASKED]
    quarter = len(asked) // 4
    exact = [pack((b"VECTOR.RECALL", b"t", text.encode())) for text in asked]
    near = [
        [
            pack((b"VECTOR.RECALL", b"t", form.format(text.rstrip("?")).encode(), *rule))
            for text in asked
        ]
        for form, rule in zip(_REPHRASED, 3 * (_THRESHOLD,) + (_MAX_ERROR,), strict=True)
    ]
    measure(server, "RECALL of the very prompt", 1, exact[:quarter])
    measure(server, "RECALL of the very prompt", 32, exact)
    measure(server, "RECALL rephrased, THRESHOLD", 1, near[0][:quarter])
    measure(server, "RECALL rephrased, THRESHOLD", 8, near[1])
    measure(server, "RECALL rephrased, THRESHOLD", 32, near[2])
    measure(server, "RECALL rephrased, MAXERROR", 32, near[3])
    with server.client() as client:
        told = client.call(b"VECTOR.CACHE", b"STATS", b"t")
    counted = dict(zip(told[::2], told[1::2], strict=True))[b"remembered"]
    found = dict(zip(counted[::2], counted[1::2], strict=True))
    print(
        f"{'responses, bytes, exact and near hits':<44}{found[b'entries']}, {found[b'bytes']:,}, "
        f"{found[b'hits_exact']}, {found[b'hits_near']}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=absolute, default=Path("../shared").resolve())
    parser.add_argument("--count", type=int, default=COUNT)
    arguments = parser.parse_args()
    stored = prompts(arguments.shared, arguments.count)
    compression(" ".join(stored[:5000]).encode())
    with tempfile.TemporaryDirectory(prefix="pyrope-remembered-") as folder:
        server = Pyrope("pyrope", Path(folder))
        server.start()
        try:
            fill(server, stored)
            wait_until_idle(server)
            recalls(server, stored)
        finally:
            server.stop()


if __name__ == "__main__":
    main()
