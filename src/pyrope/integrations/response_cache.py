"""A `ResponseCache`: what all integrations ask first, and tell afterwards."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeAlias, TypeVar, Unpack
from weakref import WeakKeyDictionary

from pyrope.client import AsyncClient, Client, ConnectionOptions, RetryPolicy
from pyrope.client.request import Request
from pyrope.client.responses import Scope, feedback, forget
from pyrope.clock import SystemClock
from pyrope.integrations.desk import Close, Desk, Execute, Steps, Turn
from pyrope.integrations.holding import turn_of_the_context
from pyrope.integrations.options import RememberOptions, Spent
from pyrope.integrations.questions import Question

T = TypeVar("T")

BlockingTurn: TypeAlias = Turn[Client[str]]
AwaitingTurn: TypeAlias = Turn[AsyncClient[str]]

# A connection that the server has closed meanwhile fails once; then another one is opened.
_RETRY = RetryPolicy(attempts=2, first_s=0.01, longest_s=0.01, total_s=0.5)
_NAMES_OF_OURS = {"timeout_s", "connect_timeout_s", "max_connections"}


class ResponseCache:
    """What language models have said, for whoever asks the same again. For any number of threads.

    It connects when it is first used. Close it, or use it in a ``with``; what was used in an event
    loop is closed there, by `aclose` or an ``async with``.

    Args:
        index: whose embedder and memory are used.
        options: see `RememberOptions`.
        url: as of `pyrope.client.Client`.
        connection: as of `pyrope.client.Client`, but for times and numbers.

    Raises:
        TypeError, ValueError: arguments that contradict one another.
    """

    def __init__(
        self,
        index: str,
        options: RememberOptions | None = None,
        *,
        url: str | None = None,
        **connection: Unpack[ConnectionOptions],
    ) -> None:
        if told := connection.keys() & _NAMES_OF_OURS:
            raise ValueError(f"{min(told)} means nothing here: RememberOptions says it")
        self.index = index
        self.options = options or RememberOptions()
        self._url = url
        self._connection = connection
        self._desk: Desk[Client[str]] = self._make_desk(Client, threading.Event)
        self._desks: WeakKeyDictionary[asyncio.AbstractEventLoop, Desk[AsyncClient[str]]] = (
            WeakKeyDictionary()
        )
        self._giving_up: set[asyncio.Future[None]] = set()

    def _make_desk(self, kind: Any, make_event: Any) -> Any:
        options = self.options
        common: dict[str, Any] = {**self._connection, "connect_timeout_s": options.timeout_s}

        def client(timeout_s: float, **more: int) -> Any:
            return kind(self._url, retry=_RETRY, timeout_s=timeout_s, **common, **more)

        return Desk(
            self.index,
            options,
            client(options.timeout_s),
            lambda: client(options.lease_s + options.timeout_s, max_connections=1),
            make_event,
            SystemClock.monotonic,
        )

    # -- blocking ---------------------------------------------------------------------------------

    def close(self) -> None:
        """End all turns, and close all connections, but for those of event loops.

        A call after that opens others.
        """
        _drive(self._desk.end_all())
        for client in self._desk.clients:
            client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def ask(self, question: Question | None) -> BlockingTurn:
        """Look a question up; where there is no response, the model is to be asked.

        Raises nothing for the cache's sake. Of those who ask the same, one is told so at a time;
        the others wait. End the turn: by `remember`, or by `give_up`.
        """
        return _drive(self._desk.ask(question))

    def remember(self, turn: BlockingTurn, response: str, spent: Spent | None = None) -> None:
        """Remember what the model has said. Raises nothing for the cache's sake."""
        _drive(self._desk.remember(turn, response, spent))

    def give_up(self, turn: BlockingTurn) -> None:
        """The model has said nothing that is worth remembering. Idempotent."""
        _drive(self._desk.give_up(turn))

    @contextmanager
    def asking(self, question: Question | None) -> Iterator[BlockingTurn]:
        """`ask`; at the end, what was not remembered is given up."""
        turn = self.ask(question)
        try:
            with turn_of_the_context(turn):
                yield turn
        finally:
            self.give_up(turn)

    def feedback(self, id: str, *, good: bool, prompt: str | None = None) -> None:  # noqa: A002 - that is what it is called
        """As `Client.responses.feedback`."""
        self._execute(feedback(self.index, id, good=good, prompt=prompt))

    def forget(
        self,
        *,
        id: str | None = None,  # noqa: A002 - that is what it is called
        prompt: str | None = None,
        scope: Scope | None = None,
    ) -> int:
        """As `Client.responses.forget`."""
        return self._execute(forget(self.index, id=id, prompt=prompt, scope=scope))

    def _execute(self, request: Request[T]) -> T:
        return self._desk.client.execute(request)

    # -- for event loops --------------------------------------------------------------------------

    async def aclose(self) -> None:
        """As `close`, and for this event loop, too."""
        desk = self._desks.pop(asyncio.get_running_loop(), None)
        if desk is not None:
            await _drive_async(desk.end_all())
            for client in desk.clients:
                await client.aclose()
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def ask_async(self, question: Question | None) -> AwaitingTurn:
        """As `ask`. The turn ends with the task that has asked, if not before."""
        turn = await _drive_async(self._here.ask(question))
        task = asyncio.current_task()
        if not turn.is_over and task is not None:

            def abandoned(_: object) -> None:
                giving_up = asyncio.ensure_future(self.give_up_async(turn))
                self._giving_up.add(giving_up)
                giving_up.add_done_callback(self._giving_up.discard)

            task.add_done_callback(abandoned)
            turn.ended = partial(task.remove_done_callback, abandoned)
        return turn

    async def remember_async(
        self, turn: AwaitingTurn, response: str, spent: Spent | None = None
    ) -> None:
        """As `remember`."""
        await _drive_async(self._here.remember(turn, response, spent))

    async def give_up_async(self, turn: AwaitingTurn) -> None:
        """As `give_up`."""
        await _drive_async(self._here.give_up(turn))

    @asynccontextmanager
    async def asking_async(self, question: Question | None) -> AsyncIterator[AwaitingTurn]:
        """As `asking`."""
        turn = await self.ask_async(question)
        try:
            with turn_of_the_context(turn):
                yield turn
        finally:
            await self.give_up_async(turn)

    async def feedback_async(self, id: str, *, good: bool, prompt: str | None = None) -> None:  # noqa: A002 - that is what it is called
        """As `Client.responses.feedback`."""
        await self._here.client.execute(feedback(self.index, id, good=good, prompt=prompt))

    async def forget_async(
        self,
        *,
        id: str | None = None,  # noqa: A002 - that is what it is called
        prompt: str | None = None,
        scope: Scope | None = None,
    ) -> int:
        """As `Client.responses.forget`."""
        request = forget(self.index, id=id, prompt=prompt, scope=scope)
        return await self._here.client.execute(request)

    async def ping_async(self) -> None:
        """See whether the server answers, and the index is there.

        Raises:
            PyropeError: it refuses.
            redis.exceptions.RedisError: it cannot be reached.
        """
        await self._here.client.info(self.index)

    @property
    def _here(self) -> Desk[AsyncClient[str]]:
        """Of this event loop: connections cannot move to another."""
        loop = asyncio.get_running_loop()
        desk = self._desks.get(loop)
        if desk is None:
            desk = self._desks[loop] = self._make_desk(AsyncClient, asyncio.Event)
        return desk


def _drive(steps: Steps[T]) -> T:
    """Carry steps out, and wait."""
    try:
        step = next(steps)
        while True:
            try:
                told = _carry_out(step)
            except BaseException as error:  # noqa: BLE001 - the steps know what to do
                step = steps.throw(error)
            else:
                step = steps.send(told)
    except StopIteration as end:
        result: T = end.value
        return result


def _carry_out(step: Any) -> Any:
    if isinstance(step, Execute):
        return step.client.execute(step.request)
    if isinstance(step, Close):
        return step.client.close()
    return step.event.wait(step.seconds)


async def _drive_async(steps: Steps[T]) -> T:
    """As `_drive`, in an event loop."""
    try:
        step = next(steps)
        while True:
            try:
                told = await _carry_out_async(step)
            except BaseException as error:  # noqa: BLE001 - as above
                step = steps.throw(error)
            else:
                step = steps.send(told)
    except StopIteration as end:
        result: T = end.value
        return result


async def _carry_out_async(step: Any) -> Any:
    if isinstance(step, Execute):
        return await step.client.execute(step.request)
    if isinstance(step, Close):
        return await step.client.aclose()
    # `wait_for` raises what `asyncio.wait` does not; it is no matter whose time is up.
    waiting = asyncio.ensure_future(step.event.wait())
    try:
        await asyncio.wait([waiting], timeout=step.seconds)
    finally:
        waiting.cancel()
    return None
