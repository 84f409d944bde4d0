"""Costs of the store of cached results, and what it saves beside LRU and an exact GDSF.

    python -m benchmarks.micro_cache
    python -m benchmarks.micro_cache --share 0.2 --writes 0.2

Figures are medians of runs (costs) and shares of all lookups after a warm-up of a fifth (traces),
one thread, one process. GDSF: GreedyDual-Size-Frequency (Cherkasova, HPL-98-69R1, 1998), by a heap.
"""

from __future__ import annotations

import argparse
import gc
import heapq
import random
import statistics
import time
import tracemalloc
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from pyrope.cache.bounded_store import ENTRY_OVERHEAD
from pyrope.cache.frequency_sketch import FrequencySketch
from pyrope.cache.value_cache import Owner, ValueCache
from pyrope.clock import SystemClock

Key = tuple[bytes, int, bool, None]

KEYS = 40_000
PAYLOAD = 2_000


# -- costs ----------------------------------------------------------------------------------------


def median_ns(run: Callable[[], object], count: int, repeat: int = 7) -> float:
    """Nanoseconds for each of `count` operations that a run does."""
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times) / count * 1e9


def store(entries: int, tenants: int = 1) -> tuple[ValueCache[bytes], list[Owner[bytes]]]:
    cache: ValueCache[bytes] = ValueCache(
        entries * (PAYLOAD + ENTRY_OVERHEAD), clock=SystemClock(), random=random.Random(1)
    )
    return cache, [cache.owner(f"tenant{number}", 1) for number in range(tenants)]


def query_keys(count: int, seed: int) -> list[Key]:
    rng = random.Random(seed)
    return [(rng.randbytes(4 * 384), 10, False, None) for _ in range(count)]


def fill(owner: Owner[bytes], keys: list[Key], saved: float) -> None:
    for key in keys:
        owner.put(key, b"", PAYLOAD, saved, 3600.0)


def costs(count: int) -> None:
    keys, others = query_keys(count, 1), query_keys(count, 2)
    plain = dict.fromkeys(keys, b"")
    sketch = FrequencySketch(count, seed=1)
    cache, (owner,) = store(2 * count)
    fill(owner, keys, 10.0)
    _, (full,) = store(count)
    fill(full, keys, 10.0)
    _, shared = store(count, tenants=20)
    for number, part in enumerate(shared):
        fill(part, keys[number::20], 10.0)

    def each(method: Callable[[Key], object], over: list[Key]) -> Callable[[], None]:
        def run() -> None:
            for key in over:
                method(key)

        return run

    # Worth more every time, so that each put drives one out.
    worth = iter(range(20, 10_000))

    def evict(owner: Owner[bytes]) -> None:
        saved = 10.0 * 2 ** next(worth)
        fill(owner, others if owner.peek(others[0]) is None else keys, saved)

    rows = {
        "dict.get, for comparison": median_ns(each(plain.get, keys), count),
        "get, hit": median_ns(each(owner.get, keys), count),
        "get, miss": median_ns(each(owner.get, others), count),
        "peek, hit": median_ns(each(owner.peek, keys), count),
        "sketch, add": median_ns(each(sketch.add, keys), count),
        "sketch, estimate": median_ns(each(sketch.estimate, keys), count),
        "put, full, refused": median_ns(lambda: fill(full, others, 0.01), count),
        "put, full, one goes": median_ns(lambda: evict(full), count),
        "the same, 20 tenants": median_ns(lambda: evict(shared[0]), count),
        "sweep, for each entry looked at": median_ns(lambda: cache.sweep(count), count),
    }
    print("| operation | ns |\n| --- | ---: |")
    for name, nanoseconds in rows.items():
        print(f"| {name} | {nanoseconds:,.0f} |")


def overhead(count: int) -> float:
    """Bytes that the store takes for each entry, beside key and value."""
    cache: ValueCache[None] = ValueCache(2**50, clock=SystemClock(), random=random.Random(1))
    owner = cache.owner("tenant", 1)
    keys = [str(number) for number in range(count)]
    sizes = [10_000 + number for number in range(count)]
    gc.collect()
    tracemalloc.start()
    for key, nbytes in zip(keys, sizes, strict=True):
        owner.put(key, None, nbytes, float(nbytes), 3600.0)
    for key in keys:
        owner.get(key)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return taken / count


# -- traces ---------------------------------------------------------------------------------------


class Items(NamedTuple):
    """What is asked for: bytes and costs, shape (KEYS,)."""

    nbytes: NDArray[np.int64]
    saved: NDArray[np.float64]


class Policy(Protocol):
    """What decides which items are kept."""

    def get(self, key: int) -> bool: ...
    def put(self, key: int, nbytes: int, saved: float) -> None: ...
    def forget(self, key: int) -> None: ...


class Lru:
    """The one that was not used for longest goes."""

    def __init__(self, max_bytes: int) -> None:
        self._kept: OrderedDict[int, int] = OrderedDict()
        self._left = max_bytes

    def get(self, key: int) -> bool:
        if key not in self._kept:
            return False
        self._kept.move_to_end(key)
        return True

    def put(self, key: int, nbytes: int, saved: float) -> None:
        self._kept[key] = nbytes
        self._left -= nbytes
        while self._left < 0:
            self._left += self._kept.popitem(last=False)[1]

    def forget(self, key: int) -> None:
        self._left += self._kept.pop(key, 0)


class Gdsf:
    """The one goes whose uses x cost / bytes, above what it was when it came, is least."""

    def __init__(self, max_bytes: int) -> None:
        # By key: uses, priority, cost by the byte, bytes, and which heap entry is its own.
        self._kept: dict[int, list[float]] = {}
        self._heap: list[tuple[float, int, int]] = []
        self._inflation = 0.0
        self._left = max_bytes
        self._tickets = 0

    def get(self, key: int) -> bool:
        item = self._kept.get(key)
        if item is None:
            return False
        item[0] += 1
        item[1] = self._inflation + item[0] * item[2]
        return True

    def put(self, key: int, nbytes: int, saved: float) -> None:
        self._tickets += 1
        priority = self._inflation + saved / nbytes
        self._kept[key] = [1, priority, saved / nbytes, nbytes, self._tickets]
        heapq.heappush(self._heap, (priority, key, self._tickets))
        self._left -= nbytes
        while self._left < 0:
            priority, least, ticket = heapq.heappop(self._heap)
            item = self._kept.get(least)
            if item is None or item[4] != ticket:
                continue
            if item[1] > priority:
                heapq.heappush(self._heap, (item[1], least, ticket))
                continue
            self._inflation = priority
            self._left += int(self._kept.pop(least)[3])

    def forget(self, key: int) -> None:
        item = self._kept.pop(key, None)
        if item is not None:
            self._left += int(item[3])


class Stored:
    """The store under test. Its overhead is part of the items' bytes, for all policies alike."""

    def __init__(self, max_bytes: int) -> None:
        self._owner: Owner[bool] = ValueCache[bool](
            max_bytes, clock=SystemClock(), random=random.Random(1)
        ).owner("tenant", 1)

    def get(self, key: int) -> bool:
        return self._owner.get(key) is not None

    def put(self, key: int, nbytes: int, saved: float) -> None:
        self._owner.put(key, True, nbytes - ENTRY_OVERHEAD, saved, None)  # noqa: FBT003  # the value

    def forget(self, key: int) -> None:
        self._owner.discard(key, "invalidated")


def traces(rng: np.random.Generator, count: int) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Keys asked for, one after the other."""

    def zipf(exponent: float, draws: int, keys: int = KEYS) -> NDArray[np.int64]:
        shares = 1 / np.arange(1, keys + 1) ** exponent
        return rng.choice(keys, draws, p=shares / shares.sum())

    keys = rng.permutation(KEYS)
    steps = np.arange(count)
    yield "Zipf 0.9", keys[zipf(0.9, count)]
    yield "Zipf 0.7", keys[zipf(0.7, count)]
    parts, drifting = [], keys.copy()
    for _ in range(10):
        parts.append(drifting[zipf(0.9, count // 10)])
        moved = rng.choice(KEYS, KEYS // 3, replace=False)
        drifting[moved] = drifting[rng.permutation(moved)]
    yield "drifting", np.concatenate(parts)
    once = zipf(0.9, count, KEYS // 2)
    rare = rng.random(count) < 0.4
    once[rare] = rng.integers(KEYS // 2, KEYS, int(rare.sum()))
    yield "40 % rare", keys[once]
    yield "sliding", keys[(steps // 30 + rng.exponential(300, count).astype(int)) % KEYS]
    bursts = keys[zipf(0.9, count)]
    sudden = rng.random(count) < 0.4
    bursts[sudden] = ((steps // 15 + rng.exponential(60, count).astype(int)) % KEYS)[sudden]
    yield "bursts", bursts


def replay(
    policy: Policy, trace: NDArray[np.int64], items: Items, writes: float
) -> tuple[float, float]:
    """Shares of lookups that hit, and of their cost that the hits saved."""
    nbytes, saved = items.nbytes.tolist(), items.saved.tolist()
    is_write = (np.random.default_rng(5).random(len(trace)) < writes).tolist()
    lookups, hits, cost, cost_saved = 0, 0, 0.0, 0.0
    for turn, key in enumerate(trace.tolist()):
        if is_write[turn]:
            policy.forget(key)
            continue
        hit = policy.get(key)
        if not hit:
            policy.put(key, nbytes[key], saved[key])
        if turn > len(trace) // 5:
            lookups += 1
            cost += saved[key]
            if hit:
                hits += 1
                cost_saved += saved[key]
    return hits / lookups, cost_saved / cost


def compare(share: float, writes: float, lookups: int) -> None:
    rng = np.random.default_rng(7)
    items = Items(
        np.clip(rng.lognormal(np.log(4000), 1.0, KEYS), 500, 200_000).astype(np.int64)
        + ENTRY_OVERHEAD,
        np.clip(rng.lognormal(np.log(1000), 1.0, KEYS), 50, 100_000),
    )
    max_bytes = int(items.nbytes.sum() * share)
    policies: dict[str, Callable[[int], Policy]] = {"LRU": Lru, "GDSF": Gdsf, "the store": Stored}
    replayed = list(traces(rng, lookups))
    print("| hits / cost saved, % | " + " | ".join(name for name, _ in replayed) + " |")
    print("| --- |" + " ---: |" * len(replayed))
    for name, make in policies.items():
        cells = [replay(make(max_bytes), trace, items, writes) for _, trace in replayed]
        print(
            f"| {name} | " + " | ".join(f"{100 * a:.1f} / {100 * b:.1f}" for a, b in cells) + " |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=20_000)
    parser.add_argument("--lookups", type=int, default=300_000)
    parser.add_argument("--share", type=float, default=0.05, help="of all bytes that is kept")
    parser.add_argument("--writes", type=float, default=0.1, help="share of all operations")
    arguments = parser.parse_args()
    costs(arguments.entries)
    print(f"\noverhead of an entry: {overhead(5 * arguments.entries):.0f} bytes\n")
    compare(arguments.share, arguments.writes, arguments.lookups)


if __name__ == "__main__":
    main()
