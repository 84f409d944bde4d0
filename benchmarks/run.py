"""Measure Pyrope beside Redis 8 and the bare engine: ``python -m benchmarks.run --help``."""

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
from collections.abc import Sequence
from pathlib import Path

import hiredis

from benchmarks.harness import data, plan, plot, report, truth
from benchmarks.harness.arguments import absolute, exit_on_signal, positive, positive_seconds, share
from benchmarks.harness.bare import BARE_ENGINES
from benchmarks.harness.environment import environment
from benchmarks.harness.figures import Figures, Kind, Report
from benchmarks.harness.generator import REPOSITORY, LoadGenerator
from benchmarks.harness.measure import WARMUP_SECONDS, Measure
from benchmarks.harness.paced import LoadError
from benchmarks.harness.progress import Progress
from benchmarks.harness.servers import TYPES, K, Pyrope, Redis, ServerError

DESCRIPTION = "Measure Pyrope beside Redis 8 and the bare engine; see benchmarks/README.md."

RESULTS = REPOSITORY / "benchmarks" / "results"
SHARED = REPOSITORY.parent / "shared"

FULL = {
    "count": 100_000,
    "queries": 2_000,
    "rounds": 3,
    "seconds": 2.0,
    "mixed_seconds": 12.0,
    "connections": [1, 32, 64],
}
QUICK = {
    "count": 4_000,
    "queries": 500,
    "rounds": 1,
    "seconds": 0.5,
    "mixed_seconds": 2.0,
    "connections": [32],
}

SERVERS = ("pyrope", "redis", "bare")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, write the page, the JSON and the plot; 1 if a step failed."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    signal.signal(signal.SIGTERM, exit_on_signal)
    RESULTS.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as cleanup:
        folder = Path(tempfile.mkdtemp(prefix="run-", dir=options.work_dir))
        cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
        outcome = measure(options, folder, cleanup)
    page = write(outcome, options.name)
    print(page.read_text())
    print(f"written to {page}", file=sys.stderr)
    return 1 if outcome.failures else 0


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line. `--quick` gives other defaults, which single options override."""
    stamp = dt.datetime.now().strftime("%Y%m%d-%H%M%S")
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=DESCRIPTION)
    add = parser.add_argument
    add("--count", type=positive, help="vectors (default 100000; quick 4000)")
    add("--queries", type=positive, help="held-out queries (default 2000; quick 500)")
    add("--rounds", type=positive, help="repetitions of each measurement (default 3; quick 1)")
    add("--seconds", type=positive_seconds, help="length of one measurement (default 2; quick 0.5)")
    add("--quick", action="store_true", help="half a minute's worth on few vectors")
    add(
        "--connections",
        type=positive,
        nargs="+",
        metavar="N",
        help="default 1 32 64; quick 32",
    )
    add("--recall", type=share, default=0.99, help="recall@10 to compare at (default 0.99)")
    add("--servers", nargs="+", choices=SERVERS, help="default: all (redis only with --redis)")
    add(
        "--types",
        nargs="+",
        choices=TYPES,
        default=["HNSW", "HNSW_SQ8"],
        metavar="TYPE",
        help=f"Pyrope's index types: {', '.join(TYPES)} (default HNSW HNSW_SQ8)",
    )
    add("--write-rate", type=positive, default=1000, help="of the mixed phase (default 1000/s)")
    add(
        "--mixed-seconds",
        type=positive_seconds,
        help="length of the mixed phase (default 12: merging has to reach its steady state; "
        "quick 2)",
    )
    add(
        "--only",
        nargs="+",
        choices=plan.PHASES,
        default=list(plan.PHASES),
        metavar="PHASE",
        help=f"phases: {', '.join(plan.PHASES)} (all but ping ingest first)",
    )
    add("--redis", type=absolute, metavar="FOLDER", help="folder with Redis 8's redis-server")
    add(
        "--redis-q8",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="also Redis with int8 vectors, its own default (default: with --redis)",
    )
    add("--redis-cas", action="store_true", help="VADD with CAS")
    add("--redis-restart", action="store_true", help="also SAVE Redis and start it again")
    add("--pyrope-config", type=absolute, metavar="FILE", help="configuration file for Pyrope")
    add(
        "--shared",
        type=absolute,
        default=SHARED,
        metavar="FOLDER",
        help=f"where {data.QQP_FILE} is looked for (default: ../shared)",
    )
    add("--seed", type=int, default=7, help="of everything generated or drawn")
    add(
        "--work-dir",
        type=absolute,
        default=RESULTS,
        metavar="FOLDER",
        help="where servers keep their data meanwhile (default: benchmarks/results)",
    )
    add("--name", default=stamp, help="of the files written (default: date and time)")
    options = parser.parse_args(arguments)
    for name, value in (QUICK if options.quick else FULL).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    if options.servers is None:
        options.servers = [name for name in SERVERS if name != "redis" or options.redis]
    _check(parser, options)
    options.command = shlex.join(["python", "-m", "benchmarks.run", *arguments])
    return options


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """What no single option can know; ends the program with a sentence about it."""
    if options.count < K:
        parser.error(f"--count must be at least {K}, the number of neighbours asked for")
    if not options.work_dir.is_dir() and options.work_dir != RESULTS:
        parser.error(f"--work-dir {options.work_dir} is not a folder")
    if "redis" in options.servers and not options.redis:
        parser.error("--servers redis needs --redis FOLDER")
    if options.redis and not os.access(options.redis / "redis-server", os.X_OK):
        parser.error(f"no redis-server in {options.redis}")
    if (options.redis_cas or options.redis_restart) and not options.redis:
        parser.error("options for Redis need --redis FOLDER")


def measure(options: argparse.Namespace, folder: Path, cleanup: contextlib.ExitStack) -> Report:
    """Everything that was asked for; what fails is noted, and the rest goes on.

    Args:
        folder: for the servers' data and the vectors' files.
        cleanup: ends every process, whatever happens.
    """
    print("preparing vectors and their exact neighbours", file=sys.stderr)
    dataset = data.load(options.shared, options.count, options.queries, options.seed)
    exact = truth.exact(dataset, K, RESULTS / "cache")
    contestants = _contestants(options, folder)
    for server, _ in contestants:
        cleanup.callback(server.kill)
    bare = _ceilings(options, dataset)
    writes = int(options.write_rate * (options.mixed_seconds + WARMUP_SECONDS)) + 1
    newcomers = data.newcomers(dataset, writes if "mixed" in options.only else 0, options.seed)
    generator = cleanup.enter_context(LoadGenerator())
    progress = Progress()
    steps = plan.Plan(
        plan.Scope(
            options.only,
            options.rounds,
            options.connections,
            options.recall,
            options.redis_restart,
            options.write_rate,
            options.mixed_seconds,
        ),
        Measure(dataset, exact, folder, generator, progress, options.seconds, newcomers),
        contestants,
        bare,
        lambda kind: Pyrope(kind, folder / f"batches-{kind}", options.pyrope_config, kind),
    ).steps()
    outcome = Report(
        command=options.command,
        environment=environment(folder),
        dataset=dataset.description,
        count=options.count,
        dim=data.DIM,
        queries=options.queries,
        target_recall=options.recall,
        seconds=options.seconds,
        rounds=options.rounds,
        figures=[figures for _, figures in [*contestants, *bare]],
    )
    progress.expect(len(steps))
    for step in steps:
        progress.begin(step.title)
        try:
            progress.done(step.work())
        except (LoadError, ServerError, OSError, hiredis.HiredisError) as error:
            outcome.failures.append(f"{step.title}: {error}")
            progress.done(f"FAILED: {error}")
    return outcome


def write(outcome: Report, name: str) -> Path:
    """The three files of a run; the page's path."""
    picture = RESULTS / f"{name}.png"
    drawn = plot.plot(outcome, picture)
    (RESULTS / f"{name}.json").write_text(report.to_json(outcome))
    page = RESULTS / f"{name}.md"
    page.write_text(report.to_markdown(outcome, picture.name if drawn else None))
    return page


def _contestants(options: argparse.Namespace, folder: Path) -> list[plan.Contestant]:
    found: list[plan.Contestant] = []
    if "pyrope" in options.servers:
        for kind in dict.fromkeys(options.types):
            one = Pyrope(f"Pyrope {kind}", folder / f"pyrope-{kind}", options.pyrope_config, kind)
            option = one.effort.option.decode() if one.effort else ""
            figures = Figures(
                one.label, "not started", one.settings, Kind.PYROPE, kind, effort_option=option
            )
            found.append((one, figures))
    if "redis" in options.servers:
        for name, quantised in {"NOQUANT": False, "Q8": True}.items():
            if quantised and not options.redis_q8:
                continue
            other = Redis(
                f"Redis {name}",
                folder / f"redis-{name}",
                options.redis,
                quantised=quantised,
                cas=options.redis_cas,
            )
            figures = Figures(other.label, "not started", other.settings, Kind.REDIS, name)
            found.append((other, figures))
    return found


def _ceilings(options: argparse.Namespace, dataset: data.Dataset) -> list[plan.Ceiling]:
    """The bare engines of the index types that take part."""
    found: list[plan.Ceiling] = []
    for engine in BARE_ENGINES:
        if "bare" in options.servers and engine.index_type in options.types:
            bare = engine(dataset.base, dataset.queries)
            figures = Figures(bare.label, bare.version(), bare.settings, Kind.BARE, bare.index_type)
            found.append((bare, figures))
    return found


if __name__ == "__main__":
    sys.exit(main())
