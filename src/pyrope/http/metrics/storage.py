"""The disk: commits, and graphs that are saved."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import Metric

from pyrope.http.metrics.metric import counter, gauge, histogram
from pyrope.http.metrics.snapshot import Snapshot

COMMITS = histogram("pyrope_commit_seconds", "Commits that succeeded, until they were durable.")
GROUPS = histogram("pyrope_commit_changes", "Changes that shared a commit.")
FAILED = counter(
    "pyrope_commits_failed_total", "Commits that the disk has refused.", info="commits_failed"
)
PENDING = gauge(
    "pyrope_commit_changes_pending", "Changes accepted that are not durable yet.",
    info="commit_changes_pending",
)  # fmt: skip
REFUSED = gauge(
    "pyrope_disk_refuses_writes", "1 while the last commit has failed: writes answer MISCONF."
)
DURABLE = gauge("pyrope_durable", "0 of a server that keeps everything in memory.", info="durable")
DISK = gauge(
    "pyrope_disk_bytes", "Space that the data takes on disk, when it was last counted.",
    info="data_bytes_on_disk",
)  # fmt: skip
SAVED_AT = gauge(
    "pyrope_graph_last_save_timestamp_seconds", "When graphs were last saved; 0: not yet.",
    info="graph_last_save_time",
)  # fmt: skip
SAVING = gauge(
    "pyrope_graph_saving", "1 while graphs are being saved.", info="graph_save_in_progress"
)
SAVE_FAILED = gauge("pyrope_graph_save_failed", "1 if the last graph could not be saved.")
UNSAVED = gauge(
    "pyrope_graph_unsaved_changes", "Vectors that have come or gone since graphs were saved.",
    info="graph_changes_since_last_save",
)  # fmt: skip

METRICS = (
    COMMITS, GROUPS, FAILED, PENDING, REFUSED, DURABLE, DISK, SAVED_AT, SAVING, SAVE_FAILED,
    UNSAVED,
)  # fmt: skip


def collect(snapshot: Snapshot) -> Iterator[Metric]:
    service = snapshot.service
    commits, saver = service.commit_statistics(), service.saver
    yield COMMITS.took(commits.durations)
    yield GROUPS.had(commits.group_sizes)
    yield FAILED.is_(commits.errors_total)
    yield PENDING.is_(commits.pending_current)
    yield REFUSED.is_(commits.is_refused)
    yield DURABLE.is_(not snapshot.server.settings.in_memory)
    yield DISK.is_(service.disk_bytes)
    yield SAVED_AT.is_(saver.last_save_at)
    yield SAVING.is_(saver.saving)
    yield SAVE_FAILED.is_(bool(saver.error))
    yield UNSAVED.is_(snapshot.unsaved_changes)
