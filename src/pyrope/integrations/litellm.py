"""A cache for LiteLLM.

    import litellm

    litellm.cache = PyropeCache(ResponseCache("answers"))

It is for `completion` and `acompletion`, streams included. The prompt is the text of the last
message if a user has said it; the messages before it, and all parameters that LiteLLM's own caches
go by, are part of the scope. What ends otherwise, such as with what a tool has found, is not looked
up. A call's ``cache={...}`` has its meaning: ``no-cache``, ``no-store``, ``s-maxage``, ``ttl``,
``namespace``, ``use-cache``.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from typing import Any

try:
    import litellm
    from litellm.caching.caching import Cache, CacheMode
    from litellm.integrations.custom_logger import CustomLogger
    from litellm.types.caching import LiteLLMCacheType
    from litellm.types.utils import all_litellm_params
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "pyrope.integrations.litellm needs litellm: pip install 'pyrope-server[litellm]'",
        name=error.name,
    ) from error

from pyrope.integrations.calls import call_options
from pyrope.integrations.chat import is_complete, spent_of, split
from pyrope.integrations.desk import Turn
from pyrope.integrations.open_turns import OpenTurns
from pyrope.integrations.questions import Question, question
from pyrope.integrations.response_cache import ResponseCache

_log = logging.getLogger(__name__)

# What has no part in what a model says, or is part of the question otherwise.
_NO_MATTER = frozenset(
    {"cache", "caching", "litellm_params", "messages", "metadata", "stream", "stream_options"}
)


class PyropeCache(Cache):
    """Remembers what LiteLLM's models say.

    Args:
        cache: what is asked first, and told afterwards.
        mode: whether calls use it unless they say otherwise.
    """

    def __init__(self, cache: ResponseCache, mode: CacheMode = CacheMode.default_on) -> None:
        # What there is of LiteLLM's own behind it, in memory, is never used.
        super().__init__(
            type=LiteLLMCacheType.LOCAL,
            mode=mode,
            supported_call_types=["completion", "acompletion"],
        )
        self._responses = cache
        self._turns = OpenTurns()
        listener = _Failures(cache, self._turns)
        manager = litellm.logging_callback_manager
        manager.add_litellm_failure_callback(listener)
        manager.add_litellm_async_failure_callback(listener)

    # -- what LiteLLM calls -----------------------------------------------------------------------

    def get_cache(self, dynamic_cache_object: object = None, **kwargs: Any) -> Any:
        """The response, as a dict; None: the model is to be asked."""
        turn = self._responses.ask(self._question(kwargs))
        self._turns.put(("sync", kwargs.get("litellm_call_id")), turn)
        return _found(turn, kwargs)

    def add_cache(self, result: Any, **kwargs: Any) -> None:
        """Remember a response."""
        if not self._is_wanted(kwargs):
            return
        turn = self._turns.take(("sync", kwargs.get("litellm_call_id")))
        turn = turn or Turn(self._question(kwargs))
        completion = _as_dict(result)
        if completion is None or not is_complete(completion):
            self._responses.give_up(turn)
        else:
            self._responses.remember(turn, json.dumps(completion), spent_of(completion))

    async def async_get_cache(self, dynamic_cache_object: object = None, **kwargs: Any) -> Any:
        """As `get_cache`."""
        turn = await self._responses.ask_async(self._question(kwargs))
        self._turns.put((_here(), kwargs.get("litellm_call_id")), turn)
        return _found(turn, kwargs)

    async def async_add_cache(
        self, result: Any, dynamic_cache_object: object = None, **kwargs: Any
    ) -> None:
        """As `add_cache`."""
        if not self._is_wanted(kwargs):
            return
        turn = self._turns.take((_here(), kwargs.get("litellm_call_id")))
        turn = turn or Turn(self._question(kwargs))
        completion = _as_dict(result)
        if completion is None or not is_complete(completion):
            await self._responses.give_up_async(turn)
        else:
            text = json.dumps(completion)
            await self._responses.remember_async(turn, text, spent_of(completion))

    async def ping(self) -> bool:
        """Whether the server answers."""
        await self._responses.ping_async()
        return True

    async def disconnect(self) -> None:
        """Close all connections of this event loop, and those of none."""
        await self._responses.aclose()

    # -- parts ------------------------------------------------------------------------------------

    def _is_wanted(self, kwargs: Mapping[str, Any]) -> bool:
        return bool(self.should_use_cache(**kwargs))  # type: ignore[no-untyped-call]  # it is not

    def _question(self, kwargs: dict[str, Any]) -> Question | None:
        """What is asked; None: the memory has nothing to do with it."""
        control = kwargs.get("cache") or {}
        if not self._is_wanted(kwargs) or control.get("no-cache") is True:
            return None
        try:
            found = split(kwargs.get("messages") or ())
            if found is None:
                return None
            prompt, before = found
            ttl = control.get("ttl")
            with call_options(expires_s=None if ttl is None else max(1, int(ttl))):
                asked = self._asked(kwargs, before)
                return question(prompt, "litellm", asked, self._responses.options.scope)
        except (TypeError, ValueError, AttributeError) as error:
            _log.warning("a request is not looked up: %s", error)
            return None

    def _asked(self, kwargs: Mapping[str, Any], before: list[Any]) -> dict[str, Any]:
        """What the response depends on beside the prompt."""
        given = {name: value for name, value in kwargs.items() if name not in _NO_MATTER}
        # LiteLLM keeps the key that it has made of the whole request there, and asks for no other.
        more = dict(kwargs.get("litellm_params") or {})
        more.pop("preset_cache_key", None)
        key = self.get_cache_key(
            **given,
            messages=before,
            metadata=kwargs.get("metadata") or {},
            cache=kwargs.get("cache") or {},
            litellm_params=more,
        )
        # What LiteLLM hands on to the provider without knowing it is not part of its key.
        unknown = {
            name: value
            for name, value in given.items()
            if name not in all_litellm_params and isinstance(value, str | int | float | list | dict)
        }
        return {"key": key, "api_base": given.get("api_base"), "given": unknown}


class _Failures(CustomLogger):
    """Ends the turn of a call that has failed, so that others need not wait for it."""

    def __init__(self, cache: ResponseCache, turns: OpenTurns) -> None:
        super().__init__()
        self._cache = cache
        self._turns = turns

    def log_failure_event(
        self, kwargs: Mapping[str, Any], response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        turn = self._turns.take(("sync", kwargs.get("litellm_call_id")))
        if turn is not None:
            self._cache.give_up(turn)

    async def async_log_failure_event(
        self, kwargs: Mapping[str, Any], response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        turn = self._turns.take((_here(), kwargs.get("litellm_call_id")))
        if turn is not None:
            await self._cache.give_up_async(turn)


def _here() -> int:
    """Turns that event loops have are not for others."""
    return id(asyncio.get_running_loop())


def _found(turn: Turn[Any], kwargs: Mapping[str, Any]) -> dict[str, Any] | None:
    """The completion that was remembered, if it is young enough."""
    if turn.response is None:
        return None
    control = kwargs.get("cache") or {}
    oldest = control.get("s-maxage", control.get("s-max-age"))
    age_s = None if turn.info is None else turn.info.age_s
    if oldest is not None and age_s is not None and age_s > oldest:
        return None
    completion = _as_dict(turn.response)
    if completion is None or not completion.get("choices"):
        _log.warning("what is remembered is no completion, and is asked for anew")
        return None
    return completion


def _as_dict(result: Any) -> dict[str, Any] | None:
    """A completion as LiteLLM hands it over: its JSON, or a model of pydantic."""
    try:
        found = result.model_dump(mode="json") if hasattr(result, "model_dump") else result
        found = json.loads(found) if isinstance(found, str) else found
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
