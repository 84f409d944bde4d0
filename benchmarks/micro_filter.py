"""How long a filter's mask takes over 100,000 slots, and compiling one, fresh and remembered.

    python benchmarks/micro_filter.py [--slots N] [--repeat N]

Prints a Markdown table: medians over `repeat` runs, one thread, one process.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable

from pyrope.engine.columns import AttributeColumns
from pyrope.engine.filter import Filter, MaskCache, compile_filter
from pyrope.engine.filter.parser import parse

EXPRESSIONS = {
    "contract": '.year >= 1980 and .genre in ["sf", "noir"] and not .hidden',
    "number": ".year >= 1980",
    "string": '.genre == "sf"',
    "string, 1 % of fields set": '.rare == "yes"',
    "arithmetic": "(.year - 1950) * 2 + .rating / 3 > 100",
    "power": ".rating ** 2 > 25",
    "tuple of 100 numbers": f".year in [{', '.join(str(1900 + n) for n in range(100))}]",
    "tuple of 100 strings": ".id in [" + ", ".join(f"'id{n}'" for n in range(100)) + "]",
    "list holds string": '"tag3" in .tags',
    "list holds field": ".genre in .tags",
    "missing field": ".nothing == 1",
}
GENRES = ["sf", "noir", "drama", "comedy", "western", "tag3"]


def fill(slots: int, seed: int) -> AttributeColumns:
    rng = random.Random(seed)
    columns = AttributeColumns()
    for slot in range(slots):
        columns.set(
            slot,
            {
                "id": f"id{slot}",
                "year": rng.randrange(1950, 2025),
                "genre": rng.choice(GENRES),
                "hidden": rng.random() < 0.1,
                "rating": round(rng.uniform(0, 10), 1),
                "tags": [f"tag{rng.randrange(20)}" for _ in range(3)],
                **({"rare": "yes"} if slot % 100 == 0 else {}),
            },
        )
    return columns


def median_us(run: Callable[[], object], repeat: int) -> float:
    run()
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slots", type=int, default=100_000)
    parser.add_argument("--repeat", type=int, default=50)
    arguments = parser.parse_args()
    slots, repeat = arguments.slots, arguments.repeat

    start = time.perf_counter()
    columns = fill(slots, seed=1)
    seconds = time.perf_counter() - start
    print(f"{slots:,} slots filled in {seconds:.2f} s, {columns.nbytes / 1e6:.1f} MB of columns\n")
    print(
        "| expression | matches | mask, µs | cached mask, µs | compile, µs | cached compile, µs |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    cache = MaskCache(columns)
    for name, text in EXPRESSIONS.items():
        row(name, compile_filter(text), columns, cache, slots, repeat)


def row(
    name: str,
    compiled: Filter,
    columns: AttributeColumns,
    cache: MaskCache,
    slots: int,
    repeat: int,
) -> None:
    mask = median_us(lambda: compiled.mask(columns, slots), repeat)
    cached_mask = median_us(lambda: cache.mask(compiled, slots), repeat)
    fresh = median_us(lambda: parse(compiled.text, 512, 64), repeat)
    remembered = median_us(lambda: compile_filter(compiled.text), repeat)
    matches = int(compiled.mask(columns, slots).sum())
    print(
        f"| {name} | {matches} | {mask:.0f} | {cached_mask:.1f} | {fresh:.1f} | {remembered:.1f} |"
    )


if __name__ == "__main__":
    main()
