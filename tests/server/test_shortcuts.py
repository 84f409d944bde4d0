"""Hits that are told by the bytes of a packet: never anything but what a search would answer."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import hiredis
import numpy as np
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyrope.testing.clock import ManualClock
from servers import RunningServer, encode, running_server
from tenancy import administrator, signed_in, tenant, tenant_server, usage

DIM = 4
ASKED = np.array([1, 0, 0, 0], "<f4").tobytes()
SEARCH = encode("VECTOR.SEARCH", "i", "FP32", ASKED, "COUNT", 3)
WITH_SCORES = encode("VECTOR.SEARCH", "i", "FP32", ASKED, "COUNT", 3, "WITHSCORES")


class Line:
    """A connection that reads replies one by one."""

    def __init__(self, server: RunningServer, *opening: bytes) -> None:
        self.socket = server.connect()
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.reader = hiredis.Reader()
        for command in opening:
            self.ask(command)

    def ask(self, data: bytes) -> Any:
        self.socket.sendall(data)
        return self.reply()

    def reply(self) -> Any:
        while (found := self.reader.gets()) is False:
            self.reader.feed(self.socket.recv(65536))
        return found


@contextmanager
def line(server: RunningServer, *opening: bytes) -> Iterator[Line]:
    made = Line(server, *opening)
    try:
        yield made
    finally:
        made.socket.close()


def shortcuts(client: redis.Redis) -> int:
    return int(client.info("stats")["search_shortcuts"])


def vector(*values: float) -> bytes:
    return np.array(values, "<f4").tobytes()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def server(clock: ManualClock) -> Iterator[RunningServer]:
    with running_server(clock=clock) as server, server.client() as client:
        client.execute_command("VECTOR.CREATE", "i", "DIM", DIM)
        for number in range(5):
            add(client, f"v{number}", vector(1, number / 10, 0, 0))
        yield server


@pytest.fixture
def client(server: RunningServer) -> Iterator[redis.Redis]:
    with server.client() as client:
        yield client


def add(client: redis.Redis, id_: str, values: bytes, *words: Any) -> None:
    client.execute_command("VECTOR.ADD", "i", id_, "FP32", values, *words)


FIRST = [b"v0", b"v1", b"v2"]


def warm(one: Line) -> None:
    """Ask until the packet is known: searched for, found by its words, and learnt."""
    for _ in range(3):
        assert one.ask(SEARCH) == FIRST


def test_a_packet_that_comes_again_is_answered_without_being_read(
    server: RunningServer, client: redis.Redis
) -> None:
    with line(server) as one, line(server) as other:
        warm(one)
        assert shortcuts(client) == 0 or shortcuts(client) == 1
        before = shortcuts(client)
        for _ in range(5):
            assert one.ask(SEARCH) == FIRST
        assert shortcuts(client) == before + 5
        # Another connection has to have had some use of it first.
        for _ in range(3):
            assert other.ask(SEARCH) == FIRST
        assert shortcuts(client) == before + 7


def test_every_reply_is_counted_wherever_replies_are_counted(
    server: RunningServer, client: redis.Redis
) -> None:
    with line(server) as one:
        warm(one)
        stats = client.info("stats")
        asked = client.info("commandstats")["cmdstat_vector.search"]["calls"]
        hits = cache_hits(client)
        used = usage_of(client)
        for _ in range(20):
            one.ask(SEARCH)
        after = client.info("stats")
        assert client.info("commandstats")["cmdstat_vector.search"]["calls"] == asked + 20
        assert cache_hits(client) == hits + 20
        # Looking at the caches is a request, too.
        assert usage_of(client)["requests"] == used["requests"] + 21
        assert usage_of(client)["compute_units"] > used["compute_units"]
        grown = after["total_net_input_bytes"] - stats["total_net_input_bytes"]
        assert grown >= 20 * len(SEARCH)
        grown = after["total_net_output_bytes"] - stats["total_net_output_bytes"]
        assert grown >= 20 * len(b"*3\r\n" + 3 * b"$2\r\nv0\r\n")


def cache_hits(client: redis.Redis) -> int:
    told = client.execute_command("VECTOR.CACHE", "STATS", "i")
    return int(dict(zip(told[::2], told[1::2], strict=True))[b"hits_exact"])


def usage_of(client: redis.Redis) -> dict[str, Any]:
    return usage(client, "default")


def test_a_write_is_seen_by_the_next_packet(server: RunningServer, client: redis.Redis) -> None:
    with line(server) as one:
        for number in range(4):
            warm(one)
            taken = shortcuts(client)
            one.ask(SEARCH)
            assert shortcuts(client) == taken + 1
            add(client, "nearest", vector(1, 0.01 + number / 1000, 0, 0))
            assert one.ask(SEARCH) == [b"v0", b"nearest", b"v1"]
            client.execute_command("VECTOR.DEL", "i", "nearest")
            assert one.ask(SEARCH) == FIRST


def test_a_vector_that_expires_is_not_named_any_more(
    server: RunningServer, client: redis.Redis, clock: ManualClock
) -> None:
    add(client, "brief", vector(1, 0, 0, 0), "EX", 10)
    add(client, "v0", vector(1, 0.001, 0, 0))
    with line(server) as one:
        for _ in range(5):
            assert one.ask(SEARCH) == [b"brief", b"v0", b"v1"]
        clock.advance(11)
        assert one.ask(SEARCH) == FIRST


def test_an_answer_whose_time_has_come_is_searched_for_again(
    server: RunningServer, client: redis.Redis, clock: ManualClock
) -> None:
    client.execute_command("VECTOR.CACHE", "POLICY", "i", "SET", "TTL", 10)
    with line(server) as one:
        warm(one)
        one.ask(SEARCH)
        misses = searches(client)
        clock.advance(100)
        assert one.ask(SEARCH) == FIRST
        assert searches(client) == misses + 1


def searches(client: redis.Redis) -> int:
    return int(client.info("stats")["searches"])


@pytest.mark.parametrize(
    "command",
    [
        ("VECTOR.CACHE", "FLUSH", "i"),
        ("VECTOR.CACHE", "POLICY", "i", "SET", "LEVELS", "OFF"),
        ("VECTOR.CACHE", "INVALIDATE", "i", "ID", "v0"),
        ("VECTOR.ALTER", "i", "CACHE", "OFF"),
    ],
)
def test_what_empties_the_caches_ends_shortcuts(
    server: RunningServer, client: redis.Redis, command: tuple[str, ...]
) -> None:
    with line(server) as one:
        warm(one)
        one.ask(SEARCH)
        taken, made = shortcuts(client), searches(client)
        client.execute_command(*command)
        assert one.ask(SEARCH) == FIRST
        assert shortcuts(client) == taken
        assert searches(client) == made + 1


def test_an_index_that_was_dropped_and_made_again_is_another_one(
    server: RunningServer, client: redis.Redis
) -> None:
    with line(server) as one:
        warm(one)
        one.ask(SEARCH)
        client.execute_command("VECTOR.DROP", "i")
        assert isinstance(one.ask(SEARCH), hiredis.ReplyError)
        client.execute_command("VECTOR.CREATE", "i", "DIM", DIM)
        assert one.ask(SEARCH) == []
        add(client, "new", vector(1, 0, 0, 0))
        for _ in range(4):
            assert one.ask(SEARCH) == [b"new"]


def test_replies_keep_their_order_and_their_form(
    server: RunningServer, client: redis.Redis
) -> None:
    uncached = encode("VECTOR.SEARCH", "i", "FP32", ASKED, "COUNT", 3, "CACHE", "OFF")
    with line(server) as one, line(server, encode("HELLO", 3)) as newer:
        warm(one)
        scored = [one.ask(WITH_SCORES) for _ in range(4)][-1]
        assert scored[::2] == FIRST
        assert [newer.ask(WITH_SCORES) for _ in range(4)] == 4 * [
            dict(zip(FIRST, map(float, scored[1::2]), strict=True))
        ]
        # A search that takes a while, and right behind it a packet that is known.
        one.socket.sendall(uncached + encode("ECHO", "between"))
        one.socket.sendall(SEARCH)
        assert [one.reply() for _ in range(3)] == [FIRST, b"between", FIRST]
        # Half of a command, which the known packet is not the other half of.
        echo = encode("ECHO", SEARCH)
        start = echo.index(SEARCH)
        for part in (echo[:10], echo[10:start], SEARCH, b"\r\n"):
            one.socket.sendall(part)
        assert one.reply() == SEARCH
        one.ask(encode("HELLO", 3))
        assert isinstance(one.ask(WITH_SCORES), dict)
        one.socket.sendall(encode("CLIENT", "REPLY", "OFF") + SEARCH)
        one.socket.sendall(SEARCH)
        assert one.ask(encode("CLIENT", "REPLY", "ON")) == b"OK"


def test_tenants_and_those_who_may_not_see_no_answer_of_others() -> None:
    with tenant_server() as server, administrator(server) as admin:
        for name in ("a", "b"):
            tenant(admin, "CREATE", name, "KEY", "key")
            with signed_in(server, name, "key") as client:
                client.execute_command("VECTOR.CREATE", "i", "DIM", DIM)
                add(client, f"of-{name}", vector(1, 0, 0, 0))
        with line(server, encode("AUTH", "a", "key")) as one:
            for _ in range(5):
                assert one.ask(SEARCH) == [b"of-a"]
            one.ask(encode("AUTH", "b", "key"))
            for _ in range(5):
                assert one.ask(SEARCH) == [b"of-b"]
            one.ask(encode("RESET"))
            assert isinstance(one.ask(SEARCH), hiredis.ReplyError)
            one.ask(encode("AUTH", "a", "key"))
            for _ in range(5):
                assert one.ask(SEARCH) == [b"of-a"]
            tenant(admin, "DROP", "a")
            assert isinstance(one.ask(SEARCH), hiredis.ReplyError)


def test_a_limit_that_is_set_holds_from_the_next_packet_on(clock: ManualClock) -> None:
    with tenant_server(clock=clock) as server, administrator(server) as admin:
        tenant(admin, "CREATE", "a", "KEY", "key")
        with signed_in(server, "a", "key") as client:
            client.execute_command("VECTOR.CREATE", "i", "DIM", DIM)
            add(client, "v", vector(1, 0, 0, 0))
        with line(server, encode("AUTH", "a", "key")) as one:
            for _ in range(10):
                assert one.ask(SEARCH) == [b"v"]
            tenant(admin, "SET", "a", "QPS", 5)
            taken, used = shortcuts(admin), usage(admin, "a")
            # For a second after that the administrator may want the loop, too.
            assert one.ask(SEARCH) == [b"v"]
            clock.advance(2)
            replies = [one.ask(SEARCH) for _ in range(12)]
            assert replies[:5] == [[b"v"]] * 5
            refused = [str(one) for one in replies if isinstance(one, hiredis.ReplyError)]
            assert len(refused) == 7
            assert all(one.startswith("QUOTA") for one in refused)
            # The first one finds out that the tenant is alone.
            assert shortcuts(admin) == taken + 4
            after = usage(admin, "a")
            assert after["requests"] == used["requests"] + 6
            assert after["refused_quota"] == used["refused_quota"] + 7
            assert after["answers"]["exact"] == used["answers"]["exact"] + 6


def test_what_leads_to_an_answer_goes_with_it(server: RunningServer, client: redis.Redis) -> None:
    with line(server) as one:
        for number in range(50):
            asked = encode("VECTOR.SEARCH", "i", "FP32", vector(1, number, 0, 0), "COUNT", 1)
            for _ in range(4):
                one.ask(asked)
        tables = server.pyrope._listener._tables._tables.values()
        assert sum(len(table) for table in tables) == 50
        client.execute_command("VECTOR.CACHE", "FLUSH", "i")
        while server.pyrope.server.service.cache.nbytes:
            client.ping()
        assert sum(len(table) for table in tables) == 0


PACKETS = [
    encode("VECTOR.SEARCH", "i", "FP32", vector(*values), "COUNT", count, *words)
    for values in ((1, 0, 0, 0), (0, 1, 0, 0), (1, 1, 0, 0))
    for count in (1, 3)
    for words in ((), ("WITHSCORES",))
]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(0, len(PACKETS) - 1)),
        st.tuples(st.just("ask"), st.integers(0, 1)),
        st.tuples(st.just("add"), st.integers(0, 7)),
        st.tuples(st.just("expire"), st.integers(0, 7)),
        st.tuples(st.just("delete"), st.integers(0, 7)),
        st.tuples(st.just("flush"), st.just(0)),
        st.tuples(st.just("wait"), st.integers(1, 8)),
    ),
    min_size=20,
    max_size=60,
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=STEPS, seed=st.integers(0, 9))
def test_whatever_happens_in_between_a_reply_is_that_of_a_search(
    server: RunningServer,
    client: redis.Redis,
    clock: ManualClock,
    steps: list[tuple[str, int]],
    seed: int,
) -> None:
    random = np.random.default_rng(seed)
    with line(server) as one:
        for what, number in steps:
            if what == "ask":
                packet = PACKETS[number]
                fresh = packet.replace(b"*6\r\n", b"*8\r\n").replace(b"*7\r\n", b"*9\r\n")
                fresh += encode("CACHE", "OFF").partition(b"\r\n")[2]
                for _ in range(3):
                    assert one.ask(packet) == one.ask(fresh)
                    assert one.ask(packet) == one.ask(packet)
            elif what in ("add", "expire"):
                values = random.standard_normal(DIM).astype("<f4").tobytes()
                add(client, f"v{number}", values, *(("EX", 4) if what == "expire" else ()))
            elif what == "delete":
                client.execute_command("VECTOR.DEL", "i", f"v{number}")
            elif what == "flush":
                client.execute_command("VECTOR.CACHE", "FLUSH", "i")
            else:
                clock.advance(number)
