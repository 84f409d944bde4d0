"""What remembered responses need of the rest of the server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol

from pyrope.clock import Clock
from pyrope.config import RememberSettings
from pyrope.semantic.remembered.entry import Entry
from pyrope.service.remembered.asking import Asked
from pyrope.service.remembered.budget import RememberBudget
from pyrope.service.remembered.dependencies import Dependencies
from pyrope.service.remembered.judging import FactsCache, Look
from pyrope.service.remembered.leases import Holders
from pyrope.service.remembered.near_index import NearServices
from pyrope.storage.group_commit import GroupCommitter
from pyrope.timers import Schedule


class Verifier(Protocol):
    """Has a language model asked whether two prompts deserve the same response."""

    def wonder(
        self, feedback: Any, asked: Asked, entry: Entry, look: Look, /, *, served: bool
    ) -> None:
        """It may be worth asking; returns at once.

        Args:
            feedback: the `Feedback` that is to be told.
            served: whether the entry has answered, or would have in shadow mode.
        """
        ...


@dataclass(frozen=True, slots=True)
class RememberServices:
    """Shared by all indexes of a server.

    Attributes:
        settings: read at every use.
        run: has something done in a thread.
        spawn: runs a coroutine as a task that the owner waits for.
        schedule: sets timers on the clock.
        near: what the engines of a tenant need.
        facts: of prompts that were looked at of late.
        verifier: has a language model asked, if there is one.
        random: spreads the ends of lives, and chooses what goes.
    """

    settings: RememberSettings
    committer: GroupCommitter
    clock: Clock
    run: Callable[..., Awaitable[Any]]
    spawn: Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]]
    schedule: Schedule
    near: Callable[[str], NearServices]
    dependencies: Dependencies
    budget: RememberBudget
    holders: Holders
    facts: FactsCache
    verifier: Callable[[], Verifier | None]
    random: Random
