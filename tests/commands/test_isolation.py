"""Nobody sees, changes or learns anything of another tenant, by whatever command."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from itertools import count
from typing import Any, NamedTuple

import pytest
import redis

from pyrope.commands.ranks import ADMINISTRATOR, OPERATOR
from pyrope.commands.spec import Command
from pyrope.commands.table import build_table
from servers import RunningServer, encode, exchange
from tenancy import (
    PASSWORD,
    add,
    administrator,
    as_map,
    blob,
    search,
    searched,
    signed_in,
    tenant,
    tenant_server,
    usage,
)

# -- a sample of every command --------------------------------------------------------------------

Words = tuple[Any, ...]


class Sample(NamedTuple):
    """Arguments of a command, behind its name.

    Attributes:
        words: ``{index}`` stands for an index, ``{tenant}`` for a tenant, wherever they are.
        differs: whether its reply differs from time to time, whoever asks.
    """

    words: Words = ()
    differs: bool = False


_VECTOR: Words = ("FP32", blob(1.0, 0.0))

SAMPLES: dict[str, list[Sample]] = {
    "PING": [Sample()],
    "ECHO": [Sample(("{tenant}",))],
    "QUIT": [Sample()],
    "RESET": [Sample()],
    "SELECT": [Sample(("0",))],
    "AUTH": [Sample(("{tenant}", "no key of it")), Sample(("{tenant}.boss", "no key of it"))],
    "HELLO": [Sample(("2", "AUTH", "{tenant}", "no key of it"))],
    "CLIENT|ID": [Sample(differs=True)],
    "CLIENT|GETNAME": [Sample()],
    "CLIENT|SETNAME": [Sample(("{tenant}",))],
    "CLIENT|SETINFO": [Sample(("LIB-NAME", "{tenant}"))],
    "CLIENT|INFO": [Sample(differs=True)],
    "CLIENT|LIST": [Sample()],
    "CLIENT|KILL": [Sample(("USER", "{tenant}"))],
    "CLIENT|REPLY": [Sample(("ON",))],
    "CLIENT|NO-EVICT": [Sample(("ON",))],
    "CLIENT|NO-TOUCH": [Sample(("ON",))],
    "DEBUG|SLEEP": [Sample(("0",))],
    "COMMAND": [Sample()],
    "COMMAND|COUNT": [Sample()],
    "COMMAND|INFO": [Sample(("{index}",))],
    "COMMAND|DOCS": [Sample(("{index}",))],
    "COMMAND|LIST": [Sample(("FILTERBY", "PATTERN", "{index}*"))],
    "COMMAND|GETKEYS": [Sample(("VECTOR.CARD", "{index}"))],
    "ACL|WHOAMI": [Sample()],
    "ACL|CAT": [Sample(("read",))],
    "ACL|LIST": [Sample()],
    "INFO": [Sample(("keyspace", "indexes", "tenants"))],
    "TIME": [Sample(differs=True)],
    "DBSIZE": [Sample()],
    "SAVE": [Sample()],
    "BGSAVE": [Sample()],
    "LASTSAVE": [Sample()],
    "FLUSHDB": [Sample()],
    "FLUSHALL": [Sample(("ASYNC",))],
    "SHUTDOWN": [Sample(("NOSAVE",))],
    "CONFIG|GET": [Sample(("*",))],
    "CONFIG|SET": [Sample(("maxmemory", "1"))],
    "CONFIG|RESETSTAT": [Sample()],
    "SLOWLOG|GET": [Sample()],
    "SLOWLOG|LEN": [Sample()],
    "SLOWLOG|RESET": [Sample()],
    "LATENCY|HISTOGRAM": [Sample()],
    "LATENCY|LATEST": [Sample()],
    "LATENCY|HISTORY": [Sample(("command",))],
    "LATENCY|RESET": [Sample()],
    "MEMORY|USAGE": [Sample(("{index}",)), Sample(("{index}", "SAMPLES", "0"))],
    "VECTOR.BACKUP|TO": [Sample(("/nowhere/{tenant}",))],
    "VECTOR.BACKUP|STATUS": [Sample()],
    "VECTOR.BACKUP|CANCEL": [Sample()],
    "VECTOR.CREATE": [
        Sample(("{index}", "DIM", "2")),
        Sample(("{index}", "DIM", "3", "TYPE", "FLAT", "NX")),
    ],
    "VECTOR.ALTER": [Sample(("{index}", "EF", "10"))],
    "VECTOR.DROP": [Sample(("{index}",))],
    "VECTOR.LIST": [Sample()],
    "VECTOR.INFO": [Sample(("{index}",))],
    "VECTOR.BUILD": [Sample(("{index}",))],
    "VECTOR.ADD": [
        Sample(("{index}", "a", *_VECTOR)),
        Sample(("{index}", "a", *_VECTOR, "SETATTR", '{"x": 2}', "XX", "EX", "1")),
    ],
    "VECTOR.MADD": [Sample(("{index}", *_VECTOR, "IDS", "1", "a"))],
    "VECTOR.GET": [Sample(("{index}", "a", "WITHVECTOR", "FP32"))],
    "VECTOR.DEL": [Sample(("{index}", "a", "b"))],
    "VECTOR.EXISTS": [Sample(("{index}", "a"))],
    "VECTOR.CARD": [Sample(("{index}",))],
    "VECTOR.SCAN": [Sample(("{index}", "0", "COUNT", "100"))],
    "VECTOR.SETATTR": [Sample(("{index}", "a", "{}"))],
    "VECTOR.GETATTR": [Sample(("{index}", "a"))],
    "VECTOR.SEARCH": [
        Sample(("{index}", *_VECTOR)),
        Sample(("{index}", *_VECTOR, "WITHSCORES", "WITHATTRIBS", "WITHINFO")),
        Sample(("{index}", *_VECTOR, "CACHE", "ONLY")),
        Sample(("{index}", *_VECTOR, "QUERY", "an alias", "SESSION", "s", "MINRECALL", "0.1")),
        Sample(("{index}", "ELE", "a")),
    ],
    "VECTOR.MSEARCH": [Sample(("{index}", *_VECTOR)), Sample(("{index}", *_VECTOR, "TRUTH"))],
    "VECTOR.CACHE|STATS": [Sample(("{index}",))],
    "VECTOR.CACHE|FLUSH": [Sample(), Sample(("{index}",))],
    "VECTOR.CACHE|INVALIDATE": [Sample(("{index}", "ID", "a"))],
    "VECTOR.CACHE|POLICY": [Sample(("{index}", "GET")), Sample(("{index}", "SET", "ttl", "9"))],
    "VECTOR.ALIAS|SET": [Sample(("{index}", "an alias", "something else"))],
    "VECTOR.ALIAS|GET": [Sample(("{index}", "an alias"))],
    "VECTOR.ALIAS|DEL": [Sample(("{index}", "an alias"))],
    "VECTOR.ALIAS|LIST": [Sample(("{index}",))],
    "VECTOR.CLUSTER|LIST": [Sample(("{index}",))],
    "VECTOR.CLUSTER|NEAREST": [Sample(("{index}", *_VECTOR))],
    "VECTOR.CLUSTER|SET": [Sample(("{index}", *_VECTOR))],
    "VECTOR.CLUSTER|REBUILD": [Sample(("{index}",))],
    "VECTOR.CLUSTER|FORGET": [Sample(("{index}",)), Sample(("{index}", "0"))],
    "VECTOR.CLUSTER|TTL": [Sample(("{index}", *_VECTOR))],
    "VECTOR.TENANT|CREATE": [Sample(("{tenant}", "KEY", "k"))],
    "VECTOR.TENANT|SET": [Sample(("{tenant}", "QPS", "1")), Sample(("{tenant}", "KEY", "k"))],
    "VECTOR.TENANT|GET": [Sample(("{tenant}",))],
    "VECTOR.TENANT|DROP": [Sample(("{tenant}",))],
    "VECTOR.TENANT|LIST": [Sample()],
    "VECTOR.TENANT|USAGE": [Sample(("{tenant}",)), Sample(("{tenant}", "PERIOD", "2023-11"))],
    "VECTOR.TENANT|USER": [
        Sample(("ADD", "{tenant}", "eve", "KEY", "k", "ROLE", "admin")),
        Sample(("ADD", "{tenant}", "boss", "KEY", "k", "ROLE", "admin")),
        Sample(("DEL", "{tenant}", "boss")),
    ],
    "VECTOR.TENANT|ROTATE": [
        Sample(("{tenant}", "KEY", "k", "OVERLAP", "0")),
        Sample(("{tenant}", "USER", "boss", "KEY", "k")),
    ],
    "VECTOR.USE": [Sample(("{tenant}",))],
    "VECTOR.REMEMBER": [
        Sample(("{index}", "a prompt", "a response", *_VECTOR)),
        Sample(("{index}", "a prompt", "another", *_VECTOR, "SCOPE", "1", "user", "{tenant}")),
        Sample(("{index}", "a prompt", "another", *_VECTOR, "DEPENDS", "{index}", "1", "a")),
    ],
    "VECTOR.RECALL": [
        Sample(("{index}", "a prompt", *_VECTOR)),
        Sample(("{index}", "a prompt", *_VECTOR, "THRESHOLD", "0", "WITHINFO")),
        Sample(("{index}", "a prompt", *_VECTOR, "LEASE", "9", "WITHINFO")),
    ],
    "VECTOR.FORGET": [
        Sample(("{index}", "PROMPT", "a prompt")),
        Sample(("{index}", "ID", "0123456789abcdef")),
        Sample(("{index}", "SCOPE", "0")),
    ],
    "VECTOR.FEEDBACK": [
        Sample(("{index}", "0123456789abcdef", "GOOD")),
        Sample(("{index}", "0123456789abcdef", "BAD", "PROMPT", "a prompt")),
    ],
    "VECTOR.LLM|STATUS": [Sample()],
    "VECTOR.LLM|PAUSE": [Sample()],
    "VECTOR.LLM|RESUME": [Sample()],
    "VECTOR.LLM|JOBS": [Sample(), Sample(("5",))],
}


def every_command() -> Iterator[Command]:
    """All that can be called, but HELP, which says the same to everybody."""
    for command in build_table().values():
        if command.handler is not None:
            yield command
        for each in command.subcommands.values():
            if not each.name.endswith("|HELP"):
                yield each


COMMANDS = {command.name: command for command in every_command()}
CASES = [
    pytest.param(COMMANDS[name], sample, id=f"{name}-{number}")
    for name, samples in SAMPLES.items()
    for number, sample in enumerate(samples)
    if name in COMMANDS
]


def test_every_command_has_a_sample() -> None:
    assert SAMPLES.keys() == COMMANDS.keys(), "a new command needs a sample, to be looked at here"


def sent(command: Command, sample: Sample, *, index: str, owner: str) -> bytes:
    """The bytes of a command that names an index and a tenant."""
    words = [
        word.replace("{index}", index).replace("{tenant}", owner) if isinstance(word, str) else word
        for word in sample.words
    ]
    return encode(*command.name.split("|"), *words)


# -- two tenants ----------------------------------------------------------------------------------

SECRET, NOWHERE = "alpha-index", "omega-index"
"""Names of an index that only A has, and of one that nobody has; of one length."""

OWNER, NOBODY = "alpha", "omega"
"""A tenant that has it, and one that there is not."""

_USERS = (("eye", "reader"), ("hand", "operator"), ("boss", "admin"))


@pytest.fixture(scope="module")
def two_tenants() -> Iterator[RunningServer]:
    """A server with tenant `alpha`, who has everything, and `beta`, who has an index of its own."""
    with tenant_server() as server, administrator(server) as admin:
        for name in (OWNER, "beta"):
            tenant(admin, "CREATE", name, "KEY", f"key of {name}")
            for user, role in _USERS:
                tenant(
                    admin, "USER", "ADD", name, user, "KEY", f"key of {name}.{user}", "ROLE", role
                )
        with signed_in(server, OWNER, "key of alpha") as client:
            fill(client, SECRET)
            fill(client, "common", 5.0)
            client.execute_command("VECTOR.ALIAS", "SET", SECRET, "an alias", "its canonical")
            search(client, SECRET, 1.0, 0.0)
        yield server


def fill(client: redis.Redis, index: str, last: float = 1.0) -> None:
    client.execute_command("VECTOR.CREATE", index, "DIM", 2, "METRIC", "L2", "CACHE", "EXACT")
    add(client, index, "a", 1.0, 0.0)
    add(client, index, "b", 0.0, last)
    client.execute_command("VECTOR.SETATTR", index, "a", '{"x": 1}')


def login(server: RunningServer, name: str, key: str) -> socket.socket:
    connection = server.connect()
    assert exchange(connection, encode("AUTH", name, key), replies=b"\r\n") == b"+OK\r\n"
    return connection


def asked(server: RunningServer, name: str, key: str, data: bytes) -> bytes:
    """All that a command answers somebody, on a connection that nothing else has been done to."""
    with login(server, name, key) as connection:
        return exchange(connection, data + encode("QUIT")).removesuffix(b"+OK\r\n")


def dump(server: RunningServer) -> Any:
    """All that tenant A has, as it sees it."""
    with signed_in(server, OWNER, "key of alpha") as client:
        run: Any = client.execute_command
        told: dict[str, Any] = {"names": run("VECTOR.LIST"), "size": client.dbsize()}
        for index in (SECRET, "common"):
            info = as_map(run("VECTOR.INFO", index))
            told[index] = (
                {key: value for key, value in info.items() if not key.startswith("cache_")},
                run("VECTOR.CACHE", "STATS", index),
                run("VECTOR.CACHE", "POLICY", index),
                run("VECTOR.ALIAS", "LIST", index),
                run("VECTOR.CLUSTER", "LIST", index),
                [
                    run("VECTOR.GET", index, id_, "WITHVECTOR", "FP32")
                    for id_ in run("VECTOR.SCAN", index, 0, "COUNT", 1000)[1]
                ],
            )
    with administrator(server) as admin:
        told["definition"] = tenant(admin, "GET", OWNER)
        used = usage(admin, OWNER)
        told["used"] = {key: used[key] for key in ("vectors", "bytes", "cache_bytes")}
        told["refused"] = {key: used[key] for key in ("refused_quota", "refused_budget")}
        told["tenants"] = tenant(admin, "LIST")
        told["settings"] = admin.config_get("*")
    return told


@pytest.mark.parametrize("role", ["key", "boss"])
@pytest.mark.parametrize(("command", "sample"), CASES)
def test_another_tenants_names_are_as_those_that_do_not_exist_and_nothing_of_it_changes(
    two_tenants: RunningServer, command: Command, sample: Sample, role: str
) -> None:
    name, key = ("beta", "key of beta") if role == "key" else ("beta.boss", "key of beta.boss")
    before = dump(two_tenants)
    replies = []
    for index, owner in ((SECRET, OWNER), (NOWHERE, NOBODY)):
        data = sent(command, sample, index=index, owner=owner)
        replies.append(asked(two_tenants, name, key, data))
        # The second meets the tenant as the first did.
        with signed_in(two_tenants, "beta", "key of beta") as client:
            client.flushall()
    there, not_there = replies
    if not sample.differs:
        # A reply may repeat what it was sent.
        said = there.replace(SECRET.encode(), NOWHERE.encode())
        assert said.replace(OWNER.encode(), NOBODY.encode()) == not_there
    elif OWNER not in sample.words:
        assert SECRET.encode() not in there
        assert OWNER.encode() not in there
    assert dump(two_tenants) == before


@pytest.mark.parametrize(("command", "sample"), CASES)
def test_a_reader_writes_nothing_and_only_the_administrator_administers(
    two_tenants: RunningServer, command: Command, sample: Sample
) -> None:
    before = dump(two_tenants)
    data = sent(command, sample, index=SECRET, owner=OWNER)
    for user, role in _USERS:
        said = b""
        if command.rank == ADMINISTRATOR or role == "reader":
            said = asked(two_tenants, f"{OWNER}.{user}", f"key of {OWNER}.{user}", data)
        if command.rank == ADMINISTRATOR or (role == "reader" and command.rank == OPERATOR):
            assert said.startswith(b"-NOPERM ")
    after = dump(two_tenants)
    for index in (SECRET, "common"):
        # To have answers counted and kept is what reading does.
        assert after.pop(index)[0] == before.pop(index)[0]
    for told in (before, after):
        told.pop("used")
    assert after == before


_ALLOWED = {"AUTH", "HELLO", "QUIT", "RESET"}
"""What somebody may call who has not signed in, as in Redis."""


@pytest.mark.parametrize(("command", "sample"), CASES)
def test_who_has_not_signed_in_may_do_that_and_leave_and_nothing_else(
    two_tenants: RunningServer, command: Command, sample: Sample
) -> None:
    with two_tenants.connect() as connection:
        data = sent(command, sample, index=SECRET, owner=OWNER)
        said = exchange(connection, data, replies=b"\r\n")
        if command.name not in _ALLOWED:
            assert said == b"-NOAUTH Authentication required.\r\n"
        elif command.name in ("AUTH", "HELLO"):
            assert said.startswith(b"-WRONGPASS ")
    # A name with a wrong number of arguments is no way to ask either.
    if command.name not in _ALLOWED:
        with two_tenants.connect() as connection:
            assert (
                exchange(connection, encode(*command.name.split("|")), replies=b"\r\n")[:1] == b"-"
            )


def test_a_tenant_reads_of_itself_only_in_what_the_server_tells(
    two_tenants: RunningServer,
) -> None:
    with (
        signed_in(two_tenants, OWNER, "key of alpha", client_name="a-client"),
        signed_in(two_tenants, "beta", "key of beta", decode_responses=True) as client,
    ):
        fill(client, "of-beta")
        run: Any = client.execute_command
        told = [
            str(run(*words))
            for words in (
                ("INFO", "everything"),
                ("INFO", "keyspace", "indexes", "tenants"),
                ("CLIENT", "INFO"),
                ("COMMAND",),
                ("VECTOR.LIST",),
                ("VECTOR.CACHE", "STATS", "of-beta"),
                ("VECTOR.INFO", "of-beta"),
                ("VECTOR.TENANT", "USAGE", "beta"),
            )
        ]
        assert run("DBSIZE") == 1
        for text in told:
            for name in (OWNER, SECRET, "common", "a-client"):
                assert name not in text
        info = client.info("keyspace")
        assert info["db0"] == {"keys": 1, "vectors": 2, "expires": 0}
        client.flushall()


def test_what_others_do_does_not_show_in_what_a_tenant_is_told_of_the_server(
    two_tenants: RunningServer,
) -> None:
    # A count of all that is done tells of others, to whoever knows what it does itself.
    with signed_in(two_tenants, "beta", "key of beta", decode_responses=True) as client:

        def told() -> dict[str, Any]:
            found: dict[str, Any] = client.info("everything")
            return {key: value for key, value in found.items() if key not in _OF_TIME}

        before = told()
        with signed_in(two_tenants, OWNER, "key of alpha") as other:
            fill(other, "another", 3.0)
            for number in range(100):
                add(other, "another", f"id{number}", number, 1.0)
                search(other, "another", number, 1.0)
            with contextlib.suppress(redis.ResponseError):
                other.execute_command("VECTOR.CARD", "none")
            assert told() == before
            other.execute_command("VECTOR.DROP", "another")


_OF_TIME = {"server_time_usec", "uptime_in_seconds", "uptime_in_days"}


def test_answers_that_are_kept_never_cross_from_one_tenant_to_another() -> None:
    with tenant_server() as server, administrator(server) as admin:
        found: dict[str, Any] = {}
        for name, last in (("A", 1.0), ("B", 9.0)):
            tenant(admin, "CREATE", name, "KEY", "k")
            with signed_in(server, name, "k") as client:
                client.execute_command(
                    "VECTOR.CREATE", "i", "DIM", 2, "METRIC", "L2", "CACHE", "ALL"
                )
                add(client, "i", f"first of {name}", 1.0, 0.0)
                add(client, "i", f"last of {name}", 0.0, last)
                client.execute_command("VECTOR.ALIAS", "SET", "i", f"a text of {name}", "canonical")
        options = ("WITHSCORES", "QUERY", "canonical", "SESSION", "s", "MINRECALL", "0.5")
        for turn in range(3):
            for name in ("A", "B"):
                with signed_in(server, name, "k") as client:
                    plain = search(client, "i", 0.9, 0.1, options=("WITHSCORES",))
                    hits, info = searched(client, "i", 0.9, 0.1, options=options)
                    assert hits == plain
                    assert {hit.decode()[-1] for hit in hits[::2]} == {name}
                    if not turn:
                        assert info["cache"] in (b"exact", b"miss")
                    assert found.setdefault(name, hits) == hits
        assert found["A"] != found["B"]
        # An index of the same name, of a tenant of the same name, begins anew as well.
        assert tenant(admin, "DROP", "A") == 1
        tenant(admin, "CREATE", "A", "KEY", "k")
        with signed_in(server, "A", "k") as client:
            client.execute_command("VECTOR.CREATE", "i", "DIM", 2, "METRIC", "L2", "CACHE", "ALL")
            assert search(client, "i", 0.9, 0.1, options=("WITHSCORES",)) == []


_WIPES = [
    ("FLUSHALL",),
    ("FLUSHDB", "ASYNC"),
    ("VECTOR.DROP", "i"),
    ("VECTOR.MADD", "i", "FP32", blob(1.0, 0.0), "IDS", "1", "planted"),
    ("VECTOR.CREATE", "planted", "DIM", "2"),
    ("VECTOR.CLUSTER", "SET", "i", "FP32", blob(1.0, 0.0, 0.0, 1.0)),
]


@pytest.mark.parametrize("command", _WIPES, ids=lambda words: words[0])
@pytest.mark.parametrize(
    "following",
    [("AUTH", "B", "key of B"), ("HELLO", "3", "AUTH", "B", "key of B"), ("RESET",)],
    ids=lambda words: words[0],
)
def test_what_was_sent_before_signing_in_anew_is_done_to_the_tenant_that_sent_it(
    command: Words, following: Words
) -> None:
    def kept(client: redis.Redis) -> Any:
        run: Any = client.execute_command
        names = run("VECTOR.LIST")
        return (
            names,
            [run("VECTOR.SCAN", name, 0) for name in names],
            run("VECTOR.CLUSTER", "LIST", "i"),
        )

    with tenant_server() as server, administrator(server) as admin:
        tenant(admin, "CREATE", "A", "KEY", "key of A")
        tenant(admin, "CREATE", "B", "KEY", "key of B")
        with (
            signed_in(server, "A", "key of A") as first,
            signed_in(server, "B", "key of B") as second,
            login(server, "A", "key of A") as connection,
        ):
            for client in (admin, first, second):
                fill(client, "i")
            others = kept(admin), kept(second)
            if command[0] in ("FLUSHALL", "FLUSHDB", "VECTOR.DROP"):
                expected = b"+OK" if command[0] != "VECTOR.DROP" else b":1"
                said = exchange(connection, encode(*command) + encode(*following), replies=b"\r\n")
                assert said.startswith(expected)
                assert first.execute_command("VECTOR.LIST") == []
            else:
                before = kept(first)
                exchange(connection, encode(*command) + encode(*following) + encode("QUIT"))
                assert kept(first) != before
            assert (kept(admin), kept(second)) == others


def test_a_dropped_tenant_leaves_nothing_to_the_next_one_of_its_name() -> None:
    with tenant_server() as server, administrator(server) as admin:
        for turn in range(10):
            tenant(admin, "CREATE", "A", "KEY", "k")
            with login(server, "A", "k") as one, login(server, "A", "k") as two:
                for number in range(20):
                    one.sendall(encode("VECTOR.CREATE", f"i{number}", "DIM", "2"))
                    two.sendall(encode("VECTOR.CREATE", f"j{number}", "DIM", "2"))
                assert tenant(admin, "DROP", "A") == 1
                for connection in (one, two):
                    # Whatever was sent has been answered, one way or the other.
                    exchange(connection, encode("QUIT"))
            tenant(admin, "CREATE", "A", "KEY", f"k{turn}")
            with signed_in(server, "A", f"k{turn}") as client:
                assert client.execute_command("VECTOR.LIST") == []
            assert "db0" not in admin.info("keyspace")
            tenant(admin, "DROP", "A")


def test_the_administrator_is_bound_to_one_tenant_at_a_time(two_tenants: RunningServer) -> None:
    with administrator(two_tenants) as admin:
        with pytest.raises(redis.ResponseError, match=f"NOINDEX no such index '{SECRET}'"):
            admin.execute_command("VECTOR.CARD", SECRET)
        admin.execute_command("VECTOR.USE", OWNER)
        assert admin.execute_command("VECTOR.CARD", SECRET) == 2
        assert admin.acl_whoami() == "admin"
        admin.execute_command("VECTOR.USE", "default")
        assert admin.execute_command("VECTOR.LIST") == []


def test_the_password_opens_no_tenant(two_tenants: RunningServer) -> None:
    numbers = count()
    for name in (OWNER, f"{OWNER}.boss", "beta", "omega"):
        with two_tenants.connect() as connection:
            said = exchange(connection, encode("AUTH", name, PASSWORD), replies=b"\r\n")
            assert said.startswith(b"-WRONGPASS "), next(numbers)
