"""``pyrope bench``: what it does."""

from __future__ import annotations

import json
import secrets
import socket
import sys
from contextlib import ExitStack, suppress
from typing import Any, TypeAlias

import click

from pyrope.bench.load import LoadError, LoadResult, run_load
from pyrope.bench.workloads import Plan, prepare
from pyrope.clock import SystemClock
from pyrope.console.connection import Connection
from pyrope.console.replies import BrokenReplyError, ReplyError

_EXIT_FAILED = 1
_TIMEOUT_S = 600.0
"""For one reply while the index is made ready: building a large one takes minutes."""
_BUSY_SHARE = 0.9
_PERCENTILES = (50.0, 90.0, 99.0, 99.9)

Place: TypeAlias = tuple[str] | tuple[str, int]
"""Path of a Unix socket, or host and port."""


def run(
    place: Place,
    auth: str | None,
    *,
    connections: int,
    warmup: float,
    seconds: float,
    as_json: bool,
    type_: str,
    **plan: Any,
) -> None:
    """Do as the options say, and print what came out. Exits with 1 where the server fails.

    Args:
        auth: name and key, with a colon between them.
        plan: the other fields of a `Plan`.
    """
    made = Plan(index=f"pyrope-bench-{secrets.token_hex(4)}", type=type_, **plan)
    try:
        result = _measure(made, place, auth, connections, warmup, seconds)
    except (OSError, ReplyError, BrokenReplyError, LoadError) as error:
        click.echo(f"pyrope: {':'.join(map(str, place))}: {error}", err=True)
        sys.exit(_EXIT_FAILED)
    told = _figures(made, connections, result)
    if as_json:
        click.echo(json.dumps(told, indent=2))
    else:
        _print_table(told)
    if result.cpu_share > _BUSY_SHARE:
        click.echo(
            "The generator had hardly any time left: the server can do more than this.", err=True
        )


def _measure(
    plan: Plan,
    place: Place,
    auth: str | None,
    connections: int,
    warmup: float,
    seconds: float,
) -> LoadResult:
    with ExitStack() as stack:
        control = stack.enter_context(_opened(place, auth))
        if plan.needs_index:
            stack.callback(_drop, control, plan.index)
        with _bar("Preparing", plan.vectors if plan.workload in ("search", "hit") else 1) as bar:
            batches = prepare(plan, control, lambda done: bar.update(done - bar.pos))
        lanes = [stack.enter_context(_opened(place, auth)) for _ in range(connections)]
        # In milliseconds: a bar counts in whole numbers.
        with _bar("Measuring", round(1000 * (warmup + seconds))) as bar:
            return run_load(
                lanes,
                batches,
                plan.pipeline,
                warmup=warmup,
                seconds=seconds,
                clock=SystemClock(),
                tick=lambda passed: bar.update(round(1000 * passed) - bar.pos),
            )


def _opened(place: Place, auth: str | None) -> Connection:
    if len(place) == 1:
        made = socket.socket(socket.AF_UNIX)
        made.connect(place[0])
    else:
        made = socket.create_connection(place, _TIMEOUT_S)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    made.settimeout(_TIMEOUT_S)
    connection = Connection(made)
    try:
        if auth is not None:
            name, _, key = auth.rpartition(":")
            connection.command("AUTH", *([name] if name else []), key)
    except BaseException:
        connection.close()
        raise
    return connection


def _drop(connection: Connection, index: str) -> None:
    with suppress(OSError, ReplyError, BrokenReplyError):  # the server may be gone
        connection.command("VECTOR.DROP", index)


def _bar(label: str, length: int) -> Any:
    return click.progressbar(length=length, label=label, file=sys.stderr, show_eta=False)


def _figures(plan: Plan, connections: int, result: LoadResult) -> dict[str, Any]:
    latencies = result.latencies
    about = {} if plan.workload == "ping" else {"type": plan.type, "dim": plan.dim}
    if plan.workload in ("search", "hit"):
        about |= {"vectors": plan.vectors, "count": plan.count}
    return {
        "workload": plan.workload,
        **about,
        "connections": connections,
        "pipeline": plan.pipeline,
        "seconds": round(result.seconds, 3),
        "requests": result.requests,
        "requests_per_second": round(result.rate, 1),
        **{f"p{percent:g}_us": latencies.percentile(percent) for percent in _PERCENTILES},
        "max_us": latencies.largest,
        "errors": dict(result.errors),
        "generator_cpu_share": round(result.cpu_share, 3),
    }


def _print_table(told: dict[str, Any]) -> None:
    for name, value in told.items():
        label, shown = name.replace("_", " "), f"{value}"
        if name == "errors":
            shown = ", ".join(f"{count} {prefix}" for prefix, count in value.items()) or "none"
        elif name.endswith("_us"):
            label, shown = label.removesuffix(" us"), f"{value / 1000:,.3f} ms"
        elif name == "generator_cpu_share":
            label, shown = "generator's own CPU", f"{value:.0%} of a core"
        elif isinstance(value, int | float):
            shown = f"{value:,}"
        click.echo(f"{label:24}{shown:>16}")
