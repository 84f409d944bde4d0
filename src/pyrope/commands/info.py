"""The text of INFO."""

from __future__ import annotations

import os
import platform
import resource
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pyrope import __version__
from pyrope.cache.stored import Gone
from pyrope.commands import llm
from pyrope.commands.context import Server
from pyrope.commands.spec import Command
from pyrope.semantic.guards import GUARDS
from pyrope.service.index import OpenIndex
from pyrope.tenants.usage import HIT_LEVELS, MICRO

Section = Mapping[str, Any]

REDIS_LEVEL = "8.0.6"
"""The Redis whose manners are followed: client libraries decide by it what they may use."""


def human(size: float) -> str:
    """Bytes as Redis prints them for people: ``1.29M``."""
    if size < 1024:
        return f"{size:.0f}B"
    for unit in "KMGT":
        size /= 1024
        if size < 1024 or unit == "T":
            break
    return f"{size:.2f}{unit}"


def resident_bytes() -> tuple[int, int]:
    """Resident memory of this process: all of it, and the anonymous part of it, in bytes."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:  # not Linux: the peak is all that the standard library tells
        scale = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
        return peak, peak
    found = {}
    for line in status.splitlines():
        if line.startswith(("VmRSS:", "RssAnon:")):
            name, value, _unit = line.split()
            found[name] = int(value) * 1024
    return found.get("VmRSS:", 0), found.get("RssAnon:", 0)


def _server(server: Server) -> Section:
    settings = server.settings
    uptime = int(server.clock.monotonic() - server.started_at)
    return {
        "pyrope_version": __version__,
        "redis_version": REDIS_LEVEL,
        "redis_mode": "standalone",
        "os": f"{platform.system()} {platform.release()} {platform.machine()}",
        "arch_bits": 64 if sys.maxsize > 2**32 else 32,
        "python_version": platform.python_version(),
        "process_id": os.getpid(),
        "run_id": server.run_id,
        "tcp_port": settings.port,
        "server_time_usec": int(server.clock.wall() * 1_000_000),
        "uptime_in_seconds": uptime,
        "uptime_in_days": uptime // 86400,
        **{f"listener{i}": address for i, address in enumerate(server.listening)},
    }


def _clients(server: Server) -> Section:
    clients = server.clients.values()
    return {
        "connected_clients": len(server.clients),
        "maxclients": server.settings.limits.max_clients,
        "blocked_clients": sum(1 for client in clients if client.link.in_flight),
        "client_biggest_input_buffer": max((c.link.input_buffered for c in clients), default=0),
        "client_biggest_output_buffer": max((c.link.output_buffered for c in clients), default=0),
    }


def _memory(server: Server) -> Section:
    resident, anonymous = resident_bytes()
    dataset = server.service.memory_bytes
    limit = server.settings.maxmemory
    return {
        "used_memory": anonymous,
        "used_memory_human": human(anonymous),
        "used_memory_rss": resident,
        "used_memory_rss_human": human(resident),
        "used_memory_dataset": dataset,
        "used_memory_dataset_human": human(dataset),
        "maxmemory": limit,
        "maxmemory_human": human(limit),
        "maxmemory_policy": "noeviction",
    }


def _persistence(server: Server) -> Section:
    service = server.service
    saver = service.saver
    commits = service.commit_statistics()
    backups = service.backups.status()
    return {
        "loading": int(service.loading),
        "loading_loaded_vectors": service.progress.loaded_vectors,
        "loading_total_vectors": service.progress.total_vectors,
        "durable": int(not server.settings.in_memory),
        "data_bytes_on_disk": service.disk_bytes,
        "commits": commits.commits_total,
        "commits_failed": commits.errors_total,
        "commit_changes": commits.changes_total,
        "commit_changes_pending": commits.pending_current,
        "last_commit_usec": int(commits.last_seconds * 1_000_000),
        "graph_last_save_time": int(saver.last_save_at),
        "graph_save_in_progress": int(saver.saving),
        "graph_last_save_status": "err" if saver.error else "ok",
        "graph_last_save_error": saver.error or "",
        "graph_changes_since_last_save": sum(i.unsaved_changes for i in service.indexes()),
        "backup_in_progress": int(backups.running),
        "backup_last_time": int(backups.last_at),
        "backup_last_status": "err" if backups.last_error else "ok",
    }


def _stats(server: Server) -> Section:
    counters = server.counters
    return {
        "total_connections_received": counters.connections_received_total,
        "rejected_connections": counters.connections_rejected_total,
        "total_commands_processed": sum(each.stats.calls for each in _all_commands(server)),
        "total_net_input_bytes": counters.net_input_bytes_total,
        "total_net_output_bytes": counters.net_output_bytes_total,
        "total_error_replies": counters.errors_total,
        "client_output_buffer_limit_disconnections": counters.output_limit_disconnections_total,
        "client_idle_disconnections": counters.idle_disconnections_total,
        "protocol_errors": counters.protocol_errors_total,
        "searches": counters.searches_total,
        "search_batches": counters.batch_sizes.count,
        "search_shortcuts": counters.shortcuts_total,
        "vectors_written": counters.vectors_written_total,
        "vectors_deleted": counters.vectors_deleted_total,
        "vectors_expired": counters.vectors_expired_total,
        "event_loop_lag_p99_usec": f"{server.loop_lag.histogram.percentile(0.99) / 1000:.3f}",
    }


def _cache(server: Server) -> Section:
    service = server.service
    totals, held = service.totals(), service.cache.statistics
    guards = totals.remembered.guards
    remembered = [one.remembered for one in service.indexes() if one.remembered is not None]
    return {
        "cache_entries": held.entries,
        "cache_bytes": held.nbytes,
        "cache_max_bytes": held.max_bytes,
        "cache_hits": totals.hits_total,
        "cache_misses": totals.misses,
        "cache_hit_ratio": totals.hit_ratio,
        **{f"cache_hits_{level}": totals.hits.get(level, 0) for level in HIT_LEVELS},
        "cache_uncached": totals.uncached,
        "cache_repairs": totals.repairs,
        "cache_stale": totals.stale,
        "cache_shared": totals.shared,
        "cache_cost_saved": totals.saved,
        "cache_near_refused": totals.near_refused,
        "cache_audits": totals.audits,
        "cache_audits_skipped": totals.audits_skipped,
        "cache_audits_alias": totals.alias_audits,
        **{f"cache_prefetch_{fate}": count for fate, count in totals.prefetches.items()},
        **{f"cache_evicted_{reason}": totals.evicted.get(reason, 0) for reason in Gone},
        "remembered_entries": sum(map(len, remembered)),
        "remembered_bytes": sum(memory.nbytes for memory in remembered),
        "remembered_recalls": totals.remembered.recalls,
        "remembered_hits": totals.remembered.hits_total,
        **{f"remembered_guard_{name}": guards.get(name, 0) for name in GUARDS},
        "remembered_tokens_saved": totals.remembered.tokens_saved,
        "remembered_cost_saved": totals.remembered.cost_saved,
    }


def _keyspace(server: Server, tenant: str | None) -> Section:
    indexes = _visible(server, tenant)
    if not indexes:
        return {}
    vectors = sum(len(index) for index in indexes)
    expires = sum(len(index.state.expires_at_ms) for index in indexes)
    return {"db0": f"keys={len(indexes)},vectors={vectors},expires={expires}"}


def _visible(server: Server, tenant: str | None) -> list[OpenIndex]:
    """The indexes of a tenant; None: all there are."""
    service = server.service
    return service.indexes() if tenant is None else service.indexes_of(tenant)


def _indexes(server: Server, tenant: str | None) -> Section:
    return {
        f"index{number}": (
            f"name={index.spec.name},tenant={index.spec.tenant},type={index.spec.type.value},"
            f"metric={index.spec.metric.value},dim={index.spec.dim},vectors={len(index)},"
            f"memory={index.memory_bytes}"
        )
        for number, index in enumerate(_visible(server, tenant))
    }


def _tenants(server: Server, tenant: str | None) -> Section:
    counts: dict[str, int] = {}
    for index in _visible(server, tenant):
        counts[index.spec.tenant] = counts.get(index.spec.tenant, 0) + 1
    shown: dict[str, Any] = {f"tenant_{name}": f"indexes={n}" for name, n in sorted(counts.items())}
    if tenant is None:
        tenancy = server.service.tenancy
        statistics, charged = tenancy.registry.statistics(), tenancy.charged
        shown = {
            "configured": statistics.tenants_current,
            "logins": statistics.logins_total,
            "login_failures": statistics.failures_total,
            "logins_locked_out": statistics.locked_out_total,
            "compute_units": charged.compute_micro / MICRO,
            "llm_units": charged.llm_micro / MICRO,
            "refused_quota": charged.refused_quota,
            "refused_budget": charged.refused_budget,
            "adjusted": sum(server.counters.adjustments.values()),
            **shown,
        }
    return shown


def _llm(server: Server) -> Section:
    return llm.describe(server)


def _embedders(server: Server) -> Section:
    embedders = server.service.embedders
    cache = embedders.cache_statistics()
    shown: dict[str, Any] = {
        "text_cache_entries": cache.entries_current,
        "text_cache_bytes": cache.bytes_current,
        "text_cache_hits": cache.hits_total,
        "text_cache_misses": cache.misses_total,
    }
    for number, (identity, found) in enumerate(embedders.statistics().items()):
        shown[f"embedder{number}"] = (
            f"embedder={identity},queued={found.queued_current},"
            f"calls_running={found.calls_running_current},texts={found.texts_total},"
            f"tokens={found.tokens_total},tokens_estimated={found.tokens_estimated_total},"
            f"shared={found.shared_total},calls={found.calls_total},retries={found.retries_total},"
            f"failed={found.failed_total},shed={found.shed_total}"
        )
        shown[f"embedder{number}_last_error"] = found.last_error
    return shown


def _all_commands(server: Server) -> Iterator[Command]:
    for command in server.commands.values():
        yield command
        yield from command.subcommands.values()


def _commandstats(server: Server) -> Section:
    return {
        f"cmdstat_{command.display_name}": (
            f"calls={stats.calls},usec={stats.microseconds:.0f},"
            f"usec_per_call={stats.microseconds / max(stats.calls, 1):.2f},"
            f"rejected_calls={stats.rejected},failed_calls={stats.failed}"
        )
        for command in _all_commands(server)
        if (stats := command.stats).calls or stats.rejected or stats.failed
    }


def _errorstats(server: Server) -> Section:
    return {
        f"errorstat_{prefix}": f"count={count}"
        for prefix, count in sorted(server.counters.errors_by_prefix.items())
    }


def _latencystats(server: Server) -> Section:
    return {
        f"latency_percentiles_usec_{command.display_name}": ",".join(
            f"{label}={command.stats.latency.percentile(share) / 1000:.3f}"
            for label, share in (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999))
        )
        for command in _all_commands(server)
        if command.stats.latency.count
    }


_OWN: Mapping[str, Callable[[Server, str | None], Section]] = {
    "keyspace": _keyspace,
    "indexes": _indexes,
    "tenants": _tenants,
}
"""Sections in which a tenant sees itself only."""

_SECTIONS: Mapping[str, Callable[[Server], Section] | None] = {
    "server": _server,
    "clients": _clients,
    "memory": _memory,
    "persistence": _persistence,
    "stats": _stats,
    "cache": _cache,
    **dict.fromkeys(_OWN),
    "llm": _llm,
    "embedders": _embedders,
    "errorstats": _errorstats,
    "commandstats": _commandstats,
    "latencystats": _latencystats,
}
_OF_EVERYBODY = frozenset(
    {
        "clients",
        "memory",
        "persistence",
        "stats",
        "cache",
        "llm",
        "embedders",
        "errorstats",
        "commandstats",
        "latencystats",
    }
)
"""Sections that add up what all tenants do: for the administrator, as who knows its own part of
such a sum knows that of the others."""

_ONLY_WHEN_ASKED = frozenset({"commandstats", "latencystats"})
SECTION_NAMES = tuple(_SECTIONS)


def render_info(server: Server, wanted: list[str], tenant: str | None = None) -> str:
    """The sections named, in their order; without names all but the long ones.

    Args:
        tenant: who asks, and sees nothing of any other; None: the administrator, who sees all.

    ``all`` and ``everything`` name all of them, ``default`` those of an INFO without arguments.
    Names that are no section are passed over, as Redis does.
    """
    names = set(wanted)
    if not names or "default" in names:
        names |= set(_SECTIONS) - _ONLY_WHEN_ASKED
    if names & {"all", "everything"}:
        names |= set(_SECTIONS)
    parts = []
    for name, section in _SECTIONS.items():
        if name in names and not (tenant is not None and name in _OF_EVERYBODY):
            found = _OWN[name](server, tenant) if section is None else section(server)
            lines = "".join(f"{key}:{value}\r\n" for key, value in found.items())
            parts.append(f"# {name.capitalize()}\r\n{lines}")
    return "\r\n".join(parts)
