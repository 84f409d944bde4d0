"""VECTOR.RECALL with LEASE: one asks the language model, and the others wait for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from remembered_calls import (
    ANSWER,
    FAR,
    NEAR,
    QUESTION,
    REPHRASED,
    recall,
    remember,
    stats,
    told,
)
from servers import RunningServer, running_server
from tenancy import administrator, signed_in, tenant, tenant_server


class Asking(threading.Thread):
    """A client that recalls with a lease."""

    def __init__(
        self,
        server: RunningServer,
        prompt: str,
        *words: Any,
        ms: int = 20_000,
        client: redis.Redis | None = None,
    ) -> None:
        super().__init__()
        self.client = client or server.client()
        self.words = (prompt, *words, "LEASE", ms)
        self.response: Any = None
        self.info: dict[str, Any] = {}
        self.error = ""
        self.start()

    def run(self) -> None:
        try:
            self.response, self.info = told(self.client, *self.words)
        except redis.RedisError as error:
            self.error = str(error)

    def result(self) -> Any:
        """The response; its connection stays, and with it what lease it was given."""
        self.join(30)
        assert not self.is_alive()
        return self.response


@pytest.fixture
def asking() -> Iterator[Callable[..., Asking]]:
    """Makes clients that recall with a lease; their connections are closed at the end."""
    made: list[Asking] = []

    def make(*args: Any, **options: Any) -> Asking:
        made.append(Asking(*args, **options))
        return made[-1]

    yield make
    for one in made:
        one.join(30)
        one.client.close()


def await_callers(client: redis.Redis, count: int) -> None:
    deadline = time.monotonic() + 20
    while int(stats(client)["lease_callers"]) != count:
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_one_client_asks_the_model_and_the_others_wait_for_it(
    server: RunningServer, index: redis.Redis, asking: Callable[..., Asking]
) -> None:
    response, info = told(index, QUESTION, "LEASE", 20_000)
    token = info["lease"]
    assert response is None
    assert len(token) == 32
    same = [asking(server, QUESTION.upper()) for _ in range(3)]
    near = asking(server, REPHRASED, "FP32", NEAR, "THRESHOLD", 0.9)
    await_callers(index, 4)
    # Others are not held up.
    assert told(index, QUESTION, "SCOPE", 1, "user", "b", "LEASE", 1000)[1]["lease"] is not None
    assert told(index, "Who was first?", "FP32", FAR, "LEASE", 1000)[1]["lease"] is not None
    remember(index, QUESTION, ANSWER, "LEASE", token)
    for one in (*same, near):
        assert one.result() == ANSWER.encode()
        assert one.info["lease"] is None
    counted = stats(index)
    assert (int(counted["lease_answered"]), int(counted["lease_callers"])) == (4, 0)


def test_a_lease_whose_holder_goes_away_goes_to_who_waits(
    server: RunningServer, index: redis.Redis, asking: Callable[..., Asking]
) -> None:
    holder = server.client()
    token = told(holder, QUESTION, "LEASE", 20_000)[1]["lease"]
    first = asking(server, QUESTION)
    await_callers(index, 1)
    second = asking(server, QUESTION)
    await_callers(index, 2)
    holder.close()
    assert first.result() is None
    assert first.info["lease"] not in (None, token)
    remember(index, QUESTION, ANSWER, "LEASE", first.info["lease"])
    assert second.result() == ANSWER.encode()
    assert int(stats(index)["leases_abandoned"]) >= 1


def test_a_lease_that_is_over_goes_to_who_waits_and_its_answer_is_welcome(
    server: RunningServer, index: redis.Redis, asking: Callable[..., Asking]
) -> None:
    token = told(index, QUESTION, "LEASE", 150)[1]["lease"]
    waiting = asking(server, QUESTION)
    assert waiting.result() is None
    assert waiting.info["lease"] != token
    assert int(waiting.info["waited_ms"]) >= 50
    remember(index, QUESTION, ANSWER, "LEASE", token)
    assert recall(index, QUESTION) == ANSWER.encode()


def test_who_has_waited_long_enough_is_told_so(
    server: RunningServer, index: redis.Redis, asking: Callable[..., Asking]
) -> None:
    told(index, QUESTION, "LEASE", 20_000)
    waiting = asking(server, QUESTION, ms=50)
    assert waiting.result() is None
    assert waiting.info["lease"] is None
    assert int(stats(index)["lease_late"]) == 1


def test_a_lease_is_for_its_prompt_and_scope(index: redis.Redis) -> None:
    token = told(index, QUESTION, "LEASE", 20_000)[1]["lease"]
    for words in ((REPHRASED, "r"), (QUESTION, "r", "SCOPE", 1, "user", "a")):
        with pytest.raises(redis.ResponseError, match=r"^invalid LEASE: it was given for another"):
            remember(index, *words, "LEASE", token)
    assert int(stats(index)["entries"]) == 0


def test_callers_that_wait_are_bounded(asking: Callable[..., Asking]) -> None:
    with (
        running_server(remember={"lease_callers": 2}) as server,
        server.client() as client,
    ):
        client.execute_command("VECTOR.CREATE", "i", "DIM", 3)
        token = told(client, QUESTION, "LEASE", 20_000)[1]["lease"]
        waiting = [asking(server, QUESTION) for _ in range(2)]
        await_callers(client, 2)
        third = asking(server, QUESTION)
        third.result()
        assert "callers wait for leases" in third.error
        remember(client, QUESTION, ANSWER, "LEASE", token)
        assert [one.result() for one in waiting] == [ANSWER.encode()] * 2


def test_dropping_the_index_lets_those_who_wait_go(
    server: RunningServer, index: redis.Redis, asking: Callable[..., Asking]
) -> None:
    told(index, QUESTION, "LEASE", 20_000)
    waiting = asking(server, QUESTION)
    await_callers(index, 1)
    index.execute_command("VECTOR.DROP", "i")
    assert waiting.result() is None


def test_a_connection_that_is_reset_holds_no_lease(
    server: RunningServer, index: redis.Redis, asking: Callable[..., Asking]
) -> None:
    with server.client() as holder:
        told(holder, QUESTION, "LEASE", 20_000)
        waiting = asking(server, QUESTION)
        await_callers(index, 1)
        assert holder.execute_command("RESET") in (b"RESET", "RESET")
        assert waiting.result() is None
        assert waiting.info["lease"] is not None


def test_who_may_not_remember_waits_for_others_but_holds_no_lease(
    asking: Callable[..., Asking],
) -> None:
    with tenant_server() as server, administrator(server) as admin:
        tenant(admin, "CREATE", "a", "KEY", "a-key")
        tenant(admin, "USER", "ADD", "a", "reads", "KEY", "r-key", "ROLE", "reader")
        with (
            signed_in(server, "a", "a-key") as writer,
            signed_in(server, "a.reads", "r-key") as reader,
        ):
            writer.execute_command("VECTOR.CREATE", "i", "DIM", 3)
            assert told(reader, QUESTION, "LEASE", 20_000)[1]["lease"] is None
            # The writer does not wait for what the reader cannot give.
            token = told(writer, QUESTION, "LEASE", 20_000)[1]["lease"]
            assert token is not None
            waiting = asking(server, QUESTION, client=signed_in(server, "a.reads", "r-key"))
            await_callers(writer, 1)
            remember(writer, QUESTION, ANSWER, "LEASE", token)
            assert waiting.result() == ANSWER.encode()
            # Nor is it the next to hold one when the holder goes.
            first = ("Who was first?", "FP32", FAR)
            assert told(writer, *first, "LEASE", 20_000)[1]["lease"] is not None
            left = asking(server, *first, client=signed_in(server, "a.reads", "r-key"))
            await_callers(writer, 1)
            writer.execute_command("RESET")
            assert left.result() is None
            assert left.info["lease"] is None


def test_who_has_gone_is_not_answered_late_for_the_blurs_sake(
    asking: Callable[..., Asking],
) -> None:
    with running_server(remember={"blur_ms": 10_000}) as server, server.client() as client:
        client.execute_command("VECTOR.CREATE", "i", "DIM", 3)
        holder = asking(server, QUESTION)
        deadline = time.monotonic() + 20
        while not int(stats(client)["leases"]):
            assert time.monotonic() < deadline
            time.sleep(0.002)
        waiting = asking(server, QUESTION)
        await_callers(client, 1)
        for one in (waiting, holder):
            one.client.connection_pool.disconnect()
        began = time.monotonic()
    assert time.monotonic() - began < 5
