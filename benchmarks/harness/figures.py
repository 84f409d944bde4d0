"""What a run has measured, as records that become JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median

from benchmarks.harness.memory import Memory

IN_PROCESS = 0
"""Stands in the place of a number of connections for an engine that has none."""


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
    """One step of the search for an EF: every query once."""

    ef: int
    recall: float
    rate: float


@dataclass(frozen=True, slots=True)
class Ingest:
    """Storing every vector once.

    Attributes:
        acknowledged: vectors per second until the last acknowledgement.
        indexed: vectors per second until the last vector is part of the graph as well.
        p50_us: latency of one request; p99_us likewise. None without a server.
    """

    acknowledged: float
    indexed: float
    p50_us: float | None = None
    p99_us: float | None = None
    generator_cpu_us: float | None = None


@dataclass(slots=True)
class Figures:
    """Everything measured on one server or engine.

    Attributes:
        ingest: by way of ingest (`ONE_BY_ONE`, `BATCHES`).
        sweep: the steps towards `ef`, by EF.
        ef: the smallest EF found that reaches the recall asked for; None: none did.
        search: rounds by number of connections.
        memory: by moment (`EMPTY`, `INGESTED`, `SEARCHED`, `RESTARTED`).
        startup: seconds of each start, by kind (`START_...`).
    """

    label: str
    version: str
    settings: str
    ingest: dict[str, Ingest] = field(default_factory=dict)
    sweep: list[Point] = field(default_factory=list)
    ef: int | None = None
    search: dict[int, list[Round]] = field(default_factory=dict)
    ping: list[Round] = field(default_factory=list)
    memory: dict[str, Memory] = field(default_factory=dict)
    startup: dict[str, list[float]] = field(default_factory=dict)


ONE_BY_ONE = "one vector a request"
BATCHES = "1,000 vectors a request"

EMPTY = "empty"
INGESTED = "after ingest"
SEARCHED = "after the searches"
RESTARTED = "after a restart"

START_EMPTY = "empty"
START_SAVED = "from the saved graph"
START_REBUILT = "rebuilt from the store"
STOP = "stop (SIGTERM to exit)"


@dataclass(slots=True)
class Report:
    """One run.

    Attributes:
        environment: what it ran on, by name.
        figures: Pyrope first, then what it is compared with.
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


def grown(memory: dict[str, Memory], moment: str) -> int | None:
    """Anonymous resident bytes over those of the empty server."""
    if EMPTY not in memory or moment not in memory:
        return None
    return memory[moment].anonymous - memory[EMPTY].anonymous
