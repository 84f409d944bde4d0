"""The server itself: what it is, its clients, its loop."""

from __future__ import annotations

import platform
from collections.abc import Iterator

from prometheus_client.core import Metric

from pyrope import __version__
from pyrope.http.metrics.metric import counter, gauge, histogram
from pyrope.http.metrics.snapshot import Snapshot

BUILD = gauge("pyrope_build_info", "What runs; always 1.", "version", "python")
UPTIME = gauge(
    "pyrope_uptime_seconds", "Time since the server was started.", info="uptime_in_seconds"
)
LOADING = gauge("pyrope_loading", "1 while the server is loading its data.", info="loading")
LAG = histogram(
    "pyrope_event_loop_lag_seconds",
    "How late the event loop was with what was due; looked at ten times a second.",
)
CLIENTS = gauge("pyrope_clients", "Connections of clients.", info="connected_clients")
CLIENTS_MAX = gauge("pyrope_clients_limit", "Connections that there may be.", info="maxclients")
CLIENTS_WAITING = gauge(
    "pyrope_clients_waiting", "Connections with a command that has begun and not been answered.",
    info="blocked_clients",
)  # fmt: skip
RECEIVED = counter(
    "pyrope_connections_received_total", "Connections accepted.", info="total_connections_received"
)
REJECTED = counter(
    "pyrope_connections_rejected_total", "Connections turned away.", info="rejected_connections"
)
CLOSED = counter(
    "pyrope_connections_closed_total",
    "Connections that the server has closed: idle, or leaving too many replies unread.",
    "reason",
)
BAD_PROTOCOL = counter(
    "pyrope_protocol_errors_total", "Connections that sent what is no RESP.",
    info="protocol_errors",
)  # fmt: skip
BYTES_IN = counter(
    "pyrope_network_receive_bytes_total", "Bytes of commands.", info="total_net_input_bytes"
)
BYTES_OUT = counter(
    "pyrope_network_transmit_bytes_total", "Bytes of replies.", info="total_net_output_bytes"
)
LOGINS = counter(
    "pyrope_logins_total", "Attempts to sign in: right, wrong, refused unseen (locked_out).",
    "outcome",
)  # fmt: skip
MEMORY = gauge(
    "pyrope_dataset_bytes", "Memory of vectors, graphs, ids and attributes.",
    info="used_memory_dataset",
)  # fmt: skip
MEMORY_MAX = gauge(
    "pyrope_dataset_limit_bytes", "Memory that they may take (maxmemory); 0: no limit.",
    info="maxmemory",
)  # fmt: skip

METRICS = (
    BUILD, UPTIME, LOADING, LAG, CLIENTS, CLIENTS_MAX, CLIENTS_WAITING, RECEIVED, REJECTED, CLOSED,
    BAD_PROTOCOL, BYTES_IN, BYTES_OUT, LOGINS, MEMORY, MEMORY_MAX,
)  # fmt: skip


def collect(snapshot: Snapshot) -> Iterator[Metric]:
    server, service = snapshot.server, snapshot.service
    counters = server.counters
    yield BUILD.are({(__version__, platform.python_version()): 1})
    yield UPTIME.is_(server.clock.monotonic() - server.started_at)
    yield LOADING.is_(service.loading)
    yield LAG.took(server.loop_lag)
    yield CLIENTS.is_(len(server.clients))
    yield CLIENTS_MAX.is_(server.settings.limits.max_clients)
    yield CLIENTS_WAITING.is_(sum(1 for one in server.clients.values() if one.link.in_flight))
    yield RECEIVED.is_(counters.connections_received_total)
    yield REJECTED.is_(counters.connections_rejected_total)
    yield CLOSED.are(
        {
            "idle": counters.idle_disconnections_total,
            "output_limit": counters.output_limit_disconnections_total,
        }
    )
    yield BAD_PROTOCOL.is_(counters.protocol_errors_total)
    yield BYTES_IN.is_(counters.net_input_bytes_total)
    yield BYTES_OUT.is_(counters.net_output_bytes_total)
    logins = service.tenancy.registry.statistics()
    yield LOGINS.are(
        {
            "right": logins.logins_total,
            "wrong": logins.failures_total,
            "locked_out": logins.locked_out_total,
        }
    )
    yield MEMORY.is_(service.memory_bytes)
    yield MEMORY_MAX.is_(server.settings.maxmemory)
