"""How long a server with many tenants takes to start, and what each takes while it is idle.

    python -m benchmarks.micro_tenant_start

Data directories are filled with tenants (each with a key, half of them with limits of their own,
one in ten with a user), and a server is started on each: without tenants, with idle ones, with such
that have all used something this month, and with those after a crash that left all of them to be
billed. Start-up is from the start of the process to the answer of the first command; memory is what
the process takes then (anonymous resident memory, /proc), less that of the one without tenants.
What Python's allocator keeps of what reading them took is in that; what they are held in is counted
apart, by tracemalloc.
"""

from __future__ import annotations

import argparse
import gc
import os
import socket
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import redis

from pyrope.clock import SystemClock
from pyrope.service.billing import UNBILLED
from pyrope.service.tenancy import PERIODS, TENANTS, space_of
from pyrope.storage.lmdb_store import LmdbStore
from pyrope.storage.store import Change, PutMeta
from pyrope.tenants.changes import TenantChanges
from pyrope.tenants.keys import KeyHasher
from pyrope.tenants.period import Period
from pyrope.tenants.registry import TenantRegistry
from pyrope.tenants.tenant import Role
from pyrope.tenants.usage import Usage

PASSWORD = "of the benchmark"  # noqa: S105 - of a server that is gone in a minute
_AT_ONCE = 1000


class Start(NamedTuple):
    """Attributes: seconds to the first answer; anonymous resident bytes then."""

    seconds: float
    nbytes: int


def records(tenants: int, *, used: bool, unbilled: bool) -> Iterator[list[Change]]:
    """What a store has of so many tenants, by tenant."""
    changes = TenantChanges({}, KeyHasher(), SystemClock().wall, has_administrator=True)
    period = Period.at(SystemClock().wall())
    usage = Usage()
    usage.requests, usage.answers["miss"], usage.compute_micro = 123_456, 100_000, 9_876_543_210
    totals = usage.encode()
    for number in range(tenants):
        name = f"tenant-{number:06}"
        limits = {"qps": 100.0, "budget": 1e6 + number} if number % 2 else {}
        made = changes.create(name, limits)
        if number % 10 == 0:
            owners = TenantChanges(
                {name: made.tenant}, KeyHasher(), SystemClock().wall, has_administrator=True
            )
            made = owners.add_user(name, "reader", Role.READER)
        found: list[Change] = [PutMeta(TENANTS, name.encode(), made.blob)]
        if used:
            found.append(PutMeta(space_of(period), name.encode(), totals))
        if unbilled:
            found.append(PutMeta(UNBILLED, f"{period} {name}".encode(), b""))
        yield found
    if used:
        yield [PutMeta(PERIODS, str(period).encode(), b"")]


def fill(data_dir: Path, tenants: int, *, used: bool, unbilled: bool) -> None:
    store = LmdbStore.open(data_dir)
    waiting: list[Change] = []
    for some in records(tenants, used=used, unbilled=unbilled):
        waiting += some
        if len(waiting) >= _AT_ONCE:
            store.commit(waiting)
            waiting = []
    store.commit(waiting)
    store.close()


def anonymous_bytes(process: int) -> int:
    for line in Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc does not tell the memory of a process")


def start(data_dir: Path, tenants: int) -> Start:
    """Start a server, and stop it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    began = time.perf_counter()
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "pyrope", "serve", "--port", str(port), "--http-port", "0"),
            *("--data-dir", str(data_dir)),
        ],
        env=os.environ | {"PYROPE_ADMIN_PASSWORD": PASSWORD},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while True:
            if process.poll() is not None:
                raise RuntimeError("the server did not start")
            try:
                client = redis.Redis(port=port, username="admin", password=PASSWORD)
                configured = client.info("tenants")["configured"]
                break
            except redis.RedisError:
                time.sleep(0.005)
        seconds = time.perf_counter() - began
        if configured != tenants:
            raise AssertionError(f"{configured} tenants are there, not {tenants}")
        nbytes = anonymous_bytes(process.pid)
        client.close()
    finally:
        process.terminate()
        process.wait(60)
    return Start(seconds, nbytes)


def held(tenants: int) -> float:
    """Bytes that an idle tenant is held in."""
    blobs = [
        (change.key.decode(), change.value)
        for some in records(tenants, used=False, unbilled=False)
        for change in some
        if isinstance(change, PutMeta)
    ]
    registry = TenantRegistry(SystemClock(), PASSWORD.encode())
    gc.collect()
    tracemalloc.start()
    # The names are held, too: copies of those that are there already.
    registry.load((name.encode().decode(), blob) for name, blob in blobs)
    gc.collect()
    nbytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return nbytes / tenants


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tenants", type=int, default=100_000)
    tenants = parser.parse_args().tenants
    with tempfile.TemporaryDirectory() as folder:
        found = {}
        for name, count, used, unbilled in (
            ("without tenants", 0, False, False),
            (f"{tenants:,} idle tenants", tenants, False, False),
            (f"{tenants:,} tenants, in use this month", tenants, True, False),
            (f"{tenants:,} tenants, all to be billed", tenants, True, True),
        ):
            data_dir = Path(folder, name.replace(" ", "-"))
            fill(data_dir, count, used=used, unbilled=unbilled)
            found[name] = start(data_dir, count)
    plain, *others = found.values()
    for name, one in found.items():
        each = (one.nbytes - plain.nbytes) / tenants
        print(f"{name}: {one.seconds:.2f} s, {each:.0f} bytes a tenant")
    each = held(tenants)
    print(f"an idle tenant is held in {each:.0f} bytes")
    if max(one.seconds for one in others) > 5 or each > 500:
        sys.exit("that is slower, or larger, than it should be")


if __name__ == "__main__":
    main()
