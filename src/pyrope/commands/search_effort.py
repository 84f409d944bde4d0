"""What a search is to take: effort and caches as asked for, within what the tenant may spend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyrope.commands.context import Context
from pyrope.engine.base import SearchOptions
from pyrope.errors import BusyError
from pyrope.service.answers import CacheMode, CacheWish, Near
from pyrope.service.index import OpenIndex
from pyrope.service.search import Search
from pyrope.tenants.enforcer import Account
from pyrope.tenants.pressure import Adjustment, Effort, adjust
from pyrope.types import IndexType

COUNT = 10
"""Hits of a search that does not say."""

_NEVER_READ = frozenset({CacheMode.OFF, CacheMode.REFRESH})


def asked_of(options: Mapping[str, Any], effort: SearchOptions) -> Search:
    """The search that options stand for, by that effort."""
    get = options.get
    return Search(
        get("count", COUNT),
        effort,
        get("exact", False),
        get("filter"),
        get("epsilon"),
        get("with_attributes", False),
    )


def _wish(index: OpenIndex, options: Mapping[str, Any]) -> CacheWish:
    """What is asked of the caches."""
    policy = index.spec.cache
    min_recall = options.get("min_recall", policy.min_recall)
    near = None
    if min_recall:
        certified = options.get("basis") == "CERTIFIED"
        if "min_recall" not in options:
            certified = policy.certified
        near = Near(min_recall, certified)
    mode = options.get("cache", CacheMode.AUTO)
    return CacheWish(mode, near, options.get("query"), options.get("session"))


def effort_of(index: OpenIndex, options: Mapping[str, Any]) -> SearchOptions:
    """What reaches the engine; None where the type in force has no such thing.

    A wish for the effort of another type is no error, since the type in force may change beneath
    a client (AUTO, lists that are not trained yet); WITHINFO says what was in force.
    """
    spec = index.spec
    if "exact" in options:
        return SearchOptions()
    kind = index.active_type if spec.type is IndexType.AUTO else spec.type
    max_scans = options.get("max_scans")
    if kind is IndexType.FLAT:
        return SearchOptions(max_scans=max_scans)
    if kind.has_lists:
        # Of AUTO the engine knows what it is.
        return SearchOptions(nprobe=options.get("nprobe", spec.nprobe) or None, max_scans=max_scans)
    return SearchOptions(ef=options.get("ef", spec.ef), max_scans=max_scans)


def _adjusted(
    account: Account,
    strain: float,
    index: OpenIndex,
    effort: SearchOptions,
    wish: CacheWish,
    *,
    reason: str | None,
) -> tuple[SearchOptions, CacheWish, Adjustment | None]:
    """The effort that the tenant's money and bounds allow, and what to tell of it."""
    scans = index.active_type is IndexType.FLAT
    near = wish.near
    asked = Effort(
        effort.ef,
        effort.nprobe or (index.engine.parameters.get("nprobe") if not scans else None),
        effort.max_scans or (len(index) if scans and strain else None),
        None if near is None else near.min_recall,
    )
    given, adjustment = adjust(asked, account.limits, strain, reason)
    if adjustment is None:
        return effort, wish, None
    options = SearchOptions(given.ef, given.nprobe or None, given.max_scans or None)
    if given.min_recall is not None and given.min_recall != asked.min_recall:
        wish = wish._replace(near=Near(given.min_recall, certified=False))
    return options, wish, adjustment


def in_force(
    context: Context, index: OpenIndex, options: Mapping[str, Any]
) -> tuple[SearchOptions, CacheWish, Adjustment | None]:
    """Effort and caches as asked for; or as they are, with what was changed."""
    effort, wish = effort_of(index, options), _wish(index, options)
    account, guard = context.account, context.server.service.guard
    if account is None:
        return effort, wish, None
    strain, reason = context.strain, None
    if guard.is_on:
        decision = guard.decide(account.limits.priority)
        if decision.cache_only:
            if wish.mode in _NEVER_READ:
                guard.refused_total += 1
                raise BusyError(
                    "the server misses its latency target, and only its caches answer searches of "
                    "this priority; retry with backoff"
                )
            wish = wish._replace(mode=CacheMode.ONLY)
        if 1 - decision.effort_share > strain:
            strain, reason = 1 - decision.effort_share, "latency"
    # A full scan that was asked for (TRUTH) stays one: less would not be what it says.
    if "exact" in options or not (strain or account.has_ceilings):
        return effort, wish, None
    adjusted = _adjusted(account, strain, index, effort, wish, reason=reason)
    if adjusted[2] is not None:
        context.server.counters.count_adjustment(adjusted[2].reason)
    return adjusted
