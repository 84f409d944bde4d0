"""Commands without a socket: run as a connection runs them, on the loop of whoever calls.

So a test decides what overlaps with what, and moves the clock in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from inspect import iscoroutine
from typing import Any

import hiredis

from pyrope.clock import Clock
from pyrope.commands.context import Client, Context, Pending, Server
from pyrope.commands.latency import LatencyMonitor
from pyrope.commands.slowlog import SlowLog
from pyrope.commands.table import build_table
from pyrope.errors import PyropeError
from pyrope.resp.writer import encode, encode_error
from pyrope.server.dispatch import Dispatcher
from pyrope.service.promise import Promise
from pyrope.service.service import Service


class NoLink:
    """A connection that nobody looks at."""

    input_buffered = output_buffered = in_flight = 0

    def close_after_reply(self) -> None:
        """Nothing is open."""

    def kill(self) -> None:
        """Nothing is open."""


class Desk:
    """Takes commands for a service."""

    def __init__(self, service: Service, clock: Clock) -> None:
        table = build_table()
        self._dispatcher = Dispatcher(table)
        self._server = Server(
            settings=service.settings,
            clock=clock,
            service=service,
            commands=table,
            slow_log=SlowLog(),
            latency=LatencyMonitor(),
            run_id="0" * 40,
            started_at=clock.monotonic(),
            started_at_wall=clock.wall(),
            request_shutdown=_no_shutdown,
        )
        self._contexts = {
            protocol: Context(
                Client(
                    id=protocol,
                    address="here",
                    local_address="here",
                    is_local=True,
                    link=NoLink(),
                    connected_at=0.0,
                    last_command_at=0.0,
                    protocol=protocol,
                    authenticated=True,
                ),
                self._server,
            )
            for protocol in (2, 3)
        }

    def begin(self, *words: bytes, protocol: int = 2) -> Reply:
        """Run a command up to where it waits for something."""
        reply = Reply()
        args = list(words)
        try:
            entry = self._dispatcher.find(args)
            assert entry.run is not None
            result = entry.run(self._contexts[protocol], args)
        except PyropeError as error:
            reply.set(encode_error(error.prefix, error.message))
            return reply
        if isinstance(result, Pending):
            reply.outcome = result.future
            done = partial(_answered, reply, result.render, protocol)
            result.future.add_done_callback(done)
        elif iscoroutine(result):
            task = asyncio.ensure_future(result)
            task.add_done_callback(partial(_answered, reply, _as_it_is, protocol))
        else:
            reply.set(encode(result, protocol))
        return reply

    async def call(self, *words: bytes, protocol: int = 2) -> Any:
        """The reply as Python has it; an error as a `hiredis.ReplyError`."""
        return parsed(await self.begin(*words, protocol=protocol).data)


class Reply:
    """What a command answers.

    Attributes:
        data: its bytes; cancelled where the command was.
        outcome: what it waits for, if that can be given up.
    """

    def __init__(self) -> None:
        self.data: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.outcome: asyncio.Future[Any] | Promise[Any] | None = None

    @property
    def is_certain(self) -> bool:
        """Whether what the command does has been done."""
        return self.data.done() or (self.outcome is not None and self.outcome.done())

    def give_up(self) -> None:
        """The client goes away."""
        if self.outcome is not None:
            self.outcome.cancel()

    def set(self, data: bytes) -> None:
        self.data.set_result(data)


def parsed(data: bytes) -> Any:
    """One reply, and nothing after it."""
    reader = hiredis.Reader()
    reader.feed(data)
    reply = reader.gets()
    assert reply is not False, "half a reply"
    assert reader.gets() is False, "more than one reply"
    return reply


def _answered(
    reply: Reply,
    render: Callable[[Any, int], Any],
    protocol: int,
    future: asyncio.Future[Any] | Promise[Any],
) -> None:
    if future.cancelled():
        reply.data.cancel()
        return
    error = future.exception()
    if error is None:
        reply.set(encode(render(future.result(), protocol), protocol))
    elif isinstance(error, PyropeError):
        reply.set(encode_error(error.prefix, error.message))
    else:
        reply.data.set_exception(error)


def _as_it_is(outcome: Any, _protocol: int) -> Any:
    return outcome


def _no_shutdown(*, save: bool) -> None:
    raise AssertionError(f"nobody asked for a shutdown (save: {save})")
