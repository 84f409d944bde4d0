"""Finding the effort that a recall costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.harness.figures import Point


@dataclass(frozen=True, slots=True)
class Effort:
    """A search option that trades recall for speed.

    Attributes:
        option: its name on the wire.
        ladder: the values tried, ascending.
    """

    option: bytes
    ladder: tuple[int, ...]


EF = Effort(
    b"EF", (10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
)  # fmt: skip
NPROBE = Effort(b"NPROBE", (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096))

FINENESS = 16
"""The smallest sufficient effort is narrowed down to one part in this many."""


def up_to(ladder: Sequence[int], most: int) -> tuple[int, ...]:
    """The steps below `most`, and `most` itself."""
    return (*(step for step in ladder if step < most), most)


def sweep(
    probe: Callable[[int], Point],
    target: float,
    ladder: Sequence[int],
    known: Sequence[Point] = (),
) -> tuple[int | None, list[Point]]:
    """Climb until the target is reached, look one step further, then narrow down.

    The step further is for the curve; narrowing down keeps one server from paying for a wide step
    of the ladder that another happens not to need.

    Args:
        probe: measures one effort.
        target: mean recall to be reached.
        ladder: the efforts to climb, ascending.
        known: points measured already, which are not measured again.

    Returns:
        The smallest effort found whose recall reaches the target (None: not even the last
        step's), and every point known by now, by effort.
    """
    points = {point.effort: point for point in known if point.effort is not None}

    def measured(effort: int) -> Point:
        if effort not in points:
            points[effort] = probe(effort)
        return points[effort]

    failed, reached = 0, None
    for effort in ladder:
        point = measured(effort)
        if reached is not None:
            break
        if point.recall >= target:
            reached = effort
        else:
            failed = effort
    if reached is not None and failed:
        while reached - failed > max(1, failed // FINENESS):
            between = (failed + reached) // 2
            if measured(between).recall >= target:
                reached = between
            else:
                failed = between
    return reached, [points[effort] for effort in sorted(points)]
