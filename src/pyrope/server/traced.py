"""The command table with handlers that are traced.

Where nothing is traced, handlers are as they are, and nothing is looked at. What is not a command's
run has no trace: replies that are sent again for the very same bytes
(`pyrope.server.shortcuts`), and commands that are refused before they run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from functools import partial
from types import CoroutineType
from typing import Any

from pyrope.commands.answering import Answering
from pyrope.commands.context import Context, Pending
from pyrope.commands.spec import Command, Handler
from pyrope.errors import PyropeError
from pyrope.service.promise import Promise
from pyrope.tracing.tracer import CURRENT, Span, Tracer

_SEARCHES = frozenset({"VECTOR.SEARCH", "VECTOR.MSEARCH"})


def traced(table: Mapping[bytes, Command], tracer: Tracer) -> dict[bytes, Command]:
    """A table like this one, whose handlers tell a tracer. Statistics are shared with it."""
    return {name: _traced(command, tracer) for name, command in table.items()}


def _traced(command: Command, tracer: Tracer) -> Command:
    handler = command.handler
    return replace(
        command,
        handler=None if handler is None else _Traced(command.name, handler, tracer),
        subcommands={word: _traced(each, tracer) for word, each in command.subcommands.items()},
    )


class _Traced:
    """A handler, and what it tells."""

    def __init__(self, name: str, handler: Handler, tracer: Tracer) -> None:
        self._name = name
        self._handler = handler
        self._begin = tracer.begin
        self._searches = name in _SEARCHES

    def __call__(self, context: Context, args: list[bytes]) -> Any:
        monotonic = context.server.clock.monotonic
        began_at = monotonic()
        client = context.client
        span = self._begin(
            self._name, began_at, {"pyrope.tenant": client.tenant, "pyrope.user": client.user}
        )
        if span is None:
            return self._handler(context, args)
        token = CURRENT.set(span)
        try:
            result = self._handler(context, args)
        except BaseException as error:
            span.end(monotonic(), error=_prefix(error))
            raise
        finally:
            CURRENT.reset(token)
        if type(result) is CoroutineType:
            return _followed(result, span, monotonic)
        if isinstance(result, Pending):
            queued_at = monotonic()
            result.future.add_done_callback(partial(_failed, span, monotonic))
            render = partial(
                self._rendered, result.render, span, context, args, began_at, queued_at
            )
            return Pending(result.future, render)
        ended_at = monotonic()
        if self._searches:
            answered = context.server.answered_by(args)
            level = "exact" if answered is None else answered.level
            span.child("cache", began_at, ended_at, {"pyrope.cache": level})
        span.end(ended_at, _names(context, args))
        return result

    def _rendered(
        self,
        render: Callable[[Any, int], Any],
        span: Span,
        context: Context,
        args: list[bytes],
        began_at: float,
        queued_at: float,
        outcome: Any,
        protocol: int,
    ) -> Any:
        server = context.server
        try:
            reply = render(outcome, protocol)
        except BaseException as error:
            span.end(server.clock.monotonic(), error=_prefix(error))
            raise
        answered = server.answered_by(args)
        if self._searches and answered is not None:
            _tell_parts(span, answered, began_at, queued_at)
        span.end(server.clock.monotonic(), _names(context, args))
        return reply


def _tell_parts(span: Span, answered: Answering, began_at: float, queued_at: float) -> None:
    """Cache, queue and engine, one behind the other, of a search that has waited for a batch."""
    span.child("cache", began_at, queued_at, {"pyrope.cache": answered.level})
    # Who has joined a search that was under way has waited for the rest of it only.
    searched_at = min(queued_at + answered.queue_seconds, answered.at - answered.search_seconds)
    searched_at = max(queued_at, searched_at)
    ended_at = min(searched_at + answered.search_seconds, answered.at)
    span.child("queue", queued_at, searched_at, {})
    span.child("engine", searched_at, max(searched_at, ended_at), {})


async def _followed(
    work: Coroutine[Any, Any, Any], span: Span, monotonic: Callable[[], float]
) -> Any:
    CURRENT.set(span)  # of this task, which is the command's own
    try:
        reply = await work
    except BaseException as error:
        span.end(monotonic(), error=_prefix(error))
        raise
    span.end(monotonic())
    return reply


def _failed(
    span: Span, monotonic: Callable[[], float], future: asyncio.Future[Any] | Promise[Any]
) -> None:
    """Without an outcome nothing is rendered."""
    error = asyncio.CancelledError() if future.cancelled() else future.exception()
    if error is not None:
        span.end(monotonic(), error=_prefix(error))


def _names(context: Context, args: list[bytes]) -> dict[str, str]:
    answered = context.server.answered_by(args)
    request_id = "" if answered is None else answered.request_id
    return {"pyrope.request_id": request_id or context.server.request_id(context.client)}


def _prefix(error: BaseException) -> str:
    return error.prefix if isinstance(error, PyropeError) else type(error).__name__
