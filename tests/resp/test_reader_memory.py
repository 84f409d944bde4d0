"""What a client claims costs nothing; what it sends costs memory and time in proportion."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from pyrope.errors import ProtocolError
from pyrope.resp.framer import Framer
from pyrope.resp.limits import ReaderLimits
from pyrope.resp.reader import CommandReader
from resp.resp_streams import encode_command

BOUNDLESS = ReaderLimits(
    max_args=2**31 - 1, max_arg_bytes=2**40, max_command_bytes=2**50, max_inline_bytes=64 * 1024
)
"""With these no claim is refused: each has to cost nothing by itself."""


@contextmanager
def at_most(peak: int) -> Iterator[None]:
    """Fail where more than ``peak`` bytes are allocated at any time within."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        yield
        assert tracemalloc.get_traced_memory()[1] - before <= peak
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "claim",
    [
        b"*1000000000\r\n",
        b"*2147483647\r\n$1000000000000\r\n",
        b"*1\r\n$1073741824\r\n",
        b"*1000000000\r\n$4\r\nPING\r\n$1000000000\r\nabc",
    ],
)
@pytest.mark.parametrize("make", [Framer, CommandReader])
def test_a_claim_allocates_nothing(
    claim: bytes, make: Callable[[ReaderLimits], Framer | CommandReader]
) -> None:
    reader = make(BOUNDLESS)
    with at_most(16 * 1024):
        assert reader.feed(claim) == []
        assert reader.buffered == len(claim)


@pytest.mark.parametrize("kind", [b"*", b"%", b"~", b">", b"|"])
@pytest.mark.parametrize("before", [b"\r\n", b"xx"])
def test_an_aggregate_where_an_argument_belongs_is_refused_unallocated(
    kind: bytes, before: bytes
) -> None:
    # Nobody reads the two bytes behind a bulk string: a header may follow any two.
    stream = b"*3\r\n$4\r\nPING" + before + kind + b"1000000000\r\n"
    reader = CommandReader(BOUNDLESS)
    with at_most(16 * 1024), pytest.raises(ProtocolError, match="expected"):
        reader.feed(stream * 3)


def test_nested_claims_in_one_chunk_are_refused_at_the_first() -> None:
    reader = CommandReader(BOUNDLESS)
    chunk = b"*1000000000\r\n" * 5000
    with at_most(16 * 1024), pytest.raises(ProtocolError, match="expected"):
        reader.feed(chunk)


def test_a_thousand_chunks_of_claims_on_a_thousand_connections_cost_what_was_sent() -> None:
    readers = [CommandReader(BOUNDLESS) for _ in range(1000)]
    with at_most(2 * 1024 * 1024):
        for reader in readers:
            assert reader.feed(b"*1000000000\r\n$1000000000\r\n") == []


def test_a_bulk_string_that_arrives_in_chunks_is_held_once_and_copied_once() -> None:
    size = 8 * 1024 * 1024
    chunk = b"x" * 65536
    reader = CommandReader(ReaderLimits())
    with at_most(2 * size + size // 4):
        assert reader.feed(b"*1\r\n$%d\r\n" % size) == []
        for _ in range(size // len(chunk)):
            assert reader.feed(chunk) == []
        ((value,),) = reader.feed(b"\r\n")
        assert len(value) == size


def test_delivered_arguments_do_not_keep_the_chunk_alive() -> None:
    small, big = encode_command([b"GET", b"key"]), encode_command([b"SET", b"v" * 1_000_000])
    with at_most(8 * 1_000_000):
        kept = [CommandReader(ReaderLimits()).feed(small + big)[0] for _ in range(50)]
    assert kept == [[b"GET", b"key"]] * 50


def test_work_per_chunk_does_not_grow_with_what_is_held() -> None:
    """A chunk in the middle of a big bulk string is appended, and nothing is parsed again."""
    reader = Framer(ReaderLimits())
    reader.feed(b"*2\r\n$4\r\nECHO\r\n$1000000\r\n")
    pattern = b"\r\n*1\r\n%9\r\n"
    for number in range(1, 5001):
        assert reader.feed(pattern) == []
        assert reader._scanned == 0
        assert len(reader._buffer) == number * len(pattern)


@pytest.mark.parametrize("start", [b"*", b"*1\r\n$", b"PING "])
def test_a_line_that_arrives_byte_by_byte_is_scanned_once(start: bytes) -> None:
    reader = Framer(ReaderLimits())
    reader.feed(start)
    for _ in range(3000):
        reader.feed(b"1")
        assert reader._scanned == len(reader._buffer)
