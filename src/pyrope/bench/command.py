"""``pyrope bench``: its options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

WORKLOADS = ("ping", "search", "hit", "add")


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Where the server is.")
@click.option("--port", type=click.IntRange(1, 65535), default=7379, show_default=True)
@click.option("--unixsocket", type=click.Path(path_type=Path), help="Instead of host and port.")
@click.option(
    "--auth",
    envvar="PYROPE_BENCH_AUTH",
    metavar="NAME:KEY",
    help="Sign in so. Other users can read flags: [environment: PYROPE_BENCH_AUTH]",
)
@click.option(
    "--workload",
    type=click.Choice(WORKLOADS),
    default="search",
    show_default=True,
    help="ping: no index. search: the cache is not asked. hit: 64 queries, answered from the "
    "cache. add: single new vectors.",
)
@click.option("--connections", type=click.IntRange(1, 10_000), default=32, show_default=True)
@click.option(
    "--pipeline",
    type=click.IntRange(1, 1000),
    default=1,
    show_default=True,
    help="Requests that a connection sends at once.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.1, 3600),
    default=10.0,
    show_default=True,
    help="To measure.",
)
@click.option(
    "--warmup",
    type=click.FloatRange(0, 600),
    default=1.0,
    show_default=True,
    help="Seconds of the same load before.",
)
@click.option("--dim", type=click.IntRange(1, 32_768), default=384, show_default=True)
@click.option(
    "--vectors",
    type=click.IntRange(1, 10_000_000),
    default=10_000,
    show_default=True,
    help="In the index when searches begin.",
)
@click.option(
    "--count",
    type=click.IntRange(1, 100_000),
    default=10,
    show_default=True,
    help="Results of a search.",
)
@click.option("--type", "type_", default="HNSW", show_default=True, help="Of the index.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of the random vectors.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def bench(
    *,
    host: str,
    port: int,
    unixsocket: Path | None,
    auth: str | None,
    as_json: bool,
    **load: Any,
) -> None:
    """Put load on a server, and print rate and latencies.

    It makes an index of random vectors under a name of its own, and drops it at the end. Random
    vectors are the hardest for a graph, and recall is not measured: the figures compare machines,
    settings and versions, not engines. Exits with 1 where the server fails or refuses.
    """
    from pyrope.bench.run import run  # noqa: PLC0415 - the server does without it

    run((str(unixsocket),) if unixsocket else (host, port), auth, as_json=as_json, **load)
