"""What embedders behind an HTTP API have in common: starting, checking answers, naming failures."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pyrope.embed.embedder import Embedded, EmbedderError, Failure
from pyrope.embed.runner import Run
from pyrope.embed.tokens import estimate, split
from pyrope.embed.unit import to_unit_rows
from pyrope.retry_after import seconds_to_wait

MOST_REPLY_BYTES = 2 * 1024 * 1024
"""Bytes of a reply's body: a call asks for at most 16,384 numbers, or for one vector, of 65,536."""

_MOST_TOKENS = 10**9

_PROBE = "dimension"


@dataclass(frozen=True, slots=True)
class RemoteOptions:
    """How an API is reached.

    Attributes:
        model: as the provider calls it.
        base_url: None: the provider's own.
        api_key: None: none is shown.
        dim: asked of the model; 0: its own.
        timeout_s: for one call, from its beginning to the last byte.
        parallel: calls at a time.
    """

    model: str
    base_url: str | None
    api_key: str | None
    dim: int
    timeout_s: float
    parallel: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What a provider has sent.

    Attributes:
        rows: one for each text, if it is as it should be.
        tokens: of all together; None: not told.
    """

    rows: Sequence[Sequence[float]]
    tokens: int | None


class RemoteEmbedder(ABC):
    """One of them; a subclass makes the client and the calls.

    Args:
        run: has something done in a thread: clients take long to import and to make.
        wall: Unix time in seconds, for answers that name a time.
    """

    name = ""
    # That an answer may have: the client parses it on the loop, in at most 3 ms.
    most_numbers = 16_384

    def __init__(self, options: RemoteOptions, run: Run, wall: Callable[[], float]) -> None:
        self.options = options
        self._run = run
        self._wall = wall
        self._client: Any = None
        self._dim = 0

    @property
    def dim(self) -> int:
        return self._dim

    @property
    def identity(self) -> str:
        """For example ``openai:text-embedding-3-small:1536``.

        Providers tell no more about which weights they use. The address is no part of it: the same
        model may move.
        """
        return f"{self.name}:{self.options.model}:{self._dim}"

    @property
    def parallel(self) -> int:
        return self.options.parallel

    @property
    def batch_texts(self) -> int:
        return max(1, self.most_numbers // max(1, self._dim))

    async def start(self) -> None:
        """Make the client, and one call, by which dimension and key are known to be good."""
        if self._client is None:
            try:
                self._client = await self._run(self._connect)
            except (ImportError, ValueError) as error:
                reason = f"its client cannot be made ({type(error).__name__})"
                raise EmbedderError(Failure.UNKNOWN, reason) from error
        answer = await self._ask([_PROBE])
        dim = len(answer.rows[0]) if answer.rows else 0
        wanted = self.options.dim
        if not dim or (wanted and wanted != dim):
            raise EmbedderError(
                Failure.MALFORMED,
                f"its vectors have {dim} dimensions" + (f", not {wanted}" if wanted else ""),
            )
        self._dim = dim

    def embed_now(self, text: str) -> Embedded | None:
        return None

    async def embed(self, texts: Sequence[str]) -> Embedded:
        answer = await self._ask(texts)
        if len(answer.rows) != len(texts):
            raise EmbedderError(
                Failure.MALFORMED, f"it answers {len(texts)} texts with {len(answer.rows)} vectors"
            )
        for row in answer.rows:
            if len(row) != self._dim:
                raise EmbedderError(
                    Failure.MALFORMED, f"its vectors have {len(row)} dimensions, not {self._dim}"
                )
        try:
            with np.errstate(over="ignore"):
                rows = np.asarray(answer.rows, np.float64).astype(np.float32)
        except (TypeError, ValueError) as error:
            raise EmbedderError(Failure.MALFORMED, "its vectors are not numbers") from error
        if answer.tokens is None:
            return Embedded(to_unit_rows(rows), [estimate(text) for text in texts], estimated=True)
        return Embedded(to_unit_rows(rows), split(answer.tokens, texts))

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await self._disconnect(client)

    async def _ask(self, texts: Sequence[str]) -> Answer:
        client = self._client
        if client is None:
            raise EmbedderError(Failure.UNAVAILABLE, "it has been closed")
        try:
            async with asyncio.timeout(self.options.timeout_s):
                return await self._call(client, texts)
        except TimeoutError as error:
            reason = f"no answer within {self.options.timeout_s:g} s"
            raise EmbedderError(Failure.UNAVAILABLE, reason) from error
        except EmbedderError:
            raise
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            # Among them what JSON and schemas raise, whose texts quote what was sent.
            reason = f"its answer is not understood ({type(error).__name__})"
            raise EmbedderError(Failure.MALFORMED, reason) from error
        except Exception as error:
            # What the clients and the HTTP libraries below them raise when a connection fails.
            raise EmbedderError(Failure.UNAVAILABLE, type(error).__name__) from error

    def _refused(self, status: int, headers: Mapping[str, str]) -> EmbedderError:
        """The error for an HTTP status that is none of success."""
        if status in (401, 403):
            reason = f"its key is missing or wrong (HTTP {status})"
            return EmbedderError(Failure.UNAUTHORISED, reason)
        if status == 404 or 300 <= status < 400:
            return EmbedderError(Failure.UNKNOWN, f"no such model or address (HTTP {status})")
        if status == 429:
            return EmbedderError(
                Failure.THROTTLED,
                "it is asked too often (HTTP 429)",
                retry_after_s=seconds_to_wait(headers, self._wall()),
            )
        if status == 408 or status >= 500:
            return EmbedderError(
                Failure.UNAVAILABLE,
                f"HTTP {status}",
                retry_after_s=seconds_to_wait(headers, self._wall()),
            )
        return EmbedderError(Failure.REFUSED, f"it does not accept the text (HTTP {status})")

    # -- of each provider -------------------------------------------------------------------------

    @abstractmethod
    def _connect(self) -> Any:
        """Import and make the client; in a thread. Raises ImportError, ValueError."""

    @abstractmethod
    async def _disconnect(self, client: Any) -> None: ...

    @abstractmethod
    async def _call(self, client: Any, texts: Sequence[str]) -> Answer:
        """One request. What it raises is a failure, of which kind `_ask` decides."""


def told_tokens(usage: object) -> int | None:
    """What a provider says of the tokens that it has read; None: nothing that can be.

    Args:
        usage: anything that may have `prompt_tokens` or, as Gemini calls them,
            `prompt_token_count`.
    """
    for name in ("prompt_tokens", "prompt_token_count"):
        tokens = getattr(usage, name, None)
        if isinstance(tokens, int) and 0 <= tokens <= _MOST_TOKENS:
            return tokens
    return None
