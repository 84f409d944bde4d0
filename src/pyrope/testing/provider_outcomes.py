"""What a stand-in of a provider is asked, and what a test may have it answer.

The same for every provider: `pyrope.testing.provider_servers` puts it into the words of each.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, as a stand-in has understood it.

    Attributes:
        kind: ``chat`` asks for a completion, ``embeddings`` for vectors.
        headers: names in lower case.
        body: the JSON as it came.
        model: without a prefix such as ``models/``.
        system, user: texts of a chat; empty where there are none.
        schema: JSON schema that the reply is to have; None: not asked for.
        max_tokens_out: None: not asked for.
        texts: what is to be embedded.
        dim: dimension asked for; None: the model's own.
    """

    kind: Literal["chat", "embeddings"]
    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]
    model: str
    system: str = ""
    user: str = ""
    schema: Mapping[str, Any] | None = None
    max_tokens_out: int | None = None
    texts: tuple[str, ...] = ()
    dim: int | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """A completion.

    Attributes:
        text: what the model writes.
        tokens_in, tokens_out: usage reported; None: `approximate_tokens` of the texts.
        tokens_thought: of a model that thinks; reported beside (Gemini) or within (OpenAI) the
            tokens of the reply.
        finish: ``length`` where the reply is cut off by the limit of tokens; ``safety`` where the
            provider stopped it.
        usage: False: no usage is reported at all, and the tokens above count as 0.
    """

    text: str
    tokens_in: int | None = None
    tokens_out: int | None = None
    tokens_thought: int = 0
    finish: Literal["stop", "length", "safety"] = "stop"
    usage: bool = True


def answer_json(value: object) -> Answer:
    """A completion that is this value as JSON."""
    return Answer(json.dumps(value))


@dataclass(frozen=True, slots=True)
class Refused:
    """The provider does not answer this.

    Gemini: no candidates, and the reason why the prompt was blocked. OpenAI: a `refusal` in place
    of the content.
    """

    reason: str = "SAFETY"
    tokens_in: int | None = None


@dataclass(frozen=True, slots=True)
class NoCandidates:
    """An answer without a single candidate (choice), and without a reason."""

    tokens_in: int | None = None


@dataclass(frozen=True, slots=True)
class Vectors:
    """Embeddings.

    Attributes:
        rows: one for each text; None: `pseudo_embedding` of each.
        tokens: usage reported; None: `approximate_tokens` of the texts.
        usage: False: no usage is reported, and the tokens count as 0.
    """

    rows: Sequence[Sequence[float]] | None = None
    tokens: int | None = None
    usage: bool = True


@dataclass(frozen=True, slots=True)
class Problem:
    """An error reply.

    Attributes:
        status: of HTTP.
        message: the provider's words.
        code: the provider's own word for it; empty: the usual one for the status.
        retry_after: the header as it is sent; None: none.
        retry_info_s: Gemini's `google.rpc.RetryInfo`, in seconds; None: none.
    """

    status: int
    message: str = "something went wrong"
    code: str = ""
    retry_after: str | None = None
    retry_info_s: float | None = None


@dataclass(frozen=True, slots=True)
class Raw:
    """Bytes that are sent as they are."""

    body: bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BreakOff:
    """Half of what would be sent, and then the end of the connection.

    Attributes:
        share: of the body, 0 to 1; 0: its headers only.
    """

    of: Outcome
    share: float = 0.5


@dataclass(frozen=True, slots=True)
class HangUp:
    """The connection is closed without a byte."""


@dataclass(frozen=True, slots=True)
class Hang:
    """Nothing, for as long as the client waits."""


@dataclass(frozen=True, slots=True)
class Delay:
    """Something, after so many seconds of real time."""

    seconds: float
    then: Outcome


Outcome = (
    Answer | Refused | NoCandidates | Vectors | Problem | Raw | BreakOff | HangUp | Hang | Delay
)

Behaviour = Callable[[Asked], Outcome | Awaitable[Outcome]]
"""Decides on a request; one that waits for something of the test's makes a provider slow."""


class Script:
    """A behaviour: outcomes one after another.

    Args:
        outcomes: for the first requests, in turn.
        then: for all that come after; None: asking once more is a mistake, answered with 500.
    """

    def __init__(self, *outcomes: Outcome, then: Behaviour | None = None) -> None:
        self._outcomes = list(outcomes)
        self._then = then

    @property
    def left(self) -> int:
        """Outcomes that have not been used."""
        return len(self._outcomes)

    def __call__(self, asked: Asked) -> Outcome | Awaitable[Outcome]:
        if self._outcomes:
            return self._outcomes.pop(0)
        if self._then is not None:
            return self._then(asked)
        return Problem(500, "the script of the test has come to its end")


def always(outcome: Outcome) -> Behaviour:
    """A behaviour: the same for everyone."""
    return lambda _asked: outcome


async def decide(behaviour: Behaviour, asked: Asked) -> Outcome:
    """What a behaviour comes to in the end: delays are over, and what hangs does not return."""
    decided = behaviour(asked)
    outcome = await decided if isinstance(decided, Awaitable) else decided
    while isinstance(outcome, Delay):
        await asyncio.sleep(outcome.seconds)
        outcome = outcome.then
    if isinstance(outcome, Hang):
        await asyncio.Event().wait()
    return outcome


def approximate_tokens(text: str) -> int:
    """A stand-in's count of tokens: a quarter of the UTF-8 bytes, rounded up."""
    return -(-len(text.encode("utf-8", "surrogatepass")) // 4)


def pseudo_embedding(text: str, dim: int) -> list[float]:
    """A vector that depends on the text alone: equal texts have equal vectors, others do not.

    Components are in -1 to 1, from SHA-256 of the text and a counter.
    """
    values: list[float] = []
    counter = 0
    while len(values) < dim:
        digest = hashlib.sha256(f"{counter}\0{text}".encode("utf-8", "surrogatepass")).digest()
        values += [int.from_bytes(digest[at : at + 4], "big") / 2**31 - 1 for at in range(0, 32, 4)]
        counter += 1
    return values[:dim]
