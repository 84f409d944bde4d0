"""Measure Pyrope beside Redis 8 and the bare engine: ``python -m benchmarks.run --help``."""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import importlib.metadata
import os
import platform
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import hiredis

from benchmarks.harness import data, plan, plot, report, truth
from benchmarks.harness.bare import BareEngine
from benchmarks.harness.figures import Figures, Report
from benchmarks.harness.generator import REPOSITORY, LoadGenerator
from benchmarks.harness.load import LoadError
from benchmarks.harness.measure import Measure
from benchmarks.harness.memory import filesystem
from benchmarks.harness.progress import Progress
from benchmarks.harness.servers import K, Pyrope, Redis, Server, ServerError

DESCRIPTION = "Measure Pyrope beside Redis 8 and the bare engine; see benchmarks/README.md."

RESULTS = REPOSITORY / "benchmarks" / "results"
SHARED = REPOSITORY.parent / "shared"

FULL = {"count": 100_000, "queries": 2_000, "rounds": 3, "seconds": 4.0}
QUICK = {"count": 5_000, "queries": 500, "rounds": 1, "seconds": 1.0}

SERVERS = ("pyrope", "redis", "bare")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, write the page, the JSON and the plot; 1 if a step failed."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    signal.signal(signal.SIGTERM, _exit_on_signal)
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
    add("--count", type=_positive, help="vectors (default 100000; quick 5000)")
    add("--queries", type=_positive, help="held-out queries (default 2000; quick 500)")
    add("--rounds", type=_positive, help="repetitions of each measurement (default 3; quick 1)")
    add("--seconds", type=_seconds, help="length of one measurement (default 4; quick 1)")
    add("--quick", action="store_true", help="a minute's worth on few vectors")
    add("--connections", type=_positive, nargs="+", default=[1, 32, 64], metavar="N")
    add("--recall", type=_share, default=0.99, help="recall@10 to compare at (default 0.99)")
    add("--servers", nargs="+", choices=SERVERS, help="default: all (redis only with --redis)")
    add(
        "--only",
        nargs="+",
        choices=plan.PHASES,
        default=list(plan.PHASES),
        metavar="PHASE",
        help=f"phases: {', '.join(plan.PHASES)} (all but ping ingest first)",
    )
    add("--redis", type=_path, metavar="FOLDER", help="folder with Redis 8's redis-server")
    add("--redis-q8", action="store_true", help="also Redis with int8 vectors, its own default")
    add("--redis-cas", action="store_true", help="VADD with CAS")
    add("--redis-restart", action="store_true", help="also SAVE Redis and start it again")
    add("--pyrope-config", type=_path, metavar="FILE", help="configuration file for Pyrope")
    add(
        "--shared",
        type=_path,
        default=SHARED,
        metavar="FOLDER",
        help=f"where {data.QQP_FILE} is looked for (default: ../shared)",
    )
    add("--seed", type=int, default=7, help="of everything generated or drawn")
    add(
        "--work-dir",
        type=_path,
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
    if (options.redis_q8 or options.redis_cas or options.redis_restart) and not options.redis:
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
    contestants = [(server, _figures(server)) for server in _servers(options, folder)]
    for server, _ in contestants:
        cleanup.callback(server.kill)
    bare: plan.Ceiling | None = None
    if "bare" in options.servers:
        engine = BareEngine(dataset.base, dataset.queries)
        bare = engine, Figures(engine.label, engine.version(), engine.settings)
    generator = cleanup.enter_context(LoadGenerator())
    progress = Progress()
    steps = plan.Plan(
        plan.Scope(
            options.only, options.rounds, options.connections, options.recall, options.redis_restart
        ),
        Measure(dataset, exact, folder, generator, progress, options.seconds),
        contestants,
        bare,
        lambda: Pyrope("Pyrope", folder / "pyrope-batches", options.pyrope_config),
    ).steps()
    outcome = Report(
        command=options.command,
        environment=_environment(folder),
        dataset=dataset.description,
        count=options.count,
        dim=data.DIM,
        queries=options.queries,
        target_recall=options.recall,
        seconds=options.seconds,
        rounds=options.rounds,
        figures=[figures for _, figures in contestants] + ([bare[1]] if bare else []),
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


def _servers(options: argparse.Namespace, folder: Path) -> list[Server]:
    servers: list[Server] = []
    if "pyrope" in options.servers:
        servers.append(Pyrope("Pyrope", folder / "pyrope", options.pyrope_config))
    if "redis" in options.servers:
        servers.append(Redis("Redis", folder / "redis", options.redis, cas=options.redis_cas))
        if options.redis_q8:
            servers.append(
                Redis(
                    "Redis Q8",
                    folder / "redis-q8",
                    options.redis,
                    quantised=True,
                    cas=options.redis_cas,
                )
            )
    return servers


def _figures(server: Server) -> Figures:
    return Figures(server.label, version="not started", settings=server.settings)


def _environment(folder: Path) -> dict[str, str]:
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    packages = ("faiss-cpu", "hnswlib", "hiredis", "lmdb", "numpy", "uvloop")
    return {
        "date": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": f"{model}, {len(os.sched_getaffinity(0))} cores",
        "system": f"{platform.system()} {platform.release()}, data on {filesystem(folder)}",
        "Python": platform.python_version(),
        "libraries": ", ".join(f"{one} {importlib.metadata.version(one)}" for one in packages),
    }


def _path(text: str) -> Path:
    """Absolute, because servers are started in another folder."""
    return Path(text).resolve()


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value <= 3600:
        raise argparse.ArgumentTypeError(f"{text} is not within 0 and 3600 seconds")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not within 0 and 1")
    return value


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def _exit_on_signal(number: int, frame: FrameType | None) -> None:
    """SIGTERM unwinds the stack, so that no server outlives the harness."""
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
