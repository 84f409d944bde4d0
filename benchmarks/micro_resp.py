"""What reading a command and writing a reply cost, beside hiredis where it can do the same.

    python benchmarks/micro_resp.py [--repeat N]

Prints a Markdown table: the best of N repeats, one thread, one process, no network. "known" is a
layout that the connection repeats, "new" one that the exact parser takes; hiredis checks neither
claims nor limits, and knows no inline commands.
"""

from __future__ import annotations

import argparse
import random
import struct
import timeit
from collections.abc import Callable, Iterator, Sequence

import hiredis

from pyrope.resp.framer import Framer
from pyrope.resp.limits import ReaderLimits
from pyrope.resp.reader import CommandReader
from pyrope.resp.values import OK
from pyrope.resp.writer import encode, encode_bulk, encode_scores

DIM = 384
HITS = 10
MEGABYTE = 1024 * 1024
CHUNK = 65536

Case = tuple[str, Callable[[], object], int]
"""Its name, what to time, and how many of what the name says that does."""


def encoded(*args: bytes) -> bytes:
    return b"*%d\r\n" % len(args) + b"".join(map(encode_bulk, args))


def hiredis_feed(chunk: bytes) -> Callable[[], object]:
    reader = hiredis.Reader()

    def feed() -> object:
        reader.feed(chunk)
        commands = []
        while (command := reader.gets()) is not False:
            commands.append(command)
        return commands

    return feed


def known(chunk: bytes) -> Callable[[], object]:
    reader = CommandReader(ReaderLimits())
    for _ in range(2):
        reader.feed(chunk)
    return lambda: reader.feed(chunk)


def new(chunk: bytes) -> Callable[[], object]:
    framer = Framer(ReaderLimits())
    return lambda: framer.feed(chunk)


def in_pieces(chunk: bytes, size: int) -> Callable[[], object]:
    reader = CommandReader(ReaderLimits())
    pieces = [chunk[start : start + size] for start in range(0, len(chunk), size)]
    return lambda: [reader.feed(piece) for piece in pieces]


def reading(rng: random.Random) -> Iterator[Case]:
    blob = struct.pack(f"<{DIM}f", *(rng.gauss(0, 1) for _ in range(DIM)))
    search = encoded(b"VECTOR.SEARCH", b"idx", b"FP32", blob, b"COUNT", b"10", b"WITHSCORES")
    ping = encoded(b"PING")
    gets = b"".join(encoded(b"VECTOR.GET", b"idx", b"id:%d" % n) for n in range(10, 26))
    chunks = {
        f"search of {len(search)} bytes": search,
        "PING": ping,
        "16 pipelined PINGs": ping * 16,
        "16 pipelined VECTOR.GETs": gets,
    }
    for name, chunk in chunks.items():
        yield f"read {name}: known", known(chunk), 1
        yield f"read {name}: new", new(chunk), 1
        yield f"read {name}: hiredis, unguarded", hiredis_feed(chunk), 1
    yield "one bytes.find of 3 bytes in the search", lambda: search.find(b"\r\n%"), 1
    yield "read the search in 2 pieces", in_pieces(search, 800), 1
    yield "read the search byte by byte, per byte", in_pieces(search, 1), len(search)
    yield "read an inline PING", new(b"PING\r\n"), 1
    yield "read an inline command in quotes", new(b'VECTOR.GET "my index" id\r\n'), 1
    for megabytes in (10, 100):
        bulk = encoded(b"ECHO", bytes(megabytes * MEGABYTE))
        name = f"read {megabytes} MB in chunks of 64 KB, per MB"
        yield name, in_pieces(bulk, CHUNK), megabytes
    flood = ping * (4 * CHUNK // len(ping))
    yield "read 256 KB of PINGs in one chunk, per PING", new(flood), len(flood) // len(ping)


def writing(rng: random.Random) -> Iterator[Case]:
    scores = struct.unpack("<100f", struct.pack("<100f", *(rng.random() for _ in range(100))))
    ids = [b"id:%d" % rng.randrange(10**6) for _ in range(HITS)]
    hits: dict[object, object] = dict(zip(ids, scores, strict=False))
    for protocol in (2, 3):
        for count in (HITS, 100):
            name = f"write {count} scores, RESP{protocol}, per score"
            yield name, score_writer(scores[:count], protocol), count
        yield f"write a map of {HITS} hits, RESP{protocol}", value_writer(hits, protocol), 1
    yield "write OK", value_writer(OK, 2), 1
    yield "write a small int", value_writer(7, 2), 1
    yield f"write an array of {HITS} ids", value_writer(ids, 2), 1


def score_writer(scores: Sequence[float], protocol: int) -> Callable[[], object]:
    return lambda: encode_scores(scores, protocol)


def value_writer(value: object, protocol: int) -> Callable[[], object]:
    return lambda: encode(value, protocol)


def best(case: Callable[[], object], repeats: int) -> float:
    """Seconds of one call, undisturbed: other work only ever gets to it."""
    timer = timeit.Timer(case)
    number, _ = timer.autorange()
    # autorange aims at 0.2 s; a tenth of it is enough for the best of many.
    number = max(1, number // 10)
    return min(timer.repeat(repeats, number)) / number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeat", type=int, default=15)
    repeats = parser.parse_args().repeat
    print("| case | ns |\n| --- | ---: |")
    for part in (reading, writing):
        for name, case, parts in part(random.Random(0)):
            print(f"| {name} | {best(case, repeats) / parts * 1e9:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
