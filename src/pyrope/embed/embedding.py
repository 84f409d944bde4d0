"""Texts in front of an embedder: what waits shares the next call.

- A short text is embedded *at once* by an embedder that takes less of the loop's time for it than
  waiting would.
- *Natural batching*, as of `pyrope.engine.batcher`: there is no timer. What comes in within a turn
  of the loop goes out together, and what comes in while as many calls are under way as the embedder
  takes forms the next ones. Tenants take turns within a call, one text each.
- *Single flight*: a text that is under way already is not sent again; whoever asks for it waits for
  the same answer. That, as the cache, is within a tenant.
- A call that fails for a reason that passes is made again, after a pause that grows, for as long as
  somebody waits. One whose texts are refused is made again in halves, so that nobody's text spoils
  what others have asked for.
- Nobody waits for longer than they have said, whatever the embedder does.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from random import Random

from pyrope.clock import Clock
from pyrope.embed.backoff import pause_s
from pyrope.embed.embedder import Embedded, Embedder, EmbedderError, Failure, refusal
from pyrope.embed.text_cache import TextCache, TextKey
from pyrope.errors import BusyError, CommandError
from pyrope.log import get_logger

_log = get_logger(__name__)

Sleep = Callable[[float], Awaitable[None]]
"""Returns after so many seconds."""

Charge = Callable[[int], None]
"""Told the tokens of a text, when they have been spent on it."""


@dataclass(frozen=True, slots=True)
class EmbeddingLimits:
    """How much at a time.

    Attributes:
        queued_texts: of one tenant that wait or are under way; one more is refused.
        batch_texts: in one call.
        batch_bytes: in one call, unless a single text has more.
        attempts: of one call.
    """

    queued_texts: int
    batch_texts: int
    batch_bytes: int
    attempts: int


@dataclass(frozen=True, slots=True)
class EmbeddingStatistics:
    """A snapshot: what waits and runs now, and totals since the start.

    Attributes:
        queued_current: texts that no call holds.
        calls_running_current: with those that pause before another attempt.
        texts_total, tokens_total: embedded.
        tokens_estimated_total: of `tokens_total`, those that the provider has not counted.
        shared_total: texts that were under way already when they were asked for.
        calls_total: attempts, whatever came of them.
        retries_total: of these, those that were not the first.
        failed_total: texts that were given up.
        shed_total: texts that were refused because too many waited.
        last_error: what the last failure was; empty: there was none.
    """

    queued_current: int
    calls_running_current: int
    texts_total: int
    tokens_total: int
    tokens_estimated_total: int
    shared_total: int
    calls_total: int
    retries_total: int
    failed_total: int
    shed_total: int
    last_error: str


class _Flight:
    """A text on its way, and those who wait for it."""

    __slots__ = ("charge", "key", "text", "until", "waiters")

    def __init__(self, key: TextKey, text: str, charge: Charge | None) -> None:
        self.key = key
        self.text = text
        self.charge = charge
        self.until = 0.0
        self.waiters: list[asyncio.Future[bytes]] = []

    @property
    def is_wanted(self) -> bool:
        return any(not waiter.done() for waiter in self.waiters)


class Embedding:
    """An embedder in use. For the event loop; belongs to the one that `start` runs in.

    Args:
        cache: where vectors are kept, and may be those of other embedders too.
        sleep: pauses before another attempt.
        random: spreads the pauses.
    """

    def __init__(
        self,
        embedder: Embedder,
        limits: EmbeddingLimits,
        *,
        cache: TextCache,
        clock: Clock,
        sleep: Sleep,
        random: Random,
    ) -> None:
        self._embedder = embedder
        self._limits = limits
        self._cache = cache
        self._monotonic = clock.monotonic
        self._sleep = sleep
        self._random = random
        self._flights: dict[TextKey, _Flight] = {}
        self._of_tenant: dict[str, int] = {}
        self._queues: OrderedDict[str, deque[_Flight]] = OrderedDict()
        self._queued = 0
        self._calls: set[asyncio.Task[None]] = set()
        self._scheduled = False
        self._stopped = False
        self._texts_total = self._tokens_total = self._tokens_estimated_total = 0
        self._shared_total = self._calls_total = self._retries_total = 0
        self._failed_total = self._shed_total = 0
        self._last_error = ""

    @property
    def identity(self) -> str:
        return self._embedder.identity

    @property
    def dim(self) -> int:
        return self._embedder.dim

    async def start(self) -> None:
        """Start the embedder. Raises EmbedderError; it may be called again then."""
        await self._embedder.start()

    async def stop(self) -> None:
        """Give up what waits and what is under way, and close the embedder. Idempotent."""
        self._stopped = True
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)
        for flight in list(self._flights.values()):
            self._fail(flight, BusyError("the server is stopping"))
        self._queues.clear()
        self._queued = 0
        await self._embedder.close()

    def find(self, tenant: str, raw: bytes) -> bytes | None:
        """The vector of a text that was embedded before, little-endian float32, if it is kept."""
        return self._cache.get(TextKey(self._embedder.name, tenant, raw))

    def embed_now(self, tenant: str, text: str, charge: Charge | None = None) -> bytes | None:
        """Embed a text at once, where the embedder is quick enough for that; else None.

        Args:
            text, charge: as `submit` takes them.

        Raises:
            CommandError: the embedder makes nothing of the text.
        """
        embedded = self._embedder.embed_now(text)
        if embedded is None:
            return None
        self._calls_total += 1
        self._count(embedded, 0, charge)
        vector = _vector(embedded, 0)
        self._cache.put(TextKey(self._embedder.name, tenant, text.encode()), vector)
        return vector

    def submit(
        self, tenant: str, text: str, timeout_s: float, charge: Charge | None = None
    ) -> asyncio.Future[bytes]:
        """Have a text embedded.

        Args:
            text: as `pyrope.embed.texts.check_text` has let it through.
            timeout_s: for which somebody waits.
            charge: called on the loop when tokens have been spent; not for a text that was under
                way already.

        Returns:
            Its vector, little-endian float32 of length 1. BusyError: not in time, or the embedder
            is not reachable. CommandError: it refuses, or makes nothing of the text.

        Raises:
            BusyError: too many texts of the tenant wait.
        """
        if self._stopped:
            raise BusyError("the server is stopping")
        key = TextKey(self._embedder.name, tenant, text.encode())
        flight = self._flights.get(key)
        if flight is None:
            under_way = self._of_tenant.get(tenant, 0)
            if under_way >= self._limits.queued_texts:
                self._shed_total += 1
                raise BusyError(
                    f"{under_way} texts wait for the embedder {self._embedder.name}, which is the "
                    "limit; retry with backoff"
                )
            self._of_tenant[tenant] = under_way + 1
            flight = self._flights[key] = _Flight(key, text, charge)
            self._queues.setdefault(tenant, deque()).append(flight)
            self._queued += 1
        else:
            self._shared_total += 1
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bytes] = loop.create_future()
        timer = loop.call_later(timeout_s, _time_out, waiter)
        waiter.add_done_callback(lambda _: timer.cancel())
        flight.waiters.append(waiter)
        flight.until = max(flight.until, self._monotonic() + timeout_s)
        if not self._scheduled and len(self._calls) < self._embedder.parallel:
            self._scheduled = True
            loop.call_soon(self._dispatch_scheduled)
        return waiter

    def statistics(self) -> EmbeddingStatistics:
        return EmbeddingStatistics(
            self._queued,
            len(self._calls),
            self._texts_total,
            self._tokens_total,
            self._tokens_estimated_total,
            self._shared_total,
            self._calls_total,
            self._retries_total,
            self._failed_total,
            self._shed_total,
            self._last_error,
        )

    # -- batches ----------------------------------------------------------------------------------

    def _dispatch_scheduled(self) -> None:
        self._scheduled = False
        self._dispatch()

    def _dispatch(self) -> None:
        while self._queues and len(self._calls) < self._embedder.parallel and not self._stopped:
            batch = self._take()
            if batch:
                call = asyncio.get_running_loop().create_task(self._carry(batch))
                self._calls.add(call)
                call.add_done_callback(self._ended)

    def _ended(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        self._dispatch()

    def _take(self) -> list[_Flight]:
        """Texts for the next call, one of each tenant in turn."""
        batch: list[_Flight] = []
        nbytes = 0
        queues = self._queues
        most = min(self._limits.batch_texts, self._embedder.batch_texts)
        while queues and len(batch) < most:
            tenant, queue = queues.popitem(last=False)
            flight = queue[0]
            if not flight.is_wanted:
                self._forget(flight)
            elif batch and nbytes + len(flight.key.text) > self._limits.batch_bytes:
                queues[tenant] = queue
                queues.move_to_end(tenant, last=False)
                break
            else:
                nbytes += len(flight.key.text)
                batch.append(flight)
            queue.popleft()
            self._queued -= 1
            if queue:
                queues[tenant] = queue
        return batch

    async def _carry(self, batch: Sequence[_Flight]) -> None:
        """Embed the texts of a batch, and tell everybody who waits."""
        try:
            embedded = await self._attempt(batch)
        except EmbedderError as error:
            self._last_error = str(error)
            if error.failure is Failure.REFUSED and len(batch) > 1:
                middle = len(batch) // 2
                await self._carry(batch[:middle])
                await self._carry(batch[middle:])
                return
            _log.warning(
                "texts were not embedded",
                embedder=self._embedder.name,
                texts=len(batch),
                failure=error.failure.value,
                reason=str(error),
            )
            for flight in batch:
                self._fail(flight, refusal(self._embedder.name, error))
        except Exception as error:  # noqa: BLE001 - whoever waits is told, and nobody else suffers
            self._last_error = type(error).__name__
            for flight in batch:
                self._fail(flight, error)
        else:
            self._deliver(batch, embedded)

    async def _attempt(self, batch: Sequence[_Flight]) -> Embedded:
        texts = [flight.text for flight in batch]
        attempt = 0
        while True:
            attempt += 1
            self._calls_total += 1
            try:
                return await self._embedder.embed(texts)
            except EmbedderError as error:
                if not error.failure.passes or attempt >= self._limits.attempts:
                    raise
                pause = pause_s(attempt, error.retry_after_s, self._random)
                until = max(flight.until for flight in batch)
                if self._monotonic() + pause >= until:
                    raise
                self._last_error = str(error)
            await self._sleep(pause)
            if not any(flight.is_wanted for flight in batch):
                raise EmbedderError(Failure.UNAVAILABLE, "nobody waits any more")
            self._retries_total += 1

    def _deliver(self, batch: Sequence[_Flight], embedded: Embedded) -> None:
        for row, flight in enumerate(batch):
            self._count(embedded, row, flight.charge)
            try:
                vector = _vector(embedded, row)
            except CommandError as error:
                self._fail(flight, error)
                continue
            self._cache.put(flight.key, vector)
            self._forget(flight)
            for waiter in flight.waiters:
                if not waiter.done():
                    waiter.set_result(vector)

    def _count(self, embedded: Embedded, row: int, charge: Charge | None) -> None:
        tokens = embedded.tokens[row]
        self._texts_total += 1
        self._tokens_total += tokens
        if embedded.estimated:
            self._tokens_estimated_total += tokens
        if charge is not None:
            charge(tokens)

    def _fail(self, flight: _Flight, error: Exception) -> None:
        self._failed_total += 1
        self._forget(flight)
        for waiter in flight.waiters:
            if not waiter.done():
                waiter.set_exception(error)

    def _forget(self, flight: _Flight) -> None:
        """It is on its way no more; whoever asks for its text again makes another one."""
        if self._flights.pop(flight.key, None) is None:
            return
        tenant = flight.key.tenant
        left = self._of_tenant[tenant] - 1
        if left:
            self._of_tenant[tenant] = left
        else:
            del self._of_tenant[tenant]


def _vector(embedded: Embedded, row: int) -> bytes:
    """Raises CommandError where there is none."""
    vector = embedded.vectors[row]
    if not vector.any():
        raise CommandError("the embedder makes no vector of this text")
    blob: bytes = vector.astype("<f4", copy=False).tobytes()
    return blob


def _time_out(waiter: asyncio.Future[bytes]) -> None:
    if not waiter.done():
        waiter.set_exception(BusyError("timeout"))
