"""Less effort, so that the money lasts: smoothly, within a tenant's bounds, and never unsaid.

Let u be the share of the budget that has been used and g the share of the month that has gone.
*Pressure* is u / g: at 1 the budget will last exactly as long as the month if the tenant goes on as
it did so far. Up to the soft limit s, effort is what was asked for. Beyond it

    t = (u - s·g) / (1 - s·g)

runs from 0, where the pressure is s, to 1, where the budget is spent; *strain* is the smoothstep
t²·(3 - 2t), which begins and ends without a jump in value or slope; and effort goes that part of
the way from what was asked for down to its floor. Work is about proportional to `ef`, lists and
comparisons, so that a way that is straight in them is straight in money. Time relieves: with u as
it is, strain falls as g grows.

Early in a month g is nearly nothing, and any request would be an emergency. So g counts as
`EARLY_SHARE` at least, about three days: before they are over, effort is lowered only for who has
used up in them what they were for (times s). The number is a guess.

Where s·g reaches 1 (a soft limit above 1, late in the month) nothing is lowered before all is
spent: that is what such a soft limit asks for.
"""

from __future__ import annotations

from typing import NamedTuple

from pyrope.tenants.limits import TenantLimits

EARLY_SHARE = 0.1
"""Of a month: as much counts as gone from its beginning on."""

SPENT = 1.0
"""The strain of a budget that is spent, and of no other."""

_NO_CEILINGS = (None, None, None)

# The greatest number below 1.
_NEARLY_SPENT = 1.0 - 2.0**-53


class Effort(NamedTuple):
    """What a search may take.

    Attributes:
        ef, nprobe: None or 0: the index has no such thing. Whoever leaves a choice to the index
            says here what it would choose.
        max_scans: None or 0: any number. Of a full scan, say how many vectors it compares: there is
            nothing else that could be lowered.
        min_recall: the least recall of a near hit; None: there are to be none.
    """

    ef: int | None
    nprobe: int | None
    max_scans: int | None
    min_recall: float | None = None


class Adjustment(NamedTuple):
    """That a search was given another effort than it asked for, as `budget_adjustment` tells it.

    Attributes:
        reason: `ceiling`: the tenant's ceilings. `pressure`: it spends faster than the month goes.
            `spent`: its budget is used up. Others may lower effort for reasons of their own.
        from_, to: what changed, by the name in `Effort`; None as there.
    """

    reason: str
    from_: dict[str, float | None]
    to: dict[str, float | None]


def pressure(used: float, budget: float, share_gone: float) -> float:
    """Share of the budget used by share of the month gone; at least 0, infinite for no money.

    Args:
        used: of the same unit as the budget.
        share_gone: of the month, 0 to 1; see `EARLY_SHARE`.
    """
    if budget <= 0:
        return float("inf")
    return used / budget / max(share_gone, EARLY_SHARE)


def strain(used: float, budget: float, share_gone: float, soft_limit: float) -> float:
    """How far effort is to be lowered: 0 not at all, 1 (`SPENT`, and only then) to the floor.

    It never falls with `used` and never rises with `share_gone` or `soft_limit`.

    Args:
        used, budget, share_gone: as for `pressure`.
        soft_limit: the pressure up to which nothing is lowered.
    """
    if used >= budget:
        return SPENT
    free = soft_limit * max(share_gone, EARLY_SHARE)
    share = used / budget
    if share <= free:
        return 0.0
    t = (share - free) / (1.0 - free)
    return min(t * t * (3.0 - 2.0 * t), _NEARLY_SPENT)


def scale(value: int, floor: int, ceiling: int | None, strain: float) -> int:
    """An effort under strain, between floor and ceiling.

    It never rises with strain nor falls with `value`. At 0 it is the value, but no more than the
    ceiling; at 1 the floor. It is never raised: a value below the floor stays as it is, and a floor
    above the ceiling counts as the ceiling.
    """
    if ceiling is not None and value > ceiling:
        value = ceiling
    if value <= floor:
        return value
    return value - round((value - floor) * strain)


def adjust(
    asked: Effort, limits: TenantLimits, strain: float, reason: str | None = None
) -> tuple[Effort, Adjustment | None]:
    """The effort that a search gets, and what to tell of it; None: it gets what it asked for.

    When the budget is spent, near hits will do that have the recall `limits.degraded_recall`.

    Args:
        strain: 0 to 1, as `Account.admit` answers it; or from elsewhere, with a reason of its own.
        reason: what to give for more than a ceiling; None: `pressure` or `spent`.
    """
    ef, nprobe, max_scans, min_recall = asked
    ceilings = limits.ef_ceiling, limits.nprobe_ceiling, limits.max_scans_ceiling
    if not strain and ceilings == _NO_CEILINGS:
        return asked, None
    if ef:
        ef = scale(ef, limits.ef_floor, ceilings[0], strain)
    if nprobe:
        nprobe = scale(nprobe, limits.nprobe_floor, ceilings[1], strain)
    if max_scans or ceilings[2]:
        wanted = max_scans or ceilings[2] or 0
        max_scans = scale(wanted, limits.max_scans_floor, ceilings[2], strain)
    enough = limits.degraded_recall
    spent = strain >= SPENT and reason is None
    if spent and enough is not None and (min_recall is None or min_recall > enough):
        min_recall = enough
    given = Effort(ef, nprobe, max_scans, min_recall)
    if given == asked:
        return asked, None
    if not (
        _is_strained(ef, asked.ef, ceilings[0])
        or _is_strained(nprobe, asked.nprobe, ceilings[1])
        or _is_strained(max_scans, asked.max_scans, ceilings[2])
        or min_recall != asked.min_recall
    ):
        reason = "ceiling"
    elif reason is None:
        reason = "spent" if spent else "pressure"
    from_: dict[str, float | None] = {}
    to: dict[str, float | None] = {}
    for name, before, after in zip(Effort._fields, asked, given, strict=True):
        if before != after:
            from_[name], to[name] = before, after
    return given, Adjustment(reason, from_, to)


def _is_strained(given: int | None, asked: int | None, ceiling: int | None) -> bool:
    """Whether it is less than what a ceiling alone would have made of it."""
    if not given:
        return False
    return (not asked or given < asked) and (ceiling is None or given < ceiling)
