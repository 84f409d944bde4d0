"""One point of the scaling curves: an index type, a number of vectors, a dimension.

Each has a server of its own on an empty directory, so that memory and disk are its own.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness.figures import Mixed, Point, Round
from benchmarks.harness.measure import SEARCH_CONNECTIONS, Measure
from benchmarks.harness.memory import Memory
from benchmarks.harness.paced import WriteResult
from benchmarks.harness.servers import Pyrope
from benchmarks.harness.sweep import sweep, up_to

BATCH_ROWS = 1000
"""Vectors of one VECTOR.MADD."""

RECALLS = (0.95, 0.99)


@dataclass(frozen=True, slots=True)
class Key:
    """Which point."""

    index_type: str
    count: int
    dim: int

    def __str__(self) -> str:
        return f"{self.index_type} {self.count:,} × {self.dim}"


@dataclass(frozen=True, slots=True)
class Level:
    """Searches at one effort, 32 connections.

    Attributes:
        target: the recall that the effort was sought for; None: the server's default.
        effort: EF or NPROBE; None: the server's default.
    """

    target: float | None
    effort: int | None
    round: Round


@dataclass(slots=True)
class Case:
    """What was measured of one point.

    Attributes:
        info: what VECTOR.INFO said when all was merged.
        acknowledged: vectors per second, `BATCH_ROWS` to a request; merged likewise, until
            VECTOR.BUILD had returned.
        empty: memory of the server before there was an index.
        filled: after the searches.
        restarted: after the restart and the first search.
        disk_bytes: of the data directory, merged, while running.
        sweep: every query once, by effort.
        levels: timed searches: at the default effort, then at those that reach `RECALLS`; a recall
            that no effort reaches is missing.
        stop_seconds: from SIGTERM (which does what SHUTDOWN does) to the exit.
        first_search_seconds: from exec to the answer to the first search.
        merged_seconds: from exec until VECTOR.BUILD has returned.
        mixed: searches while vectors are written, at the effort of the first of `RECALLS`, else
            the highest tried.
        seconds: that it all took.
        failure: what went wrong; the figures end where it did.
    """

    key: Key
    info: dict[str, Any] = field(default_factory=dict)
    acknowledged: float | None = None
    merged: float | None = None
    empty: Memory | None = None
    filled: Memory | None = None
    restarted: Memory | None = None
    disk_bytes: int | None = None
    sweep: list[Point] = field(default_factory=list)
    levels: list[Level] = field(default_factory=list)
    stop_seconds: float | None = None
    first_search_seconds: float | None = None
    merged_seconds: float | None = None
    mixed: Mixed | None = None
    seconds: float | None = None
    failure: str = ""

    @property
    def grown(self) -> int | None:
        """Anonymous bytes that the index takes."""
        if self.empty is None or self.filled is None:
            return None
        return self.filled.anonymous - self.empty.anonymous

    def level(self, target: float | None) -> Level | None:
        return next((one for one in self.levels if one.target == target), None)


@dataclass(frozen=True, slots=True)
class Writes:
    """Of the mixed measurement: writes per second, and how long."""

    rate: float
    seconds: float


def measure_case(case: Case, server: Pyrope, measure: Measure, writes: Writes) -> None:
    """Fill in a case; what was measured before an exception stays.

    Args:
        server: not started; the caller ends it and removes its data.

    Raises:
        ServerError, LoadError, OSError, hiredis.HiredisError: the measurement failed.
    """
    began = time.perf_counter()
    server.start()
    case.empty = server.memory()
    ingest = measure.ingest_batches(server, BATCH_ROWS)
    case.acknowledged, case.merged = ingest.acknowledged, ingest.indexed
    case.info = server.describe()
    case.disk_bytes = server.disk_bytes()
    _search(case, server, measure)
    case.filled = server.memory()
    case.info["memory_bytes"] = server.describe()["memory_bytes"]
    _restart(case, server, measure)
    _write_beside(case, server, measure, writes)
    case.seconds = time.perf_counter() - began


def _search(case: Case, server: Pyrope, measure: Measure) -> None:
    """The default effort, and the smallest ones that reach the recalls."""
    case.sweep.append(measure.probe(server, None))
    case.levels.append(Level(None, None, measure.search(server, None, SEARCH_CONNECTIONS)))
    if server.effort is None:
        return
    ladder: Sequence[int] = server.effort.ladder
    if lists := int(case.info["nlist"]):
        ladder = up_to(ladder, lists)
    default, known = case.sweep[:1], list[Point]()
    for target in RECALLS:
        effort, known = sweep(partial(measure.probe, server), target, ladder, known)
        case.sweep = default + known
        if effort is None:
            return
        found = measure.search(server, effort, SEARCH_CONNECTIONS)
        case.levels.append(Level(target, effort, found))


def _restart(case: Case, server: Pyrope, measure: Measure) -> None:
    """Stop it, start it, and see that it knows what it knew."""
    case.stop_seconds = server.stop()
    began = time.perf_counter()
    server.start()
    measure.search_once(server)
    case.first_search_seconds = time.perf_counter() - began
    case.restarted = server.memory()
    server.settle()
    case.merged_seconds = time.perf_counter() - began
    measure.check(server, None, case.sweep[0].recall)


def _write_beside(case: Case, server: Pyrope, measure: Measure, writes: Writes) -> None:
    level = case.level(RECALLS[0])
    effort = case.sweep[-1].effort if level is None else level.effort
    case.mixed = measure.mixed(server, effort, writes.rate, writes.seconds)


def case_from_json(saved: dict[str, Any]) -> Case:
    """A case from what `dataclasses.asdict` made of it."""
    mixed = saved["mixed"]
    return Case(
        **saved
        | {
            "key": Key(**saved["key"]),
            "empty": _memory(saved["empty"]),
            "filled": _memory(saved["filled"]),
            "restarted": _memory(saved["restarted"]),
            "sweep": [Point(**one) for one in saved["sweep"]],
            "levels": [Level(**one | {"round": Round(**one["round"])}) for one in saved["levels"]],
            "mixed": None if mixed is None else _mixed(mixed),
        }
    )


def _memory(saved: dict[str, int] | None) -> Memory | None:
    return None if saved is None else Memory(**saved)


def _mixed(saved: dict[str, Any]) -> Mixed:
    parts = {
        "idle": Round(**saved["idle"]),
        "busy": Round(**saved["busy"]),
        "writes": WriteResult(**saved["writes"]),
    }
    return Mixed(**saved | parts)


# Vectors per second, merged, and seconds besides, as measured on two cores: for the estimate alone.
_MERGED_RATES = {"HNSW": 3_000, "HNSW_SQ8": 4_000, "AUTO": 3_000}
_OTHER_RATE = 30_000
_SEARCHES_SECONDS = 15.0


def estimate(key: Key, seconds: float, writes: Writes) -> float:
    """Roughly how many seconds a case will take."""
    # Linking costs a search, whose length grows as the logarithm of the number of vectors; half of
    # it does not depend on the dimension.
    size = max(0.5, 0.2 * len(str(key.count)))
    shape = 0.5 + 0.5 * key.dim / 384
    rate = _MERGED_RATES.get(key.index_type, _OTHER_RATE)
    scan = 2e-11 * key.count * key.dim * 4_000 if key.index_type == "FLAT" else 0.0
    timed = (1 + len(RECALLS)) * (seconds + 1) + writes.seconds * 1.5
    return key.count / rate * size * shape * 1.3 + scan + timed + _SEARCHES_SECONDS


def work_folder(folder: Path, key: Key) -> Path:
    """Where a case's server keeps its data."""
    return folder / f"{key.index_type}-{key.count}-{key.dim}"
