"""Indexes and their vectors, all together; and, where settings say so, some by name."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import Metric

from pyrope.http.metrics.metric import counter, gauge
from pyrope.http.metrics.snapshot import Snapshot
from pyrope.types import IndexType

INDEXES = gauge("pyrope_indexes", "Indexes, by the type that was asked for.", "type")
VECTORS = gauge("pyrope_vectors", "Vectors in all indexes.")
HEAD = gauge(
    "pyrope_vectors_unmerged", "Those that are in no graph and no lists yet: searches scan them."
)
DELETED = gauge("pyrope_vectors_deleted", "Deleted ones that graphs and lists still hold.")
WRITTEN = counter(
    "pyrope_vectors_written_total", "Vectors added or replaced.", info="vectors_written"
)
REMOVED = counter("pyrope_vectors_removed_total", "Vectors deleted.", info="vectors_deleted")
EXPIRED = counter(
    "pyrope_vectors_expired_total", "Vectors whose time was over.", info="vectors_expired"
)

_NAMES = ("tenant", "index")
_OPT_IN = " Only with metrics.index_labels."
ONE_VECTORS = gauge("pyrope_index_vectors", "Vectors of an index." + _OPT_IN, *_NAMES)
ONE_MEMORY = gauge("pyrope_index_memory_bytes", "Memory of an index." + _OPT_IN, *_NAMES)
ONE_ENTRIES = gauge("pyrope_index_cache_entries", "Answers kept of an index." + _OPT_IN, *_NAMES)
ONE_CACHE = gauge(
    "pyrope_index_cache_bytes", "Memory of the answers kept of an index." + _OPT_IN, *_NAMES
)
ONE_QUEUED = gauge(
    "pyrope_index_queued_requests", "Searches and writes that wait for an index." + _OPT_IN, *_NAMES
)
ONE_HITS = counter(
    "pyrope_index_cache_hits_total", "Queries of an index that a cache answered." + _OPT_IN, *_NAMES
)
ONE_MISSES = counter(
    "pyrope_index_cache_misses_total",
    "Queries of an index that were looked up and not found." + _OPT_IN,
    *_NAMES,
)
ONE_RESPONSES = gauge(
    "pyrope_index_remembered_responses", "Responses that an index remembers." + _OPT_IN, *_NAMES
)
ONE_RECALLED = counter(
    "pyrope_index_remembered_hits_total",
    "Prompts that were answered by what an index remembers." + _OPT_IN,
    *_NAMES,
)
ONE_TOKENS = counter(
    "pyrope_index_saved_tokens_total", "Tokens that these have spared, about." + _OPT_IN, *_NAMES
)
ONE_UNITS = counter(
    "pyrope_index_saved_units_total", "Cost units that these have spared." + _OPT_IN, *_NAMES
)

METRICS = (
    INDEXES, VECTORS, HEAD, DELETED, WRITTEN, REMOVED, EXPIRED, ONE_VECTORS, ONE_MEMORY,
    ONE_ENTRIES, ONE_CACHE, ONE_QUEUED, ONE_HITS, ONE_MISSES, ONE_RESPONSES, ONE_RECALLED,
    ONE_TOKENS, ONE_UNITS,
)  # fmt: skip


def collect(snapshot: Snapshot) -> Iterator[Metric]:
    counters = snapshot.server.counters
    yield INDEXES.are({kind.value: snapshot.types[kind.value] for kind in IndexType})
    yield VECTORS.is_(snapshot.vectors)
    yield HEAD.is_(snapshot.head_vectors)
    yield DELETED.is_(snapshot.deleted_vectors)
    yield WRITTEN.is_(counters.vectors_written_total)
    yield REMOVED.is_(counters.vectors_deleted_total)
    yield EXPIRED.is_(counters.vectors_expired_total)
    rows = snapshot.indexes
    if rows:
        yield ONE_VECTORS.are({names: row.vectors for names, row in rows.items()})
        yield ONE_MEMORY.are({names: row.memory_bytes for names, row in rows.items()})
        yield ONE_ENTRIES.are({names: row.cache_entries for names, row in rows.items()})
        yield ONE_CACHE.are({names: row.cache_bytes for names, row in rows.items()})
        yield ONE_QUEUED.are({names: row.queued for names, row in rows.items()})
        yield ONE_HITS.are({names: row.done.hits for names, row in rows.items()})
        yield ONE_MISSES.are({names: row.done.misses for names, row in rows.items()})
        yield ONE_RESPONSES.are({names: row.responses for names, row in rows.items()})
        yield ONE_RECALLED.are({names: row.done.recalled for names, row in rows.items()})
        yield ONE_TOKENS.are({names: row.done.saved_tokens for names, row in rows.items()})
        yield ONE_UNITS.are({names: row.done.saved_units for names, row in rows.items()})
