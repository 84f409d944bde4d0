"""Whether a level keeps what it promises, apart for what was asked of it.

A search that asks for a recall of 0.999 and one that asks for 0.8 are served other hits, by other
bounds. So what was served to one says nothing about the other: floors are judged in bands, and in
a band each answer by the floor that its own search had.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from dataclasses import dataclass
from math import fsum

from pyrope.cache.generations import ROUNDING

# Floors that clients like to ask for, each the first of its band.
_BANDS = (0.0, 0.5, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995, 0.998, 0.999, 1.0)

# Answers by which a band is judged, and the fewest that can condemn or acquit it.
_JUDGED = 256
_FEWEST_JUDGED = 32
# Of what may be missing by the floor, the part that must not be missing for a band to come back.
_HEADROOM = 0.25


@dataclass(frozen=True, slots=True)
class Promised:
    """What is known about the answers of one band.

    Attributes:
        floor: the least of the band; it ends where the next one begins.
        is_off: nothing is served for such floors.
        answers: by which it will be judged next; those before it went off or on are forgotten.
        recall: their mean; 0 if there are none.
    """

    floor: float
    is_off: bool
    answers: int
    recall: float


class _Band:
    """Answers with floors that are much alike.

    Attributes:
        answers: recalls, and the floors that they were to reach.
    """

    __slots__ = ("answers", "is_off")

    def __init__(self) -> None:
        self.answers: deque[tuple[float, float]] = deque(maxlen=_JUDGED)
        self.is_off = False

    def judge(self) -> bool:
        """Go off or on, if that is due. Returns whether it did."""
        count = len(self.answers)
        if count < _FEWEST_JUDGED:
            return False
        part = _HEADROOM if self.is_off else 0.0
        over = fsum([recall - floor - part * (1.0 - floor) for recall, floor in self.answers])
        if (over / count >= -ROUNDING) != self.is_off:
            return False
        self.is_off = not self.is_off
        self.answers.clear()
        return True


class KeptPromises:
    """Of one level. A floor is trusted until its band is known to fall short."""

    def __init__(self) -> None:
        self._bands: dict[int, _Band] = {}

    def record(self, floor: float, recall: float) -> bool:
        """An answer that was to have a recall of `floor` had this one.

        Returns whether its band went off, or on again, because of it.
        """
        band = self._bands.setdefault(_band_of(floor), _Band())
        band.answers.append((recall, floor))
        return band.judge()

    def is_trusted(self, floor: float) -> bool:
        """Whether answers that promise so much may be served.

        By the mean, over the last 256 audited answers of the band, and 32 at least, of what they
        had beyond what they promised. A band that falls short is off and starts a new count; it
        comes back when what it would have served is better than promised by a quarter of what may
        be missing. (Where little is known more is audited, and it is worse rather than better: the
        mean errs on the side of distrust.)
        """
        band = self._bands.get(_band_of(floor))
        return band is None or not band.is_off

    def statistics(self) -> list[Promised]:
        """Of the bands that answers were recorded for, by their floors."""
        found = []
        for number, band in sorted(self._bands.items()):
            count = len(band.answers)
            recall = fsum([recall for recall, _ in band.answers]) / count if count else 0.0
            found.append(Promised(_BANDS[number], band.is_off, count, recall))
        return found


def _band_of(floor: float) -> int:
    return max(0, bisect_right(_BANDS, floor) - 1)
