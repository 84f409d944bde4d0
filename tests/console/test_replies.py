"""Replies of RESP2: whole, byte by byte, and broken."""

from __future__ import annotations

from typing import Any

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrope.console.replies import (
    BrokenReplyError,
    Reply,
    ReplyError,
    ReplyReader,
    encode_command,
)
from pyrope.resp.writer import encode

values = st.recursive(
    st.none() | st.integers(-(2**63), 2**63 - 1) | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=12,
)


def read_all(reader: ReplyReader) -> list[Reply]:
    replies = []
    while (taken := reader.take()) is not None:
        replies.append(taken[0])
    return replies


@given(sent=st.lists(values, max_size=5), cut=st.integers(1, 7))
def test_what_the_server_encodes_is_read_however_it_is_cut(sent: list[Reply], cut: int) -> None:
    data = b"".join(encode(value, 2) for value in sent)
    reader = ReplyReader()
    found: list[Reply] = []
    for start in range(0, len(data), cut):
        reader.feed(data[start : start + cut])
        found += read_all(reader)
    assert found == sent


def test_simple_strings_and_errors_are_told_apart() -> None:
    reader = ReplyReader()
    reader.feed(b"+OK\r\n-ERR no\r\n:-1\r\n$-1\r\n*-1\r\n")
    ok, error, *rest = read_all(reader)
    assert ok == b"OK"
    assert isinstance(error, ReplyError)
    assert str(error) == "ERR no"
    assert rest == [-1, None, None]


@pytest.mark.parametrize(
    "data", [b"?what\r\n", b":x\r\n", b"$1x\r\n", b"HTTP/1.1 400\r\n", b"*1\r\n" * 100]
)
def test_what_is_no_reply_is_told_of(data: bytes) -> None:
    reader = ReplyReader()
    reader.feed(data)
    with pytest.raises(BrokenReplyError):
        read_all(reader)


def test_commands_are_as_other_clients_encode_them() -> None:
    args: Any = ("VECTOR.ADD", b"\0\r\n", 12, "é")
    assert encode_command(*args) == hiredis.pack_command(args)
