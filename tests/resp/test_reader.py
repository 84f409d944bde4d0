"""The reader: the same commands however the bytes arrive, and nothing but those."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given

from pyrope.errors import ProtocolError
from pyrope.resp.framer import Command
from pyrope.resp.limits import UNAUTHENTICATED_LIMITS, ReaderLimits
from pyrope.resp.reader import CommandReader
from resp.resp_streams import (
    SMALL_LIMITS,
    Outcome,
    commands,
    cut,
    encode_command,
    encode_commands,
    frame_all,
    noise,
    places,
    read_all,
    read_plainly,
    spoilt_streams,
)

LIMITS = ReaderLimits()
SESSION: list[Command] = [
    [b"PING"],
    [b"VECTOR.SEARCH", b"idx", b"FP32", bytes(range(256)) * 2, b"COUNT", b"10"],
    [b"ECHO", b""],
    [b"ECHO", b"\r\n*1000000000\r\n$3\r\nabc\r\n"],
    [b"VECTOR.ADD", *(b"%d" % n for n in range(14))],
]
STREAM = encode_commands(SESSION)


def test_commands_that_arrive_whole_are_returned_in_order() -> None:
    assert read_all([STREAM], LIMITS) == (SESSION, None)


def test_commands_that_arrive_byte_by_byte_are_returned_in_order() -> None:
    assert read_all([bytes((byte,)) for byte in STREAM], LIMITS) == (SESSION, None)


def test_a_stream_cut_at_any_two_places_gives_the_same_commands() -> None:
    step = 7
    for first in range(len(STREAM)):
        for second in range(first, len(STREAM), step * 11):
            assert read_all(cut(STREAM, [first, second]), LIMITS) == (SESSION, None)


def test_each_command_is_returned_as_soon_as_its_last_byte_is_there() -> None:
    reader = CommandReader(LIMITS)
    for command in SESSION:
        encoded = encode_command(command)
        assert reader.feed(encoded[:-1]) == []
        assert reader.feed(encoded[-1:]) == [command]
        assert not reader.has_partial


@given(commands, places)
def test_each_command_is_returned_in_time_and_what_is_held_is_counted(
    sent: list[Command], where: list[int]
) -> None:
    ends = [len(encode_commands(sent[:number])) for number in range(len(sent) + 1)]
    reader = CommandReader(LIMITS)
    fed = returned = 0
    for chunk in cut(encode_commands(sent), where):
        returned += len(reader.feed(chunk))
        fed += len(chunk)
        assert returned == sum(end <= fed for end in ends[1:])
        assert reader.buffered == fed - ends[returned]
        assert reader.has_partial == (fed > ends[returned])


def test_each_byte_is_judged_when_it_arrives() -> None:
    stream = b"*10\r\n" + b"$12\r\nabcdefghijkl\r\n" * 8 + b"$1\r\na\r\n$0\r\n\r\nSET 'a b'\r\n"
    reader = CommandReader(LIMITS)
    commands = []
    for place in range(len(stream)):
        commands += reader.feed(stream[place : place + 1])
        assert commands == read_plainly(stream[: place + 1], LIMITS)[0]


def test_a_bad_header_after_a_longer_one_that_came_in_pieces_is_refused_at_once() -> None:
    reader = CommandReader(LIMITS)
    for chunk in (b"*", b"12", b"\r\n$"):
        assert reader.feed(chunk) == []
    with pytest.raises(ProtocolError, match="invalid bulk length"):
        reader.feed(b"x\r\n")


def test_what_trails_a_complete_command_is_kept_for_the_next_call() -> None:
    reader = CommandReader(LIMITS)
    assert reader.feed(b"*1\r\n$4\r\nPING\r\n*2\r\n$4\r\nEC") == [[b"PING"]]
    assert reader.has_partial
    assert reader.buffered == len(b"*2\r\n$4\r\nEC")
    assert reader.feed(b"HO\r\n$2\r\nhi\r\n") == [[b"ECHO", b"hi"]]
    assert reader.buffered == 0


def test_arguments_are_bytes_and_not_views_of_the_input() -> None:
    reader = CommandReader(LIMITS)
    for _ in range(4):  # the exact parser first, the memo from the third time on
        for command in reader.feed(STREAM):
            assert all(type(arg) is bytes for arg in command)


@given(commands, places)
def test_encoded_commands_cut_anywhere_are_those_commands(
    sent: list[Command], where: list[int]
) -> None:
    stream = encode_commands(sent)
    assert read_all(cut(stream, where), LIMITS) == (sent, None)
    assert frame_all(cut(stream, where), LIMITS) == (sent, None)


@given(noise, places)
def test_any_bytes_are_commands_or_a_protocol_error_and_never_depend_on_the_slicing(
    stream: bytes, where: list[int]
) -> None:
    expected = read_plainly(stream, SMALL_LIMITS)
    assert read_all([stream], SMALL_LIMITS) == expected
    assert read_all(cut(stream, where), SMALL_LIMITS) == expected
    assert read_all([bytes((byte,)) for byte in stream], SMALL_LIMITS) == expected


@given(spoilt_streams(), places)
def test_a_spoilt_stream_is_commands_or_a_protocol_error_and_never_depends_on_the_slicing(
    stream: bytes, where: list[int]
) -> None:
    for limits in (LIMITS, SMALL_LIMITS):
        expected = read_plainly(stream, limits)
        assert read_all([stream], limits) == expected
        assert read_all(cut(stream, where), limits) == expected
        assert frame_all([bytes((byte,)) for byte in stream], limits) == expected


@pytest.mark.parametrize("nothing", [b"*0\r\n", b"*-1\r\n", b"*-12\r\n", b"\r\n", b"\n", b"  \n"])
def test_empty_requests_are_skipped(nothing: bytes) -> None:
    reader = CommandReader(LIMITS)
    assert reader.feed(nothing * 3) == []
    assert not reader.has_partial
    assert reader.feed(nothing + b"*1\r\n$4\r\nPING\r\n" + nothing) == [[b"PING"]]


def test_inline_commands_and_arrays_may_alternate() -> None:
    stream = b"PING\r\n*1\r\n$4\r\nPING\r\nECHO 'a b'\nPING\r\n"
    expected = [[b"PING"], [b"PING"], [b"ECHO", b"a b"], [b"PING"]]
    assert read_all([stream], LIMITS) == (expected, None)
    assert read_all([bytes((byte,)) for byte in stream], LIMITS) == (expected, None)


ERRORS = [
    (b"*x\r\n", "invalid multibulk length"),
    (b"*\r\n", "invalid multibulk length"),
    (b"*01\r\n", "invalid multibulk length"),
    (b"*1_0\r\n", "invalid multibulk length"),
    (b"*3000000000\r\n", "invalid multibulk length"),
    (b"*-9999999999999999999\r\n", "invalid multibulk length"),
    (b"*1048577\r\n", "invalid multibulk length"),
    (b"*1\r\n:1\r\n", "expected '$', got ':'"),
    (b"*1\r\n+PING\r\n", "expected '$', got '+'"),
    (b"*1\r\n*1\r\n$4\r\nPING\r\n", "expected '$', got '*'"),
    (b"*1\r\n%1\r\n", "expected '$', got '%'"),
    (b"*3\r\n$3\r\nSET\r\n$1\r\nx\r\nfooz\r\n", "expected '$', got 'f'"),
    (b"*1\r\n\r\n", "expected '$', got '\\x0d'"),
    (b"*1\r\n$-1\r\n", "invalid bulk length"),
    (b"*1\r\n$\r\n", "invalid bulk length"),
    (b"*1\r\n$blabla\r\n", "invalid bulk length"),
    (b"*1\r\n$04\r\nPING\r\n", "invalid bulk length"),
    (b"*1\r\n$2000000000\r\n", "invalid bulk length"),
    (b"*1\r\n$536870913\r\n", "invalid bulk length"),
    (b"*3\r\n$536870912\r\n", None),
    (b"*" + b"1" * 65536, "too big mbulk count string"),
    (b"*1\r\n$" + b"1" * 65536, "too big bulk count string"),
    (b"*" + b"1" * 65535 + b"\r\n", "invalid multibulk length"),
    (b"*1\r\n$" + b"1" * 65535 + b"\r\n", "invalid bulk length"),
    (b"a" * 65537, "too big inline request"),
    (b"a" * 65537 + b"\r\n", "too big inline request"),
    (b" " * 65537 + b"\n", "too big inline request"),
    (b"a" * 65535 + b"\r\n", None),
    (b"a" * 65536, None),
    (b'SET "a\r\n', "unbalanced quotes in request"),
    (b"%1\r\n", None),  # an inline command by that name, as in Redis
]


@pytest.mark.parametrize(("stream", "message"), ERRORS)
def test_bytes_that_break_a_rule_are_refused_in_redis_words(
    stream: bytes, message: str | None
) -> None:
    wanted = None if message is None else f"Protocol error: {message}"
    assert read_all([stream], LIMITS)[1] == wanted
    assert read_all(cut(stream, range(0, len(stream), 977)), LIMITS)[1] == wanted


@pytest.mark.parametrize("before", [b"", b"*1\r\n$4\r\nPING\r\n"])
@pytest.mark.parametrize("cuts", [[], [1], [12], [40], [12, 40], range(200)])
def test_a_command_beyond_the_bytes_of_one_command_is_refused_at_the_header_that_says_so(
    before: bytes, cuts: Sequence[int]
) -> None:
    limits = ReaderLimits(max_command_bytes=100)
    first = b"*2\r\n$70\r\n" + b"a" * 70 + b"\r\n"  # 81 bytes
    fits = first + b"$12\r\n" + b"b" * 12 + b"\r\n"
    beyond = first + b"$13\r\n" + b"b" * 13 + b"\r\n"
    assert len(fits) == 100
    commands: list[Command] = [[b"PING"]] if before else []
    accepted = [*commands, [b"a" * 70, b"b" * 12]]
    refused: Outcome = (commands, "Protocol error: too big request")
    assert read_all(cut(before + fits + before, cuts), limits) == (accepted + commands, None)
    assert read_all(cut(before + first + b"$13\r\n", cuts), limits) == refused
    assert read_all(cut(before + beyond + before, cuts), limits) == refused


def test_a_blank_line_is_measured_like_any_other() -> None:
    assert read_all([b" " * 64 + b"\n"], SMALL_LIMITS) == ([], None)
    refused: Outcome = ([], "Protocol error: too big inline request")
    assert read_all([b" " * 65 + b"\n"], SMALL_LIMITS) == refused


def test_commands_before_the_bad_bytes_are_delivered_before_the_error() -> None:
    reader = CommandReader(LIMITS)
    assert reader.feed(b"*1\r\n$4\r\nPING\r\n*1\r\n:1\r\n") == [[b"PING"]]
    assert reader.stalled
    with pytest.raises(ProtocolError, match="expected '\\$', got ':'"):
        reader.feed(b"")
    assert not reader.stalled


def test_a_reader_that_raised_raises_the_same_again_and_holds_nothing() -> None:
    reader = CommandReader(LIMITS)
    assert reader.feed(b"*3\r\n$1\r\na\r\n$10") == []
    with pytest.raises(ProtocolError, match="invalid bulk length"):
        reader.feed(b"x\r\n" + b"z" * 10_000)
    assert reader.buffered == 0
    with pytest.raises(ProtocolError, match="invalid bulk length"):
        reader.feed(b"*1\r\n$4\r\nPING\r\n")


def test_limits_that_a_pipelined_auth_lifts_do_not_break_the_next_command() -> None:
    big = [b"VECTOR.ADD", b"idx", b"id", b"FP32", b"v" * 20_000]
    reader = CommandReader(UNAUTHENTICATED_LIMITS)
    assert reader.feed(encode_commands([[b"AUTH", b"secret"], big])) == [[b"AUTH", b"secret"]]
    assert reader.stalled
    reader.limits = LIMITS
    assert reader.feed(b"") == [big]


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (b"*11\r\n", "unauthenticated multibulk length"),
        (b"*2\r\n$4\r\nAUTH\r\n$16385\r\n", "unauthenticated bulk length"),
    ],
)
def test_a_client_that_has_yet_to_authenticate_is_told_so(stream: bytes, message: str) -> None:
    assert read_all([stream], UNAUTHENTICATED_LIMITS) == ([], f"Protocol error: {message}")


def test_tighter_limits_hold_for_a_layout_that_was_learnt_under_wider_ones() -> None:
    command = encode_command([b"VECTOR.ADD", b"idx", b"v" * 20_000])
    reader = CommandReader(LIMITS)
    for _ in range(4):
        assert len(reader.feed(command)) == 1
    reader.limits = UNAUTHENTICATED_LIMITS
    with pytest.raises(ProtocolError, match="unauthenticated bulk length"):
        reader.feed(command)


@pytest.mark.parametrize("field", ["max_args", "max_arg_bytes", "max_command_bytes"])
def test_a_limit_of_nothing_is_refused(field: str) -> None:
    nothing: dict[str, Any] = {field: 0}
    with pytest.raises(ValueError, match=field):
        ReaderLimits(**nothing)


def test_a_line_limit_too_short_for_headers_is_refused() -> None:
    with pytest.raises(ValueError, match="max_inline_bytes"):
        ReaderLimits(max_inline_bytes=63)
