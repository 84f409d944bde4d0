"""What one tenant's flood does to another: ``python -m benchmarks.noisy_neighbour --help``.

Two tenants have an index each. One asks as one client does, a search at a time. The other floods
the server over a hundred connections. The latency of the first is measured alone, beside the flood,
and beside the flood on a server without fairness (`benchmarks.harness.one_line`).

The flood's clients take their share of the same cores. What that alone does is measured too: beside
processes that do nothing but take time, the searches of an idle server wait for the system's
scheduler. No fairness within the server can do better than that.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

import hiredis
import numpy as np

from benchmarks.harness import data
from benchmarks.harness.arguments import absolute, exit_on_signal, positive, positive_seconds
from benchmarks.harness.environment import environment
from benchmarks.harness.flood import Flood, FloodJob
from benchmarks.harness.generator import REPOSITORY, LoadGenerator
from benchmarks.harness.load import Job, Result
from benchmarks.harness.report import table
from benchmarks.harness.servers import CALL_SECONDS, INDEX, Pyrope
from benchmarks.harness.wire import Client, Field, Recipe, Template, pack

QUIET, NOISY = b"quiet", b"noisy"
SEARCH: Template = (b"VECTOR.SEARCH", INDEX, b"FP32", Field.VECTORS, b"COUNT", b"10", b"EF", b"64")
UNCACHED: Template = (*SEARCH, b"CACHE", b"OFF")
FLOODS: dict[str, tuple[Template, int]] = {
    "searches": (UNCACHED, 1),
    "exact searches": ((*UNCACHED[:6], b"TRUTH", b"CACHE", b"OFF"), 1),
    "searches that caches answer": (SEARCH, 16),
    "VECTOR.GET": ((b"VECTOR.GET", INDEX, Field.ID), 16),
}
"""Command of each flood, and how many of them a connection has under way."""

BATCH_ROWS = 500
WARMUP_SECONDS = 0.5
FAIR, IN_ONE_LINE = "fair", "in one line"


class Server(Pyrope):
    """Pyrope with an administrator and two tenants."""

    def __init__(self, label: str, folder: Path, *, fair: bool) -> None:
        """Write its configuration.

        Args:
            fair: as it is; without, tenants are in each other's way.
        """
        folder.mkdir()
        config = folder / "pyrope.toml"
        self._password = secrets.token_hex(16)
        config.write_text(f'admin_password = "{self._password}"\n')
        config.chmod(0o600)
        super().__init__(label, folder, config)
        self._keys = {QUIET: secrets.token_hex(16), NOISY: secrets.token_hex(16)}
        self._fair = fair

    def command_line(self) -> list[str]:
        command = super().command_line()
        if not self._fair:
            command[command.index("pyrope")] = "benchmarks.harness.one_line"
        return command

    def client(self) -> Client:
        """The administrator's."""
        return self._signed_in(b"admin", self._password, CALL_SECONDS)

    def client_of(self, tenant: bytes) -> Client:
        return self._signed_in(tenant, self._keys[tenant], CALL_SECONDS)

    def opening(self, tenant: bytes) -> bytes:
        """What a connection of a tenant begins with."""
        return pack((b"AUTH", tenant, self._keys[tenant].encode()))

    def make_tenants(self) -> None:
        with self.client() as client:
            for tenant, key in self._keys.items():
                client.call(b"VECTOR.TENANT", b"CREATE", tenant, b"KEY", key.encode())

    def fill(self, tenant: bytes, rows: data.Float32Matrix) -> None:
        with self.client_of(tenant) as client:
            client.call(b"VECTOR.CREATE", INDEX, b"DIM", b"%d" % rows.shape[1])
            for first in range(0, len(rows), BATCH_ROWS):
                some = rows[first : first + BATCH_ROWS]
                ids = [b"%d" % (first + i) for i in range(len(some))]
                blob = some.astype("<f4").tobytes()
                client.call(b"VECTOR.MADD", INDEX, b"FP32", blob, b"IDS", b"%d" % len(ids), *ids)
            client.call(b"VECTOR.BUILD", INDEX)

    def _signed_in(self, user: bytes, key: str, timeout: float) -> Client:
        client = Client(self.port, timeout)
        try:
            client.call(b"AUTH", user, key.encode())
        except BaseException:
            client.close()
            raise
        return client

    def _answers(self) -> bool:
        try:
            with self._signed_in(b"admin", self._password, 10) as client:
                return bool(client.call(b"PING") == b"PONG")
        except hiredis.ReplyError as error:
            if str(error).startswith("LOADING"):
                return False
            raise
        except OSError:
            return False


class Figures:
    """Of one way of measuring: a value for each round."""

    def __init__(self) -> None:
        self.p50_ms: list[float] = []
        self.p99_ms: list[float] = []
        self.rate: list[float] = []
        self.flood_rate: list[float] = []

    def add(self, result: Result, flood_rate: float) -> None:
        self.p50_ms.append(result.p50_us / 1e3)
        self.p99_ms.append(result.p99_us / 1e3)
        self.rate.append(result.rate)
        self.flood_rate.append(flood_rate)

    def cells(self, alone: Figures) -> list[str]:
        p99 = median(self.p99_ms)
        return [
            f"{median(self.rate):,.0f}",
            f"{median(self.p50_ms):.2f}",
            f"{p99:.2f} ({min(self.p99_ms):.2f}–{max(self.p99_ms):.2f})",
            f"{p99 / median(alone.p99_ms):.1f}",
            f"{flood:,.0f}" if (flood := median(self.flood_rate)) else "–",
        ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, and print the table."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    signal.signal(signal.SIGTERM, exit_on_signal)
    with contextlib.ExitStack() as cleanup:
        folder = Path(tempfile.mkdtemp(prefix="noisy-"))
        cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
        page = measure(options, folder, cleanup)
    print(page)
    if options.write is not None:
        options.write.write_text(page + "\n")
    return 0


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.noisy_neighbour", description=(__doc__ or "").partition("\n")[0]
    )
    add = parser.add_argument
    add("--count", type=positive, default=20_000, help="vectors of each tenant (default 20000)")
    add("--seconds", type=positive_seconds, default=3.0, help="of one measurement (default 3)")
    add("--rounds", type=positive, default=3, help="of all of them (default 3)")
    add("--clients", type=positive, default=1, help="of the quiet tenant (default 1)")
    add("--connections", type=positive, default=100, help="of the flood (default 100)")
    add("--floods", nargs="+", choices=list(FLOODS), default=list(FLOODS), metavar="FLOOD")
    add("--seed", type=int, default=7, help="of everything generated or drawn")
    add(
        "--shared",
        type=absolute,
        default=REPOSITORY.parent / "shared",
        metavar="FOLDER",
        help=f"where {data.QQP_FILE} is looked for (default: ../shared)",
    )
    add("--write", type=absolute, metavar="FILE", help="also write the page there")
    return parser.parse_args(arguments)


def measure(options: argparse.Namespace, folder: Path, cleanup: contextlib.ExitStack) -> str:
    """The page."""
    dataset = data.load(options.shared, options.count, 1000, options.seed)
    queries, base = folder / "queries.npy", folder / "base.npy"
    np.save(queries, dataset.queries)
    np.save(base, dataset.base[:1000])
    servers = {
        FAIR: Server(FAIR, folder / "fair", fair=True),
        IN_ONE_LINE: Server(IN_ONE_LINE, folder / "one-line", fair=False),
    }
    for server in servers.values():
        cleanup.callback(server.kill)
        server.start()
        server.make_tenants()
        for tenant in (QUIET, NOISY):
            note(f"filling the index of the {tenant.decode()} tenant, {server.label}")
            server.fill(tenant, dataset.base)
    generator = cleanup.enter_context(LoadGenerator())
    rows: dict[tuple[str, str], Figures] = {}

    def one(server: Server, what: str, flood: Flood | None = None) -> None:
        note(f"{what}, {server.label}")
        recipe = Recipe(UNCACHED, queries)
        job = Job(
            server.port,
            recipe,
            options.clients,
            options.seconds,
            WARMUP_SECONDS,
            opening=server.opening(QUIET),
        )
        with flood or contextlib.nullcontext():
            result = generator.run(job)
        figures = rows.setdefault((what, server.label), Figures())
        figures.add(result, 0.0 if flood is None else flood.rate)

    for _ in range(options.rounds):
        one(servers[FAIR], "alone")
        with busy_processes():
            one(servers[FAIR], "alone, other processes busy")
        for name in options.floods:
            template, depth = FLOODS[name]
            for server in servers.values():
                recipe = Recipe(template, base if template[-1] is Field.ID else queries)
                opening = server.opening(NOISY)
                job = FloodJob(server.port, opening, recipe, options.connections, depth)
                one(server, f"flood of {name}, {options.connections} × {depth}", Flood(job))
    return page(options, dataset, folder, rows)


def page(
    options: argparse.Namespace,
    dataset: data.Dataset,
    folder: Path,
    rows: dict[tuple[str, str], Figures],
) -> str:
    facts = environment(folder)
    alone = next(iter(rows.values()))
    heads = ["", "server", "searches/s", "p50 ms", "p99 ms (of rounds)", "p99, times alone"]
    heads += ["flood/s"]
    lines = [[what, label, *one.cells(alone)] for (what, label), one in rows.items()]
    how = (
        f"{facts['date']}, {facts['processor']}; two tenants with {options.count:,} vectors "
        f"each ({dataset.description}), HNSW, EF 64; {options.clients} connection(s) of the "
        f"quiet one, a search at a time; {options.rounds} rounds of {options.seconds:g} s, "
        "medians."
    )
    return f"{how}\n\n{table(heads, lines)}"


@contextlib.contextmanager
def busy_processes() -> Iterator[None]:
    """As many as there are cores."""
    command = [sys.executable, "-c", "while True: pass"]
    running = [subprocess.Popen(command) for _ in os.sched_getaffinity(0)]
    try:
        yield
    finally:
        for one in running:
            one.kill()
            one.wait()


def note(text: str) -> None:
    print(text, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
