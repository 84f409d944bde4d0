"""Measure how Pyrope's index types scale: ``python -m benchmarks.scale --help``."""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import hiredis

from benchmarks.harness import clusters, scale_report, truth
from benchmarks.harness.arguments import absolute, exit_on_signal, positive, positive_seconds
from benchmarks.harness.environment import environment
from benchmarks.harness.generator import REPOSITORY, LoadGenerator
from benchmarks.harness.measure import WARMUP_SECONDS, Measure
from benchmarks.harness.paced import LoadError
from benchmarks.harness.progress import Progress
from benchmarks.harness.scale_report import Curves
from benchmarks.harness.scaling import Case, Key, Writes, estimate, measure_case, work_folder
from benchmarks.harness.servers import TYPES, K, Pyrope, ServerError

DESCRIPTION = "Measure how Pyrope's index types scale; see benchmarks/README.md."

RESULTS = REPOSITORY / "benchmarks" / "results"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure case after case, keeping what there is; 1 if one failed."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    signal.signal(signal.SIGTERM, exit_on_signal)
    options.results.mkdir(parents=True, exist_ok=True)
    curves = _begun(options)
    done = {one.key for one in curves.cases}
    keys = [key for key in _keys(options) if key not in done]
    if keys:
        curves.commands.append(options.command)
    writes = Writes(options.write_rate, options.mixed_seconds)
    expected = sum(estimate(key, options.seconds, writes) for key in keys)
    print(f"{len(keys)} cases; about {expected / 60:.0f} minutes", file=sys.stderr)
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(_draw, curves, options)
        folder = Path(tempfile.mkdtemp(prefix="scale-", dir=options.work_dir or options.results))
        cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
        _measure(options, folder, curves, keys, writes)
    page = options.results / f"{options.name}.md"
    print(page.read_text())
    print(f"written to {page}", file=sys.stderr)
    return 1 if any(one.failure for one in curves.cases) else 0


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    stamp = dt.datetime.now().strftime("scale-%Y%m%d-%H%M%S")
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=DESCRIPTION)
    add = parser.add_argument
    add("--counts", type=positive, nargs="+", default=[10_000, 100_000], metavar="N")
    add("--dims", type=positive, nargs="+", default=[128, 384], metavar="D")
    add("--types", nargs="+", choices=TYPES, default=list(TYPES), metavar="TYPE")
    add("--queries", type=positive, default=1_000, help="held-out queries (default 1000)")
    add("--seconds", type=positive_seconds, default=2.0, help="of one measurement (default 2)")
    add("--write-rate", type=positive, default=1_000, help="writes/s beside searches")
    add(
        "--mixed-seconds",
        type=positive_seconds,
        default=12.0,
        help="length of the searches beside writes (default 12)",
    )
    add("--seed", type=int, default=7, help="of the generated vectors")
    add("--pyrope-config", type=absolute, metavar="FILE", help="configuration file for Pyrope")
    add(
        "--work-dir",
        type=absolute,
        metavar="FOLDER",
        help="where vectors and servers' data are kept meanwhile (default: the results' folder)",
    )
    add("--results", type=absolute, default=RESULTS, metavar="FOLDER")
    add("--name", default=stamp, help="of the files written (default: date and time)")
    add(
        "--append",
        action="store_true",
        help="go on with the run of that name: measure what is missing or failed",
    )
    options = parser.parse_args(arguments)
    if min(options.counts) < K:
        parser.error(f"--counts must be at least {K}, the number of neighbours asked for")
    if min(options.dims) < 2:
        parser.error("--dims must be at least 2")
    if options.work_dir is not None and not options.work_dir.is_dir():
        parser.error(f"--work-dir {options.work_dir} is not a folder")
    file = options.results / f"{options.name}.json"
    if options.append != file.is_file():
        problem = "does not exist" if options.append else "exists; go on with it by --append"
        parser.error(f"{file} {problem}")
    options.command = shlex.join(["python", "-m", "benchmarks.scale", *arguments])
    return options


def _begun(options: argparse.Namespace) -> Curves:
    """What is there already, without what failed."""
    if not options.append:
        return Curves()
    curves = scale_report.load(options.results / f"{options.name}.json")
    if curves.facts["data"] != _data(options):
        raise SystemExit(f"that run was on other data: {curves.facts['data']}")
    curves.cases = [one for one in curves.cases if not one.failure]
    return curves


def _data(options: argparse.Namespace) -> str:
    return f"{clusters.DESCRIPTION}, seed {options.seed}; {options.queries:,} queries"


def _keys(options: argparse.Namespace) -> list[Key]:
    """Small ones first, so that an interrupted run has whole curves up to somewhere."""
    return [
        Key(kind, count, dim)
        for count in sorted(set(options.counts))
        for dim in sorted(set(options.dims))
        for kind in dict.fromkeys(options.types)
    ]


def _measure(
    options: argparse.Namespace,
    folder: Path,
    curves: Curves,
    keys: Sequence[Key],
    writes: Writes,
) -> None:
    """Every case, each with a server and a load generator of its own."""
    curves.facts = {
        "data": _data(options),
        "timed": f"{options.seconds:g} s each; {writes.seconds:g} s with writes",
        **environment(folder),
    }
    progress = Progress()
    progress.expect(len(keys))
    _write(curves, options)
    written: dict[int, Path] = {}
    for key in keys:
        progress.begin(str(key))
        one = clusters.Clusters(key.dim, options.seed)
        if key.dim not in written:
            most = max(other.count for other in keys if other.dim == key.dim)
            written[key.dim] = folder / f"base-{key.dim}.npy"
            one.write_base(most, written[key.dim])
        dataset = clusters.dataset(one, written[key.dim], key.count, options.queries)
        case = Case(key)
        server = Pyrope(
            str(key), work_folder(folder, key), options.pyrope_config, key.index_type
        )  # fmt: skip
        measure_folder = server.folder / "load"
        measure_folder.mkdir()
        newcomers = one.newcomers(int(writes.rate * (writes.seconds + WARMUP_SECONDS)) + 1)
        try:
            with LoadGenerator() as generator:
                exact = truth.exact(dataset, K, options.results / "cache")
                measure = Measure(
                    dataset, exact, measure_folder, generator, progress, options.seconds, newcomers
                )
                measure_case(case, server, measure, writes)
        except (LoadError, ServerError, OSError, hiredis.HiredisError) as error:
            case.failure = f"{error}\n{server.log_tail()}".strip()
        finally:
            server.kill()
            shutil.rmtree(server.folder, ignore_errors=True)
        curves.cases.append(case)
        _write(curves, options)
        progress.done(f"FAILED: {case.failure}" if case.failure else _said(case))


def _write(curves: Curves, options: argparse.Namespace, picture: str | None = None) -> None:
    """The figures, as far as the run has come."""
    scale_report.save(curves, options.results / f"{options.name}.json")
    page = options.results / f"{options.name}.md"
    page.write_text(scale_report.to_markdown(curves, picture))


def _draw(curves: Curves, options: argparse.Namespace) -> None:
    """The picture, however the run ends, and the page with it."""
    picture = options.results / f"{options.name}.png"
    if scale_report.plot(curves, picture):
        _write(curves, options, picture.name)


def _said(case: Case) -> str:
    first = case.levels[0].round
    return (
        f"{first.rate:,.0f}/s at recall {first.recall or 0:.3f}, {case.merged or 0:,.0f} vectors/s "
        f"until merged, {case.seconds or 0:.0f} s in all"
    )


if __name__ == "__main__":
    sys.exit(main())
