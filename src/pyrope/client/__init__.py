"""Typed clients over redis-py: `Client` blocks, `AsyncClient` is for asyncio.

    from pyrope.client import Client

    with Client() as client:
        client.create("docs", 384, if_new=True)
        client.add_many("docs", ids, vectors)
        for hit in client.search("docs", vector, count=3):
            print(hit.id, hit.score)

Needs redis-py, which the extra ``client`` installs, and NumPy; nothing of the server is imported
but its errors and its nouns.
"""

try:
    import redis as _redis  # noqa: F401 - whether it is there
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "pyrope.client needs redis-py: pip install 'pyrope-server[client]'", name="redis"
    ) from error

from pyrope.client.awaiting import AsyncClient
from pyrope.client.blocking import Client
from pyrope.client.bulk import BulkOptions
from pyrope.client.connecting import ConnectionOptions
from pyrope.client.indexes import IndexOptions
from pyrope.client.results import (
    Adjustment,
    Alias,
    AliasPage,
    Backup,
    BackupStatus,
    CacheStats,
    Cluster,
    ClusterAdvice,
    ClusterTtl,
    Element,
    Hit,
    IndexInfo,
    Lease,
    LlmStatus,
    NearestCluster,
    NearestMiss,
    Page,
    Recalled,
    RecallInfo,
    SearchInfo,
    SearchResult,
    Tenant,
    TenantUser,
    Usage,
)
from pyrope.client.retrying import NO_RETRIES, RetryPolicy
from pyrope.client.search import ManyOptions, SearchOptions
from pyrope.client.tenants import TenantLimits
from pyrope.types import CacheLevel, CachePolicy, IndexType, Metric

__all__ = [
    "NO_RETRIES",
    "Adjustment",
    "Alias",
    "AliasPage",
    "AsyncClient",
    "Backup",
    "BackupStatus",
    "BulkOptions",
    "CacheLevel",
    "CachePolicy",
    "CacheStats",
    "Client",
    "Cluster",
    "ClusterAdvice",
    "ClusterTtl",
    "ConnectionOptions",
    "Element",
    "Hit",
    "IndexInfo",
    "IndexOptions",
    "IndexType",
    "Lease",
    "LlmStatus",
    "ManyOptions",
    "Metric",
    "NearestCluster",
    "NearestMiss",
    "Page",
    "RecallInfo",
    "Recalled",
    "RetryPolicy",
    "SearchInfo",
    "SearchOptions",
    "SearchResult",
    "Tenant",
    "TenantLimits",
    "TenantUser",
    "Usage",
]
