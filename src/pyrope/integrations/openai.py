"""OpenAI's clients, and those of whoever speaks their API, with a memory.

    client = remembering(OpenAI(), cache)
    client.chat.completions.create(model="gpt-5", messages=[...])

The prompt is the text of the last message. Everything else that the response depends on (the
messages before it, the system's among them, the model, tools, temperature, user, …) is part of the
scope: only who has said the very same before is answered from memory.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

try:
    from openai import AsyncOpenAI, NotGiven, Omit, OpenAI
    from openai.types.chat import ChatCompletion
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "pyrope.integrations.openai needs openai: pip install 'pyrope-server[openai]'",
        name=error.name,
    ) from error

from pyrope.integrations.chat import is_complete, spent_of, split
from pyrope.integrations.desk import Turn
from pyrope.integrations.openai_streams import (
    AsyncPassedStream,
    AsyncRecalledStream,
    PassedStream,
    RecalledStream,
)
from pyrope.integrations.questions import Question, question
from pyrope.integrations.response_cache import ResponseCache

_log = logging.getLogger(__name__)

ClientT = TypeVar("ClientT", bound="OpenAI | AsyncOpenAI")

# What has no part in what a model says. `stream` is one: a response that was streamed answers who
# does not want a stream, and the other way round.
_NO_MATTER = frozenset(
    {
        "messages", "metadata", "prompt_cache_key", "prompt_cache_retention", "service_tier",
        "store", "stream", "stream_options", "timeout",
    }
)  # fmt: skip
# Headers by which openai's own helpers ask for something else than a completion.
_HELPERS = "x-stainless-"


def remembering(client: ClientT, cache: ResponseCache, *, sampled: bool = True) -> ClientT:
    """A copy of a client whose `chat.completions.create` asks the memory first.

    The copy shares the connections of the client, and takes care of streams, too. A completion out
    of the memory has a field `remembered`, which says where it is from; its usage is what it took
    when it was made. Everything else the client does is as it was; so are what `with_options` and
    `copy` make of it, `with_raw_response`, and `chat.completions.stream` and `.parse`.

    Args:
        client: an `OpenAI` or `AsyncOpenAI`, or one of their kind.
        sampled: whether responses are remembered that might be others the next time. False: only
            where the request has a temperature of 0.
    """
    copy = client.copy()
    completions: Any = copy.chat.completions
    make = _Awaiting if isinstance(copy, AsyncOpenAI) else _Blocking
    made = make(cache, completions.create, str(copy.base_url), sampled=sampled)
    completions.create = made.create
    return copy  # type: ignore[return-value]  # `copy` is declared to return the base class


class _Remembering:
    """What both kinds of client have in common."""

    def __init__(
        self, cache: ResponseCache, create: Callable[..., Any], base_url: str, *, sampled: bool
    ) -> None:
        self._cache = cache
        self._create = create
        self._base_url = base_url
        self._sampled = sampled

    def _question(self, given: Mapping[str, Any]) -> Question | None:
        """What is asked; None: the memory has nothing to do with it."""
        given = {
            name: value
            for name, value in given.items()
            if not isinstance(value, NotGiven | Omit) and value is not None
        }
        headers = given.get("extra_headers") or {}
        if any(name.lower().startswith(_HELPERS) for name in headers):
            return None
        if not self._sampled and given.get("temperature") != 0:
            return None
        try:
            found = split([_as_mapping(each) for each in given.get("messages", ())])
            if found is None:
                return None
            prompt, before = found
            rest = {name: value for name, value in given.items() if name not in _NO_MATTER}
            asked = {"base_url": self._base_url, "messages": before, "given": rest}
            return question(prompt, "openai", asked, self._cache.options.scope)
        except (TypeError, ValueError, AttributeError) as error:
            _log.warning("a request is not looked up: %s", error)
            return None


class _Blocking(_Remembering):
    def create(self, **given: Any) -> Any:
        """As `OpenAI.chat.completions.create`."""
        turn = self._cache.ask(self._question(given))
        found = _found(turn)
        if found is not None:
            if given.get("stream"):
                return RecalledStream(found, given.get("stream_options"))
            return ChatCompletion.model_validate(found)
        try:
            told = self._create(**given)
            if given.get("stream") and turn.question is not None:
                return PassedStream(told, lambda completion: self._end(turn, completion))
            self._end(turn, _dumped(told))
        except BaseException:
            self._cache.give_up(turn)
            raise
        return told

    def _end(self, turn: Any, completion: Mapping[str, Any] | None) -> None:
        if completion is None or not is_complete(completion):
            self._cache.give_up(turn)
        else:
            self._cache.remember(turn, json.dumps(completion), spent_of(completion))


class _Awaiting(_Remembering):
    async def create(self, **given: Any) -> Any:
        """As `AsyncOpenAI.chat.completions.create`."""
        turn = await self._cache.ask_async(self._question(given))
        found = _found(turn)
        if found is not None:
            if given.get("stream"):
                return AsyncRecalledStream(found, given.get("stream_options"))
            return ChatCompletion.model_validate(found)
        try:
            told = await self._create(**given)
            if given.get("stream") and turn.question is not None:
                return AsyncPassedStream(told, lambda completion: self._end(turn, completion))
            await self._end(turn, _dumped(told))
        except BaseException:
            await self._cache.give_up_async(turn)
            raise
        return told

    async def _end(self, turn: Any, completion: Mapping[str, Any] | None) -> None:
        if completion is None or not is_complete(completion):
            await self._cache.give_up_async(turn)
        else:
            await self._cache.remember_async(turn, json.dumps(completion), spent_of(completion))


def _found(turn: Turn[Any]) -> dict[str, Any] | None:
    """The completion that was remembered, with where it is from."""
    if turn.response is None:
        return None
    try:
        found = json.loads(turn.response)
        found["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError):
        _log.warning("what is remembered is no completion, and is asked for anew")
        return None
    info = turn.info
    if info is not None:
        found["remembered"] = {
            "id": info.id,
            "match": info.match,
            "prompt": info.prompt,
            "score": info.score,
            "estimated_error": info.estimated_error,
            "age_s": info.age_s,
        }
    return found  # type: ignore[no-any-return]  # it is an object, or had no choices


def _dumped(told: Any) -> dict[str, Any] | None:
    if not isinstance(told, ChatCompletion):
        return None
    return told.model_dump(mode="json", exclude_unset=True)


def _as_mapping(message: Any) -> Mapping[str, Any]:
    """A message as it is sent: some callers hand one back as they have received it."""
    if isinstance(message, Mapping):
        return message
    dumped: dict[str, Any] = message.model_dump(mode="json", exclude_unset=True)
    return dumped
