"""How long an API over HTTP asks to be left alone, and how much of that is believed."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

MOST_RETRY_AFTER_S: Final = 86_400.0
"""Nobody is believed who wants to be left alone for longer than a day."""

# Whole numbers as RFC 9110 has them, and the fractions that some send; no sign, and no exponent.
_DELAY: Final = re.compile(r"[0-9]+(\.[0-9]+)?")


def seconds_to_wait(headers: Mapping[str, str], now: float) -> float | None:
    """What ``Retry-After`` (RFC 9110, section 10.2.3) and ``retry-after-ms`` ask for.

    Args:
        headers: names in lower case, or a mapping that ignores case.
        now: Unix time in seconds, for a header that is a date.

    Returns:
        Seconds from 0 to `MOST_RETRY_AFTER_S`; None where neither is there and understood.
    """
    milliseconds = headers.get("retry-after-ms", "").strip()
    if _DELAY.fullmatch(milliseconds):
        return bounded_wait(float(milliseconds) / 1000)
    text = headers.get("retry-after", "").strip()
    if _DELAY.fullmatch(text):
        return bounded_wait(float(text))
    try:
        # HTTP has no other zone than GMT; a date that names none would be taken for local time.
        date = parsedate_to_datetime(text)
        until = date if date.tzinfo is not None else date.replace(tzinfo=UTC)
        return bounded_wait(until.timestamp() - now)
    except (ValueError, OverflowError):
        return None


def bounded_wait(seconds: float) -> float:
    """`seconds` as nobody regrets to have believed them; what is no number is 0."""
    if math.isnan(seconds):
        return 0.0
    return min(max(seconds, 0.0), MOST_RETRY_AFTER_S)
