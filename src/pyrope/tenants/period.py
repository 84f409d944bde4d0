"""Months: what budgets are for, and what usage is counted by. Always UTC."""

from __future__ import annotations

import re
from calendar import monthrange
from dataclasses import dataclass
from datetime import date

from pyrope.errors import CommandError

_DAY_S = 86_400
# Days of the proleptic Gregorian calendar before 1970-01-01, as `date.toordinal` counts them.
_EPOCH = date(1970, 1, 1).toordinal()
_FIRST_DAY = 0
_LAST_DAY = date.max.toordinal() - _EPOCH
_TEXT = re.compile(r"([0-9]{4})-(0[1-9]|1[0-2])", re.ASCII)
_FIRST_YEAR, _LAST_YEAR = 1970, date.max.year


@dataclass(frozen=True, slots=True, order=True)
class Period:
    """A month of a year, both in UTC. Earlier ones are less.

    Attributes:
        year: 1970 to 9999.
        month: 1 to 12.

    Raises:
        ValueError: there is no such month.
    """

    year: int
    month: int

    def __post_init__(self) -> None:
        if not (_FIRST_YEAR <= self.year <= _LAST_YEAR and 1 <= self.month <= 12):
            raise ValueError(f"there is no month {self.month} of the year {self.year}")

    @classmethod
    def at(cls, wall: float) -> Period:
        """The one that a Unix time in seconds is in.

        A clock that is outside the years 1970 to 9999 counts as the nearest of their months.
        """
        day = min(max(wall // _DAY_S, _FIRST_DAY), _LAST_DAY)
        then = date.fromordinal(_EPOCH + int(day))
        return cls(then.year, then.month)

    @classmethod
    def parse(cls, text: str) -> Period:
        """What `str` made a text of. Raises CommandError for anything else."""
        found = _TEXT.fullmatch(text)
        if found is None or int(found[1]) < _FIRST_YEAR:
            raise CommandError(f"'{text[:20]}' is no period: yyyy-mm is, such as 2026-03")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.year:04}-{self.month:02}"

    @property
    def begins_at(self) -> int:
        """Unix time in seconds of its first moment."""
        return (date(self.year, self.month, 1).toordinal() - _EPOCH) * _DAY_S

    @property
    def ends_at(self) -> int:
        """Unix time in seconds of the first moment after it."""
        return self.begins_at + monthrange(self.year, self.month)[1] * _DAY_S

    @property
    def next(self) -> Period:
        """The month after it; the last one there is has itself."""
        if self.month < 12:
            return Period(self.year, self.month + 1)
        return Period(self.year + 1, 1) if self.year < _LAST_YEAR else self

    def share_gone(self, wall: float) -> float:
        """How much of it has gone at a Unix time in seconds, above 0 and at most 1.

        The second that is under way counts as gone, so that nobody divides by nothing; before the
        period it is the first, after it the last.
        """
        begins_at = self.begins_at
        length = self.ends_at - begins_at
        return min(max(wall - begins_at, 0.0) + 1.0, length) / length
