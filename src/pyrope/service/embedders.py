"""Embedders of the indexes: started by the first one that needs them, and told apart by identity.

The definition of an index names the identity of its embedder: name, model, version. A text is
embedded for it only while that is what the settings stand for, so that vectors of two models never
meet in an index; everything but texts goes on without.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from functools import partial
from random import Random
from typing import Any, Protocol

from pyrope.clock import Clock
from pyrope.config import EmbedSettings
from pyrope.embed.embedder import EmbedderError, refusal
from pyrope.embed.embedding import (
    Charge,
    Embedding,
    EmbeddingLimits,
    EmbeddingStatistics,
    Sleep,
)
from pyrope.embed.factory import make_embedder, price_of
from pyrope.embed.runner import Run
from pyrope.embed.text_cache import TextCache, TextCacheStatistics
from pyrope.embed.texts import check_text
from pyrope.errors import BusyError, CommandError, PyropeError
from pyrope.log import get_logger
from pyrope.tenants.enforcer import Account
from pyrope.types import IndexSpec

_log = get_logger(__name__)

# Of the pauses between attempts.
_SEED = 6
# In one call: what wordllama takes 10 ms for.
_BATCH_BYTES = 64 * 1024


class Spawn(Protocol):
    """Has a coroutine run as a task that the service waits for."""

    def __call__(self, work: Coroutine[Any, Any, Any], /) -> asyncio.Task[Any]: ...


class Embedders:
    """All of a server. For the event loop.

    Args:
        run: has something done in a thread.
        spawn: has something done in the background.
        sleep: pauses between attempts.
    """

    def __init__(
        self,
        settings: EmbedSettings,
        clock: Clock,
        *,
        run: Run,
        spawn: Spawn,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._run = run
        self._spawn = spawn
        self._sleep = sleep
        self._cache = TextCache(settings.cache_bytes)
        # Those that have been named, and of these those that have started.
        self._made: dict[str, Embedding] = {}
        self._ready: dict[str, Embedding] = {}
        self._starting: dict[str, asyncio.Task[None]] = {}
        self._stopped = False

    async def stop(self) -> None:
        """Give up every text that waits, and close what was started. Idempotent."""
        self._stopped = True
        starting = list(self._starting.values())
        for task in starting:
            task.cancel()
        await asyncio.gather(*starting, return_exceptions=True)
        for embedding in self._made.values():
            await embedding.stop()
        self._ready.clear()

    async def describe(self, name: str) -> tuple[str, int]:
        """Identity and dimension of an embedder, which is started.

        Raises:
            CommandError, BusyError: there is none of that name, it is not configured, or it cannot
                be started.
        """
        embedding = await self._get(name)
        return embedding.identity, embedding.dim

    def begin(self, spec: IndexSpec) -> None:
        """Start the embedder of an index in the background, if it has one; the log says how."""
        if spec.embedder:
            self._spawn(self._begin(spec))

    async def _begin(self, spec: IndexSpec) -> None:
        try:
            await self._get(_name_of(spec))
            self._check(spec)
        except PyropeError as error:
            _log.warning("an index cannot embed texts", index=spec.name, reason=str(error))

    # -- texts ------------------------------------------------------------------------------------

    def find(self, spec: IndexSpec, raw: bytes, account: Account | None) -> bytes | None:
        """The vector of a text for an index, if it is there without waiting for anybody.

        Args:
            account: as of `embed`.

        Raises:
            CommandError: the index has no embedder, or another one than it was created with; or
                this is no text, or one that the embedder makes nothing of.
        """
        if not spec.embedder:
            raise CommandError(
                f"index '{spec.name}' has no embedder, which TEXT needs: give vectors, or create "
                "it with EMBEDDER"
            )
        text = check_text(raw, self._settings.text_bytes)
        name = _name_of(spec)
        embedding = self._ready.get(name)
        if embedding is None:
            return None
        self._check(spec)
        found = embedding.find(spec.tenant, raw)
        if found is None:
            found = embedding.embed_now(spec.tenant, text, self._charge(name, account))
        return found

    async def embed(
        self, spec: IndexSpec, raw: bytes, *, account: Account | None, timeout_s: float | None
    ) -> bytes:
        """Embed a text for an index.

        Args:
            account: that pays for the tokens, unless they are of a text that was under way already;
                None: nobody's.
            timeout_s: for which somebody waits; None, or more than the settings allow: as long as
                these allow.

        Returns:
            Its vector, little-endian float32 of length 1.

        Raises:
            BusyError: not in time, too many wait, or the embedder is not reachable.
            CommandError: as `find`; or the embedder does not accept the text.
        """
        text = check_text(raw, self._settings.text_bytes)
        limit = self._settings.timeout_s
        if timeout_s is not None:
            limit = min(limit, timeout_s)
        name = _name_of(spec)
        embedding = self._ready.get(name)
        if embedding is None:
            began = self._clock.monotonic()
            try:
                embedding = await asyncio.wait_for(self._get(name), limit)
            except TimeoutError:
                raise BusyError("timeout") from None
            limit -= self._clock.monotonic() - began
            if limit <= 0:
                raise BusyError("timeout")
        self._check(spec)
        return await embedding.submit(spec.tenant, text, limit, self._charge(name, account))

    def statistics(self) -> dict[str, EmbeddingStatistics]:
        """Of each embedder that has been named, by its identity or, before it knows, its name."""
        return {
            self._ready[name].identity if name in self._ready else name: embedding.statistics()
            for name, embedding in self._made.items()
        }

    def cache_statistics(self) -> TextCacheStatistics:
        return self._cache.statistics()

    # -- within -----------------------------------------------------------------------------------

    async def _get(self, name: str) -> Embedding:
        """An embedder that has started; those who ask for one that is starting wait together."""
        ready = self._ready.get(name)
        if ready is not None:
            return ready
        if self._stopped:
            raise BusyError("the server is stopping")
        made = self._made.get(name)
        if made is None:
            made = self._made[name] = self._make(name)
        task = self._starting.get(name)
        if task is None:
            task = self._starting[name] = asyncio.get_running_loop().create_task(made.start())
            task.add_done_callback(partial(self._started, name, made))
        try:
            # Whoever gives up waiting does not keep the others from what they wait for.
            await asyncio.shield(task)
        except EmbedderError as error:
            raise refusal(name, error) from error
        except asyncio.CancelledError:
            if task.cancelled():
                raise BusyError("the server is stopping") from None
            raise
        return made

    def _started(self, name: str, embedding: Embedding, task: asyncio.Task[None]) -> None:
        del self._starting[name]
        if not task.cancelled() and task.exception() is None:
            self._ready[name] = embedding
            _log.info("embedder started", embedder=embedding.identity, dim=embedding.dim)

    def _make(self, name: str) -> Embedding:
        settings = self._settings
        embedder = make_embedder(name, settings, run=self._run, wall=self._clock.wall)
        limits = EmbeddingLimits(
            queued_texts=settings.queued_texts,
            batch_texts=settings.batch_texts,
            batch_bytes=_BATCH_BYTES,
            attempts=settings.max_attempts,
        )
        return Embedding(
            embedder,
            limits,
            cache=self._cache,
            clock=self._clock,
            sleep=self._sleep,
            random=Random(_SEED),  # noqa: S311 - no secret
        )

    def _charge(self, name: str, account: Account | None) -> Charge | None:
        if account is None:
            return None
        return partial(_charge, account, price_of(name, self._settings))

    def _check(self, spec: IndexSpec) -> None:
        """Raises CommandError unless an index's embedder is the one it was created with."""
        identity = self._ready[_name_of(spec)].identity
        if identity != spec.embedder:
            raise CommandError(
                f"index '{spec.name}' was created with the embedder {spec.embedder}, and the "
                f"settings stand for {identity} now, whose vectors mean something else: create "
                "another index for it, or restore the settings"
            )


def _name_of(spec: IndexSpec) -> str:
    return spec.embedder.partition(":")[0]


def _charge(account: Account, price: float, tokens: int) -> None:
    account.charge_embeddings(1, tokens * price / 1000)
