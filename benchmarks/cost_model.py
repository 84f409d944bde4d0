"""How well the cost model ranks what searches take, and what its coefficients should be.

    python -m benchmarks.cost_model [--sizes NxD ...] [--seed N] [--types TYPE ...]
    python -m benchmarks.cost_model --fit [--fit-sizes NxD ...] [--fit-seed N]

Every type of index is made over generated clusters, in this process, and searched in one thread:
with several ef or nprobe, k, filters that let through half, a tenth and a hundredth, bounds on
distances, batches of 16, vectors in the head, and TRUTH; candidates of near hits are scored again,
and vectors are inserted. Prices (`pyrope.tenants.cost`, without the constants of a request) are
compared with CPU time: Spearman's rank correlation, and units by microsecond, of which an ideal
model has 1 everywhere on the machine that its coefficients are from, and the same everywhere on any
other. Prints Markdown.

With ``--fit``, coefficients are fitted first, on vectors of another seed and other sizes, and
printed; what is measured after that is judged by these.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.arguments import positive, positive_seconds
from benchmarks.harness.cost_cases import TYPES, Case, Engines, Measured, Size, Work
from pyrope.engine import init_worker_thread
from pyrope.tenants.coefficients import MEASURED, Coefficients
from pyrope.types import IndexType

SIZES = ("2000x64", "8000x256", "30000x32", "12000x384")
FIT_SIZES = ("1000x32", "1000x384", "4000x128", "16000x32", "16000x384", "40000x96")
WORST = 8

# Of the search for coefficients: factors to begin and to end with, and what one case may weigh.
_FIRST_STEP, _LAST_STEP = 3.0, 1.02
_MOST_ERROR = 0.5
_ROUNDS = 40

GROUPS: dict[str, Callable[[Case], bool]] = {
    "plain": lambda case: (
        case.work is Work.SEARCH
        and case.asked
        == type(case.asked)(
            case.asked.live, case.asked.k, ef=case.asked.ef, nprobe=case.asked.nprobe
        )
    ),
    "batches": lambda case: case.asked.queries > 1,
    "filters": lambda case: case.share is not None,
    "max_scans": lambda case: case.asked.max_scans is not None,
    "TRUTH": lambda case: case.asked.exact,
    "head": lambda case: case.asked.head > 0,
    "near hits": lambda case: case.work is Work.RESCORING,
    "insertions": lambda case: case.work is Work.INSERTION,
}
"""What the second table tells apart; a case may be in several of them."""


def size(text: str) -> Size:
    count, _, dim = text.partition("x")
    parsed = Size(positive(count), positive(dim))
    if parsed.count < 500 or parsed.dim < 2:
        raise argparse.ArgumentTypeError(f"{text}: at least 500 vectors of 2 dimensions")
    return parsed


def measure(
    sizes: Iterable[Size], types: Sequence[IndexType], seed: int, least_seconds: float
) -> list[Measured]:
    found: list[Measured] = []
    for each in sizes:
        engines = Engines(each, seed)
        for kind in types:
            found += engines.measure(kind, least_seconds)
    return found


def units(measured: Sequence[Measured], coefficients: Coefficients) -> NDArray[np.float64]:
    """What the model makes of each, shape (n,)."""
    found: list[float] = []
    for _, some in groupby(measured, key=lambda one: (one.case.size, one.case.kind)):
        alike = list(some)
        model = alike[0].model(coefficients)
        found += [one.units(model) for one in alike]
    return np.array(found)


def microseconds(measured: Sequence[Measured]) -> NDArray[np.float64]:
    return np.array([1e6 * one.seconds for one in measured])


def ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """From 1 on; equal values share the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    means: NDArray[np.float64] = np.cumsum(counts) - (counts - 1) / 2
    return means[place]


def spearman(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """The correlation of ranks (Spearman, 1904); the values are not all equal."""
    return float(np.corrcoef(ranks(one), ranks(other))[0, 1])


def fit(measured: Sequence[Measured]) -> Coefficients:
    """Coefficients by the least squares of logarithms, one after another, in ever smaller steps.

    An error counts up to a bound, so that a case which something has disturbed does not bend the
    rest. What is left is a local optimum, from those that are there.
    """
    wanted = np.log(microseconds(measured))

    def error(coefficients: Coefficients) -> float:
        gaps = np.log(units(measured, coefficients)) - wanted
        return float(np.minimum(gaps * gaps, _MOST_ERROR).mean())

    best = MEASURED
    least = error(best)
    steps = dict.fromkeys(asdict(best), _FIRST_STEP)
    for _ in range(_ROUNDS):
        for name, step in steps.items():
            for factor in (step, 1 / step):
                tried = replace(best, **{name: getattr(best, name) * factor})
                if (gap := error(tried)) < least:
                    best, least = tried, gap
                    break
            else:
                steps[name] = max(step**0.6, _LAST_STEP)
    return Coefficients(**{name: float(f"{value:.3g}") for name, value in asdict(best).items()})


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    print("| " + " | ".join(head) + " |")
    print("| --- |" + " ---: |" * (len(head) - 1))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print(flush=True)


def row(
    name: str, spent: NDArray[np.float64], charged: NDArray[np.float64], some: NDArray[np.bool_]
) -> list[str]:
    ratios = np.sort(charged[some] / spent[some])
    rho = f"{spearman(charged[some], spent[some]):.3f}" if len(ratios) > 2 else "–"
    quantiles = np.quantile(ratios, (0.0, 0.05, 0.5, 0.95, 1.0))
    return [name, f"{len(ratios)}", rho, *(f"{value:.2f}" for value in quantiles)]


def report(measured: Sequence[Measured], coefficients: Coefficients) -> None:
    spent, charged = microseconds(measured), units(measured, coefficients)
    head = ("", "cases", "Spearman", "units per CPU µs: least", "5 %", "median", "95 %", "most")
    kinds = np.array([one.case.kind for one in measured])
    everything = np.ones(len(measured), np.bool_)
    rows = [row("all", spent, charged, everything)]
    rows += [row(kind, spent, charged, kinds == kind) for kind in dict.fromkeys(kinds.tolist())]
    table(head, rows)
    parts = {
        name: np.array([belongs(one.case) for one in measured]) for name, belongs in GROUPS.items()
    }
    table(head, [row(name, spent, charged, some) for name, some in parts.items() if some.any()])
    order = np.argsort(-np.abs(np.log(charged / spent)))[:WORST].tolist()
    table(
        ("worst", "size", "what", "CPU µs", "units"),
        (
            (
                measured[number].case.kind.value,
                str(measured[number].case.size),
                described(measured[number].case),
                f"{spent[number]:.0f}",
                f"{charged[number]:.0f}",
            )
            for number in order
        ),
    )


def described(case: Case) -> str:
    given = {name: value for name, value in case.asked._asdict().items() if value is not None}
    del given["live"]
    told = [f"{name} {value}" for name, value in given.items() if value not in (0, False)]
    return ", ".join([case.work.value, *told])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", type=size, default=[*map(size, SIZES)])
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--types", nargs="+", type=IndexType, choices=TYPES, default=TYPES)
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--fit-sizes", nargs="+", type=size, default=[*map(size, FIT_SIZES)])
    parser.add_argument("--fit-seed", type=int, default=1)
    parser.add_argument(
        "--least", type=positive_seconds, default=0.006, help="CPU seconds of each of three runs"
    )
    arguments = parser.parse_args()

    init_worker_thread()
    coefficients = MEASURED
    if arguments.fit:
        began = time.monotonic()
        known = measure(arguments.fit_sizes, arguments.types, arguments.fit_seed, arguments.least)
        coefficients = fit(known)
        print(f"Fitted in {time.monotonic() - began:.0f} s, seed {arguments.fit_seed}:\n")
        for name, value in asdict(coefficients).items():
            print(f"    {name}: float = {value:g}")
        print()
        report(known, coefficients)
    print(f"{', '.join(map(str, arguments.sizes))}, seed {arguments.seed}:\n")
    report(measure(arguments.sizes, arguments.types, arguments.seed, arguments.least), coefficients)


if __name__ == "__main__":
    main()
