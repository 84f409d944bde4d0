"""The steps of a run, in order.

A plan is a list of steps, so that the progress line knows how many there are, and so that one can
read how servers alternate: every round measures each of them once, and every other round goes
through them backwards, so that neither drift of the machine nor the order favours one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from benchmarks.harness import figures as fig
from benchmarks.harness.bare import BareEngine
from benchmarks.harness.figures import Figures, Ingest, Point, Round
from benchmarks.harness.measure import Measure
from benchmarks.harness.servers import Pyrope, Redis, Server, ServerError
from benchmarks.harness.sweep import LADDER, sweep

PHASES = ("ping", "ingest", "search", "startup")

Contestant = tuple[Server, Figures]
Ceiling = tuple[BareEngine, Figures]


@dataclass(frozen=True, slots=True)
class Step:
    """A piece of work; `work` returns what came out, in a few words."""

    title: str
    work: Callable[[], str]


@dataclass(frozen=True, slots=True)
class Scope:
    """What a run covers.

    Attributes:
        phases: which of `PHASES`. Memory is read wherever a phase passes.
        rounds: how often pings, searches and starts are measured.
        connections: closed-loop clients of the search measurements.
        target_recall: recall@10 at which the servers are compared.
        redis_restart: also SAVE Redis and start it again.
    """

    phases: Collection[str]
    rounds: int
    connections: Sequence[int]
    target_recall: float
    redis_restart: bool


class Plan:
    """What a run does with its servers."""

    def __init__(
        self,
        scope: Scope,
        measure: Measure,
        servers: Sequence[Contestant],
        bare: Ceiling | None,
        batch_server: Callable[[], Pyrope],
    ) -> None:
        """Nothing is started yet.

        Args:
            servers: not started yet; the plan starts them, the caller ends them.
            bare: the engine in this process; None: not measured.
            batch_server: makes a fresh Pyrope for ingest in batches.
        """
        self._scope = scope
        self._measure = measure
        self._servers = servers
        self._bare = bare
        self._batch_server = batch_server

    def steps(self) -> list[Step]:
        """Every step, in order."""
        phases = self._scope.phases
        steps = list(self._starts())
        if "ping" in phases:
            steps += [
                Step(f"PING {server.label}", partial(self._ping, server, figures))
                for turn in range(self._scope.rounds)
                for server, figures in self._in_turn(turn)
            ]
        if "ingest" in phases:
            steps += self._batch_ingests()
        if set(phases) - {"ping"}:
            steps += self._ingests()
        if "search" in phases:
            steps += self._sweeps()
            steps += self._searches()
        if "startup" in phases:
            steps += self._restarts()
        return steps

    # -- the order -----------------------------------------------------------------------------

    def _in_turn(self, turn: int) -> Sequence[Contestant]:
        return self._servers if turn % 2 == 0 else self._servers[::-1]

    def _starts(self) -> Iterator[Step]:
        for turn in range(self._scope.rounds if "startup" in self._scope.phases else 1):
            for server, figures in self._in_turn(turn):
                work = partial(self._start, server, figures)
                yield Step(f"start {server.label}, empty", work)

    def _batch_ingests(self) -> Iterator[Step]:
        for server, figures in self._servers:
            if isinstance(server, Pyrope):
                work = partial(self._ingest_batches, figures)
                yield Step(f"ingest {server.label}, {fig.BATCHES}", work)

    def _ingests(self) -> Iterator[Step]:
        for server, figures in self._servers:
            work = partial(self._ingest, server, figures)
            yield Step(f"ingest {server.label}, {fig.ONE_BY_ONE}", work)
        if self._bare is not None:
            yield Step(f"build {self._bare[0].label}", partial(self._ingest_bare, *self._bare))

    def _sweeps(self) -> Iterator[Step]:
        for server, figures in self._servers:
            work = partial(self._sweep, partial(self._measure.probe, server), figures)
            yield Step(f"find EF of {server.label}", work)
        if self._bare is not None:
            bare, figures = self._bare
            work = partial(self._sweep, partial(self._measure.probe_bare, bare), figures)
            yield Step(f"find EF of {bare.label}", work)

    def _searches(self) -> Iterator[Step]:
        for turn in range(self._scope.rounds):
            for connections in self._scope.connections:
                for server, figures in self._in_turn(turn):
                    work = partial(self._search, server, figures, connections)
                    yield Step(f"search {server.label}, {connections} connections", work)
            if self._bare is not None:
                yield Step(f"search {self._bare[0].label}", partial(self._search_bare, *self._bare))
        for server, figures in self._servers:
            work = partial(self._remember, server, figures)
            yield Step(f"memory of {server.label}", work)

    def _restarts(self) -> Iterator[Step]:
        for turn in range(self._scope.rounds):
            for server, figures in self._in_turn(turn):
                if isinstance(server, Pyrope):
                    work = partial(self._restart, server, figures)
                elif isinstance(server, Redis) and self._scope.redis_restart:
                    work = partial(self._save_and_restart, server, figures)
                else:
                    continue
                yield Step(f"restart {server.label}", work)
        for server, figures in self._servers:
            if isinstance(server, Pyrope):
                work = partial(self._rebuild, server, figures)
                yield Step(f"restart {server.label} without its graph", work)

    # -- the work ------------------------------------------------------------------------------

    def _start(self, server: Server, figures: Figures) -> str:
        if figures.startup:
            server.stop()
        seconds = server.start()
        figures.startup.setdefault(fig.START_EMPTY, []).append(seconds)
        figures.version = server.version()
        figures.memory[fig.EMPTY] = server.memory()
        return f"{seconds:.2f} s"

    def _ping(self, server: Server, figures: Figures) -> str:
        figures.ping.append(self._measure.ping(server))
        return _said(figures.ping[-1])

    def _ingest_batches(self, figures: Figures) -> str:
        server = self._batch_server()
        try:
            server.start()
            figures.ingest[fig.BATCHES] = self._measure.ingest_batches(server)
        finally:
            server.kill()
        return _said_ingest(figures.ingest[fig.BATCHES])

    def _ingest(self, server: Server, figures: Figures) -> str:
        figures.ingest[fig.ONE_BY_ONE] = self._measure.ingest(server)
        figures.memory[fig.INGESTED] = server.memory()
        return _said_ingest(figures.ingest[fig.ONE_BY_ONE])

    def _ingest_bare(self, bare: BareEngine, figures: Figures) -> str:
        figures.ingest[fig.ONE_BY_ONE] = self._measure.ingest_bare(bare)
        return _said_ingest(figures.ingest[fig.ONE_BY_ONE])

    def _sweep(self, probe: Callable[[int], Point], figures: Figures) -> str:
        figures.ef, figures.sweep = sweep(probe, self._scope.target_recall)
        if figures.ef is None:
            last = figures.sweep[-1]
            return f"recall {last.recall:.4f} at EF {last.ef} is the best it does"
        return f"EF {figures.ef}"

    def _search(self, server: Server, figures: Figures, connections: int) -> str:
        found = self._measure.search(server, _effort(figures), connections)
        figures.search.setdefault(connections, []).append(found)
        return _said(found)

    def _search_bare(self, bare: BareEngine, figures: Figures) -> str:
        found = self._measure.search_bare(bare, _effort(figures))
        figures.search.setdefault(fig.IN_PROCESS, []).append(found)
        return _said(found)

    def _remember(self, server: Server, figures: Figures) -> str:
        figures.memory[fig.SEARCHED] = memory = server.memory()
        return f"{memory.anonymous / 1e6:,.0f} MB anonymous, {memory.total / 1e6:,.0f} MB in all"

    def _save_and_restart(self, server: Redis, figures: Figures) -> str:
        server.save()
        return self._restart(server, figures)

    def _restart(self, server: Server, figures: Figures) -> str:
        stopped = server.stop()
        seconds = server.start()
        figures.startup.setdefault(fig.STOP, []).append(stopped)
        figures.startup.setdefault(fig.START_SAVED, []).append(seconds)
        figures.memory[fig.RESTARTED] = server.memory()
        self._check(server, figures)
        return f"{seconds:.2f} s"

    def _rebuild(self, server: Pyrope, figures: Figures) -> str:
        server.stop()
        server.remove_graphs()
        seconds = server.start()
        figures.startup.setdefault(fig.START_REBUILT, []).append(seconds)
        self._check(server, figures)
        return f"{seconds:.2f} s"

    def _check(self, server: Server, figures: Figures) -> None:
        """The recall asked of it is what it had; without a sweep, the target at a high EF."""
        if figures.sweep:
            ef = _effort(figures)
            had = next(point.recall for point in figures.sweep if point.ef == ef)
        else:
            ef, had = LADDER[-1], self._scope.target_recall
        self._measure.check(server, ef, had)


def _effort(figures: Figures) -> int:
    """The EF that searches are timed at: one that reaches the target, else the highest tried.

    Raises:
        ServerError: none was tried, because the step that should have failed.
    """
    if not figures.sweep:
        raise ServerError(f"no EF of {figures.label} is known")
    return figures.sweep[-1].ef if figures.ef is None else figures.ef


def _said(found: Round) -> str:
    said = f"{found.rate:,.0f}/s"
    if found.p99_us is not None:
        said += f", p99 {found.p99_us / 1e3:.2f} ms"
    return said


def _said_ingest(found: Ingest) -> str:
    return f"{found.acknowledged:,.0f} vectors/s ({found.indexed:,.0f}/s until indexed)"
