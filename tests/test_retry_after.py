"""What a provider asks for in its headers, and what is made of it."""

from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrope.retry_after import MOST_RETRY_AFTER_S, bounded_wait, seconds_to_wait

NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("17", 17.0),
        ("1.5", 1.5),
        (" 7 ", 7.0),
        ("0", 0.0),
        (formatdate(NOW + 90, usegmt=True), 90.0),
        (formatdate(NOW - 90, usegmt=True), 0.0),
        # A zone that is not named is that of HTTP, wherever this runs.
        (formatdate(NOW + 90, usegmt=True).removesuffix(" GMT"), 90.0),
        ("99999999999", MOST_RETRY_AFTER_S),
        ("9" * 30, MOST_RETRY_AFTER_S),
        ("9" * 400, MOST_RETRY_AFTER_S),
        (formatdate(4_000_000_000, usegmt=True), MOST_RETRY_AFTER_S),
        ("soon", None),
        ("nan", None),
        ("inf", None),
        ("-5", None),
        ("1e400", None),
        ("1,5", None),
        ("", None),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_delay_is_a_number_or_a_date_and_never_more_than_a_day(
    header: str, seconds: float | None
) -> None:
    assert seconds_to_wait({"retry-after": header}, NOW) == seconds


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after-ms": "later", "retry-after": "9"}, 9.0),
        ({"retry-after-ms": "9" * 30}, MOST_RETRY_AFTER_S),
        ({"x-other": "9"}, None),
    ],
)
def test_milliseconds_are_believed_first(headers: dict[str, str], seconds: float | None) -> None:
    assert seconds_to_wait(headers, NOW) == seconds


@given(st.text(max_size=60), st.text(max_size=60))
def test_whatever_a_header_says_it_is_bounded_or_not_understood(one: str, other: str) -> None:
    wait = seconds_to_wait({"retry-after": one, "retry-after-ms": other}, NOW)
    assert wait is None or 0.0 <= wait <= MOST_RETRY_AFTER_S


@given(st.floats())
def test_every_wait_is_from_nothing_to_a_day(seconds: float) -> None:
    assert 0.0 <= bounded_wait(seconds) <= MOST_RETRY_AFTER_S
