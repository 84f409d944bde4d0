"""Glob patterns, as Redis matches them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrope.commands.globs import matches
from pyrope.errors import CommandError


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        (b"*", "", True),
        (b"", "", True),
        (b"", "a", False),
        (b"max*", "maxclients", True),
        (b"*clients", "maxclients", True),
        (b"m*x*s", "maxclients", True),
        (b"m*z*s", "maxclients", False),
        (b"?ax", "max", True),
        (b"?ax", "ax", False),
        (b"[mn]ax", "max", True),
        (b"[^mn]ax", "max", False),
        (b"[^a-c]ax", "max", True),
        (b"[a-z]ax", "max", True),
        (b"[z-a]ax", "max", True),
        (b"[max", "m", True),
        (rb"\*", "*", True),
        (rb"\*", "a", False),
        (b"a**b", "ab", True),
        (b"*a*a*a*a*b", "a" * 40, False),
    ],
)
def test_patterns_match_as_in_redis(pattern: bytes, name: str, expected: bool) -> None:  # noqa: FBT001 - a parameter
    assert matches(pattern, name) is expected


@given(st.binary(max_size=128), st.text(max_size=40))
def test_any_pattern_gives_an_answer(pattern: bytes, name: str) -> None:
    assert matches(pattern, name) in (True, False)


@given(st.text(alphabet="abc-_", max_size=20), st.integers(0, 20))
def test_a_name_matches_itself_and_its_beginning_with_a_star(name: str, cut: int) -> None:
    assert matches(name.encode(), name)
    assert matches(name[:cut].encode() + b"*", name)


def test_a_pattern_longer_than_any_name_is_refused() -> None:
    with pytest.raises(CommandError, match="at most 128 bytes"):
        matches(b"[" * 4000, "x")
