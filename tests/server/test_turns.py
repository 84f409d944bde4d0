"""Tenants take turns on the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from pyrope.server.turns import NOBODY, Turns
from pyrope.testing.clock import ManualClock
from servers import RunningServer, encode, exchange, running_server

SHARE = 0.0005


class Loop:
    """Turns, on the loop that runs, by a clock that moves when work is done."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.turns = Turns(self.clock.monotonic)
        self.log: list[str] = []

    def arrives(self, tenant: str, seconds: float) -> None:
        """A packet of a tenant, whose commands take so long."""
        now = self.clock.monotonic()
        if tenant == self.turns.alone:
            self.work(tenant, seconds)()
        elif self.turns.may_run(tenant, now):
            self.work(tenant, seconds)()
            self.turns.used(tenant, now)
        else:
            self.turns.wait(tenant, self.work(tenant, seconds))

    def work(self, tenant: str, seconds: float) -> Callable[[], None]:
        def run() -> None:
            self.log.append(tenant)
            self.clock.advance(seconds)

        return run


async def settle() -> None:
    for _ in range(400):
        await asyncio.sleep(0)


async def test_a_tenant_that_is_alone_is_never_put_off() -> None:
    loop = Loop()
    for _ in range(100):
        loop.arrives("a", 0.01)
    assert loop.log == ["a"] * 100


async def test_beside_others_a_tenant_is_put_off_once_its_share_is_used_up() -> None:
    loop = Loop()
    loop.arrives("b", SHARE / 10)
    for _ in range(100):
        loop.arrives("a", SHARE / 4)
    loop.arrives("b", SHARE / 10)
    assert loop.log == ["b", "a", "a", "a", "a", "b"]
    await settle()
    assert loop.log == ["b", "a", "a", "a", "a", "b"] + ["a"] * 96


async def test_what_arrives_between_two_rounds_waits_for_one_share_and_not_for_all() -> None:
    loop = Loop()
    loop.arrives("b", SHARE / 10)
    for _ in range(1000):
        loop.arrives("a", SHARE / 4)
    for _ in range(50):
        before = loop.clock.monotonic()
        await asyncio.sleep(0)
        # What runs when the share is used up is not cut short.
        assert loop.clock.monotonic() - before < SHARE * 1.3
        loop.arrives("b", SHARE / 10)
        assert loop.log[-1] == "b"


async def test_those_that_wait_have_a_share_of_each_round() -> None:
    loop = Loop()
    loop.arrives("b", SHARE)
    for _ in range(20):
        for tenant in "abc":
            loop.arrives(tenant, SHARE)
    loop.log.clear()
    await asyncio.sleep(0)
    assert sorted(loop.log) == ["a", "b", "c"]


async def test_what_is_put_off_is_run_in_order_and_before_what_comes_in_later() -> None:
    loop = Loop()
    loop.arrives("b", 0.0)
    order: list[int] = []
    loop.arrives("a", SHARE)
    for number in range(5):
        assert not loop.turns.may_run("a", loop.clock.monotonic())
        loop.turns.wait("a", lambda number=number: order.append(number))  # type: ignore[misc]
    await settle()
    assert order == list(range(5))
    assert loop.turns.may_run("a", loop.clock.monotonic())


async def test_what_puts_itself_off_again_waits_for_the_next_round() -> None:
    loop = Loop()
    runs: list[int] = []

    def run() -> None:
        runs.append(1)
        if len(runs) < 5:
            loop.turns.wait("a", run)

    loop.turns.wait("a", run)
    for number in range(1, 6):
        await asyncio.sleep(0)
        assert len(runs) == number


async def test_clients_that_sign_in_are_not_in_the_way_of_their_own_tenant() -> None:
    loop = Loop()
    for _ in range(20):
        loop.arrives(NOBODY, SHARE)
        loop.arrives("a", SHARE)
        loop.arrives("a", SHARE)
    assert loop.log == [NOBODY, "a", "a"] * 20


async def test_those_that_have_not_signed_in_have_a_share_beside_tenants() -> None:
    loop = Loop()
    loop.arrives("b", 0.0)
    loop.arrives("a", 0.0)
    for _ in range(3):
        loop.arrives(NOBODY, SHARE)
    assert loop.log == ["b", "a", NOBODY]


async def test_a_tenant_that_is_alone_again_is_not_put_off() -> None:
    loop = Loop()
    loop.arrives("b", SHARE)
    loop.arrives("a", SHARE)
    assert not loop.turns.may_run("a", loop.clock.monotonic())
    loop.clock.advance(1)
    assert loop.turns.may_run("a", loop.clock.monotonic())


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 0.002), st.booleans()), max_size=60))
def test_everything_is_run_once_and_each_tenant_s_in_order(
    arrivals: list[tuple[str, float, bool]],
) -> None:
    async def check() -> None:
        loop = Loop()
        ran: dict[str, list[int]] = {tenant: [] for tenant in "abc"}
        sent: dict[str, list[int]] = {tenant: [] for tenant in "abc"}
        for number, (tenant, seconds, pause) in enumerate(arrivals):

            def work(tenant: str = tenant, number: int = number, seconds: float = seconds) -> None:
                ran[tenant].append(number)
                loop.clock.advance(seconds)

            sent[tenant].append(number)
            now = loop.clock.monotonic()
            if tenant == loop.turns.alone:
                work()
            elif loop.turns.may_run(tenant, now):
                work()
                loop.turns.used(tenant, now)
            else:
                loop.turns.wait(tenant, work)
            if pause:
                await asyncio.sleep(0)
        await settle()
        assert ran == sent

    asyncio.run(check())


def test_pipelines_of_two_tenants_are_answered_in_order_while_they_are_put_off() -> None:
    password = "an-administrator"
    with running_server(admin_password=password) as server:
        _make_tenants(server, password)
        connections = []
        for tenant in ["a"] * 8 + ["b"] * 2:
            connection = server.connect()
            assert exchange(
                connection, encode("AUTH", tenant, f"key-of-{tenant}"), replies=b"\r\n"
            ) == (b"+OK\r\n")
            connections.append(connection)
        # Some milliseconds' work each, in packets that end in the middle of commands.
        numbers = range(2000)
        data = b"".join(encode("ECHO", f"{number:05}") for number in numbers)
        for connection in connections:
            connection.sendall(data + encode("ECHO", "end"))
        expected = b"".join(b"$5\r\n%05d\r\n" % number for number in numbers) + b"$3\r\nend\r\n"
        for connection in connections:
            assert exchange(connection, b"", replies=b"$3\r\nend\r\n") == expected
            connection.close()


def test_a_client_that_is_gone_while_it_is_put_off_disturbs_nobody() -> None:
    password = "an-administrator"
    with running_server(admin_password=password) as server:
        _make_tenants(server, password)
        data = b"".join(encode("ECHO", f"{number:05}") for number in range(3000))
        for _ in range(10):
            with server.connect() as gone, server.connect() as stays:
                exchange(gone, encode("AUTH", "a", "key-of-a"), replies=b"\r\n")
                exchange(stays, encode("AUTH", "b", "key-of-b"), replies=b"\r\n")
                gone.sendall(data)
                assert exchange(stays, encode("ECHO", "here"), replies=b"here\r\n")
        with server.connect() as after:
            exchange(after, encode("AUTH", "a", "key-of-a"), replies=b"\r\n")
            assert exchange(after, encode("PING"), replies=b"\r\n") == b"+PONG\r\n"


def _make_tenants(server: RunningServer, password: str) -> None:
    with server.client(password=password) as admin:
        for tenant in ("a", "b"):
            admin.execute_command("VECTOR.TENANT", "CREATE", tenant, "KEY", f"key-of-{tenant}")
