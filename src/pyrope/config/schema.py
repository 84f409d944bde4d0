"""Every setting, once: its type, default, unit, bounds, and whether a running server may change it.

The file `configs/pyrope.toml`, the page `docs/settings.md`, the flags of ``pyrope serve`` and the
names of ``CONFIG GET`` are all read from these classes.
"""

from __future__ import annotations

import os
from itertools import combinations
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from pyrope.config.embed import EmbedSettings
from pyrope.config.fields import (
    GIB,
    KIB,
    MIB,
    ClientCertificates,
    DebugAccess,
    Group,
    LogFormat,
    LogLevel,
    OptionalPath,
    OptionalSecret,
    Size,
    setting,
)
from pyrope.config.http import HttpSettings
from pyrope.config.llm import LlmSettings
from pyrope.config.observing import MetricsSettings, TracingSettings
from pyrope.config.remember import RememberSettings

ENV_PREFIX = "PYROPE_"
ENV_DELIMITER = "__"

UNIX_SOCKET_PATH_BYTES = 107
"""Longest path of a Unix socket on Linux: `sun_path` has 108 bytes, one of them for the NUL."""


class TlsSettings(Group):
    """Encrypted connections, on a port of their own."""

    port: int = setting(
        0, "TCP port for TLS connections; 0: no TLS.", redis="tls-port", ge=0, le=65535
    )
    cert_file: OptionalPath = setting(
        None, "The server's certificate chain, PEM.", redis="tls-cert-file"
    )
    key_file: OptionalPath = setting(
        None, "The private key of the certificate, PEM.", redis="tls-key-file"
    )
    key_password: OptionalSecret = setting(
        None, "Password of the private key, where it has one.", redis="tls-key-file-pass"
    )
    ca_file: OptionalPath = setting(
        None, "Authorities whose client certificates are accepted, PEM.", redis="tls-ca-cert-file"
    )
    auth_clients: ClientCertificates = setting(
        "no",
        "Whether a client must show a certificate: no, optional (checked when shown), yes.",
        redis="tls-auth-clients",
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.port == 0:
            return self
        for name, path in self.files.items():
            if path is None:
                raise ValueError(f"tls.port is set, which needs tls.{name} too")
        return self

    @property
    def files(self) -> dict[str, Path | None]:
        """Path of each file that is needed where `port` is set."""
        needed = {"cert_file": self.cert_file, "key_file": self.key_file}
        if self.auth_clients != "no":
            needed["ca_file"] = self.ca_file
        return needed


class LimitSettings(Group):
    """What one client, command or index may take.

    A change of a limit on the protocol or on a connection's buffers reaches connections that
    are opened after it.
    """

    max_clients: int = setting(
        10_000,
        "Connections at a time; one more is told so and closed.",
        redis="maxclients",
        runtime=True,
        ge=1,
        le=1_000_000,
    )
    idle_timeout_s: float = setting(
        0,
        "A connection that has sent nothing for so long is closed; 0: never.",
        unit="s",
        redis="timeout",
        runtime=True,
        ge=0,
        le=31_536_000,
    )
    command_timeout_s: float = setting(
        60,
        "A connection whose half-sent command is older than this is closed; 0: never.",
        unit="s",
        runtime=True,
        ge=0,
        le=86_400,
    )
    max_args: int = setting(
        1_048_576, "Arguments of one command.", runtime=True, ge=64, le=16_777_216
    )
    max_arg_bytes: Size = setting(
        512 * MIB,
        "Length of one argument.",
        unit="bytes",
        redis="proto-max-bulk-len",
        runtime=True,
        ge=KIB,
        le=4 * GIB,
    )
    max_command_bytes: Size = setting(
        GIB,
        "Length of one command, all its arguments together.",
        unit="bytes",
        redis="client-query-buffer-limit",
        runtime=True,
        ge=64 * KIB,
        le=16 * GIB,
    )
    max_inline_bytes: Size = setting(
        64 * KIB,
        "Length of one inline command and of one protocol header line.",
        unit="bytes",
        runtime=True,
        ge=KIB,
        le=MIB,
    )
    output_buffer_bytes: Size = setting(
        256 * MIB,
        "Replies waiting for one client to read them; a client past this is closed.",
        unit="bytes",
        runtime=True,
        ge=64 * KIB,
        le=16 * GIB,
    )
    output_high_water_bytes: Size = setting(
        MIB,
        "A client with more replies unread than this has its further commands wait.",
        unit="bytes",
        runtime=True,
        ge=4 * KIB,
        le=GIB,
    )
    pipeline_depth: int = setting(
        1024,
        "Commands of one connection in flight; further ones wait in the socket.",
        runtime=True,
        ge=1,
        le=1_000_000,
    )
    id_bytes: Size = setting(
        4 * KIB,
        "Length of a vector's id.",
        unit="bytes",
        runtime=True,
        ge=1,
        le=64 * KIB - 1,
    )
    attribute_bytes: Size = setting(
        64 * KIB,
        "Length of one vector's JSON attributes.",
        unit="bytes",
        runtime=True,
        ge=2,
        le=16 * MIB,
    )
    filter_bytes: Size = setting(
        8 * KIB,
        "Length of a FILTER expression.",
        unit="bytes",
        runtime=True,
        ge=16,
        le=MIB,
    )
    dim: int = setting(32_768, "Dimension of an index.", runtime=True, ge=1, le=1_048_576)
    count: int = setting(
        100_000, "COUNT of one search.", unit="results", runtime=True, ge=1, le=10_000_000
    )
    ef: int = setting(
        100_000,
        "EF and EFCONSTRUCTION.",
        unit="candidates",
        runtime=True,
        ge=1,
        le=10_000_000,
    )
    m: int = setting(512, "M of an index.", unit="links", runtime=True, ge=2, le=4096)
    nlist: int = setting(
        65_536, "NLIST of an index.", unit="lists", runtime=True, ge=1, le=1_048_576
    )
    nprobe: int = setting(
        65_536,
        "NPROBE of an index and of one search.",
        unit="lists",
        runtime=True,
        ge=1,
        le=1_048_576,
    )
    indexes: int = setting(100_000, "Indexes of one server.", runtime=True, ge=1, le=10_000_000)
    queued_requests: int = setting(
        100_000,
        "Requests waiting for one index, all clients together; one more is refused with BUSY.",
        runtime=True,
        ge=1,
        le=10_000_000,
    )


class EngineSettings(Group):
    """How work is handed to the search engines."""

    batch_max: int = setting(64, "Requests of one index that share a native call.", ge=1, le=4096)
    sq8_rerank_factor: float = setting(
        2.0,
        "Candidates of an HNSW_SQ8 search that are scored again in full precision, for each "
        "result wanted.",
        ge=1,
        le=1000,
    )
    pq_rerank_factor: float = setting(
        4.0,
        "Candidates of an IVF_PQ search that are scored again in full precision, for each result "
        "wanted.",
        ge=1,
        le=1000,
    )
    head_vectors: int = setting(
        256,
        "Vectors of an index that may stay unmerged: each search scans them.",
        unit="vectors",
        ge=0,
        le=1_000_000,
    )
    merge_slice_ms: float = setting(
        4.0,
        "Longest that a slice of merging should hold searches up.",
        unit="ms",
        ge=0.1,
        le=10_000,
    )
    compact_share: float = setting(
        0.3,
        "Share of deleted vectors in a graph or in lists from which they are built anew.",
        ge=0.01,
        le=1,
    )


class CacheSettings(Group):
    """Answers that are kept, and brought up to date instead of searched for again."""

    max_bytes: Size = setting(
        256 * MIB,
        "Memory that all cached answers together may take; 0: nothing is cached.",
        unit="bytes",
        ge=0,
        le=1024 * GIB,
    )
    log_writes: int = setting(
        65_536,
        "Writes to an index that a cached answer may be behind before it is searched for again.",
        unit="writes",
        ge=1,
        le=100_000_000,
    )
    candidates: int = setting(
        200,
        "Neighbours kept with an answer that is to serve near queries too.",
        unit="vectors",
        ge=1,
        le=10_000,
    )
    audit_share: float = setting(
        0.02,
        "Of the time of one thread, what may go into searches that check near hits.",
        ge=0.0001,
        le=1,
    )


class ClusterSettings(Group):
    """Clusters of an index's vectors: how many, and how long answers in them are kept."""

    min_vectors: int = setting(
        1000,
        "Vectors from which an index is divided into clusters by itself; below, it is one.",
        unit="vectors",
        ge=1,
        le=1_000_000_000,
    )
    max_centroids: int = setting(
        256,
        "Most clusters of an index; there are about as many as the square root of its vectors.",
        ge=1,
        le=1024,
    )
    query_sample: int = setting(
        512,
        "Queries of late that are kept for each index, to see where its clusters should be.",
        ge=1,
        le=65_536,
    )
    drift_interval_s: float = setting(
        60,
        "Least time between two looks at whether the clusters of an index still fit.",
        unit="s",
        runtime=True,
        ge=0.1,
        le=31_536_000,
    )
    drift_factor: float = setting(
        1.2,
        "By how much the mean distance of recent vectors or queries to their centroids must have "
        "grown for clusters to be learnt anew.",
        runtime=True,
        ge=1.01,
        le=100,
    )
    window_s: float = setting(
        300, "Writes to a cluster count for so long.", unit="s", ge=1, le=604_800
    )
    hot_factor: float = setting(
        4.0,
        "Where the policy of an index does not say: its clusters are hot from so many times the "
        "mean writes of a cluster in the window.",
        runtime=True,
        ge=0.01,
        le=1_000_000,
    )
    hot_min_writes: float = setting(
        16.0,
        "Where the policy of an index does not say: fewer writes in the window make no cluster "
        "hot.",
        unit="writes",
        runtime=True,
        ge=1,
        le=1_000_000_000,
    )
    ttl_floor: float = setting(
        0.1, "Times the base TTL: the least for hot clusters.", runtime=True, ge=0.001, le=1
    )
    ttl_ceiling: float = setting(
        2.0, "Times the base TTL: the most for cold clusters.", runtime=True, ge=1, le=1000
    )
    ttl_hysteresis: float = setting(
        0.1,
        "The TTL of a cluster stays as it is until it is off by more than this share.",
        runtime=True,
        ge=0,
        le=1,
    )


class StorageSettings(Group):
    """How and when things reach the disk. Acknowledged writes always have."""

    graph_save_interval_s: float = setting(
        300,
        "How often changed graphs are saved, which makes a restart quick; "
        "0: only at shutdown and on SAVE.",
        unit="s",
        ge=0,
        le=31_536_000,
    )
    graph_save_min_changes: int = setting(
        1000,
        "Writes to an index since its graph was saved that make it worth saving again.",
        unit="writes",
        ge=1,
        le=1_000_000_000,
    )
    commit_max_bytes: Size = setting(
        64 * MIB,
        "Writes that share one commit.",
        unit="bytes",
        ge=64 * KIB,
        le=GIB,
    )


class AliasSettings(Group):
    """Aliases of queries, in each index: other names of a query that is answered already."""

    threshold: float = setting(
        0.9,
        "Confidence from which on an alias is followed; those set by hand have 1 unless they say "
        "otherwise.",
        runtime=True,
        ge=0,
        le=1,
    )
    max_entries: int = setting(
        100_000,
        "Aliases of one index; past it the least lately used one goes.",
        runtime=True,
        ge=1,
        le=100_000_000,
    )
    max_bytes: Size = setting(
        64 * MIB,
        "Memory for the aliases of one index; past it the least lately used ones go.",
        unit="bytes",
        runtime=True,
        ge=64 * KIB,
        le=64 * GIB,
    )
    text_bytes: Size = setting(
        4 * KIB,
        "Length of an alias and of a canonical that are texts.",
        unit="bytes",
        runtime=True,
        ge=1,
        le=16 * KIB,
    )


class TenantSettings(Group):
    """Tenants: their keys, and how what they use is written down."""

    key_overlap_s: float = setting(
        86_400,
        "For so long a key that was rotated may still be used, where ROTATE does not say.",
        unit="s",
        runtime=True,
        ge=0,
        le=31_536_000,
    )
    usage_flush_s: float = setting(
        1.0,
        "How often what tenants have used is written down: the most that a crash loses.",
        unit="s",
        ge=0.1,
        le=60,
    )
    usage_months: int = setting(
        36, "Months whose usage is kept beside the present one.", unit="months", ge=1, le=1200
    )
    billing_interval_s: float = setting(
        300,
        "How often totals go into the billing log, for tenants that have used anything since.",
        unit="s",
        ge=1,
        le=86_400,
    )
    log_file_bytes: Size = setting(
        64 * MIB,
        "A file of the audit trail or of the billing log that would grow larger is left as it is, "
        "and another one begun.",
        unit="bytes",
        ge=64 * KIB,
        le=GIB,
    )


class GuardrailSettings(Group):
    """A latency target, and what is done to reach it: tenants of low priority give way first."""

    target_p99_ms: float = setting(
        0,
        "99th percentile of the latency of searches that is to be kept; 0: none.",
        unit="ms",
        runtime=True,
        ge=0,
        le=60_000,
    )
    window_s: float = setting(
        5, "Latency is that of searches in so long.", unit="s", ge=0.1, le=600
    )
    recovery_s: float = setting(
        10,
        "Calm for so long, before each step back.",
        unit="s",
        ge=0.1,
        le=3600,
    )
    least_effort: float = setting(
        0.25, "Share of its effort that a search keeps before others are taken.", ge=0.01, le=1
    )


class SlowlogSettings(Group):
    """The log of slow commands that SLOWLOG GET reads."""

    slower_than_us: int = setting(
        10_000,
        "Commands that take at least this long are kept; 0: all; -1: none.",
        unit="µs",
        redis="slowlog-log-slower-than",
        runtime=True,
        ge=-1,
        le=3_600_000_000,
    )
    max_len: int = setting(
        128,
        "Commands kept; the oldest goes first.",
        redis="slowlog-max-len",
        runtime=True,
        ge=0,
        le=1_000_000,
    )
    spike_threshold_ms: int = setting(
        0,
        "Commands that take at least this long are spikes for LATENCY LATEST; 0: none are.",
        unit="ms",
        redis="latency-monitor-threshold",
        runtime=True,
        ge=0,
        le=3_600_000,
    )


class LogSettings(Group):
    """What the server writes to standard error."""

    level: LogLevel = setting(
        "info", "Lowest level written: debug, info, warning, error.", runtime=True
    )
    format: LogFormat = setting("text", "text (coloured on a terminal), or json, one per line.")


class Settings(BaseSettings):
    """All settings of a server.

    Constructing it in code reads nothing but its arguments; `pyrope.config.load_settings` adds
    flags, environment and file. Settings that ``CONFIG SET`` may change can be assigned (and are
    checked); the others are frozen.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_nested_delimiter=ENV_DELIMITER,
        extra="forbid",
        validate_assignment=True,
        validate_default=True,
    )

    host: str = setting(
        "127.0.0.1",
        "Address or host name to listen on; 0.0.0.0: every IPv4 address, :: every IPv6 address.",
        redis="bind",
        pattern=r"^\S+$",
    )
    port: int = setting(7379, "TCP port; 0: no plain TCP.", redis="port", ge=0, le=65535)
    http_port: int = setting(
        7380,
        "TCP port of the control plane (HTTP); 0: none, and nothing of it is loaded.",
        ge=0,
        le=65535,
    )
    unixsocket: OptionalPath = setting(
        None, "Path of a Unix socket to listen on; empty: none.", redis="unixsocket"
    )
    unixsocket_perm: str = setting(
        "700",
        "Permissions of the Unix socket, octal.",
        redis="unixsocketperm",
        pattern=r"^[0-7]{3}$",
    )
    data_dir: Path = setting(
        Path("pyrope-data"), "Directory that holds the data; made where missing.", redis="dir"
    )
    in_memory: bool = setting(
        False, "Keep everything in memory and touch no disk: a restart begins empty."
    )
    admin_password: OptionalSecret = setting(
        None,
        "Password of the user admin; empty: none, and protected_mode lets in this host only. "
        "Set it by the environment or the file: other users of the host can read flags.",
        redis="requirepass",
    )
    protected_mode: bool = setting(
        True,
        "While there is no admin_password, refuse clients that are not on this host.",
        redis="protected-mode",
        runtime=True,
    )
    enable_debug_command: DebugAccess = setting(
        "local",
        "Who may use DEBUG: no (nobody), local (clients on this host), yes (everybody).",
        redis="enable-debug-command",
    )
    maxmemory: Size = setting(
        0,
        "Memory for vectors, graphs and attributes; past it writes answer OOM; 0: no limit.",
        unit="bytes",
        redis="maxmemory",
        runtime=True,
        ge=0,
        le=2**50,
    )
    threads: int = setting(
        0, "Threads that search and insert; 0: one for each core.", ge=0, le=1024
    )
    shutdown_timeout_s: float = setting(
        10,
        "How long a shutdown waits for commands in flight before it closes their connections.",
        unit="s",
        ge=0,
        le=3600,
    )

    tls: TlsSettings = Field(default_factory=TlsSettings, frozen=True)
    http: HttpSettings = Field(default_factory=HttpSettings, frozen=True)
    limits: LimitSettings = Field(default_factory=LimitSettings, frozen=True)
    engine: EngineSettings = Field(default_factory=EngineSettings, frozen=True)
    cache: CacheSettings = Field(default_factory=CacheSettings, frozen=True)
    clusters: ClusterSettings = Field(default_factory=ClusterSettings, frozen=True)
    storage: StorageSettings = Field(default_factory=StorageSettings, frozen=True)
    aliases: AliasSettings = Field(default_factory=AliasSettings, frozen=True)
    tenants: TenantSettings = Field(default_factory=TenantSettings, frozen=True)
    guardrail: GuardrailSettings = Field(default_factory=GuardrailSettings, frozen=True)
    llm: LlmSettings = Field(default_factory=LlmSettings, frozen=True)
    embed: EmbedSettings = Field(default_factory=EmbedSettings, frozen=True)
    remember: RememberSettings = Field(default_factory=RememberSettings, frozen=True)
    slowlog: SlowlogSettings = Field(default_factory=SlowlogSettings, frozen=True)
    metrics: MetricsSettings = Field(default_factory=MetricsSettings, frozen=True)
    tracing: TracingSettings = Field(default_factory=TracingSettings, frozen=True)
    log: LogSettings = Field(default_factory=LogSettings, frozen=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the arguments only; the other layers are laid in `pyrope.config.sources`."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.port == 0 and self.tls.port == 0 and self.unixsocket is None:
            raise ValueError("nothing to listen on: set port, tls.port or unixsocket")
        ports = {"port": self.port, "tls.port": self.tls.port, "http_port": self.http_port}
        for (one, number), (other, taken) in combinations(ports.items(), 2):
            if number != 0 and number == taken:
                raise ValueError(f"{one} and {other} are both {number}")
        if self.http_port and self.http.tls:
            for name, path in self.tls.files.items():
                if path is None:
                    raise ValueError(f"http.tls is set, which needs tls.{name} too")
        if self.unixsocket and len(os.fsencode(self.unixsocket)) > UNIX_SOCKET_PATH_BYTES:
            raise ValueError(f"unixsocket: a path has at most {UNIX_SOCKET_PATH_BYTES} bytes")
        limits = self.limits
        if limits.max_arg_bytes > limits.max_command_bytes:
            raise ValueError("limits.max_arg_bytes exceeds limits.max_command_bytes")
        if limits.output_high_water_bytes > limits.output_buffer_bytes:
            raise ValueError("limits.output_high_water_bytes exceeds limits.output_buffer_bytes")
        return self

    @property
    def unixsocket_mode(self) -> int:
        """`unixsocket_perm` as the number that `os.chmod` takes."""
        return int(self.unixsocket_perm, 8)

    @property
    def thread_count(self) -> int:
        """`threads`, with 0 replaced by the number of cores that this process may run on."""
        return self.threads or len(os.sched_getaffinity(0))
