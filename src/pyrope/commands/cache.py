"""VECTOR.CACHE: what the caches of an index hold, and what they may do."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import replace
from functools import partial
from typing import Any

from pyrope.cache.audited_recall import AuditedRecall
from pyrope.commands import cache_policy
from pyrope.commands.context import Context
from pyrope.commands.remembering_reply import described
from pyrope.commands.spec import Access, Argument, Command
from pyrope.errors import CommandError
from pyrope.resp.values import OK
from pyrope.service.near_audits import NearAudits
from pyrope.service.prefetching import Prefetcher
from pyrope.service.signals import Signals
from pyrope.types import CacheLevel

GROUP = "vector"


def stats(context: Context, args: list[bytes]) -> dict[str, Any]:
    index = context.server.service.index(context.client.tenant, args[2])
    cache = index.cache
    counted = cache.statistics
    total = sum(counted.hits.values()) + counted.misses
    return {
        "levels": cache_policy.shown_levels(index.spec.cache.levels),
        "entries": len(cache),
        "bytes": cache.nbytes,
        "hits": sum(counted.hits.values()),
        "misses": counted.misses,
        "hit_ratio": sum(counted.hits.values()) / total if total else 0.0,
        **{f"hits_{level.lower()}": counted.hits.get(level.lower(), 0) for level in CacheLevel},
        **_audited(cache.near.audits),
        **_prefetched(cache.prefetcher),
        **_labelled(cache.signals),
        "repairs": counted.repairs,
        "stale": counted.stale,
        "shared": cache.shared,
        "uncached": counted.uncached,
        **{f"evicted_{reason}": count for reason, count in sorted(cache.evicted.items())},
        "remembered": described(index.memory),
    }


def _audited(audits: NearAudits) -> dict[str, Any]:
    """What is known of near hits, and of hits by aliases."""
    counted, recall, aliases = audits.statistics, audits.recall, audits.aliases
    return {
        "near_refused": counted.refused,
        "audits": counted.audits,
        "audits_skipped": counted.audits_skipped,
        "audits_alias": counted.alias_audits,
        "recall_alias": aliases.recall,
        "recall_alias_bound": aliases.lower_bound,
        "near": {level: _level(recall, level) for level in recall.levels},
    }


def _level(recall: AuditedRecall, level: str) -> dict[str, Any]:
    return {
        "minrecall": {
            f"{one.floor:g}": {
                "state": "off" if one.is_off else "on",
                "answers": one.answers,
                "recall": one.recall,
            }
            for one in recall.promises(level)
        },
        "strain": {
            str(k): [
                [one.up_to, one.answers, one.recall, one.lower_bound] for one in bins if one.answers
            ]
            for k, bins in recall.statistics(level).items()
        },
    }


def _prefetched(prefetcher: Prefetcher | None) -> dict[str, int | str]:
    if prefetcher is None:
        return {"prefetch": "on", "prefetch_issued": 0, "prefetch_used": 0, "prefetch_wasted": 0}
    counted = prefetcher.statistics
    return {
        "prefetch": counted.state.value,
        "prefetch_issued": counted.issued_total,
        "prefetch_used": counted.used_total,
        "prefetch_wasted": counted.wasted_total,
    }


def _labelled(signals: Signals | None) -> dict[str, int]:
    """What is known of pairs of queries, from whoever advises the caches."""
    counted = None if signals is None else signals.labels.statistics()
    return {
        "labels": 0 if counted is None else counted.entries_current,
        "labels_same": 0 if counted is None else counted.same_total,
        "labels_different": 0 if counted is None else counted.different_total,
    }


def flush(context: Context, args: list[bytes]) -> Any:
    service, tenant = context.server.service, context.client.tenant
    named = [service.index(tenant, args[2])] if len(args) > 2 else None
    target = "*" if named is None else named[0].spec.name

    async def flushed() -> Any:
        async with service.tenancy.audit.act(context.actor, "cache.flush", tenant, target):
            for index in service.indexes_of(tenant) if named is None else named:
                index.cache.flush()
        return OK

    return flushed()


def invalidate(context: Context, args: list[bytes]) -> Coroutine[Any, Any, int] | int:
    if args[3].upper() != b"ID":
        raise CommandError("ID is expected")
    index = context.server.service.index(context.client.tenant, args[2])
    slot = index.state.ids.slot(args[4])
    return 0 if slot is None else index.cache.invalidate(slot)


def policy(context: Context, args: list[bytes]) -> dict[str, Any] | Coroutine[Any, Any, Any]:
    service, tenant = context.server.service, context.client.tenant
    index = service.index(tenant, args[2])
    word = args[3].upper() if len(args) > 3 else b"GET"
    if word == b"GET" and len(args) <= 4:
        return cache_policy.shown(index.spec.cache)
    if word != b"SET":
        raise CommandError("GET, or SET with fields and values, is expected")
    fields = cache_policy.changed_fields(args[4:], context.server.settings.limits)

    async def altered() -> Any:
        await service.alter_index(
            tenant,
            args[2],
            change_policy=partial(replace, **fields),
            precondition=context.precondition,
            actor=context.actor,
        )
        return OK

    return altered()


_INDEX = Argument("index", "key")
_READ = frozenset({"read", "vector", "fast"})
_WRITE = frozenset({"write", "vector", "fast"})
_READONLY = frozenset({"readonly", "fast"})
_CHANGES = frozenset({"write", "fast"})

COMMANDS = (
    Command(
        "VECTOR.CACHE", -2, None, "A container for commands about cached answers.", GROUP,
        has_index=False,
        subcommands={
            "STATS": Command(
                "VECTOR.CACHE|STATS", 3, stats, "Shows what the caches of an index did and hold.",
                GROUP, access=Access.READ, flags=_READONLY, categories=_READ,
                has_index=True, arguments=(_INDEX,), complexity="O(1)", returns="map",
            ),
            "FLUSH": Command(
                "VECTOR.CACHE|FLUSH", -2, flush,
                "Forgets the cached answers of an index, or of all.",
                GROUP, access=Access.WRITE, flags=_CHANGES, categories=_WRITE,
                arguments=(Argument("index", "key", optional=True),),
                complexity="O(N) in cached answers", returns="OK",
            ),
            "INVALIDATE": Command(
                "VECTOR.CACHE|INVALIDATE", 5, invalidate,
                "Forgets the cached answers that hold an id.",
                GROUP, access=Access.WRITE, flags=_CHANGES, categories=_WRITE,
                has_index=True, arguments=(_INDEX, Argument("id", "string", "ID")),
                complexity="O(N) in cached answers", returns="number of answers forgotten",
            ),
            "POLICY": Command(
                "VECTOR.CACHE|POLICY", -3, policy,
                "Shows or changes what the caches of an index may do.",
                GROUP, access=Access.WRITE, flags=_CHANGES, categories=_WRITE,
                has_index=True, arguments=(
                    _INDEX,
                    Argument(
                        "what", "oneof", optional=True,
                        arguments=(
                            Argument("get", "pure-token", "GET"),
                            Argument("set", "string", "SET"),
                        ),
                    ),
                ),
                complexity="O(1)", returns="map; OK after SET",
            ),
        },
    ),
)  # fmt: skip
