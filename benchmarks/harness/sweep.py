"""Finding the effort that a recall costs."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.harness.figures import Point

LADDER = (10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
FINENESS = 16
"""The smallest sufficient EF is narrowed down to one part in this many."""


def sweep(
    probe: Callable[[int], Point], target: float, ladder: tuple[int, ...] = LADDER
) -> tuple[int | None, list[Point]]:
    """Climb until the target is reached, look one step further, then narrow down.

    The step further is for the curve; narrowing down keeps one server from paying for a wide step
    of the ladder that another happens not to need.

    Args:
        probe: measures one EF.
        target: mean recall to be reached.

    Returns:
        The smallest EF found whose recall reaches the target (None: not even the last step's),
        and every point measured, by EF.
    """
    points: dict[int, Point] = {}
    failed, reached = 0, None
    for ef in ladder:
        points[ef] = probe(ef)
        if reached is not None:
            break
        if points[ef].recall >= target:
            reached = ef
        else:
            failed = ef
    if reached is not None and failed:
        while reached - failed > max(1, failed // FINENESS):
            between = (failed + reached) // 2
            points[between] = probe(between)
            if points[between].recall >= target:
                reached = between
            else:
                failed = between
    return reached, [points[ef] for ef in sorted(points)]
