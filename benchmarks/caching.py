"""Measure what Pyrope's caches save, and whether they are right: ``python -m benchmarks.caching``.

See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import os
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import hiredis

from benchmarks.harness import (
    cache_report,
    data,
    oracle,
    paraphrases,
    randomized,
    repair,
    traces,
)
from benchmarks.harness.arguments import (
    absolute,
    exit_on_signal,
    positive,
    positive_seconds,
    share,
    share_of_writes,
)
from benchmarks.harness.cache_report import CacheReport
from benchmarks.harness.cache_runs import Playing, TraceRun, play
from benchmarks.harness.environment import environment
from benchmarks.harness.exact_hits import CONNECTIONS, ExactHits
from benchmarks.harness.generator import REPOSITORY
from benchmarks.harness.history import History
from benchmarks.harness.paced import LoadError
from benchmarks.harness.progress import Progress
from benchmarks.harness.replay import Policy
from benchmarks.harness.report import number
from benchmarks.harness.servers import K, Pyrope, Redis, ServerError
from benchmarks.harness.traces import Trace

DESCRIPTION = "Measure what Pyrope's caches save, and whether they are right; see the README."

RESULTS = REPOSITORY / "benchmarks" / "results"
SHARED = REPOSITORY.parent / "shared"

PARTS = ("zipf", "paraphrases", "sessions", "hits", "repair", "correct", "oracle")

FULL = {
    "count": 20_000,
    "queries": 2_000,
    "searches": 20_000,
    "pairs": 4_000,
    "oracle_pairs": 500,
    "operations": 20_000,
    "rounds": 5,
    "seconds": 3.0,
    "writes": [0.0, 0.05, 0.1, 0.2],
}
QUICK = {
    "count": 2_000,
    "queries": 200,
    "searches": 1_000,
    "pairs": 200,
    "oracle_pairs": 50,
    "operations": 1_000,
    "rounds": 1,
    "seconds": 0.3,
    "writes": [0.0, 0.1],
}

REPAIR_QUERIES = 200
HIT_QUERIES = 1_000
SESSION_WRITES = 0.1
CERTIFIED = (b"MINRECALL", b"1", b"CERTIFIED")

Step = tuple[str, Callable[[], str]]
"""A title, and work that returns what came out in short."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, write the page and the JSON; 1 if a step failed."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    signal.signal(signal.SIGTERM, exit_on_signal)
    options.results.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as cleanup:
        folder = Path(tempfile.mkdtemp(prefix="caching-", dir=options.work_dir or options.results))
        cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
        outcome = measure(options, folder, cleanup)
    (options.results / f"{options.name}.json").write_text(cache_report.to_json(outcome))
    page = options.results / f"{options.name}.md"
    page.write_text(cache_report.to_markdown(outcome))
    print(page.read_text())
    print(f"written to {page}", file=sys.stderr)
    return 1 if outcome.failures else 0


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line. `--quick` gives other defaults, which single options override."""
    stamp = dt.datetime.now().strftime("caching-%Y%m%d-%H%M%S")
    parser = argparse.ArgumentParser(prog="python -m benchmarks.caching", description=DESCRIPTION)
    add = parser.add_argument
    add("--quick", action="store_true", help="less of everything, in about half a minute")
    add("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    add("--count", type=positive, help="vectors of zipf, sessions, hits, repair (default 20000)")
    add("--queries", type=positive, help="distinct queries of zipf and sessions (default 2000)")
    add("--searches", type=positive, help="of a trace (default 20000)")
    add("--exponent", type=float, default=1.0, help="of Zipf's law (default 1)")
    add(
        "--writes",
        type=share_of_writes,
        nargs="+",
        metavar="SHARE",
        help="of a zipf trace's steps (default 0 0.05 0.1 0.2)",
    )
    add("--pairs", type=positive, help="of paraphrases (default 4000)")
    add("--oracle-pairs", type=positive, help="of the oracle's paraphrases (default 500)")
    add("--min-recall", type=share, default=0.95, metavar="R", help="of near hits (default 0.95)")
    add("--connections", type=positive, default=32, metavar="N", help="for searches (default 32)")
    add(
        "--info-share",
        type=share,
        default=0.1,
        metavar="SHARE",
        help="of searches that ask for WITHINFO (default 0.1; paraphrases always do)",
    )
    add("--operations", type=positive, help="randomized ones (default 20000)")
    add("--rounds", type=positive, help="of hits (default 5)")
    add("--seconds", type=positive_seconds, help="of one round (default 3)")
    add(
        "--session-option",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="say SESSION in the searches of sessions (default: yes)",
    )
    add(
        "--near",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="MINRECALL 1 CERTIFIED in some of the randomized searches (default: yes)",
    )
    add("--redis", type=absolute, metavar="FOLDER", help="folder with redis-server, for hits")
    add("--pyrope-config", type=absolute, metavar="FILE", help="configuration file for Pyrope")
    add(
        "--shared",
        type=absolute,
        default=SHARED,
        metavar="FOLDER",
        help=f"where {data.QQP_FILE} is looked for (default: ../shared)",
    )
    add("--seed", type=int, default=7, help="of everything generated or drawn")
    add("--results", type=absolute, default=RESULTS, metavar="FOLDER")
    add("--work-dir", type=absolute, metavar="FOLDER", help="for servers' data meanwhile")
    add("--name", default=stamp, help="of the files written (default: date and time)")
    options = parser.parse_args(arguments)
    for name, value in (QUICK if options.quick else FULL).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    if options.count < K:
        parser.error(f"--count must be at least {K}, the number of neighbours asked for")
    if options.work_dir is not None and not options.work_dir.is_dir():
        parser.error(f"--work-dir {options.work_dir} is not a folder")
    if options.redis and not os.access(options.redis / "redis-server", os.X_OK):
        parser.error(f"no redis-server in {options.redis}")
    options.command = shlex.join(["python", "-m", "benchmarks.caching", *arguments])
    return options


def measure(
    options: argparse.Namespace, folder: Path, cleanup: contextlib.ExitStack
) -> CacheReport:
    """Everything that was asked for; what fails is noted, and the rest goes on.

    Args:
        folder: for the servers' data and the vectors' files.
        cleanup: ends every process, whatever happens.
    """
    server = Pyrope("Pyrope", folder / "pyrope", options.pyrope_config, "FLAT")
    cleanup.callback(server.kill)
    redis = Redis("Redis", folder / "redis", options.redis) if options.redis else None
    if redis is not None:
        cleanup.callback(redis.kill)
    dataset = data.load(
        options.shared, options.count, max(options.queries, HIT_QUERIES), options.seed
    )
    outcome = CacheReport(
        options.command,
        {
            "data": f"{dataset.description}; FLAT, COSINE, {options.count:,} × {data.DIM}",
            "queries": f"{options.queries:,} distinct, COUNT {K}, from {options.connections} "
            "connections, each trace once",
            **environment(folder),
            server.label: f"{server.version()}; {server.settings}",
        },
    )
    progress = Progress()
    steps = list(_Steps(options, folder, dataset, server, redis, outcome, progress).all())
    progress.expect(len(steps) + 1)
    progress.begin("start")
    try:
        server.start()
        if redis is not None:
            redis.start()
            outcome.facts[redis.label] = redis.version()
    except (ServerError, OSError) as error:
        outcome.failures.append(f"start: {error}")
        progress.done(f"FAILED: {error}")
        return outcome
    progress.done("ready")
    for title, work in steps:
        progress.begin(title)
        try:
            progress.done(work())
        except (LoadError, ServerError, OSError, hiredis.HiredisError) as error:
            outcome.failures.append(f"{title}: {error}\n{server.log_tail()}".strip())
            progress.done(f"FAILED: {error}")
            _start_again(server)
    return outcome


def _start_again(server: Pyrope) -> None:
    """If it has died of a step, so that the others have one; what it held is made anew by each.

    Raises:
        ServerError: it does not start.
    """
    try:
        with server.client() as client:
            client.call(b"PING")
    except (ServerError, OSError):
        server.kill()
        server.start()


@dataclass(frozen=True, slots=True)
class _Steps:
    """The steps of a run, in their order."""

    options: argparse.Namespace
    folder: Path
    dataset: data.Dataset
    server: Pyrope
    redis: Redis | None
    outcome: CacheReport
    progress: Progress

    def all(self) -> Iterator[Step]:
        options = self.options
        if "hits" in options.only:
            yield f"hits, {CONNECTIONS} connections", self._hits
        if "repair" in options.only:
            yield "repair", self._repair
        if "correct" in options.only:
            yield "randomized operations", self._correct
        if "oracle" in options.only:
            yield "paraphrases with a model that knows the labels", self._oracle
        for make in self._traces():
            # Where nothing is written, nothing is dropped.
            policies = [one for one in Policy if make.writes or one is not Policy.DROP_ALL]
            played = _Played(self, make, last=policies[-1])
            for policy in policies:
                yield f"trace {make.title}: {policy.value}", played.step(policy)

    def _traces(self) -> Iterator[_Make]:
        options, seed = self.options, self.options.seed
        searches, exponent = options.searches, options.exponent
        held = data.Dataset("", self.dataset.base, self.dataset.queries[: options.queries])
        if "zipf" in options.only:
            for writes in options.writes:
                make = partial(traces.zipf, held, searches, exponent, writes, seed)
                yield _Make(f"Zipf, {writes:.0%} writes", writes, make)
        if "sessions" in options.only:
            make = partial(traces.sessions, held, searches, exponent, SESSION_WRITES, seed)
            yield _Make("sessions", SESSION_WRITES, make)
        if "paraphrases" in options.only:
            estimated = (b"MINRECALL", b"%g" % options.min_recall)
            for words, writes in ((estimated, 0.0), (estimated, 0.1), (CERTIFIED, 0.0)):
                title = f"paraphrases, {b' '.join(words).decode()}, {writes:.0%} writes"
                yield _Make(title, writes, partial(self._paraphrases, words, writes))

    def _paraphrases(self, words: tuple[bytes, ...], writes: float) -> Trace:
        options = self.options
        pairs = paraphrases.load(options.shared, options.pairs, options.seed)
        return traces.paraphrased(pairs, words, writes, options.seed)

    def _oracle(self) -> str:
        options = self.options
        pairs = paraphrases.load(options.shared, options.oracle_pairs, options.seed)
        searches, exponent = options.searches // 4, options.exponent
        folder = self.folder / "oracle"
        runs = oracle.measure(pairs, searches, exponent, options.seed, folder)
        self.outcome.oracle = runs
        return ", ".join(f"{one.hit_ratio:.1%}" for one in runs) + " hits"

    def _hits(self) -> str:
        options = self.options
        hits = ExactHits(
            self.server,
            self.redis,
            self.dataset.base,
            self.dataset.queries[:HIT_QUERIES],
            self.folder,
        )
        self.outcome.hits = hits.figures
        for turn in range(options.rounds):
            hits.round(options.seconds, redis_first=bool(turn % 2))
        ratio = hits.figures.ratio
        return "no Redis" if ratio is None else f"{ratio:.2f} × GET"

    def _repair(self) -> str:
        queries = self.dataset.queries[:REPAIR_QUERIES]
        written = data.newcomers(self.dataset, max(repair.BEHIND), self.options.seed)
        self.outcome.repairs = repair.measure(self.dataset.base, queries, written)
        return ", ".join(
            f"{one.behind} {one.writes} {number(one.median_us)} µs" for one in self.outcome.repairs
        )

    def _correct(self) -> str:
        options = self.options
        # Clients are quicker than a server: a second one halves the time where there are cores.
        beside = Pyrope("Pyrope", self.folder / "beside", options.pyrope_config, "FLAT")
        try:
            beside.start()
            found = randomized.run(
                [self.server, beside],
                options.operations,
                options.seed,
                self.progress,
                near=options.near,
            )
        finally:
            beside.kill()
        self.outcome.correctness = found
        return f"{found.wrong} wrong answers in {found.operations:,} operations"


@dataclass(frozen=True, slots=True)
class _Make:
    """A trace that is made when it is its turn."""

    title: str
    writes: float
    make: Callable[[], Trace]


class _Played:
    """A trace under one policy after the other, each on a fresh index of the same server."""

    def __init__(self, steps: _Steps, make: _Make, last: Policy) -> None:
        self._steps = steps
        self._make = make
        self._last = last
        self._made: tuple[Trace, History] | None = None

    def step(self, policy: Policy) -> Callable[[], str]:
        return lambda: self._play(policy)

    def _play(self, policy: Policy) -> str:
        steps, options = self._steps, self._steps.options
        if self._made is None:
            trace = self._make.make()
            self._made = trace, History(trace)
        trace, history = self._made
        playing = Playing(
            options.connections, options.info_share, options.session_option, options.seed
        )
        run = play(steps.server, trace, history, policy, playing, steps.folder / "trace")
        steps.outcome.traces.append(run)
        if policy is self._last:
            self._made = None
        return _said(run)


def _said(run: TraceRun) -> str:
    return (
        f"{run.hit_ratio:.1%} hits, {run.rate:,.0f}/s, p99 {run.p99_us / 1e3:.1f} ms, "
        f"{run.exact_wrong} wrong"
    )


if __name__ == "__main__":
    sys.exit(main())
