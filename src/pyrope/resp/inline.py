r"""Inline commands: a line typed into ``nc``, split by the quoting rules of redis-cli.

Blanks separate words. In double quotes ``\n \r \t \b \a`` and ``\xHH`` stand for bytes and
any other escaped byte for itself; in single quotes only ``\'`` is an escape. A closing quote ends
the word, so that a blank or the end of the line has to follow. (Redis, ``sdssplitargs``.)
"""

from __future__ import annotations

import re

_NON_BLANK = re.compile(rb"\S")
# A vertical tab or a form feed separates words but does not end one: in Redis too.
_PLAIN_WORD = re.compile(rb"\S[^ \t\r\n]*")
_WORD = re.compile(
    rb"""
    (?P<plain> [^ \t\r\n"']* )
    (?:
        " (?P<double> [^"\\]* (?: \\. [^"\\]* )* ) " (?= \s | \Z )
      | ' (?P<single> [^'\\]* (?: (?: \\' | \\(?!') ) [^'\\]* )* ) ' (?= \s | \Z )
      | (?= [ \t\r\n] | \Z )
    )
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(rb"\\(?:x[0-9a-fA-F]{2}|.)", re.DOTALL)


def _meaning(escape: bytes) -> bytes:
    return {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"a": b"\a"}.get(escape, escape)


# Every escape there is, so that unescaping a line of 64 KiB stays a matter of look-ups.
_ESCAPES = {b"\\" + bytes([byte]): _meaning(bytes([byte])) for byte in range(256)}


def _unescape(found: re.Match[bytes]) -> bytes:
    escape = found[0]
    if len(escape) == 4:
        return bytes((int(escape[2:], 16),))
    return _ESCAPES[escape]


def split_inline(line: bytes) -> list[bytes] | None:
    """Return the words of ``line`` (without its line end), or None where quotes do not balance."""
    if b'"' not in line and b"'" not in line:
        return _PLAIN_WORD.findall(line)
    words: list[bytes] = []
    start = _NON_BLANK.search(line)
    while start is not None:
        found = _WORD.match(line, start.start())
        if found is None:
            return None
        word, double, single = found["plain"], found["double"], found["single"]
        if double is not None:
            word += _ESCAPE.sub(_unescape, double)
        elif single is not None:
            word += single.replace(b"\\'", b"'")
        words.append(word)
        start = _NON_BLANK.search(line, found.end())
    return words
