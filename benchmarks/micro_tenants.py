"""What a tenant's quotas and budget cost a request, and what tenants cost in memory.

    python -m benchmarks.micro_tenants

Times are medians of runs, one thread, one process; the loop around each call is taken off. The
accounts go round among `--tenants` busy tenants, so that theirs are not the only lines in the
processor's caches.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
import tracemalloc
from collections.abc import Callable

from pyrope.cache.token_bucket import TokenBucket
from pyrope.clock import SystemClock
from pyrope.errors import BudgetError, QuotaError
from pyrope.tenants.budget import Ledger, check_records
from pyrope.tenants.enforcer import Account, TenantQuotaEnforcer
from pyrope.tenants.limits import OnBudget, TenantLimits
from pyrope.tenants.period import Period
from pyrope.tenants.pressure import Effort, adjust
from pyrope.tenants.quota import RateLimit
from pyrope.tenants.usage import MICRO, Usage

UNLIMITED = TenantLimits()
QUOTAS = TenantLimits(qps=1e9, concurrency=1000)
ALL = TenantLimits(qps=1e9, concurrency=1000, budget=1e15, on_budget=OnBudget.DEGRADE)
ASKED = Effort(64, None, None, 0.95)

Work = Callable[[list[str]], None]


def median_ns(work: Work, names: list[str], repeat: int = 9) -> float:
    """Nanoseconds for each name that `work` goes through."""

    def seconds(one: Work) -> float:
        start = time.perf_counter()
        one(names)
        return time.perf_counter() - start

    def nothing(names: list[str]) -> None:
        for _ in names:
            pass

    taken = [seconds(work) - seconds(nothing) for _ in range(repeat)]
    return statistics.median(taken) / len(names) * 1e9


def server(
    limits: TenantLimits, tenants: int, used: float = 0.0
) -> tuple[TenantQuotaEnforcer, Ledger]:
    """One whose tenants have used that share of their budget."""
    clock = SystemClock()
    ledger = Ledger(clock)
    ledger.open(())
    enforcer = TenantQuotaEnforcer(clock, ledger, lambda tenant: limits)
    for number in range(tenants):
        enforcer.enter(f"tenant{number}")
        ledger.entry(f"tenant{number}").compute_micro = int((limits.budget or 0) * used * MICRO)
    return enforcer, ledger


def requests(enforcer: TenantQuotaEnforcer, *, steer: bool = False) -> Work:
    """From admission to the end, with what is charged."""
    enter = enforcer.enter

    def run(names: list[str]) -> None:
        for name in names:
            account = enter(name)
            strain = account.admit()
            if steer:
                adjust(ASKED, account.limits, strain)
            account.charge(1.25, "miss")
            account.leave()

    return run


def part(
    enforcer: TenantQuotaEnforcer, names: list[str], call: Callable[[Account], object]
) -> Work:
    accounts = dict(zip(names, map(enforcer.enter, names), strict=True))

    def run(names: list[str]) -> None:
        for name in names:
            call(accounts[name])

    return run


def refusals(enforcer: TenantQuotaEnforcer) -> Work:
    def run(names: list[str]) -> None:
        for name in names:
            try:
                enforcer.enter(name).admit()
            except (QuotaError, BudgetError):
                continue
            raise AssertionError("it was let in")

    return run


def repeated(call: Callable[[], object]) -> Work:
    def run(names: list[str]) -> None:
        for _ in names:
            call()

    return run


def times(tenants: int, count: int) -> None:
    names = [f"tenant{number % tenants}" for number in range(count)]
    clock = SystemClock()
    rate, bucket = RateLimit(1e9), TokenBucket(clock, 1e9, 1e9)
    free, quotas = server(UNLIMITED, tenants)[0], server(QUOTAS, tenants)[0]
    bounded, strained = server(ALL, tenants)[0], server(ALL, tenants, used=0.9999999)[0]
    full = server(TenantLimits(concurrency=0), tenants)[0]
    late = server(TenantLimits(qps=0.001), tenants)[0]
    for number in range(tenants):
        late.enter(f"tenant{number}").admit()
    rows = {
        "request, no limits": requests(free),
        "request, rate and concurrency": requests(quotas),
        "request, rate, concurrency and budget": requests(bounded),
        "the same, ahead of the month, with its effort lowered": requests(strained, steer=True),
        "enter": part(bounded, names, lambda account: bounded.enter(account.tenant)),
        "admit, all limits": part(bounded, names, Account.admit),
        "charge": part(bounded, names, lambda account: account.charge(1.25, "miss")),
        "adjust, no strain": repeated(lambda: adjust(ASKED, ALL, 0.0)),
        "adjust, half a strain": repeated(lambda: adjust(ASKED, ALL, 0.5)),
        "refused, concurrency": refusals(full),
        "refused, rate": refusals(late),
        "RateLimit.take": repeated(lambda: rate.take(clock.monotonic())),
        "TokenBucket.try_take, for comparison": repeated(bucket.try_take),
        "Usage.encode": repeated(Usage().encode),
    }
    print("| operation | ns |\n| --- | ---: |")
    for name, work in rows.items():
        print(f"| {name} | {median_ns(work, names):,.0f} |")


def memory(tenants: int) -> None:
    """Bytes a tenant, beside its name."""
    names = [f"tenant{number}" for number in range(tenants)]
    gc.collect()
    tracemalloc.start()
    enforcer, ledger = server(ALL, 0)
    nothing, _ = tracemalloc.get_traced_memory()
    run = requests(enforcer)
    run(names)
    busy, _ = tracemalloc.get_traced_memory()
    for flush in ledger.flushes():
        with flush:
            pass
    while len(enforcer):
        enforcer.sweep()
    for _ in range(tenants // 1000 + 1):
        ledger.rest(busy=())
    gc.collect()
    resting, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    print(f"\nof {tenants:,} tenants, bytes each, beside the name:")
    print("never seen: 0")
    print(f"busy: {(busy - nothing) / tenants:.0f}")
    print(f"at rest, having used something this month: {(resting - nothing) / tenants:.0f}")


def starting(tenants: int) -> None:
    usage = Usage()
    usage.requests, usage.compute_micro = 123_456, 9_876_543_210
    period = Period.at(SystemClock().wall())
    records = [(f"tenant{number}", usage.encode()) for number in range(tenants)]
    ledger = Ledger(SystemClock())
    ledger.open([period])
    start = time.perf_counter()
    checked = check_records(period, records)
    between = time.perf_counter()
    if ledger.wanted() == period:
        ledger.load(period, checked)
    end = time.perf_counter()
    if ledger.entry("tenant0").requests != usage.requests:
        raise AssertionError("nothing was loaded")
    print(
        f"\n{tenants:,} records of usage: {1000 * (between - start):.0f} ms to look at them, "
        f"{1000 * (end - between):.1f} ms to take them over"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tenants", type=int, default=1000, help="that are busy")
    parser.add_argument("--requests", type=int, default=100_000, help="in a run")
    parser.add_argument("--many", type=int, default=100_000, help="tenants, for memory")
    arguments = parser.parse_args()
    times(arguments.tenants, arguments.requests)
    memory(arguments.many)
    starting(arguments.many)


if __name__ == "__main__":
    main()
