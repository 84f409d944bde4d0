"""TEXT in place of a vector: embedded first, and then the command goes on as with FP32.

What a command was allowed to do it may still do when the text has been embedded: it goes on as the
client, of the tenant, and in the protocol that it had when it came. The index is looked up again,
as it may have been dropped meanwhile.

*Order.* Commands of a connection take effect in the order sent. Reads and whatever runs alone wait
for the writes before them anyway; other writes do not, as an index queues those itself. So a write
whose text is not embedded yet takes its place in a line of its connection (`Client.deferred`): it
is written after those before it in the line, although all are embedded at the same time, and writes
that need no text wait for the end of the line (see `Command.defers` and the connection).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from pyrope.commands.context import Context, Pending
from pyrope.errors import CommandError
from pyrope.service.index import OpenIndex

Then = Callable[[Context, OpenIndex, bytes], Any]
"""The rest of a command: takes the context it goes on in, the index, and the vector (little-endian
float32). Returns a reply value or a `Pending`."""


def with_text(
    context: Context,
    index: OpenIndex,
    text: bytes,
    then: Then,
    *,
    timeout_s: float | None = None,
    writes: bool = False,
) -> Any:
    """Embed a text for an index and go on with `then`: at once, if nobody has to be waited for.

    Args:
        timeout_s: for which the client waits; None: as long as the settings allow.
        writes: whether `then` writes, and so must not overtake other writes.

    Returns:
        What `then` returns; or a `Pending` whose outcome that is.

    Raises:
        CommandError: the index has no embedder, or another one than it was created with; or this
            is no text.
        Exception: what `then` raises.
    """
    embedders = context.server.service.embedders
    blob = embedders.find(index.spec, text, context.account)
    client = context.client
    if blob is not None and not (writes and client.has_deferred):
        return then(context, index, blob)
    # The connection's own are those of the next command in a moment.
    kept = replace(context, client=replace(client), repeatable=None)
    before, turn = None, None
    if writes:
        before = client.deferred
        turn = client.deferred = asyncio.get_running_loop().create_future()
    work = _embed_and_go_on(kept, index, text, blob, then, timeout_s, before, turn)
    task = context.server.service.spawn(work)
    if turn is not None:
        # One that is cancelled before it has begun never comes to its end.
        task.add_done_callback(partial(_let_next, turn))
    return Pending(task, _as_it_is)


async def _embed_and_go_on(
    context: Context,
    index: OpenIndex,
    text: bytes,
    blob: bytes | None,
    then: Then,
    timeout_s: float | None,
    before: asyncio.Future[None] | None,
    turn: asyncio.Future[None] | None,
) -> Any:
    service = context.server.service
    spec = index.spec
    try:
        if blob is None:
            blob = await service.embedders.embed(
                spec, text, account=context.account, timeout_s=timeout_s
            )
        if before is not None and not before.done():
            # Not cancelled with this one: others may wait for it, too.
            await asyncio.wait((before,))
        now = service.index(spec.tenant, spec.name.encode())
        if now.spec.embedder != spec.embedder:
            raise CommandError(f"index '{spec.name}' has become another one meanwhile")
        now.remove_expired()
        result = then(context, now, blob)
    finally:
        if turn is not None:
            _let_next(turn)
    if isinstance(result, Pending):
        return result.render(await result.future, context.client.protocol)
    return result


def _let_next(turn: asyncio.Future[None], _task: asyncio.Task[Any] | None = None) -> None:
    if not turn.done():
        turn.set_result(None)


def _as_it_is(reply: Any, _protocol: int) -> Any:
    return reply
