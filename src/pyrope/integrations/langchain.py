"""A cache for LangChain.

    from langchain_core.globals import set_llm_cache

    set_llm_cache(PyropeCache(ResponseCache("answers")))

Of a chat, the prompt is the text of the last message if a human has said it; the messages before
it, and the model with its parameters (LangChain's `llm_string`), are part of the scope. What ends
otherwise, such as with what a tool has found, is not looked up.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

try:
    from langchain_core.caches import RETURN_VAL_TYPE, BaseCache
    from langchain_core.messages import BaseMessage, message_to_dict, messages_from_dict
    from langchain_core.outputs import ChatGeneration, Generation
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "pyrope.integrations.langchain needs langchain-core: "
        "pip install 'pyrope-server[langchain]'",
        name=error.name,
    ) from error

from pyrope.integrations.calls import VIA
from pyrope.integrations.chat import text_of
from pyrope.integrations.desk import Turn
from pyrope.integrations.holding import caller
from pyrope.integrations.open_turns import OpenTurns
from pyrope.integrations.options import Spent
from pyrope.integrations.questions import Question, question
from pyrope.integrations.response_cache import ResponseCache

_log = logging.getLogger(__name__)

_VIA = "langchain"
# How providers say that a response has come to its end; what says something else is not
# remembered, and what says nothing is.
_ENDS = frozenset(
    {
        "stop", "end_turn", "stop_sequence", "eos", "eos_token", "end", "complete", "completed",
        "finished", "finish_reason_stop",
    }
)  # fmt: skip
_END_NAMES = ("finish_reason", "stop_reason", "done_reason")


class PyropeCache(BaseCache):
    """Remembers what LangChain's models say.

    LangChain does not tell a cache that a model has failed. It is taken for granted when the same
    thread or task looks up something else, or the task is done; otherwise, others who want the same
    wait until the lease is up (`RememberOptions.lease_s`).
    """

    def __init__(self, cache: ResponseCache) -> None:
        self._cache = cache
        self._turns = OpenTurns()
        self._last: WeakKeyDictionary[Any, Turn[Any]] = WeakKeyDictionary()

    def lookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        who = caller()
        if (last := self._last.pop(who, None)) is not None:
            self._cache.give_up(last)
        turn = self._cache.ask(self._question(prompt, llm_string))
        self._turns.put((None, prompt, llm_string), turn)
        if not turn.is_over:
            self._last[who] = turn
        return _found(turn)

    def update(self, prompt: str, llm_string: str, return_val: RETURN_VAL_TYPE) -> None:
        turn = self._turns.take((None, prompt, llm_string)) or self._late(prompt, llm_string)
        text = _dumped(return_val)
        if text is None:
            self._cache.give_up(turn)
        else:
            self._cache.remember(turn, text, _spent(return_val))

    def clear(self, **kwargs: Any) -> None:
        """Forget what LangChain has had remembered in the scope of the cache, or of a part of it.

        Args:
            kwargs: fields of the scope.
        """
        self._cache.forget(scope=self._scope(kwargs))

    async def alookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        who = caller()
        if (last := self._last.pop(who, None)) is not None:
            await self._cache.give_up_async(last)
        turn = await self._cache.ask_async(self._question(prompt, llm_string))
        self._turns.put((_here(), prompt, llm_string), turn)
        if not turn.is_over:
            self._last[who] = turn
        return _found(turn)

    async def aupdate(self, prompt: str, llm_string: str, return_val: RETURN_VAL_TYPE) -> None:
        turn = self._turns.take((_here(), prompt, llm_string)) or self._late(prompt, llm_string)
        text = _dumped(return_val)
        if text is None:
            await self._cache.give_up_async(turn)
        else:
            await self._cache.remember_async(turn, text, _spent(return_val))

    async def aclear(self, **kwargs: Any) -> None:
        """As `clear`."""
        await self._cache.forget_async(scope=self._scope(kwargs))

    def _scope(self, fields: Mapping[str, str]) -> dict[str, str]:
        return {**self._cache.options.scope, **fields, VIA: _VIA}

    def _late(self, prompt: str, llm_string: str) -> Turn[Any]:
        """Of who has waited for somebody else's response in vain, and for one of its own."""
        return Turn(self._question(prompt, llm_string))

    def _question(self, prompt: str, llm_string: str) -> Question | None:
        found = _split(prompt)
        if found is None:
            return None
        said, before = found
        asked = {"llm": llm_string, "messages": before}
        return question(said, _VIA, asked, self._cache.options.scope)


def _here() -> int:
    """Turns that event loops have are not for others."""
    return id(asyncio.get_running_loop())


def _split(prompt: str) -> tuple[str, list[Any]] | None:
    """The text of the last message and what is before it; of a prompt without messages, it."""
    messages = _messages(prompt)
    if messages is None:
        return prompt, []
    *before, last = messages
    fields = last["kwargs"]
    text = text_of(fields.get("content")) if fields.get("type") == "human" else None
    if text is None:
        return None
    rest = {name: value for name, value in fields.items() if name != "content"}
    return text, [*before, {**last, "kwargs": rest}]


def _messages(prompt: str) -> list[Any] | None:
    """Messages, as LangChain's chat models write them down for a cache; None: it is plain text."""
    try:
        found = json.loads(prompt) if prompt.startswith("[{") else None
    except ValueError:
        return None
    if not isinstance(found, list):
        return None
    for each in found:
        if not isinstance(each, dict) or each.get("lc") != 1:
            return None
        if not isinstance(each.get("kwargs"), dict):
            return None
    return found


def _found(turn: Turn[Any]) -> list[Generation] | None:
    if turn.response is None:
        return None
    try:
        return [_generation(each) for each in json.loads(turn.response)]
    except (ValueError, LookupError, TypeError) as error:
        _log.warning("what is remembered is no generation, and is asked for anew: %s", error)
        return None


def _generation(told: Mapping[str, Any]) -> Generation:
    info = told["info"]
    if "message" not in told:
        return Generation(text=told["text"], generation_info=info)
    # An allowed message, whatever is written there: nothing else is ever made of it.
    (message,) = messages_from_dict([told["message"]])
    return ChatGeneration(message=message, generation_info=info)


def _dumped(generations: Sequence[Generation]) -> str | None:
    """Generations as JSON; None: they are not to be remembered."""
    if not generations or not all(map(_is_complete, generations)):
        return None
    try:
        return json.dumps([_told(each) for each in generations])
    except (TypeError, ValueError) as error:
        _log.warning("nothing is remembered: JSON cannot say it: %s", error)
        return None


def _told(generation: Generation) -> dict[str, Any]:
    told: dict[str, Any] = {"info": generation.generation_info}
    if not isinstance(generation, ChatGeneration):
        return {**told, "text": generation.text}
    # Under the same id, LangGraph would take the next answer for this one, changed.
    message = generation.message.model_copy(update={"id": None})
    return {**told, "message": message_to_dict(message)}


def _is_complete(generation: Generation) -> bool:
    if not generation.text.strip():
        return False
    metadata = [generation.generation_info or {}]
    if isinstance(generation, ChatGeneration):
        message: BaseMessage = generation.message
        if getattr(message, "tool_calls", None) or getattr(message, "invalid_tool_calls", None):
            return False
        metadata.append(message.response_metadata)
    ends = (each.get(name) for each in metadata for name in _END_NAMES)
    return all(end is None or str(end).lower() in _ENDS for end in ends)


def _spent(generations: Sequence[Generation]) -> Spent | None:
    """Tokens of all of them, as the provider counts them; None: it does not say."""
    tokens_in = tokens_out = 0
    model = ""
    for each in generations:
        message = each.message if isinstance(each, ChatGeneration) else None
        usage = getattr(message, "usage_metadata", None)
        if message is None or not usage:
            return None
        model = str(message.response_metadata.get("model_name", model))
        tokens_in += usage["input_tokens"]
        tokens_out += usage["output_tokens"]
    return Spent(model, tokens_in, tokens_out)
