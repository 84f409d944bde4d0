"""Months, days of the week and days told from today: *on Monday* is not *on Friday*.

Refused where each has one that the other has not. Years and days of the month are numbers, which
have a guard of their own.
"""

from __future__ import annotations

from typing import Final

from pyrope.semantic.guards.comparison import Comparison

NAME: Final = "dates"


def differ(pair: Comparison) -> bool:
    a, b = pair.a, pair.b
    return not a.dates <= b.dates and not b.dates <= a.dates
