"""Units of measure and money: *5 km* is not *5 miles*, and *in hours* not *in days*.

Refused where each has a unit that the other has not, of one dimension.
"""

from __future__ import annotations

from typing import Final

from pyrope.semantic.guards.comparison import Comparison

NAME: Final = "units"


def differ(pair: Comparison) -> bool:
    a, b = pair.a, pair.b
    if a.units == b.units or not a.units or not b.units:
        return False
    of_a = {dimension for dimension, _ in a.units - b.units}
    return any(dimension in of_a for dimension, _ in b.units - a.units)
