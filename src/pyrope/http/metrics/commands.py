"""Commands, by whatever wire they came, and errors."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import Metric

from pyrope.commands.context import Server
from pyrope.commands.spec import Command
from pyrope.http.metrics.metric import counter, histogram
from pyrope.http.metrics.snapshot import Snapshot

ALL = counter("pyrope_commands_total", "Commands that ran.", info="total_commands_processed")
DURATIONS = histogram(
    "pyrope_command_duration_seconds",
    "From when a command was read until its reply was encoded. Those that never ran are left out.",
    "command",
)
REJECTED = counter(
    "pyrope_commands_rejected_total",
    "Commands refused before they ran: arity, rank, quota, budget, loading.",
    "command",
    info="cmdstat_{command}.rejected_calls",
)
FAILED = counter(
    "pyrope_commands_failed_total", "Commands that ran and answered an error.", "command",
    info="cmdstat_{command}.failed_calls",
)  # fmt: skip
ERRORS = counter(
    "pyrope_errors_total", "Errors answered, by the word that they begin with.", "prefix",
    info="errorstat_{prefix}.count",
)  # fmt: skip

METRICS = (ALL, DURATIONS, REJECTED, FAILED, ERRORS)


def collect(snapshot: Snapshot) -> Iterator[Metric]:
    server = snapshot.server
    # A command that nobody has used is no series.
    used = {one.display_name: one.stats for one in _all(server) if one.stats.calls}
    tried = {
        one.display_name: one.stats
        for one in _all(server)
        if one.stats.calls or one.stats.rejected or one.stats.failed
    }
    yield ALL.is_(sum(stats.calls for stats in used.values()))
    yield DURATIONS.took_each({name: (stats,) for name, stats in used.items()})
    yield REJECTED.are({name: stats.rejected for name, stats in tried.items()})
    yield FAILED.are({name: stats.failed for name, stats in tried.items()})
    yield ERRORS.are(dict(server.counters.errors_by_prefix))


def _all(server: Server) -> Iterator[Command]:
    for command in server.commands.values():
        yield command
        yield from command.subcommands.values()
