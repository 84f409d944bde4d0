"""The memo of layouts: it answers only for chunks that it can cut exactly, and stays small."""

from __future__ import annotations

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrope.resp.framer import Command
from pyrope.resp.limits import ReaderLimits
from pyrope.resp.reader import CommandReader
from pyrope.resp.shapes import ShapeMemo
from resp.resp_streams import args, commands, encode_command, encode_commands, frame_all


def taught(*chunks: bytes) -> ShapeMemo:
    """A memo that has seen each chunk twice."""
    memo = ShapeMemo()
    for chunk in chunks:
        found, error = frame_all([chunk], ReaderLimits())
        assert error is None
        memo.learn(chunk, found)
        memo.learn(chunk, found)
    return memo


def search(vector: bytes) -> Command:
    return [b"VECTOR.SEARCH", b"idx", b"FP32", vector, b"COUNT", b"10", b"WITHSCORES"]


def test_a_layout_is_known_from_its_second_sight_on() -> None:
    chunk = encode_command(search(b"a" * 16))
    memo = ShapeMemo()
    memo.learn(chunk, [search(b"a" * 16)])
    assert memo.match(chunk) is None
    memo.learn(chunk, [search(b"a" * 16)])
    assert memo.match(encode_command(search(b"\r\n$5\r\n*9\r\n%9"))) is None
    assert taught(chunk).match(chunk) == [search(b"a" * 16)]


@given(st.binary(min_size=16, max_size=16))
def test_a_known_layout_takes_any_blob_of_its_length(blob: bytes) -> None:
    memo = taught(encode_command(search(b"\0" * 16)))
    assert memo.match(encode_command(search(blob))) == [search(blob)]


@given(commands.filter(bool), st.data())
def test_commands_of_the_same_lengths_match_and_are_returned(
    first: list[Command], data: st.DataObject
) -> None:
    memo = taught(encode_commands(first))
    second = [
        [data.draw(st.binary(min_size=len(a), max_size=len(a))) for a in command]
        for command in first
    ]
    assert memo.match(encode_commands(second)) in (second, None)
    assert (memo.match(encode_commands(second)) is None) == (sum(map(len, first)) > 64)


@given(st.lists(args, min_size=1, max_size=4), st.integers(0, 200), st.integers(0, 255))
def test_a_changed_byte_matches_only_where_it_is_an_arguments(
    command: Command, place: int, byte: int
) -> None:
    chunk = bytearray(encode_command(command))
    memo = taught(bytes(chunk))
    chunk[place % len(chunk)] = byte
    matched = memo.match(bytes(chunk))
    assert matched is None or encode_commands(matched) == bytes(chunk)


@pytest.mark.parametrize(
    "chunk",
    [
        b"PING hello\r\n",
        b"*0\r\n",
        b"*1\r\n$4\r\nPING\r\n*0\r\n",
        b"*1\r\n$4\r\nPINGxx",
        b"*1\rx$4\r\nPING\r\n",
    ],
)
def test_a_chunk_in_any_but_the_canonical_encoding_is_never_learnt(chunk: bytes) -> None:
    assert not taught(chunk)._shapes


def test_a_chunk_of_a_known_size_in_another_layout_replaces_it() -> None:
    one, other = encode_command([b"GET", b"abc"]), encode_command([b"GETX", b"ab"])
    assert len(one) == len(other)
    memo = taught(one)
    assert memo.match(other) is None
    assert memo.match(one) is None
    for _ in range(2):
        memo.learn(other, [[b"GETX", b"ab"]])
    assert memo.match(other) == [[b"GETX", b"ab"]]


def test_the_memo_holds_eight_layouts_and_forgets_the_oldest() -> None:
    chunks = [encode_command([b"a" * length]) for length in range(1, 10)]
    memo = taught(*chunks)
    assert [memo.match(chunk) is not None for chunk in chunks] == [False] + [True] * 8


def test_sizes_that_never_repeat_leave_nothing_behind_and_evict_nothing() -> None:
    ping = encode_command([b"PING"])
    memo = taught(ping)
    for length in range(100, 1100):
        command = [b"a" * length]
        memo.learn(encode_command(command), [command])
    assert len(memo._candidates) <= 8
    assert memo.match(ping) == [[b"PING"]]


def test_a_pipeline_beyond_sixty_four_arguments_is_left_to_the_exact_parser() -> None:
    chunk = encode_command([b"PING"])
    assert taught(chunk * 64).match(chunk * 64) == [[b"PING"]] * 64
    assert taught(chunk * 65).match(chunk * 65) is None


@given(st.lists(st.sampled_from([b"abc", b"\r\n*1", b"", b"0123456789"]), min_size=1, max_size=9))
def test_a_repeating_client_gets_the_same_commands_every_time_as_hiredis_would_give(
    command: Command,
) -> None:
    reader, oracle = CommandReader(ReaderLimits()), hiredis.Reader()
    chunk = encode_command(command) * 3
    for _ in range(4):
        oracle.feed(chunk)
        assert reader.feed(chunk) == [oracle.gets() for _ in range(3)]
