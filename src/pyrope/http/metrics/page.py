"""The page of all metrics."""

from __future__ import annotations

from collections.abc import Iterator

from pyrope.http.metrics.collector import FAMILIES
from pyrope.http.metrics.metric import SECONDS, SIZE_POWERS, Described

_HEAD = f"""\
# Metrics

Made from the metrics themselves by `make docs`; edit `src/pyrope/http/metrics` instead.

`GET /metrics` on `http_port`, in the text format of Prometheus, or in OpenMetrics for who accepts
that. By default it takes the administrator (`http://admin:PASSWORD@…`, or the header `X-API-Key`);
without an `admin_password` everybody on this host is. The setting `metrics.access` lets in clients
on this host (`local`), or everybody (`any`), without signing in.

```yaml
scrape_configs:
  - job_name: pyrope
    basic_auth: {{username: admin, password_file: /run/secrets/pyrope-password}}
    static_configs:
      - targets: ["127.0.0.1:7380"]
```

**Labels.** Their values are few, and known beforehand: commands, levels, reasons. Nothing is told
by tenant or by index unless `metrics.tenant_labels` or `metrics.index_labels` say for how many.
Whoever comes first has series of their own until the server stops; all others together are
`other`.

**Counters** begin at 0 with the server, but for those of tenants, which are what
`VECTOR.TENANT USAGE` tells of this month. `CONFIG RESETSTAT` sets those of commands, errors,
connections, searches, and vectors back to 0. What an index has counted stays in the sums when it
is dropped.

**Histograms** of durations have buckets up to {SECONDS[0] * 1e6:g} µs … {SECONDS[-1]:g} s, those
of sizes up to 1, 2, 4, … {2 ** (SIZE_POWERS - 1)}. They are folded from finer ones: a value may
count for the next bucket if it is within 12.5 % of a bound.

**`INFO`** tells the same numbers where a line of the tables names its field.

Metrics of the process itself (`process_resident_memory_bytes`, `process_cpu_seconds_total`,
`process_open_fds`, `process_max_fds`, `process_virtual_memory_bytes`,
`process_start_time_seconds`) are those of every client of Prometheus, on Linux.

Rules that alert on them, tested by `promtool`, are in `docker/prometheus`, and a dashboard for
Grafana in `docker/grafana`.
"""

_QUERIES = {
    "searches a second": "sum(rate(pyrope_search_duration_seconds_count[1m]))",
    "p99 of searches": "histogram_quantile(0.99, sum by (le) "
    "(rate(pyrope_search_duration_seconds_bucket[5m])))",
    "hit ratio": "sum(rate(pyrope_cache_hits_total[5m])) / "
    "(sum(rate(pyrope_cache_hits_total[5m])) + rate(pyrope_cache_misses_total[5m]))",
    "mean recall proven of near hits": "rate(pyrope_cache_certified_recall_total[1h]) / "
    "rate(pyrope_cache_hits_total[1h])",
    "mean recall that audits have found": "rate(pyrope_cache_audited_recall_total[1d]) / "
    "rate(pyrope_cache_audited_hits_total[1d])",
    "cost units that the caches save": "rate(pyrope_cache_saved_units_total[1h])",
    "mean wait for a batch": "rate(pyrope_search_queue_seconds_sum[5m]) / "
    "rate(pyrope_search_queue_seconds_count[5m])",
}


def markdown() -> str:
    """The page: ``docs/metrics.md``."""
    parts = [_HEAD]
    for title, family in FAMILIES.items():
        parts += [f"## {title}\n", *_table(family.METRICS), ""]
    parts += ["## Useful queries\n", "| what | query |", "| --- | --- |"]
    parts += [f"| {what} | `{query}` |" for what, query in _QUERIES.items()]
    return "\n".join(parts) + "\n"


def _table(metrics: tuple[Described, ...]) -> Iterator[str]:
    yield "| metric | type | labels | `INFO` | |"
    yield "| --- | --- | --- | --- | --- |"
    for one in metrics:
        labels = ", ".join(f"`{label}`" for label in one.labels)
        info = f"`{one.info}`" if one.info else ""
        yield f"| `{one.name}` | {one.kind} | {labels} | {info} | {one.help} |"
