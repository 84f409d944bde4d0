"""Commands about the server: settings, persistence, statistics."""

from __future__ import annotations

from typing import Any

from pyrope.commands.context import Context
from pyrope.commands.globs import matches
from pyrope.commands.info import render_info
from pyrope.commands.options import parse_integer, quoted
from pyrope.commands.ranks import ADMINISTRATOR
from pyrope.commands.spec import Access, Argument, Command
from pyrope.config import config_names, config_set
from pyrope.errors import CommandError
from pyrope.metrics import CommandStats
from pyrope.resp.values import OK, Raw, SimpleString, Verbatim

GROUP = "server"
_PATTERNS_MAX = 128


def info(context: Context, args: list[bytes]) -> Verbatim:
    wanted = [quoted(arg).lower() for arg in args[1:]]
    client = context.client
    return Verbatim(
        render_info(context.server, wanted, None if client.rank >= ADMINISTRATOR else client.tenant)
    )


def time(context: Context, args: list[bytes]) -> list[str]:
    microseconds = int(context.server.clock.wall() * 1_000_000)
    return [str(microseconds // 1_000_000), str(microseconds % 1_000_000)]


def dbsize(context: Context, args: list[bytes]) -> int:
    return len(context.server.service.index_names(context.client.tenant))


# -- persistence ---------------------------------------------------------------------------------


def save(context: Context, args: list[bytes]) -> Any:
    async def saved() -> Any:
        await context.server.service.save_graphs()
        return OK

    return saved()


def bgsave(context: Context, args: list[bytes]) -> Any:
    if len(args) > 2 or (len(args) == 2 and args[1].upper() != b"SCHEDULE"):
        raise CommandError("syntax error")
    context.server.service.begin_save_graphs()
    return SimpleString("Background saving started")


def lastsave(context: Context, args: list[bytes]) -> int:
    return int(context.server.service.saver.last_save_at)


def flush(context: Context, args: list[bytes]) -> Any:
    if len(args) > 2 or (len(args) == 2 and args[1].upper() not in (b"ASYNC", b"SYNC")):
        raise CommandError("syntax error")

    # Not whose the connection is when it runs: a key may be taken away meanwhile.
    tenant, actor = context.client.tenant, context.actor

    async def flushed() -> Any:
        await context.server.service.drop_all(tenant, actor)
        return OK

    return flushed()


def shutdown(context: Context, args: list[bytes]) -> Any:
    words = {arg.upper() for arg in args[1:]}
    if words - {b"NOSAVE", b"SAVE", b"NOW", b"FORCE"} or {b"SAVE", b"NOSAVE"} <= words:
        raise CommandError("syntax error")
    save = b"NOSAVE" not in words

    async def shut() -> Raw:
        service = context.server.service
        async with service.tenancy.audit.act(
            context.actor, "server.shutdown", "", "server", None, {"save": save}
        ):
            context.client.link.close_after_reply()
            context.server.request_shutdown(save=save)
        # As in Redis, a shutdown that succeeds is answered by the closing of the connection.
        return Raw(b"")

    return shut()


# -- CONFIG --------------------------------------------------------------------------------------


def config_get(context: Context, args: list[bytes]) -> dict[str, str]:
    patterns = dict.fromkeys(arg.lower() for arg in args[2:])
    if len(patterns) > _PATTERNS_MAX:
        raise CommandError(f"CONFIG GET takes at most {_PATTERNS_MAX} patterns")
    return {
        name: value
        for name, value in config_names(context.server.settings).items()
        if any(matches(pattern, name) for pattern in patterns)
    }


def config_set_(context: Context, args: list[bytes]) -> Any:
    if len(args) % 2:
        raise CommandError("wrong number of arguments for 'config|set' command")
    values: dict[str, str] = {}
    for raw_name, raw_value in zip(args[2::2], args[3::2], strict=True):
        name = quoted(raw_name).lower()
        if name in values:
            raise CommandError(
                f"CONFIG SET failed (possibly related to argument '{name}') - duplicate parameter"
            )
        values[name] = quoted(raw_value)
    settings = context.server.settings
    former = config_names(settings)

    async def changed() -> Any:
        async with context.server.service.tenancy.audit.act(
            context.actor,
            "config.set",
            "",
            "settings",
            {name: former.get(name) for name in values},
            values,
        ):
            config_set(settings, values)
        return OK

    return changed()


def config_resetstat(context: Context, args: list[bytes]) -> Any:
    server = context.server
    server.counters = type(server.counters)()
    server.service.counters = server.counters
    for command in server.commands.values():
        for each in (command, *command.subcommands.values()):
            each.stats.reset()
    return OK


# -- SLOWLOG -------------------------------------------------------------------------------------


def slowlog_get(context: Context, args: list[bytes]) -> list[list[Any]]:
    count = 10 if len(args) == 2 else parse_integer(args[2])
    if len(args) > 3 or count is None or count < -1:
        raise CommandError("count should be greater than or equal to -1")
    return [
        [
            entry.id,
            entry.at,
            entry.microseconds,
            list(entry.arguments),
            entry.address,
            entry.client_name,
            entry.details(),
        ]
        for entry in context.server.slow_log.latest(count)
    ]


def slowlog_len(context: Context, args: list[bytes]) -> int:
    return len(context.server.slow_log)


def slowlog_reset(context: Context, args: list[bytes]) -> Any:
    context.server.slow_log.clear()
    return OK


# -- LATENCY -------------------------------------------------------------------------------------


def _all_stats(context: Context) -> dict[str, CommandStats]:
    return {
        each.display_name: each.stats
        for command in context.server.commands.values()
        for each in (command, *command.subcommands.values())
        if each.stats.calls
    }


def latency_histogram(context: Context, args: list[bytes]) -> dict[str, Any]:
    stats = _all_stats(context)
    if len(args) > 2:
        wanted = [quoted(arg).lower().replace(" ", "|") for arg in args[2:]]
        stats = {name: stats[name] for name in wanted if name in stats}
    return {
        name: {
            "calls": each.latency.count,
            "histogram_usec": dict(each.latency.powers_of_two()),
        }
        for name, each in stats.items()
    }


def latency_latest(context: Context, args: list[bytes]) -> list[list[Any]]:
    return [
        [event, spike.at, spike.milliseconds, longest]
        for event, spike, longest in context.server.latency.latest()
    ]


def latency_history(context: Context, args: list[bytes]) -> list[list[int]]:
    return [
        [spike.at, spike.milliseconds]
        for spike in context.server.latency.history(quoted(args[2]).lower())
    ]


def latency_reset(context: Context, args: list[bytes]) -> int:
    stats = _all_stats(context)
    names = [quoted(arg).lower() for arg in args[2:]] or list(stats)
    cleared = context.server.latency.reset(names if len(args) > 2 else [])
    for name in names:
        if name in stats:
            stats[name].reset_latency()
            cleared += 1
    return cleared


# -- MEMORY --------------------------------------------------------------------------------------


def memory_usage(context: Context, args: list[bytes]) -> int | None:
    if len(args) not in (3, 5) or (len(args) == 5 and args[3].upper() != b"SAMPLES"):
        raise CommandError("syntax error")
    if len(args) == 5:
        samples = parse_integer(args[4])
        if samples is None or samples < 0:
            raise CommandError("value is not an integer or out of range")
    index = context.server.service.find_index(context.client.tenant, args[2])
    return None if index is None else index.memory_bytes


_ADMIN_FLAGS = frozenset({"admin", "noscript", "loading", "stale"})
_ADMIN = frozenset({"admin", "slow", "dangerous"})
_PLAIN = frozenset({"loading", "stale"})


def _subcommands(*commands: Command) -> dict[str, Command]:
    return {command.name.split("|")[1]: command for command in commands}


COMMANDS = (
    Command(
        "INFO",
        -1,
        info,
        "Tells about the server, in sections.",
        GROUP,
        flags=_PLAIN,
        categories=frozenset({"slow", "dangerous"}),
        arguments=(Argument("section", optional=True, multiple=True),),
        returns="text, one `field:value` a line",
    ),
    Command(
        "TIME",
        1,
        time,
        "Tells the server's time.",
        GROUP,
        flags=_PLAIN | {"fast"},
        categories=frozenset({"fast"}),
        returns="array: Unix seconds, microseconds",
    ),
    Command(
        "DBSIZE",
        1,
        dbsize,
        "Counts the tenant's indexes.",
        GROUP,
        access=Access.READ,
        flags=frozenset({"readonly", "fast"}),
        categories=frozenset({"keyspace", "read", "fast"}),
        returns="number of indexes",
    ),
    Command(
        "SAVE",
        1,
        save,
        "Saves the graphs, and answers when that is done.",
        GROUP,
        access=Access.EXCLUSIVE,
        flags=frozenset({"admin", "noscript"}),
        categories=_ADMIN,
        complexity="O(N) in the vectors of changed graphs",
        returns="OK",
    ),
    Command(
        "BGSAVE",
        -1,
        bgsave,
        "Begins to save the graphs in the background.",
        GROUP,
        flags=frozenset({"admin", "noscript"}),
        categories=_ADMIN,
        arguments=(Argument("schedule", "pure-token", "SCHEDULE", optional=True),),
        returns="Background saving started",
    ),
    Command(
        "LASTSAVE",
        1,
        lastsave,
        "Tells when graphs were last saved.",
        GROUP,
        flags=_PLAIN | {"fast"},
        categories=frozenset({"admin", "fast", "dangerous"}),
        returns="Unix time in seconds",
    ),
    *(
        Command(
            name,
            -1,
            flush,
            "Drops every index of the tenant.",
            GROUP,
            access=Access.EXCLUSIVE,
            flags=frozenset({"write"}),
            categories=frozenset({"keyspace", "write", "slow", "dangerous"}),
            complexity="O(N) in the vectors dropped",
            arguments=(
                Argument(
                    "flush-type",
                    "oneof",
                    optional=True,
                    arguments=(
                        Argument("async", "pure-token", "ASYNC"),
                        Argument("sync", "pure-token", "SYNC"),
                    ),
                ),
            ),
            returns="OK",
        )
        for name in ("FLUSHDB", "FLUSHALL")
    ),
    Command(
        "SHUTDOWN",
        -1,
        shutdown,
        "Drains and stops the server. Writes that were acknowledged are on disk in any case; "
        "NOSAVE leaves out the saving of graphs.",
        GROUP,
        access=Access.EXCLUSIVE,
        flags=_ADMIN_FLAGS,
        categories=_ADMIN,
        arguments=(
            Argument(
                "save-selector",
                "oneof",
                optional=True,
                arguments=(
                    Argument("nosave", "pure-token", "NOSAVE"),
                    Argument("save", "pure-token", "SAVE"),
                ),
            ),
            Argument("now", "pure-token", "NOW", optional=True),
            Argument("force", "pure-token", "FORCE", optional=True),
        ),
        returns="nothing: the connection closes",
    ),
    Command(
        "CONFIG",
        -2,
        None,
        "Commands about the settings.",
        GROUP,
        categories=frozenset({"slow"}),
        subcommands=_subcommands(
            Command(
                "CONFIG|GET",
                -3,
                config_get,
                "Tells the settings in force.",
                GROUP,
                flags=_ADMIN_FLAGS,
                categories=_ADMIN,
                arguments=(Argument("parameter", multiple=True),),
                returns="map name -> value",
            ),
            Command(
                "CONFIG|SET",
                -4,
                config_set_,
                "Changes settings: all of them or none.",
                GROUP,
                access=Access.EXCLUSIVE,
                flags=_ADMIN_FLAGS | {"skip_slowlog"},
                categories=_ADMIN,
                arguments=(
                    Argument(
                        "data",
                        "block",
                        multiple=True,
                        arguments=(Argument("parameter"), Argument("value")),
                    ),
                ),
                returns="OK",
            ),
            Command(
                "CONFIG|RESETSTAT",
                2,
                config_resetstat,
                "Sets the statistics back to zero.",
                GROUP,
                flags=_ADMIN_FLAGS,
                categories=_ADMIN,
                returns="OK",
            ),
        ),
    ),
    Command(
        "SLOWLOG",
        -2,
        None,
        "Commands about the slow log.",
        GROUP,
        categories=frozenset({"slow"}),
        subcommands=_subcommands(
            Command(
                "SLOWLOG|GET",
                -2,
                slowlog_get,
                "Lists the latest slow commands.",
                GROUP,
                flags=_ADMIN_FLAGS,
                categories=_ADMIN,
                arguments=(Argument("count", "integer", optional=True),),
                returns="array of [id, time, microseconds, arguments, address, client name, map], "
                "the latest first; the map has request_id, user and tenant, and of a search index, "
                "cache (where the answer came from), cache_us, queue_us and search_us",
            ),
            Command(
                "SLOWLOG|LEN",
                2,
                slowlog_len,
                "Counts the entries.",
                GROUP,
                flags=_ADMIN_FLAGS,
                categories=_ADMIN,
                returns="number of entries",
            ),
            Command(
                "SLOWLOG|RESET",
                2,
                slowlog_reset,
                "Empties the slow log.",
                GROUP,
                flags=_ADMIN_FLAGS,
                categories=_ADMIN,
                returns="OK",
            ),
        ),
    ),
    Command(
        "LATENCY",
        -2,
        None,
        "Commands about latencies.",
        GROUP,
        categories=frozenset({"slow"}),
        subcommands=_subcommands(
            Command(
                "LATENCY|HISTOGRAM",
                -2,
                latency_histogram,
                "Tells how long commands took.",
                GROUP,
                flags=_ADMIN_FLAGS,
                categories=_ADMIN,
                arguments=(Argument("command", optional=True, multiple=True),),
                returns="map command -> {calls, histogram_usec}",
            ),
            Command(
                "LATENCY|LATEST",
                2,
                latency_latest,
                "Tells the latest spike of each event (see slowlog.spike_threshold_ms).",
                GROUP,
                flags=_ADMIN_FLAGS,
                categories=_ADMIN,
                returns="array of [event, time, milliseconds, longest]",
            ),
            Command(
                "LATENCY|HISTORY",
                3,
                latency_history,
                "Tells the spikes of an event.",
                GROUP,
                flags=_ADMIN_FLAGS,
                categories=_ADMIN,
                arguments=(Argument("event"),),
                returns="array of [time, milliseconds]",
            ),
            Command(
                "LATENCY|RESET",
                -2,
                latency_reset,
                "Forgets spikes and histograms: all of them, or those of the events and commands "
                "named.",
                GROUP,
                flags=_ADMIN_FLAGS,
                categories=_ADMIN,
                arguments=(Argument("command", optional=True, multiple=True),),
                returns="number of spike events and histograms forgotten",
            ),
        ),
    ),
    Command(
        "MEMORY",
        -2,
        None,
        "Commands about memory.",
        GROUP,
        categories=frozenset({"slow"}),
        subcommands=_subcommands(
            Command(
                "MEMORY|USAGE",
                -3,
                memory_usage,
                "Estimates the memory of an index.",
                GROUP,
                access=Access.READ,
                has_index=True,
                flags=frozenset({"readonly"}),
                categories=frozenset({"read", "slow"}),
                arguments=(
                    Argument("key", "key"),
                    Argument("count", "integer", "SAMPLES", optional=True),
                ),
                returns="bytes | null",
            ),
        ),
    ),
)
