"""The audit trail: who has changed what, from where, and what was there before.

An act is written down, durably, before it is done: nothing is done that the trail does not tell of.
Where it then fails, another entry says so.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from pyrope.clock import Clock
from pyrope.service.log_heads import put_head
from pyrope.storage.chained_entry import Head, LogEntry
from pyrope.storage.chained_log import EntryLog

SPACE = "audit"
"""Of the store's meta records: where the trail ends."""

Run = Callable[..., Awaitable[Any]]
"""Calls a function with arguments in a thread."""


class Actor(NamedTuple):
    """Who does something.

    Attributes:
        name: by which it has signed in.
        address: where it comes from.
    """

    name: str
    address: str


SERVER = Actor("server", "")
"""What the server does of its own accord."""


class AuditTrail:
    """For the event loop.

    Args:
        log: where it is written.
        run: calls a function in a thread that may wait for the disk.
        commit: makes changes to the store durable.
    """

    def __init__(
        self, log: EntryLog, run: Run, commit: Callable[..., Awaitable[None]], clock: Clock
    ) -> None:
        self._log = log
        self._run = run
        self._commit = commit
        self._clock = clock

    @asynccontextmanager
    async def act(
        self,
        actor: Actor,
        act: str,
        tenant: str,
        target: str,
        before: Mapping[str, Any] | None = None,
        after: Mapping[str, Any] | None = None,
    ) -> AsyncIterator[None]:
        """Write an act down; what is done within the ``async with`` is the act.

        Args:
            act: what is done, such as ``tenant.set``.
            tenant: whose it is; empty for the whole server.
            target: what it is done to.
            before, after: what changes of that, as JSON has it; None: there is nothing.

        Raises:
            MisconfError: it cannot be written down: the act is not begun, then.
        """
        entry = {
            "act": act,
            "actor": actor.name,
            "address": actor.address,
            "tenant": tenant,
            "target": target,
            "before": None if before is None else dict(before),
            "after": None if after is None else dict(after),
        }
        head = await self._append(entry)
        try:
            yield
        except BaseException as error:
            failed = {"act": f"{act}.failed", "of": head.seq, "error": str(error)[:1000]}
            await self._append(failed)
            raise

    async def _append(self, entry: Mapping[str, Any]) -> Head:
        head: Head = await self._run(self._log.append, [entry], self._clock.wall())
        await self._commit(put_head(SPACE, head))
        return head

    async def newest(self, before_seq: int | None, limit: int) -> list[LogEntry]:
        """Up to `limit` entries before a number, newest first; None: the newest of all."""
        found: list[LogEntry] = await self._run(self._log.read_newest, before_seq, limit)
        return found
