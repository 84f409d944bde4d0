"""The steps of a run, in order.

A plan is a list of steps, so that the progress line knows how many there are, and so that one can
read how servers alternate: every round measures each of them once, and every other round goes
through them backwards, so that neither drift of the machine nor the order favours one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from benchmarks.harness import figures as fig
from benchmarks.harness.bare import BATCHES, BareEngine
from benchmarks.harness.figures import Figures, Ingest, Mixed, Point, Round
from benchmarks.harness.measure import Measure
from benchmarks.harness.memory import Memory
from benchmarks.harness.servers import Pyrope, Redis, Server, ServerError
from benchmarks.harness.sweep import Effort, sweep, up_to

PHASES = ("ping", "ingest", "search", "startup", "mixed")

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
        write_rate: vectors written per second in the mixed phase.
        mixed_seconds: how long that lasts.
    """

    phases: Collection[str]
    rounds: int
    connections: Sequence[int]
    target_recall: float
    redis_restart: bool
    write_rate: float
    mixed_seconds: float


class Plan:
    """What a run does with its servers."""

    def __init__(
        self,
        scope: Scope,
        measure: Measure,
        servers: Sequence[Contestant],
        bare: Sequence[Ceiling],
        batch_server: Callable[[str], Pyrope],
    ) -> None:
        """Nothing is started yet.

        Args:
            servers: not started yet; the plan starts them, the caller ends them.
            bare: engines in this process.
            batch_server: makes a fresh Pyrope of an index type for ingest in batches.
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
                for server, figures in self._one_of_each(turn)
            ]
        if "ingest" in phases:
            steps += self._batch_ingests()
        if set(phases) - {"ping"}:
            steps += self._ingests()
        if {"search", "mixed"} & set(phases):
            steps += self._sweeps()
        if "search" in phases:
            steps += self._searches()
        if "startup" in phases:
            steps += self._restarts()
        if "mixed" in phases:  # last: it leaves other vectors behind than the truth is made for
            steps += self._mixtures()
        return steps

    # -- the order -----------------------------------------------------------------------------

    def _in_turn(self, turn: int) -> Sequence[Contestant]:
        return self._servers if turn % 2 == 0 else self._servers[::-1]

    def _one_of_each(self, turn: int) -> Sequence[Contestant]:
        """A Pyrope and a Redis: what kind of index they will hold makes no difference to PING."""
        first = {figures.kind: (server, figures) for server, figures in reversed(self._servers)}
        pair = [one for one in self._servers if one in first.values()]
        return pair if turn % 2 == 0 else pair[::-1]

    def _starts(self) -> Iterator[Step]:
        for turn in range(self._scope.rounds if "startup" in self._scope.phases else 1):
            for server, figures in self._in_turn(turn):
                work = partial(self._start, server, figures)
                yield Step(f"start {server.label}, empty", work)

    def _batch_ingests(self) -> Iterator[Step]:
        for server, figures in self._servers:
            if isinstance(server, Pyrope):
                work = partial(self._ingest_batches, server.index_type, figures)
                yield Step(f"ingest {server.label}, {fig.BATCHES}", work)

    def _ingests(self) -> Iterator[Step]:
        for server, figures in self._servers:
            work = partial(self._ingest, server, figures)
            yield Step(f"ingest {server.label}, {fig.ONE_BY_ONE}", work)
        for bare, figures in self._bare:
            yield Step(f"build {bare.label}", partial(self._ingest_bare, bare, figures))

    def _sweeps(self) -> Iterator[Step]:
        for server, figures in self._servers:
            option = figures.effort_option
            title = f"find {option} of {server.label}" if option else f"recall of {server.label}"
            yield Step(title, partial(self._sweep, server, figures))
        for bare, figures in self._bare:
            work = partial(self._sweep_bare, bare, figures)
            yield Step(f"find {figures.effort_option} of {bare.label}", work)

    def _searches(self) -> Iterator[Step]:
        for turn in range(self._scope.rounds):
            for connections in self._scope.connections:
                for server, figures in self._in_turn(turn):
                    work = partial(self._search, server, figures, connections)
                    yield Step(f"search {server.label}, {connections} connections", work)
            for bare, figures in self._bare:
                for batch in BATCHES:
                    work = partial(self._search_bare, bare, figures, batch)
                    yield Step(f"search {bare.label}, batches of {batch}", work)
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

    def _mixtures(self) -> Iterator[Step]:
        for server, figures in self._servers:
            if isinstance(server, Pyrope):
                work = partial(self._mixed, server, figures)
                rate = self._scope.write_rate
                yield Step(f"search {server.label} while writing {rate:,.0f}/s", work)

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

    def _ingest_batches(self, index_type: str, figures: Figures) -> str:
        server = self._batch_server(index_type)
        try:
            server.start()
            figures.ingest[fig.BATCHES] = self._measure.ingest_batches(server)
        finally:
            server.kill()
        return _said_ingest(figures.ingest[fig.BATCHES])

    def _ingest(self, server: Server, figures: Figures) -> str:
        figures.ingest[fig.ONE_BY_ONE] = self._measure.ingest(server)
        self._weigh(server, figures, fig.INGESTED)
        return _said_ingest(figures.ingest[fig.ONE_BY_ONE])

    def _ingest_bare(self, bare: BareEngine, figures: Figures) -> str:
        figures.ingest[fig.ONE_BY_ONE] = self._measure.ingest_bare(bare)
        return _said_ingest(figures.ingest[fig.ONE_BY_ONE])

    def _sweep(self, server: Server, figures: Figures) -> str:
        if server.effort is None:
            figures.sweep = [self._measure.probe(server, None)]
            figures.reached = figures.sweep[0].recall >= self._scope.target_recall
            return f"recall {figures.sweep[0].recall:.4f}"
        ladder = server.effort.ladder
        if isinstance(server, Pyrope) and (lists := int(server.describe()["nlist"])):
            ladder = up_to(ladder, lists)
        return self._climb(partial(self._measure.probe, server), ladder, figures)

    def _sweep_bare(self, bare: BareEngine, figures: Figures) -> str:
        return self._climb(partial(self._measure.probe_bare, bare), bare.effort.ladder, figures)

    def _climb(self, probe: Callable[[int], Point], ladder: Sequence[int], figures: Figures) -> str:
        figures.effort, figures.sweep = sweep(probe, self._scope.target_recall, ladder)
        figures.reached = figures.effort is not None
        if not figures.reached:
            last = figures.sweep[-1]
            return f"recall {last.recall:.4f} at {last.effort} is the best it does"
        return f"{figures.effort_option} {figures.effort}"

    def _search(self, server: Server, figures: Figures, connections: int) -> str:
        found = self._measure.search(server, _effort(figures), connections)
        figures.search.setdefault(connections, []).append(found)
        return _said(found)

    def _search_bare(self, bare: BareEngine, figures: Figures, batch: int) -> str:
        effort = _effort(figures)
        if effort is None:
            raise ServerError(f"{bare.label} has no effort")
        found = self._measure.search_bare(bare, effort, batch)
        figures.in_process.setdefault(batch, []).append(found)
        return _said(found)

    def _mixed(self, server: Pyrope, figures: Figures) -> str:
        found = self._measure.mixed(
            server, _effort(figures), self._scope.write_rate, self._scope.mixed_seconds
        )
        figures.mixed.append(found)
        return _said_mixed(found)

    def _remember(self, server: Server, figures: Figures) -> str:
        memory = self._weigh(server, figures, fig.SEARCHED)
        return f"{memory.anonymous / 1e6:,.0f} MB anonymous, {memory.total / 1e6:,.0f} MB in all"

    def _weigh(self, server: Server, figures: Figures, moment: str) -> Memory:
        figures.memory[moment] = memory = server.memory()
        if isinstance(server, Pyrope):
            figures.reported[moment] = int(server.describe()["memory_bytes"])
        return memory

    def _save_and_restart(self, server: Redis, figures: Figures) -> str:
        server.save()
        return self._restart(server, figures)

    def _restart(self, server: Server, figures: Figures) -> str:
        stopped = server.stop()
        seconds = server.start()
        figures.startup.setdefault(fig.STOP, []).append(stopped)
        figures.startup.setdefault(fig.START_SAVED, []).append(seconds)
        self._weigh(server, figures, fig.RESTARTED)
        self._check(server, figures)
        return f"{seconds:.2f} s"

    def _rebuild(self, server: Pyrope, figures: Figures) -> str:
        server.stop()
        removed = server.remove_graphs()
        seconds = server.start()
        if not removed:
            return "it had saved none"
        began = time.perf_counter()
        server.settle()
        merged = seconds + time.perf_counter() - began
        figures.startup.setdefault(fig.START_REBUILT, []).append(seconds)
        figures.startup.setdefault(fig.START_REBUILT_MERGED, []).append(merged)
        self._check(server, figures)
        return f"{seconds:.2f} s, {merged:.2f} s until merged"

    def _check(self, server: Server, figures: Figures) -> None:
        """The recall asked of it is what it had; without a sweep, the target at a high effort."""
        if figures.sweep:
            effort = _effort(figures)
            had = next(point.recall for point in figures.sweep if point.effort == effort)
        else:
            effort, had = _highest(server.effort), self._scope.target_recall
        self._measure.check(server, effort, had)


def _highest(effort: Effort | None) -> int | None:
    return None if effort is None else effort.ladder[-1]


def _effort(figures: Figures) -> int | None:
    """The effort that searches are timed at: one that reaches the target, else the highest tried.

    Raises:
        ServerError: none was tried, because the step that should have failed.
    """
    if not figures.sweep:
        raise ServerError(f"no effort of {figures.label} is known")
    return figures.sweep[-1].effort if figures.effort is None else figures.effort


def _said(found: Round) -> str:
    said = f"{found.rate:,.0f}/s"
    if found.p99_us is not None:
        said += f", p99 {found.p99_us / 1e3:.2f} ms"
    return said


def _said_ingest(found: Ingest) -> str:
    return f"{found.acknowledged:,.0f} vectors/s ({found.indexed:,.0f}/s until merged)"


def _said_mixed(found: Mixed) -> str:
    said = f"{found.busy.rate:,.0f}/s, {found.kept:.0%} of idle"
    if found.stretch is not None:
        said += f", p99 × {found.stretch:.2f}"
    return f"{said}; {found.writes.rate:,.0f} writes/s"
