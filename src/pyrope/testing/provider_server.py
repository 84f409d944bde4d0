"""What the stand-ins of providers have in common: behaviour, record, sums."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from pyrope.testing.http_server import HttpReply, HttpRequest, HttpServer
from pyrope.testing.provider_outcomes import (
    Answer,
    Asked,
    Behaviour,
    BreakOff,
    HangUp,
    NoCandidates,
    Outcome,
    Problem,
    Raw,
    Refused,
    Vectors,
    always,
    answer_json,
    approximate_tokens,
    decide,
    pseudo_embedding,
)

Json = dict[str, Any]


class NotUnderstoodError(Exception):
    """A request that the real API would not understand either.

    Attributes:
        status: of HTTP: 400, 401, 403 or 404.
        code: the provider's own word for it; empty: the usual one for the status.
    """

    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class ProviderServer(ABC):
    """What the stand-ins have in common.

    Args:
        chat: what is answered to a chat; unless told, ``{}``.
        embed: what is answered to texts that are to be embedded; unless told, a pseudo-embedding
            of each.
        dim: dimension of embeddings where the client does not ask for one.
        key: the key that clients have to show; None: any, or none.

    Attributes:
        asked: every request that was understood, in the order in which they came.
        tokens_in, tokens_out: of chats, as reported in replies that were not broken off.
        tokens_embedded: the same of embeddings.
        http: the server below; it counts connections.
    """

    def __init__(
        self,
        *,
        chat: Behaviour | None = None,
        embed: Behaviour | None = None,
        dim: int = 8,
        key: str | None = None,
    ) -> None:
        self.chat: Behaviour = chat or always(answer_json({}))
        self.embed: Behaviour = embed or always(Vectors())
        self.dim = dim
        self.key = key
        self.asked: list[Asked] = []
        self.tokens_in = 0
        self.tokens_out = 0
        self.tokens_embedded = 0
        self.http = HttpServer(self._handle)
        self._mistakes: list[Exception] = []

    @property
    def base_url(self) -> str:
        """What a client is to be given as its base URL."""
        return self.http.origin

    async def start(self) -> None:
        """Listen; a port is picked by the system."""
        await self.http.start()

    async def stop(self) -> None:
        """Cut what is going on, and stop listening. Idempotent.

        Raises:
            Exception: the first that a behaviour has raised; its client was answered with 500.
        """
        await self.http.stop()
        mistakes, self._mistakes = self._mistakes, []
        if mistakes:
            raise mistakes[0]

    async def _handle(self, request: HttpRequest) -> HttpReply | None:
        try:
            asked = self.understand(request)
        except NotUnderstoodError as error:
            return self.error(Problem(error.status, str(error), error.code))
        self.asked.append(asked)
        behaviour = self.chat if asked.kind == "chat" else self.embed
        try:
            return self._reply(asked, await decide(behaviour, asked))
        except Exception as error:  # noqa: BLE001 - whatever a test's behaviour raises
            self._mistakes.append(error)
            return self.error(Problem(500, repr(error)))

    def _reply(self, asked: Asked, outcome: Outcome) -> HttpReply | None:
        match outcome:
            case HangUp():
                return None
            case Problem():
                return self.error(outcome)
            case Raw():
                return HttpReply(outcome.status, outcome.body, outcome.headers)
            case BreakOff():
                return self._broken_off(asked, outcome)
            case Answer() | Refused() | NoCandidates() if asked.kind == "chat":
                return self.chat_reply(asked, self.completion(asked, outcome))
            case Vectors() if asked.kind == "embeddings":
                return json_reply(self._embedded(asked, outcome))
        raise TypeError(f"{outcome} is no answer to {asked.kind}")

    def _broken_off(self, asked: Asked, outcome: BreakOff) -> HttpReply | None:
        sums = self.tokens_in, self.tokens_out, self.tokens_embedded
        whole = self._reply(asked, outcome.of)
        self.tokens_in, self.tokens_out, self.tokens_embedded = sums
        if whole is None:
            return None
        sent = int(len(whole.body) * outcome.share)
        return HttpReply(whole.status, whole.body, whole.headers, sent=sent)

    def _embedded(self, asked: Asked, vectors: Vectors) -> Json:
        rows = vectors.rows
        if rows is None:
            rows = [pseudo_embedding(text, asked.dim or self.dim) for text in asked.texts]
        tokens: int | None = None
        if vectors.usage:
            tokens = vectors.tokens
            if tokens is None:
                tokens = sum(approximate_tokens(text) for text in asked.texts)
            self.tokens_embedded += tokens
        return self.embeddings(asked, [list(row) for row in rows], tokens)

    def count_in(self, asked: Asked, tokens: int | None) -> int:
        """Tokens of a prompt that are to be reported; added to the sum."""
        if tokens is None:
            tokens = approximate_tokens(asked.system) + approximate_tokens(asked.user)
        self.tokens_in += tokens
        return tokens

    def count_out(self, answer: Answer) -> int:
        """Tokens of a reply without thoughts that are to be reported; all are added to the sum."""
        tokens = answer.tokens_out
        if tokens is None:
            tokens = approximate_tokens(answer.text)
        self.tokens_out += tokens + answer.tokens_thought
        return tokens

    @abstractmethod
    def understand(self, request: HttpRequest) -> Asked:
        """Raises NotUnderstoodError."""

    @abstractmethod
    def completion(self, asked: Asked, outcome: Answer | Refused | NoCandidates) -> Json: ...

    def chat_reply(self, asked: Asked, completion: Json) -> HttpReply:
        """How a completion is sent."""
        return json_reply(completion)

    @abstractmethod
    def embeddings(self, asked: Asked, rows: list[list[float]], tokens: int | None) -> Json: ...

    @abstractmethod
    def error(self, problem: Problem) -> HttpReply: ...


def json_reply(
    body: Json, status: int = 200, headers: Mapping[str, str] | None = None
) -> HttpReply:
    return HttpReply(status, json.dumps(body).encode(), headers or {})


def retry_header(problem: Problem) -> dict[str, str]:
    return {} if problem.retry_after is None else {"Retry-After": problem.retry_after}


def posted_json(request: HttpRequest) -> Json:
    try:
        body = request.json()
    except ValueError:
        raise NotUnderstoodError(400, "the body is not JSON") from None
    if request.method != "POST" or not isinstance(body, dict):
        raise NotUnderstoodError(400, "a JSON object has to be posted")
    return body
