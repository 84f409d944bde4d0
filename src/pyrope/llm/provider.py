"""What a provider of language models is to the worker: a prompt in, a completion out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from pydantic import BaseModel


@dataclass(frozen=True, slots=True)
class Prompt:
    """One call of a language model.

    Attributes:
        system: instructions, which nobody outside this package has a part in.
        user: the material; texts of clients are delimited in it.
        schema: what the reply has to be, as JSON.
        max_tokens_out: tokens of the reply at the most.
    """

    system: str
    user: str
    schema: type[BaseModel]
    max_tokens_out: int


@dataclass(frozen=True, slots=True)
class Completion:
    """A reply.

    Attributes:
        text: as the model wrote it; not validated.
        tokens_in, tokens_out: as the provider counts them, and charges.
    """

    text: str
    tokens_in: int
    tokens_out: int


class Failure(StrEnum):
    """Why there is no completion."""

    THROTTLED = "throttled"
    """Too many requests (429)."""
    UNAVAILABLE = "unavailable"
    """No answer, a broken one, one that took too long, or an error of the provider's own (5xx)."""
    UNAUTHORISED = "unauthorised"
    """The key is missing, wrong, or may not do this (401, 403)."""
    REFUSED = "refused"
    """The provider does not answer this content."""
    INVALID = "invalid"
    """The provider does not understand the request (400, 404): a wrong model, say."""
    MALFORMED = "malformed"
    """There was an answer, and it is not what its schema says."""

    @property
    def is_permanent(self) -> bool:
        """Whether the same request would fail again."""
        return self not in (Failure.THROTTLED, Failure.UNAVAILABLE)


class ProviderError(Exception):
    """A call that came to nothing.

    Its text is for operators: it never holds a key, nor what clients have asked.

    Attributes:
        retry_after_s: seconds that the provider wants to be left alone for; None: it has not said.
        tokens_in, tokens_out: charged nevertheless.
    """

    def __init__(
        self,
        failure: Failure,
        reason: str,
        *,
        retry_after_s: float | None = None,
        tokens_in: int = 0,
        tokens_out: int = 0,
    ) -> None:
        super().__init__(reason)
        self.failure = failure
        self.retry_after_s = retry_after_s
        self.tokens_in = tokens_in
        self.tokens_out = tokens_out


class Provider(Protocol):
    """A language model behind an API.

    Constructing it opens nothing; `start` and `complete` are called in the running loop.
    """

    @property
    def name(self) -> str: ...

    @property
    def model(self) -> str: ...

    async def start(self) -> None:
        """Make the client. Raises ProviderError where it cannot be made."""
        ...

    async def complete(self, prompt: Prompt) -> Completion:
        """Ask once: whether to ask again is for the caller to decide.

        Raises:
            ProviderError: there is no completion.
        """
        ...

    async def close(self) -> None:
        """Close every connection. Idempotent; also before `start`."""
        ...
