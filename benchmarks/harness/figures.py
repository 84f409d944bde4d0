"""What a run has measured, as records that become JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import median

from benchmarks.harness.memory import Memory
from benchmarks.harness.paced import WriteResult


class Kind(StrEnum):
    """What was measured: the server, what it is compared with, or an engine in this process."""

    PYROPE = "pyrope"
    REDIS = "redis"
    BARE = "bare"


@dataclass(frozen=True, slots=True)
class Round:
    """One measurement under load; times in microseconds.

    Attributes:
        rate: requests (or vectors) per second.
        generator_cpu_us: CPU time of the load generator per request; None: it took no part, and
            so there are no latencies either.
        server_cpu_us: CPU time of the server per request.
        recall: mean recall@10 of the very replies that were timed.
    """

    rate: float
    p50_us: float | None = None
    p99_us: float | None = None
    generator_cpu_us: float | None = None
    server_cpu_us: float | None = None
    recall: float | None = None


@dataclass(frozen=True, slots=True)
class Point:
    """One step of the search for an effort: every query once.

    Attributes:
        effort: EF or NPROBE; None: what the server takes by itself.
    """

    effort: int | None
    recall: float
    rate: float


@dataclass(frozen=True, slots=True)
class Ingest:
    """Storing every vector once.

    Attributes:
        acknowledged: vectors per second until the last acknowledgement.
        indexed: vectors per second until the last vector is merged into the graph or the lists as
            well.
        p50_us: latency of one request; p99_us likewise. None without a server.
    """

    acknowledged: float
    indexed: float
    p50_us: float | None = None
    p99_us: float | None = None
    generator_cpu_us: float | None = None


@dataclass(frozen=True, slots=True)
class Mixed:
    """Searches while vectors are written at a steady pace, and right before, on the same index.

    Attributes:
        idle: nothing was written.
        busy: during the writes. Its recall is against the vectors that were there before them; a
            newcomer counts where it is as near as the true tenth of those.
        asked_rate: writes per second that were due.
        writes: what became of them.
        head_before: vectors that had yet to be merged when the writes began.
        head_after: the same when the last write had been acknowledged.
    """

    idle: Round
    busy: Round
    asked_rate: float
    writes: WriteResult
    head_before: int
    head_after: int

    @property
    def kept(self) -> float:
        """Share of the idle throughput that was left."""
        return self.busy.rate / self.idle.rate

    @property
    def stretch(self) -> float | None:
        """p99 over that of the idle index."""
        if self.busy.p99_us is None or not self.idle.p99_us:
            return None
        return self.busy.p99_us / self.idle.p99_us


@dataclass(slots=True)
class Figures:
    """Everything measured on one server or engine.

    Attributes:
        index_type: Pyrope's index type, or the one that an engine is the ceiling of; Redis'
            quantisation.
        effort_option: the name of its effort; empty: it has none.
        ingest: by way of ingest (`ONE_BY_ONE`, `BATCHES`).
        sweep: the steps towards `effort`, by effort.
        effort: the smallest found that reaches the recall asked for; None: none did, or there is
            none to set.
        reached: whether the recall asked for was reached.
        search: rounds by number of connections.
        in_process: rounds by size of a batch, of an engine without connections.
        memory: by moment (`EMPTY`, `INGESTED`, `SEARCHED`, `RESTARTED`).
        reported: what the server itself says of its index's memory, in bytes, by moment.
        startup: seconds of each start, by kind (`START_...`).
    """

    label: str
    version: str
    settings: str
    kind: Kind
    index_type: str
    effort_option: str = "EF"
    ingest: dict[str, Ingest] = field(default_factory=dict)
    sweep: list[Point] = field(default_factory=list)
    effort: int | None = None
    reached: bool = False
    search: dict[int, list[Round]] = field(default_factory=dict)
    in_process: dict[int, list[Round]] = field(default_factory=dict)
    mixed: list[Mixed] = field(default_factory=list)
    ping: list[Round] = field(default_factory=list)
    memory: dict[str, Memory] = field(default_factory=dict)
    reported: dict[str, int] = field(default_factory=dict)
    startup: dict[str, list[float]] = field(default_factory=dict)


ONE_BY_ONE = "one vector a request"
BATCHES = "500 vectors a request"

EMPTY = "empty"
INGESTED = "after ingest"
SEARCHED = "after the searches"
RESTARTED = "after a restart"

START_EMPTY = "empty"
START_SAVED = "from the saved graph"
START_REBUILT = "without the saved graph"
START_REBUILT_MERGED = "without the saved graph, until merged"
STOP = "stop (SIGTERM to exit)"


@dataclass(slots=True)
class Report:
    """One run.

    Attributes:
        environment: what it ran on, by name.
        figures: Pyrope's types first, then what they are compared with.
        failures: steps that failed, and how.
    """

    command: str
    environment: dict[str, str]
    dataset: str
    count: int
    dim: int
    queries: int
    target_recall: float
    seconds: float
    rounds: int
    figures: list[Figures] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def middle(rounds: Sequence[Round], value: Callable[[Round], float | None]) -> float | None:
    """Median over rounds of one of their values; None where there is none."""
    values = [found for one in rounds if (found := value(one)) is not None]
    return median(values) if values else None


def rate(rounds: Sequence[Round]) -> float | None:
    """Median rate over rounds; None without rounds."""
    return middle(rounds, lambda one: one.rate)


def p99(rounds: Sequence[Round]) -> float | None:
    """Median over rounds of the 99th percentile, microseconds."""
    return middle(rounds, lambda one: one.p99_us)


def ceiling(figures: Figures) -> float | None:
    """Queries per second of an engine in this process, at the batch size that suits it best."""
    rates = [found for rounds in figures.in_process.values() if (found := rate(rounds))]
    return max(rates, default=None)


def best_search(figures: Sequence[Figures], connections: int) -> Figures | None:
    """The one that searches most at the recall asked for; those that missed it do not count."""
    able = [(rate(one.search.get(connections, [])), one) for one in figures if one.reached]
    rated = [(found, one) for found, one in able if found is not None]
    return max(rated, key=lambda pair: pair[0])[1] if rated else None


def best_ingest(figures: Sequence[Figures]) -> Figures | None:
    """The one that acknowledges single vectors fastest."""
    able = [one for one in figures if ONE_BY_ONE in one.ingest]
    return max(able, key=lambda one: one.ingest[ONE_BY_ONE].acknowledged, default=None)


def grown(memory: dict[str, Memory], moment: str) -> int | None:
    """Anonymous resident bytes over those of the empty server."""
    if EMPTY not in memory or moment not in memory:
        return None
    return memory[moment].anonymous - memory[EMPTY].anonymous
