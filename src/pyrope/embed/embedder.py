"""What an embedder is to the server: texts in, unit vectors out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from pyrope.errors import BusyError, CommandError, PyropeError
from pyrope.types import Float32Matrix


@dataclass(frozen=True, slots=True)
class Embedded:
    """The vectors of some texts.

    Attributes:
        vectors: shape (n, dim), float32; each of length 1, or all zeros where the embedder has
            made nothing of the text.
        tokens: of each text; they add up to what the provider has reported, if it has.
        estimated: whether it has not, and `tokens` are `pyrope.embed.tokens.estimate`.
    """

    vectors: Float32Matrix
    tokens: list[int]
    estimated: bool = False


class Failure(StrEnum):
    """Why there are no vectors."""

    THROTTLED = "throttled"
    """Too many requests (429)."""
    UNAVAILABLE = "unavailable"
    """No answer, a broken one, one that took too long, or an error of the provider's own (5xx)."""
    UNAUTHORISED = "unauthorised"
    """The key is missing, wrong, or may not do this (401, 403)."""
    UNKNOWN = "unknown"
    """There is no such model, or no such address (404, or a redirect, which would carry the key
    elsewhere); or it cannot be loaded."""
    REFUSED = "refused"
    """One of the texts, or the request as such, is not accepted (400, 413, 422)."""
    MALFORMED = "malformed"
    """There was an answer, and it is not what was asked for."""

    @property
    def passes(self) -> bool:
        """Whether the same call may succeed later."""
        return self in (Failure.THROTTLED, Failure.UNAVAILABLE)


class EmbedderError(Exception):
    """A call that came to nothing.

    Its text is shown to clients: it never holds a key, an address, nor what a provider wrote.

    Attributes:
        retry_after_s: seconds that the provider wants to be left alone for; None: it has not said.
    """

    def __init__(
        self, failure: Failure, reason: str, *, retry_after_s: float | None = None
    ) -> None:
        super().__init__(reason)
        self.failure = failure
        self.retry_after_s = retry_after_s


def refusal(name: str, error: EmbedderError) -> PyropeError:
    """What a client is told: BUSY if it is worth trying again, ERR if somebody must act first."""
    if not error.failure.passes:
        return CommandError(f"the embedder {name} cannot do this: {error}")
    wait = "" if error.retry_after_s is None else f" after {round(error.retry_after_s, 1):g} s"
    return BusyError(f"the embedder {name} is not reachable: {error}; retry with backoff{wait}")


class Embedder(Protocol):
    """A model that makes vectors of texts.

    Constructing it opens and loads nothing; everything else is called in the running loop.
    """

    @property
    def name(self) -> str:
        """By which indexes ask for it: ``wordllama``."""
        ...

    @property
    def dim(self) -> int:
        """Dimension of its vectors; 0 before `start`."""
        ...

    @property
    def identity(self) -> str:
        """Name, model and version: two vectors may be compared only if this is the same of both.

        Begins with the name and a colon, and is final once `start` has returned.
        """
        ...

    @property
    def parallel(self) -> int:
        """Calls of `embed` that may be under way at a time."""
        ...

    @property
    def batch_texts(self) -> int:
        """Texts that a call of `embed` may hold, at least 1; known once `start` has returned."""
        ...

    async def start(self) -> None:
        """Load the model, or reach the provider and see which dimension it has.

        Raises:
            EmbedderError: neither works. It may be called again then.
        """
        ...

    def embed_now(self, text: str) -> Embedded | None:
        """Embed a text on the loop, if that takes less of its time than waiting for it would.

        None: it does not. The vector is the one that `embed` makes.
        """
        ...

    async def embed(self, texts: Sequence[str]) -> Embedded:
        """Embed texts, at least one. What a text's vector is does not depend on the others.

        Raises:
            EmbedderError: there are no vectors, of none of them.
        """
        ...

    async def close(self) -> None:
        """Give everything back. Idempotent; also before `start`."""
        ...
