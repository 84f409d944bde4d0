"""Inline commands are split by the quoting rules of redis-cli."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrope.resp.inline import split_inline

HEX = string.hexdigits.encode()
NAMED = {ord("n"): 10, ord("r"): 13, ord("t"): 9, ord("b"): 8, ord("a"): 7}


def split_by_hand(line: bytes) -> list[bytes] | None:
    """The oracle: the rules, one byte at a time."""
    words: list[bytes] = []
    place = 0
    while True:
        while line[place : place + 1].isspace():
            place += 1
        if place == len(line):
            return words
        word = bytearray()
        while place < len(line) and line[place] not in b" \t\r\n":
            if line[place] not in b"\"'":
                word.append(line[place])
                place += 1
                continue
            quote = line[place]
            place += 1
            while line[place : place + 1] != bytes((quote,)):
                if place >= len(line):
                    return None
                after = line[place + 1 : place + 4]
                if line[place] != ord("\\") or not after:
                    word.append(line[place])
                elif quote == ord("'"):
                    word.append(ord("'") if after[0] == quote else line[place])
                    place += after[0] == quote
                elif len(after) == 3 and after[0] == ord("x") and all(c in HEX for c in after[1:]):
                    word.append(int(after[1:], 16))
                    place += 3
                else:
                    word.append(NAMED.get(after[0], after[0]))
                    place += 1
                place += 1
            place += 1
            if place < len(line) and not line[place : place + 1].isspace():
                return None
            break
        words.append(bytes(word))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"", []),
        (b"   \t ", []),
        (b"PING", [b"PING"]),
        (b"  set  key\tvalue ", [b"set", b"key", b"value"]),
        (b'set "a key" "two\\nlines"', [b"set", b"a key", b"two\nlines"]),
        (b'"\\x41\\xff\\x4g\\r\\t\\b\\a\\"\\\\\\q"', [b'A\xffx4g\r\t\b\a"\\q']),
        (b"'single \\n \\' \"'", [b"single \\n ' \""]),
        (b"'back\\\\slash'", [b"back\\\\slash"]),
        (b'""', [b""]),
        (b"'' x", [b"", b"x"]),
        (b'foo"bar baz"', [b"foobar baz"]),
        (b'a"b"c', None),
        (b'"open', None),
        (b"it's", None),
        (b"'ends in a backslash\\'", None),
        (b'"ends in a backslash\\', None),
        (b'"a"\x0b"b"', [b"a", b"b"]),
        (b"a\x0bb c", [b"a\x0bb", b"c"]),
        (b"nul\x00byte", [b"nul\x00byte"]),
    ],
)
def test_a_line_is_split_into_words(line: bytes, words: list[bytes] | None) -> None:
    assert split_by_hand(line) == words
    assert split_inline(line) == words


@given(st.lists(st.sampled_from(list(b"ab x4n\\\\\"\"''\t\r\x0b\xff\x00")), max_size=24).map(bytes))
def test_any_line_is_split_as_the_rules_say(line: bytes) -> None:
    assert split_inline(line) == split_by_hand(line)


@given(st.lists(st.binary(max_size=12)))
def test_words_quoted_byte_by_byte_come_back(words: list[bytes]) -> None:
    line = b" ".join(b'"' + b"".join(b"\\x%02x" % byte for byte in word) + b'"' for word in words)
    assert split_inline(line) == words


@pytest.mark.parametrize("unit", [b'"', b"\\", b"'", b'"a" ', b"\\'", b'\\"', b"a ", b"'\\"])
@pytest.mark.parametrize("start", [b"", b'"', b"'"])
def test_the_longest_line_of_anything_is_split(start: bytes, unit: bytes) -> None:
    line = start + unit * (65536 // len(unit))
    assert split_inline(line) == split_by_hand(line)
